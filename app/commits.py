"""A local write that is asked for, and what can come of it.

Assumes nothing. Guarantees nothing alone: `lua/commit_writes.lua` is the rule.

Does not know how a write is kept, nor who asks for it.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from app.conditions import Condition
from app.errors import Held
from app.vector_clock import NOTHING, Dot, VectorClock
from app.write import Operation, value_bytes

Fields = Mapping[bytes, bytes]
"""The fields of the hash of a user key."""


class Commit(Struct, frozen=True):
    """A local write that is asked for: done if all conditions hold, and once for each `request`.

    The keys `reads` are read as they were just before it, `most` bytes in all.
    """

    operations: Sequence[Operation]
    conditions: Sequence[Condition] = ()
    reads: Sequence[str] = ()
    most: int = 2**30
    request: str = ""

    @property
    def weight(self) -> int:
        """What it takes to carry it out, roughly, in bytes."""
        things = len(self.operations) + len(self.conditions) + 16 * len(self.reads)
        return value_bytes(self.operations) + 1024 * things


class Committed(Struct, frozen=True):
    """The write is done: its name, its time, and the clock after it."""

    dot: Dot
    timestamp: int
    clock: VectorClock
    before: tuple[Fields, ...] = ()
    """The fields of each key that was read, as they were before the write, also of what had expired
    by its timestamp."""
    replayed: bool = False
    """Whether it was done before, for the same request."""
    dependencies: VectorClock = NOTHING
    """What it depends on, if it was done now."""


class Accepted(Struct, frozen=True):
    """The write is deferred, and waits: its name, and the clock when it was looked at."""

    dot: Dot
    clock: VectorClock
    replayed: bool = False
    """Whether it was accepted before, for the same request."""


class Failed(Struct, frozen=True):
    """The write was not done: what the keys hold of which a condition wants another."""

    held: tuple[Held, ...]


class Reused(Struct, frozen=True):
    """Nothing was done: another request came with this Idempotency-Key before."""


class Moved(Struct, frozen=True):
    """Nothing was done: an actor whose end was to be declared has another one here."""


class TooMuch(Struct, frozen=True):
    """Nothing was done: what was to be read is more than the limit."""


class Uncovered(Struct, frozen=True):
    """Nothing was done: what it was to follow is not here any more."""


Outcome = Committed | Accepted | Failed | Reused | Moved | TooMuch | Uncovered
