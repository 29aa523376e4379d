"""Which nodes hold a write, as one worker hears of it, and who waits to hear.

Assumes that links post what peers say of themselves, at once while somebody waits (`board.py`).
Guarantees that a node is counted only once it has said itself that it has applied the write, which
it then holds durably (G3); a waiter wakes at each piece of news, and does not poll for it.

A node that only a third one can reach is not heard of, and so not counted. Does not know what is
done if too few hold the write: it stands in any case.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

from app.board import Board
from app.errors import RedisUnavailable
from app.vector_clock import Dot, VectorClock

_LOOK_AGAIN_S: Final = 1.0
"""A waiter who hears nothing for so long looks at the board: a channel may lose a message."""


class Replicas:
    """What the peers of a node have applied, and the waits for more."""

    def __init__(self, board: Board, peers: Callable[[], Collection[str]]) -> None:
        self._board = board
        self._peers = peers
        self._clocks: dict[str, VectorClock] = {}
        self._news = asyncio.Event()

    def heard(self, peer: str, clock: VectorClock) -> None:
        """The peer has said that it has applied this; whoever waits for it is awake."""
        self._clocks[peer] = clock
        self._news.set()
        self._news = asyncio.Event()

    async def expect(self, for_s: float) -> None:
        """For so long every link tells at once what its peer says.

        To be called before the write: its first answer may be there soon after.
        Raises RedisUnavailable.
        """
        await self._board.await_peers(for_s)

    async def holders(self, dot: Dot, wanted: int, deadline: float) -> list[str]:
        """The peers that hold `dot`: as soon as that are `wanted`, or else at `deadline`, by the
        clock of the event loop."""
        loop = asyncio.get_running_loop()
        while True:
            news = self._news
            with suppress(RedisUnavailable):  # the write is done: what is not known is not counted
                for peer, report in (await self._board.peers(self._peers())).items():
                    self._clocks[peer] = report.clock
            while True:
                holders = [
                    peer
                    for peer in self._peers()
                    if self._clocks.get(peer, VectorClock()).covers(dot)
                ]
                if len(holders) >= wanted or loop.time() >= deadline:
                    return sorted(holders)
                try:
                    async with asyncio.timeout_at(min(deadline, loop.time() + _LOOK_AGAIN_S)):
                        await news.wait()
                    news = self._news
                except TimeoutError:
                    break
