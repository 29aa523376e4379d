"""Which writes are known to exist, though they have not come here: somebody has said that it has
them.

Assumes that the board has what the peers last said, and that only members are believed. Guarantees
that a write is called known only if a member has applied or received it, if it or a later one of
its actor waits here, or if it was named here. What a client's context says counts for nothing.

Does not know what follows from it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from app.board import Board
from app.buffer import PendingBuffer
from app.deferred import DeferredWrites
from app.vector_clock import Dot, VectorClock


@dataclass(frozen=True, slots=True)
class Existence:
    """Finds that out at one node. `peers` are the other members."""

    peers: Callable[[], Collection[str]]
    board: Board
    buffer: PendingBuffer
    deferred: DeferredWrites

    async def unknown(self, missing: VectorClock) -> list[Dot]:
        """Those of the writes `missing` here that are not known to exist, the last of each actor.

        Raises RedisUnavailable.
        """
        known = await self.deferred.given()
        for report in (await self.board.peers(self.peers())).values():
            known = known.merge(report.heard.standing.held).merge(report.hearsay.standing.held)
        unknown = missing.beyond(known)
        return unknown.beyond(await self.buffer.newest(unknown)).dots()
