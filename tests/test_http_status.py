"""What a node says of itself."""

import asyncio

from app import __version__
from tests.model import Node
from tests.one_node import (
    PEERS,
    SECRET,
    node_a,
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


async def test_a_node_that_is_told_to_end_ends_whatever_it_was_about_to_do(redis_url: str) -> None:
    for steps in range(0, 60, 3):
        async with asyncio.timeout(10), node_a(redis_url):
            for _ in range(steps):
                await asyncio.sleep(0)
