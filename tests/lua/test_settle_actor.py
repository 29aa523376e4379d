"""lua/settle_actor.lua: who writes, said by one worker and found by all."""

import asyncio
from typing import Any

from app.incarnation import Remembered, Settled
from app.keys import Keys
from app.scripts import Scripts
from app.vector_clock import VectorClock
from tests.conftest import MakeRedis

NEW = Remembered("", "", 0, VectorClock())
FIRST = Remembered("A", "run 1", 0, VectorClock())


async def scripts_of(redis: Any) -> Scripts:
    """The scripts on a Redis that was claimed and in which nobody writes yet."""
    scripts = Scripts(redis, Keys())
    await scripts.claim_node("A", 1, "a birth")
    return scripts


async def test_it_is_settled_who_writes(make_redis: MakeRedis) -> None:
    redis: Any = make_redis()
    scripts = await scripts_of(redis)
    assert await scripts.settle_actor("A", NEW, Settled("A"), "run 1", 7)
    assert await redis.hgetall("meta") == {
        **{b"node": b"A", b"layout": b"1", b"birth": b"a birth", b"actor": b"A"},
        **{b"run": b"run 1", b"alive": b"7"},
    }


async def test_a_new_incarnation_says_why_and_since_when(make_redis: MakeRedis) -> None:
    redis: Any = make_redis()
    scripts = await scripts_of(redis)
    await scripts.settle_actor("A", NEW, Settled("A"), "run 1", 7)
    assert await scripts.settle_actor("A", FIRST, Settled("A~x1", "it was lost"), "run 2", 9)
    later = Remembered("A~x1", "run 2", 0, VectorClock())
    assert await scripts.settle_actor("A", later, Settled("A~x1"), "run 3", 11)
    meta = await redis.hgetall("meta")
    assert (meta[b"actor"], meta[b"run"], meta[b"alive"]) == (b"A~x1", b"run 3", b"11")
    assert (meta[b"reason"], meta[b"since"]) == (b"it was lost", b"9")


async def test_what_a_node_was_born_as_is_known_also_after_its_first_life(
    make_redis: MakeRedis,
) -> None:
    redis: Any = make_redis()
    scripts = await scripts_of(redis)
    await scripts.settle_actor("A", NEW, Settled("A"), "run 1", 7)
    assert await scripts.settle_actor("A", FIRST, Settled("A~x1", "it was lost"), "run 2", 9)
    assert await redis.hgetall("births") == {b"A": b"a birth"}


async def test_of_a_node_that_has_lived_before_it_is_not_known_what_it_was_born_as(
    make_redis: MakeRedis,
) -> None:
    redis: Any = make_redis()
    scripts = await scripts_of(redis)
    assert await scripts.settle_actor("A", NEW, Settled("A~x1", "a peer knows it"), "run 1", 7)
    assert not await redis.exists("births")


async def test_who_is_at_work_does_not_rest(make_redis: MakeRedis) -> None:
    redis: Any = make_redis()
    scripts = await scripts_of(redis)
    await scripts.settle_actor("A", NEW, Settled("A"), "run 1", 7)
    await redis.hset("meta", "rested", "run 1")
    assert await scripts.settle_actor("A", FIRST, Settled("A"), "run 1", 9)
    assert not await redis.hexists("meta", "rested")


async def test_who_found_something_else_changes_nothing(make_redis: MakeRedis) -> None:
    redis: Any = make_redis()
    scripts = await scripts_of(redis)
    await scripts.settle_actor("A", NEW, Settled("A"), "run 1", 7)
    before = await redis.hgetall("meta")
    for found in (
        NEW,
        Remembered("A~x1", "run 1", 0, VectorClock()),
        Remembered("A", "run 0", 0, VectorClock()),
    ):
        assert not await scripts.settle_actor("A", found, Settled("A~x2", "why"), "run 2", 9)
    assert not await scripts.settle_actor("B", FIRST, Settled("B"), "run 2", 9)
    assert await redis.hgetall("meta") == before


async def test_of_workers_that_settle_at_once_one_does(make_redis: MakeRedis) -> None:
    redis: Any = make_redis()
    scripts = await scripts_of(redis)
    tries = [
        scripts.settle_actor("A", NEW, Settled(f"A~x{number}", "why"), "run 1", number)
        for number in range(5)
    ]
    assert sum(await asyncio.gather(*tries)) == 1
