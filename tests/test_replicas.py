"""A waiter wakes when enough nodes are heard to hold a write, and not sooner."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from app.board import Board, PeerReport
from app.errors import RedisUnavailable
from app.replicas import Replicas
from app.vector_clock import Dot, VectorClock
from tests.processes import until

DOT = Dot("A", 3)
HAS, LACKS = VectorClock({"A": 3, "B": 1}), VectorClock({"A": 2})


class Notices:
    """A board on which this stands."""

    def __init__(self, **clocks: VectorClock) -> None:
        self.clocks = clocks
        self.fails = False
        self.reads = 0

    async def peers(self, peers: Sequence[str]) -> dict[str, PeerReport]:
        self.reads += 1
        if self.fails:
            raise RedisUnavailable("it is away")
        return {peer: PeerReport(self.clocks.get(peer, VectorClock())) for peer in peers}


def replicas_of(board: Notices) -> Replicas:
    return Replicas(cast(Board, cast(Any, board)), lambda: ["B", "C"])


def in_s(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_what_stands_on_the_board_counts_at_once() -> None:
    replicas = replicas_of(Notices(B=HAS, C=LACKS))
    assert await replicas.holders(DOT, 1, in_s(60)) == ["B"]
    assert await replicas.holders(DOT, 0, in_s(60)) == ["B"]


async def test_a_waiter_wakes_with_the_news_that_is_enough() -> None:
    board = Notices()
    replicas = replicas_of(board)
    waiting = asyncio.create_task(replicas.holders(DOT, 2, in_s(60)))
    await until(lambda: board.reads)
    replicas.heard("B", HAS)
    replicas.heard("C", LACKS)
    await asyncio.sleep(0)
    assert not waiting.done()
    replicas.heard("C", HAS)
    assert await waiting == ["B", "C"]


async def test_what_was_not_heard_is_found_on_the_board() -> None:
    board = Notices()
    replicas = replicas_of(board)
    waiting = asyncio.create_task(replicas.holders(DOT, 1, in_s(60)))
    await until(lambda: board.reads)
    board.clocks["C"] = HAS
    assert await waiting == ["C"]


async def test_when_patience_ends_those_who_hold_it_are_told() -> None:
    board = Notices(B=HAS)
    replicas = replicas_of(board)
    assert await replicas.holders(DOT, 2, in_s(0.05)) == ["B"]
    board.fails = True
    assert await replicas.holders(DOT, 2, in_s(0)) == ["B"], "and a lost Redis fails no write"
