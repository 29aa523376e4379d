"""Which writes a peer is to be sent: what its clock lacks, and whose turn it is to send them.

Assumes that it is told of every answer of the peer and every advance of this node. Guarantees that
a node's own writes are sent at once, and that another actor's writes are relayed when the peer
stays behind on them: it lacks some, and none have come to it for a while. Who had to relay goes on
at once, until somebody else is found to send them too. So a healthy cluster sends each write once
over each link, a cut between two nodes is bridged by a third that reaches both, without a pause for
each write, and a dead origin's writes still spread (G8).

Pure: it is given the time. Does not know how anything is sent.

From Bayou's anti-entropy (Petersen et al. 1997), where a version vector says what is missing, and
any server may pass on any other's writes.
"""

from collections.abc import Collection
from dataclasses import dataclass

from app.vector_clock import VectorClock, node_of


@dataclass(frozen=True, slots=True)
class _Behind:
    """The peer lacks writes of an actor: what it has, and since when that has not changed."""

    has: int
    since: float


class PeerView:
    """What a node knows of one peer. Times are seconds of one monotonic clock."""

    def __init__(self, node: str, relay_after_s: float) -> None:
        """The view that `node` has of a peer it has not heard from yet.

        Such a peer lacks nothing, as far as is known: ask it first.
        """
        self._node = node
        self._relay_after_s = relay_after_s
        self._behind: dict[str, _Behind] = {}
        self._relaying: set[str] = set()
        self._heard = False
        self.is_fresh = False
        """Whether the peer has said where it stands since contact to it was lost last."""
        self.clock = VectorClock()
        self.received = VectorClock()

    def learn(
        self, clock: VectorClock, received: VectorClock, mine: VectorClock, now: float
    ) -> None:
        """The peer has said where it stands: `clock` applied, `received` without a gap.

        Taken as it is, also when it is less than before: a peer that lost its state is sent
        again what it lost.
        """
        self.clock, self.received = clock, received
        self._heard = self.is_fresh = True
        self.notice(mine, now)
        self._relaying |= {
            actor
            for actor, behind in self._behind.items()
            if now >= behind.since + self._relay_after_s
        }

    def notice(self, mine: VectorClock, now: float) -> None:
        """This node has applied `mine`."""
        lacking = mine.beyond(self.received)
        self._behind = {
            actor: behind
            if (behind := self._behind.get(actor)) and behind.has == self.received[actor]
            else _Behind(self.received[actor], now)
            for actor in lacking
        }

    def lost_contact(self) -> None:
        """An exchange failed: that nothing came to the peer while it was away says nothing, and
        what it has may be more than it said last."""
        self.is_fresh = False
        self._behind.clear()
        self._relaying.clear()

    def found_duplicates(self, actors: Collection[str], now: float) -> None:
        """The peer had some of what was relayed of these actors: somebody else sends that too, and
        goes on alone."""
        self._relaying.difference_update(actors)
        for actor in self._behind.keys() & actors:
            self._behind[actor] = _Behind(self._behind[actor].has, now)

    def lacks(self, mine: VectorClock, *, relay: bool = True) -> VectorClock:
        """What to send now: for each actor to send, the last sequence that the peer has not."""
        return VectorClock(
            (actor, sequence)
            for actor, sequence in mine.beyond(self.received).items()
            if self._heard and (node_of(actor) == self._node or (relay and actor in self._relaying))
        )

    def ask_at(self) -> float | None:
        """When to ask the peer whether it still stays behind; None if it does not.

        Only an answer after that starts a relay, so that old news never does.
        """
        return min(
            (
                behind.since + self._relay_after_s
                for actor, behind in self._behind.items()
                if node_of(actor) != self._node and actor not in self._relaying
            ),
            default=None,
        )
