"""What is lost, as a node finds it out from what its members say.

Assumes that the board has what the peers last said, and that a node which is asked with an empty
batch answers with what it holds. Guarantees that of a peer only that is counted which it said
within a few heartbeats, to this node, or, if it cannot be asked, within a few more to one that told
this one; and of this node what it holds now. While it merges a snapshot nobody knows what that will
be, and nothing is called lost.

The rule is `lost.py`. Does not know who asks.
"""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final

from app import lost
from app.board import Board
from app.buffer import PendingBuffer
from app.incarnation import is_lane
from app.lost import Loss
from app.progress import Progress
from app.standing import Standing
from app.vector_clock import Dot, VectorClock, node_of

_HEARTBEATS: Final = 3
_LATE_US: Final = 1_000_000
"""What a peer said longer ago than so many heartbeats, and this for a machine that is slow and a
link that posts now and then, is not counted on. What others told of it has come by way of at most
all of them; each may take as long, and until it is asked (`TRIM_MS`)."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Finds out, at one node, which writes no member has. `peers` are the other members."""

    node: str
    peers: Callable[[], Collection[str]]
    board: Board
    buffer: PendingBuffer
    progress: Progress
    heartbeat_us: int
    trim_us: int
    now_us: Callable[[], int]
    deferred: Callable[[], Awaitable[VectorClock]]
    """The last dot that each lane of this node has given, where something of it waits."""

    async def among(self, missing: VectorClock) -> list[Loss]:
        """What is lost of what this node lacks.

        Raises Syncing, RedisUnavailable.
        """
        ended = VectorClock(
            (actor, sequence)
            for actor, sequence in missing.items()
            if lost.has_ended(actor, self.progress.clock)
        )
        if not ended:
            return []
        # What waits here is not lost, though its name is: it is done under another.
        given = await self.deferred()
        ended = VectorClock((actor, s) for actor, s in ended.items() if s > given[actor])
        return lost.losses(ended, await self._members())

    async def judge(self, dot: Dot) -> Loss | str:
        """The loss of the write and of all that its actor made later, or why they are not lost, as
        far as this node knows.

        What was deferred in a lane may be done under another name, and is covered under the old one
        where the lane's end is declared. So that is for a node that has all of it: as long as the
        lane's own node is a member, for that one, which alone knows what waits.
        Raises Syncing, RedisUnavailable.
        """
        if (await self.deferred())[dot.actor]:
            return "what is deferred in its lane waits here to be done (GET /pending)"
        members = await self._members()
        judged = lost.judge(dot, members)
        if isinstance(judged, Loss) and is_lane(dot.actor):
            owner = node_of(dot.actor)
            if owner in members and owner != self.node:
                return f"{owner} knows what is deferred in its lane; ask {owner} to declare it"
            if not lost.later_is_here(dot.actor, self.node, members):
                return f"what {owner} did later is not all applied here yet. Ask again soon"
        return judged

    async def is_home(self, actor: str) -> bool:
        """Whether what was written here under names before `actor`, and is not lost, is here again.

        Raises Syncing, RedisUnavailable.
        """
        return lost.is_home(actor, await self._members())

    async def _members(self) -> dict[str, Standing | None]:
        """Where each member stands, this node last: it may have got what a peer has lost since."""
        members: dict[str, Standing | None] = {}
        reports = await self.board.peers(self.peers())
        now_us = self.now_us()
        said_us = _HEARTBEATS * self.heartbeat_us + _LATE_US
        told_us = len(reports) * (said_us + self.trim_us)
        for peer, report in reports.items():
            members[peer] = None
            if not report.error and report.heard.age_us(now_us) <= said_us:
                members[peer] = report.heard.standing
            elif report.hearsay.age_us(now_us) <= told_us:
                members[peer] = report.hearsay.standing
        here = await self.buffer.sweep()
        members[self.node] = Standing(here.clock, here.received)
        return members
