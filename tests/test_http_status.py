"""What a node says of itself."""

import asyncio

from redis import Redis

from app import __version__
from app.write import Delete, Operation, Put
from tests.model import Node
from tests.one_node import (
    PEERS,
    SECRET,
    node_a,
    problem,
    put,
    put_by,
    replicated,
)


async def test_the_status_of_a_node_that_reaches_nobody(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        await put(client, "lunch", b"one?")
        b = Node("B")
        put_by(b, "tea", b"1")
        await replicated(client, put_by(b, "tea", b"2"))
        status = await (await client.get("/status")).json()
        assert (status["node"], status["actor"], status["version"]) == ("A", "A", __version__)
        assert status["clock"] == {"A": 2}
        assert status["timestamp"] > 1_700_000_000_000_000
        assert status["pending"] == {"total": 1, "by_actor": {"B": 1}}
        assert set(status["peers"]) == {"B", "C"}
        peer = status["peers"]["B"]
        assert peer["url"] == PEERS["B"]
        assert peer["reachable"] is False
        assert peer["error"]
        assert peer["clock"] is peer["skew_ms"] is peer["last_contact_s"] is None
        assert peer["lag_s"] >= 0
        assert {"pending_max", "value_max_bytes", "batch_max_writes"} <= set(status["limits"])
        assert all(isinstance(limit, int) for limit in status["limits"].values())


async def test_the_status_names_the_fields_that_the_contract_names(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        status = await (await client.get("/status")).json()
        names = "url reachable clock lag_writes lag_s skew_ms last_contact_s error faults snapshot"
        assert set(status["peers"]["B"]) == set(names.split())


async def test_the_status_tells_no_secret(redis_url: str) -> None:
    async with node_a(redis_url, cluster_secret=SECRET) as client:
        text = await (await client.get("/status")).text()
        assert SECRET not in text
        assert "redis" not in text


async def test_what_waits_is_shown_with_what_it_waits_for(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        assert await (await client.get("/pending")).json() == {
            **{"total": 0, "writes": []},
            **{"deferred_total": 0, "deferred": []},
        }
        b, c = Node("B"), Node("C")
        b.receive([put_by(c, "tea", b"five")])
        operations: list[Operation] = [Put("lunch", b"noon?"), Delete("dinner")]
        await replicated(client, b.write(operations, 5))
        shown = await (await client.get("/pending")).json()
        [write] = shown["writes"]
        assert shown["total"] == 1
        assert write.pop("waiting_s") >= 0
        assert write == {
            "dot": "B:1",
            "dependencies": {"C": 1},
            "waiting_for": ["C:1"],
            "could_come_from": {"C:1": ["C"]},
            "keys": ["lunch", "dinner"],
        }


async def test_a_node_is_alive_and_ready(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        assert await (await client.get("/healthz")).json() == {"status": "alive"}
        assert await (await client.get("/readyz")).json() == {"status": "ready"}


async def test_a_node_that_is_told_to_end_ends_whatever_it_was_about_to_do(redis_url: str) -> None:
    for steps in range(0, 60, 3):
        async with asyncio.timeout(10), node_a(redis_url):
            for _ in range(steps):
                await asyncio.sleep(0)


async def test_a_node_that_merges_is_not_ready_and_says_how_far_it_is(
    redis_url: str,
) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"soup")  # it is settled who writes here
        with Redis.from_url(redis_url) as redis:
            about = {"id": "s1", "source": "B", "last": "p1", "clock": "B:9", "begun": "1"}
            redis.hset("snapshot", mapping={**about, "keys": 300, "total": 300, "merged": 120})
            redis.hset("meta", "merging", "s1")
            said = await problem(await client.get("/readyz"), 503, "syncing")
            assert "120 of 300 keys are in" in said["detail"]
            said = await problem(await client.get("/kv/lunch"), 503, "syncing")
            assert "GET /status" in said["detail"]
            redis.delete("snapshot")
            redis.hdel("meta", "merging")
        assert (await client.get("/readyz")).status == 200
