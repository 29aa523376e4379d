"""The shape of a clock in what nodes send each other: whole, or as what differs from another clock
that the reader knows.

Where the idea is from: Singhal and Kshemkalyani, "An efficient implementation of vector clocks",
1992, who leave out what has not changed since the last message to the same process. What that was
goes by name here, so that a reader who knows another clock notices (ADR 24).

Does not know what a clock is about, nor who sends it.
"""

import hashlib
from typing import Annotated, Final

import msgspec

from app.errors import BadBatch
from app.vector_clock import NOTHING, SEQUENCE_MAX, VectorClock, is_actor

Sequence = Annotated[int, msgspec.Meta(ge=1, le=SEQUENCE_MAX)]
ClockForm = dict[str, Sequence]
ChangesForm = dict[str, Annotated[int, msgspec.Meta(ge=0, le=SEQUENCE_MAX)]]
"""What differs from another clock (`VectorClock.since`)."""
BaseForm = Annotated[bytes, msgspec.Meta(max_length=16)]
_SHOWN_MAX: Final = 300
"""Characters of what a peer sent that an error repeats."""


def shown(text: str) -> str:
    """What a peer sent, cut to what an error repeats of it."""
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


def whole(said: ClockForm) -> VectorClock:
    """The clock that was said whole. Raises BadBatch."""
    return changed(NOTHING, said)


def changed(before: VectorClock, said: ChangesForm) -> VectorClock:
    """The clock of which `said` was said to who knows `before`. Raises BadBatch."""
    for actor, sequence in said.items():
        if not is_actor(actor):
            raise BadBatch(
                f"A clock names {shown(repr(actor))}, which is no actor. Nothing of it was applied."
            )
        if not sequence and actor not in before:
            raise BadBatch(
                f"A clock takes {shown(actor)} back, of which nothing was said. Nothing of it was "
                "applied."
            )
    return before.with_changes(said)


def name(base: VectorClock) -> bytes:
    """What tells this clock from others; empty for the empty one."""
    if not base:
        return b""
    return hashlib.blake2b(base.entries_text().encode(), digest_size=8).digest()
