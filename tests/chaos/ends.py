"""How far those actors go whose end was declared.

What it is: `ends_of`, which finds them in what Redis holds; and `within`, a clock that names them.

What it assumes and guarantees: in the clock of a node such an actor has the greatest sequence there
is. So it covers whatever names the actor, and is not to be counted up to (docs/adr/0017).

What it does not know: who declared it, and why.
"""

from collections.abc import Iterable, Mapping

from app.keys import ended_actor
from app.vector_clock import SEQUENCE_MAX
from tests.contents import Contents


def ends_of(versions: Iterable[Contents]) -> dict[str, int]:
    """The last write of each actor whose end was declared, by what each Redis holds."""
    ends: dict[str, int] = {}
    for held in versions:
        for key, fields in held.items():
            if (actor := ended_actor(key.removeprefix("kv:"))) is None:
                continue
            for name, value in fields.items():
                if name != b"deletes":
                    after = int(value.partition(b"\n")[2])
                    ends[actor] = min(after, ends.get(actor, after))
    return ends


def within(clock: Mapping[str, int], ends: Mapping[str, int]) -> dict[str, int]:
    """The clock, where each actor that has ended goes no further than its end."""
    ended = {a: ends.get(a, s) if s == SEQUENCE_MAX else s for a, s in clock.items()}
    return {actor: sequence for actor, sequence in ended.items() if sequence}
