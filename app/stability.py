"""Which writes every member has applied, and who keeps the rest from being so.

A write is *stable* once the clock of every member covers it: nobody has to be sent it any more, so
its entry in the log may go. What a member lacks is held back by that member.

Assumes the last clock that was heard from each member, which may be old: clocks only grow, so what
an old one covers is covered. Guarantees that a member which was never heard from makes nothing
stable.

Pure. Does not know logs, nor what is done with what is stable.

From causal stability (Baquero, Almeida, Shoker 2014).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

from app.vector_clock import SEQUENCE_MAX, VectorClock


@dataclass(frozen=True, slots=True)
class HeldBack:
    """What a member lacks of what is applied here: by how many writes it holds back stability."""

    member: str
    writes: int


def stable(mine: VectorClock, others: Iterable[VectorClock]) -> VectorClock:
    """What is applied here and at every other member: the element-wise minimum."""
    return reduce(_both, others, mine)


def held_back(mine: VectorClock, others: Mapping[str, VectorClock]) -> list[HeldBack]:
    """The members that lack something of `mine`, whoever lacks most first."""
    lacking = [HeldBack(member, writes_beyond(mine, clock)) for member, clock in others.items()]
    return sorted((h for h in lacking if h.writes), key=lambda h: (-h.writes, h.member))


def writes_beyond(mine: VectorClock, clock: VectorClock) -> int:
    """How many writes of `mine` a member with this clock lacks. What is declared lost is none."""
    return sum(s - clock[actor] for actor, s in mine.beyond(clock).items() if s < SEQUENCE_MAX)


def _both(one: VectorClock, other: VectorClock) -> VectorClock:
    return VectorClock((actor, min(sequence, other[actor])) for actor, sequence in one.items())
