"""Disks that were lost, and what was lost with them.

What it is: `Loss`, one disk that was lost or is in an earlier state again; and `Losses`, those of a
run, which know whether somebody's context names a write that is lost.

What it assumes and guarantees: one disk is lost at a time, and the next only when all nodes have
what any has. So what is lost with a disk are writes of its own node, of the actor that wrote there,
beyond some sequence; and a node that has lost its disk writes as another actor.

What it does not know: how a disk is lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from client import LightconeError, Lost, NotCaughtUp
from tests.checker.history import Dot


@dataclass(frozen=True, slots=True)
class Loss:
    """A disk was lost at `at_us`, of the monotonic clock.

    `actor` wrote there. Its writes up to `held` were on some other disk when this one was lost, or
    in the copy that was put in its place, so those must be there for ever. Once the nodes had been
    healed they had those up to `kept`.
    """

    node: str
    actor: str
    at_us: int
    held: int
    kept: int


@dataclass
class Losses:
    """The disks that have been lost so far."""

    taken: list[Loss] = field(default_factory=list)

    def explain(self, error: LightconeError) -> bool:
        """Whether a session was refused for it has seen what is lost: no node can ever serve it."""
        missing: list[Dot] = []
        if isinstance(error, NotCaughtUp):
            missing = [Dot.parse(missing.dot) for missing in error.missing]
        elif isinstance(error, Lost):
            missing = [Dot(writes.actor, writes.through) for writes in error.writes]
        return any(
            dot.sequence > loss.kept
            for dot in missing
            for loss in self.taken
            if loss.actor == dot.actor
        )

    def newest_in(self, context: Mapping[str, int], end: Mapping[str, int]) -> Dot | None:
        """What the context names of what is lost, `end` being all that nodes have in the end."""
        for loss in reversed(self.taken):
            if (sequence := context.get(loss.actor, 0)) > end.get(loss.actor, 0):
                return Dot(loss.actor, sequence)
        return None
