"""Work that is done again and again goes on whatever keeps it, and by one worker only."""

import asyncio

import pytest

from app.board import Board
from app.errors import InvariantError, NotReady, RedisUnavailable, Syncing
from app.rounds import again_and_again, by_one_worker
from tests.conftest import MakeStore


@pytest.mark.parametrize(
    "error", [RedisUnavailable("it is down"), Syncing(), NotReady("it is not settled")]
)
async def test_what_keeps_it_for_now_does_not_end_it(error: Exception) -> None:
    done = asyncio.Event()
    failures = [error]

    async def work() -> None:
        if failures:
            raise failures.pop()
        done.set()

    task = asyncio.create_task(again_and_again(work, 0.001))
    await asyncio.wait_for(done.wait(), 20)
    task.cancel()


async def test_a_guarantee_in_doubt_ends_it() -> None:
    async def work() -> None:
        raise InvariantError("a doubt (G4)")

    with pytest.raises(InvariantError):
        await again_and_again(work, 0.001)


async def test_one_worker_does_it_and_another_when_that_has_gone(make_store: MakeStore) -> None:
    store = await make_store("A")
    rounds: dict[str, int] = {"first": 0, "second": 0}

    def worker(name: str) -> "asyncio.Task[None]":
        async def work() -> None:
            rounds[name] += 1

        board = Board(store.redis, store.keys, store.scripts, name)
        return asyncio.create_task(by_one_worker(board, "~work", work, 20))

    async def until(name: str, count: int) -> None:
        async with asyncio.timeout(20):
            while rounds[name] < count:
                await asyncio.sleep(0.002)

    first = worker("first")
    await until("first", 1)
    second = worker("second")
    await until("first", 4)
    assert rounds["second"] == 0
    first.cancel()
    await until("second", 2)
    second.cancel()
