"""Work that a node does again and again, beside the requests.

Assumes work that leaves nothing half done. Guarantees that it goes on for ever: what Redis, a merge
or an unsettled name keep it from now is done in a later round; the listener on the board says what
ails Redis, once. Any other failure ends it, and the worker with it.

Does not know what the work is.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from app.board import Board
from app.errors import NotReady, RedisUnavailable, Syncing


async def again_and_again(work: Callable[[], Awaitable[object]], every_s: float) -> None:
    """Do it, and again after each pause, for ever."""
    while True:
        with suppress(RedisUnavailable, NotReady, Syncing):
            await work()
        await asyncio.sleep(every_s)


async def by_one_worker(
    board: Board, lease: str, work: Callable[[], Awaitable[object]], every_ms: int
) -> None:
    """The same, by one worker of the node, which holds this lease; by another when it dies."""

    async def under_lease() -> None:
        if await board.hold_lease(lease, 3 * every_ms):
            await work()

    await again_and_again(under_lease, every_ms / 1000)
