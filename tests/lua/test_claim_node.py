"""lua/claim_node.lua: an empty Redis becomes a node's, and stays it."""

import asyncio
from typing import Any

from app.keys import Keys
from app.scripts import Scripts
from tests.conftest import MakeRedis


async def contents(redis: Any) -> dict[bytes, bytes]:
    """All that Redis holds, as it would be dumped."""
    return {key: await redis.dump(key) for key in await redis.keys()}


async def test_an_empty_redis_is_claimed(make_redis: MakeRedis) -> None:
    redis = make_redis()
    meta = await Scripts(redis, Keys()).claim_node("A", 1, "a birth")
    assert meta == {"node": "A", "layout": "1", "birth": "a birth"}
    assert await redis.keys() == [b"meta"]


async def test_a_claim_that_is_repeated_changes_nothing(make_redis: MakeRedis) -> None:
    redis = make_redis()
    scripts = Scripts(redis, Keys())
    await scripts.claim_node("A", 1, "a birth")
    await redis.hset("meta", "timestamp", "77")
    before = await contents(redis)
    meta = await scripts.claim_node("A", 2, "a birth")
    assert meta == {"node": "A", "layout": "1", "birth": "a birth", "timestamp": "77"}
    assert await contents(redis) == before


async def test_another_node_is_told_whose_it_is_and_changes_nothing(make_redis: MakeRedis) -> None:
    redis = make_redis()
    scripts = Scripts(redis, Keys())
    await scripts.claim_node("A", 1, "a birth")
    before = await contents(redis)
    assert (await scripts.claim_node("B", 1, "a birth"))["node"] == "A"
    assert await contents(redis) == before


async def test_a_database_of_somebody_else_is_not_touched(make_redis: MakeRedis) -> None:
    redis = make_redis()
    await redis.set("session:1", "theirs")
    assert await Scripts(redis, Keys()).claim_node("A", 1, "a birth") == {}
    assert await redis.keys() == [b"session:1"]


async def test_of_two_nodes_that_start_at_once_one_gets_it(make_redis: MakeRedis) -> None:
    scripts = Scripts(make_redis(), Keys())
    metas = await asyncio.gather(*(scripts.claim_node(node, 1, "a birth") for node in "ABABAB"))
    assert len({meta["node"] for meta in metas}) == 1


async def test_what_workers_post_does_not_make_a_database_somebody_elses(
    make_redis: MakeRedis,
) -> None:
    """They go on posting after Redis was emptied under them."""
    redis = make_redis()
    await redis.hset("peer:B", "error", "")
    await redis.hset("births", "B", "another birth")
    await redis.set("lease:B", "a worker")
    assert await Scripts(redis, Keys()).claim_node("A", 1, "a birth") == {
        "node": "A",
        "layout": "1",
        "birth": "a birth",
    }
    await redis.delete("meta")
    await redis.set("theirs", "1")
    assert await Scripts(redis, Keys()).claim_node("A", 1, "a birth") == {}
