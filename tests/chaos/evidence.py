"""What a run has left behind, and what was found in it.

What it is: `Evidence`, all that is known of a run; and `Verdict`, whether one thing is as it must
be.

What it assumes and guarantees: of nodes by name, only those that answered are there. Whoever has
looked at it has changed nothing.

What it does not know: how it came about, what the nemeses did, and what must be so.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from tests.chaos.conduct import Firing
from tests.chaos.logbook import Logbook
from tests.chaos.losses import Loss
from tests.chaos.plan import Plan
from tests.chaos.watched import Stretch
from tests.checker.history import Operation
from tests.contents import Contents

_SHOWN_MAX = 5


@dataclass(frozen=True)
class Evidence:
    """What a run has left behind. Of nodes by name: only those that answered."""

    plan: Plan
    #: With the final reads.
    history: Sequence[Operation]
    keys: Sequence[str]
    firings: Sequence[Firing]
    #: How long it took until all nodes had everything; None if it took too long.
    settled_s: float | None
    clocks: Mapping[str, Mapping[str, int]]
    versions: Mapping[str, Contents]
    #: What is left of the logs at the end.
    logs: Mapping[str, Contents]
    #: What stood in them at any time.
    logbook: Logbook
    #: The names of what waits in each Redis.
    pending: Mapping[str, Sequence[str]]
    #: The disks that were lost.
    losses: Sequence[Loss] = ()
    #: Lines of the nodes' own logs that no run should cause.
    complaints: Sequence[str] = ()
    #: How many snapshots each node has merged.
    snapshots: Mapping[str, int] = field(default_factory=dict)
    #: What watchers were told, in order.
    stretches: Sequence[Stretch] = ()
    #: What was asked about keys where all expires, with the final reads. The checker of histories
    #: does not know what expires, so it is apart.
    expiring: Sequence[Operation] = ()
    #: When the newest write at each node was made, by hybrid logical clocks.
    timestamps: Mapping[str, int] = field(default_factory=dict)
    #: By node, what is in the sorted sets `keys`, `conflicts` and `expiring` of its Redis.
    listed: Mapping[str, Mapping[str, Set[str]]] = field(default_factory=dict)
    #: The other name under which a deferred write was done, where its node took another.
    done_as: Mapping[str, str] = field(default_factory=dict)
    #: The names that nodes took since what they had might be an old copy, as they said.
    in_doubt: Sequence[str] = ()
    #: The last write of each actor whose end was declared. In `clocks` such an actor goes so far.
    ends: Mapping[str, int] = field(default_factory=dict)

    @property
    def operations(self) -> Sequence[Operation]:
        """All that clients did and saw."""
        return [*self.history, *self.expiring]

    def acknowledged(self) -> Iterator[Operation]:
        """The writes that a client was told had been done, or would be."""
        return (op for op in self.operations if op.writes and op.outcome == "ok")

    def lost_writes(self) -> Sequence[Operation]:
        """The writes that were acknowledged and are lost with a disk.

        After a write its name is the newest that its session has seen of its actor.
        """
        return [op for op in self.acknowledged() if op.lost]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one thing is as it must be. `looked_at` says what that rests on."""

    name: str
    looked_at: str
    problems: Sequence[str] = ()

    @property
    def is_good(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def __str__(self) -> str:
        if self.is_good:
            return f"good  {self.name}: {self.looked_at}"
        shown = list(self.problems[:_SHOWN_MAX])
        if len(self.problems) > _SHOWN_MAX:
            shown.append(f"and {len(self.problems) - _SHOWN_MAX} more")
        return "\n".join([f"BAD   {self.name}: {self.looked_at}", *(f"      {s}" for s in shown)])
