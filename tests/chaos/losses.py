"""Disks that were lost, and what was lost with them.

What it is: `Loss`, what of one actor was lost with a disk, or because it is in an earlier state
again; and `Losses`, those of a run, which know whether somebody's context names a write that is
lost, and who has seen such a write.

What it assumes and guarantees: one disk is lost at a time, and the next only when all nodes have
what any has. So what is lost with a disk are writes of its own node, of the actor that wrote there
and of its lanes, beyond some sequence; and a node that has lost its disk writes as another actor.
What waited in a lane was on that disk alone; what was in the copy that was put in its place is done
all the same, maybe under another name.

What it does not know: how a disk is lost.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from app.context import Contexts
from app.vector_clock import SEQUENCE_MAX
from client import LightconeError, Lost, NotCaughtUp
from tests.checker.history import Dot
from tests.contents import joined


@dataclass(frozen=True, slots=True)
class Loss:
    """A disk was lost at `at_us`, of the monotonic clock.

    `actor` wrote there; for its lane there is another `Loss`. Its writes up to `held` were on some
    other disk when this one was lost, or in the copy that was put in its place, so those must be
    there for ever. Once the nodes had been healed they had those up to `kept`.

    Of a lane `held` is what others had. What it had given up to `accepted` was in that copy: it
    must be there too, be it under another name. `emptied` says that there was no copy: all went
    that the node had, also of its earlier names.
    """

    node: str
    actor: str
    at_us: int
    held: int
    kept: int
    accepted: int = 0
    emptied: bool = False


def of_lanes(
    loss: Loss, waited: Mapping[str, int], elsewhere: Iterable[Mapping[str, int]]
) -> list[Loss]:
    """`loss`, of the lane of who wrote there, now that it is known what others have; and if nothing
    was put in the disk's place, also what of earlier lanes `waited` on it alone."""
    received = joined(elsewhere)
    earlier = (lane for lane, given in waited.items() if given > received.get(lane, 0))
    lanes = dict.fromkeys((loss.actor, *(earlier if loss.emptied else ())))
    held = {lane: received.get(lane, 0) for lane in lanes}
    return [
        replace(loss, actor=lane, held=held[lane], kept=max(held[lane], loss.accepted))
        for lane in lanes
    ]


@dataclass
class Losses:
    """The disks that have been lost so far."""

    taken: list[Loss] = field(default_factory=list)
    contexts: Contexts = field(default_factory=lambda: Contexts(None, sys.maxsize))
    #: For everybody who asks on: what they have seen, as a token.
    seen: list[Callable[[], str]] = field(default_factory=list)

    def keep(self, received: Mapping[str, int]) -> None:
        """This is there."""
        self.taken[:] = [
            replace(loss, kept=max(loss.kept, received.get(loss.actor, 0))) for loss in self.taken
        ]

    def explain(self, error: LightconeError) -> bool:
        """Whether a session was refused for it has seen what is lost: no node can ever serve it."""
        missing: list[Dot] = []
        if isinstance(error, NotCaughtUp):
            missing = [Dot.parse(missing.dot) for missing in error.missing]
        elif isinstance(error, Lost):
            missing = [Dot(writes.actor, writes.through) for writes in error.writes]
        return any(map(self.has_taken, missing))

    def has_taken(self, dot: Dot) -> bool:
        """Whether the write is lost, as far as is known yet."""
        return any(dot.actor == loss.actor and dot.sequence > loss.kept for loss in self.taken)

    def newest_in(
        self, context: Mapping[str, int], end: Mapping[str, int], actors: Iterable[str] = ()
    ) -> Dot | None:
        """What the context names of what is lost, `end` being all that nodes have in the end; of
        these actors, if any are given.

        Who has seen that an actor is closed was served with all that there is of it.
        """
        for loss in reversed(self.taken):
            sequence = context.get(loss.actor, 0)
            if end.get(loss.actor, 0) < sequence < SEQUENCE_MAX and (
                not actors or loss.actor in actors
            ):
                return Dot(loss.actor, sequence)
        return None

    def are_in(self, token: str) -> bool:
        """Whether who has this context has seen what is lost, as far as is known yet."""
        if not self.taken:
            return False
        kept = {loss.actor: loss.kept for loss in self.taken}
        return self.newest_in(self.contexts.parse(token).to_dict(), kept) is not None

    def are_seen(self) -> bool:
        """Whether anybody asks on who has seen what is lost."""
        return any(self.are_in(token()) for token in self.seen)
