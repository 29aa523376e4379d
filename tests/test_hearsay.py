"""Nodes of which some never reach each other: what they hear by way of the others is enough.

In one process, each with a database of its own on a real redis-server, and wires that are cut for
good (tests/test_links.py).
"""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app import codec, wire
from app.vector_clock import SEQUENCE_MAX, VectorClock
from app.wire import Batch
from tests.conftest import begin_at
from tests.processes import until
from tests.test_former_lanes import defer, deferred, is_empty, put_back
from tests.test_links import Cluster

NODES = "ABCDE"


@asynccontextmanager
async def in_a_line(redis_socket: Path, nodes: str) -> AsyncIterator[Cluster]:
    """These nodes, each of which reaches its neighbours alone."""
    async with Redis(unix_socket_path=str(redis_socket)) as redis:
        await redis.flushall()
    cluster = Cluster(redis_socket)
    neighbours = set(itertools.pairwise(nodes))
    cluster.cut = {
        frozenset(pair) for pair in itertools.combinations(nodes, 2) if pair not in neighbours
    }
    for node in nodes:
        await begin_at(cluster.redis_url(node), node)
        await start(cluster, node, nodes)
    try:
        yield cluster
    finally:
        await cluster.stop_all()


@pytest.fixture
async def line(redis_socket: Path) -> AsyncIterator[Cluster]:
    """Five nodes in a line. It takes the writes of one four steps to come to the other end."""
    async with in_a_line(redis_socket, NODES) as cluster:
        yield cluster


@pytest.fixture
async def short_line(redis_socket: Path) -> AsyncIterator[Cluster]:
    """Three nodes: B and C reach each other by way of A."""
    async with in_a_line(redis_socket, "BAC") as cluster:
        yield cluster


async def start(line: Cluster, node: str, nodes: str = NODES) -> None:
    await line.start(node, nodes.replace(node, ""), faults=True, trim_ms=50, relay_after_ms=50)


async def test_what_waited_before_a_loss_is_done_though_its_node_never_reaches_all_others(
    line: Cluster,
) -> None:
    """(Chaos found that it was not: a clock jumped in a ring.)"""
    fault = "/faults/C"
    assert (await line.nodes["D"].put(fault, json={"no_relay": True})).status == 200
    question = await line.put("E", "question")
    # A has heard, over three steps, that there is such a write.
    await defer(line.nodes["A"], "reply", "yes", question)
    assert await deferred(line.nodes["A"]) == {"A+:1": [question]}
    await line.stop("A")
    put_back(line.redis_url("A"))
    await start(line, "A")
    assert (await line.nodes["D"].delete(fault)).status == 204
    await until(lambda: is_empty(line.nodes["A"]))
    await line.until_equal(NODES)
    status = await line.status("A")
    assert status["actor"].startswith("A~")
    for node in NODES:
        shown = await line.nodes[node].get("/kv/reply?siblings=true")
        [version] = (await shown.json())["siblings"]
        assert version["dot"].startswith(status["actor"]), "it was done once, under another name"


async def test_what_a_disk_has_lost_is_told_and_declared_at_the_other_end(line: Cluster) -> None:
    await line.put("A", "x", "kept")
    await line.until_equal(NODES)
    line.cut.add(frozenset("AB"))
    lost = await line.put("A", "x", "lost")
    await line.stop("A")
    await line.wipe("A")
    line.cut.remove(frozenset("AB"))
    await start(line, "A")
    await line.until_status("A", "/readyz", 200)
    await line.put("A", "y")
    await line.until_equal(NODES)
    seen = {"Causal-Context": f"lc1;{lost}"}

    async def is_told() -> bool:
        response = await line.nodes["E"].get("/kv/x?wait=0.1", headers=seen)
        return response.status == 410

    await until(is_told)
    declared = await line.nodes["E"].post("/lost", json={"dots": [lost]})
    assert (await declared.json())["lost"] == [{"actor": "A", "after": 1}]
    shown = await line.nodes["E"].get("/kv/x", headers=seen)
    assert await shown.text() == "kept"
    await line.until_equal(NODES)


async def test_what_a_member_holds_beyond_a_gap_that_another_fills_is_neither_told_nor_declared(
    short_line: Cluster,
) -> None:
    """Of two batches that were under way to B it failed to take the first, and took the second; C
    has the first. Then the disk of their node is lost."""
    line = short_line
    line.cut.add(frozenset("AB"))
    assert await line.put("A", "x") == "A:1"
    await line.until_equal("AC")
    line.cut.add(frozenset("AC"))
    assert await line.put("A", "y", "acknowledged") == "A:2"
    async with Redis.from_url(line.redis_url("A")) as redis:
        logged: Any = await redis.xrange("log:A")
    _, second = codec.unpack_log_entries("A", logged)
    body = wire.encode_batch(Batch("A", "B", VectorClock.parse("A:2"), (second,)))
    async with line.nodes["B"].post("/replicate", data=body) as response:
        assert wire.decode_answer(await response.read()).pending == 1
    await line.stop("A")
    await line.wipe("A")
    assert (await line.nodes["C"].put("/faults/A", json={"no_relay": True})).status == 200
    line.cut = {frozenset("BC")}
    await start(line, "A", "BAC")

    async def it_writes() -> bool:
        return (await line.nodes["A"].put("/kv/z", data=b"again")).status == 200

    await until(it_writes)

    async def why_not(dot: str) -> str:
        """Why C, which has all that anybody has without a gap, does not call it lost."""
        answer = await line.nodes["C"].post("/lost", json={"dots": [dot]})
        assert answer.status == 409, await answer.text()
        return str((await answer.json())["detail"])

    async def all_are_heard() -> bool:
        return "lacks A:1 yet, and may hold what follows it" in await why_not("A:2")

    await until(all_are_heard)
    for node in "AC":
        seen = {"Causal-Context": "lc1;A:2"}
        async with line.nodes[node].get("/kv/y?wait=0", headers=seen) as response:
            assert response.status == 503, await response.text()
    assert (await line.nodes["C"].delete("/faults/A")).status == 204
    await line.until_equal("BAC")
    for node in "BAC":
        assert await line.get(node, "y") == "acknowledged"

    async def is_declared() -> bool:
        answer = await line.nodes["B"].post("/lost", json={"dots": ["A:3"]})
        return answer.status == 200

    await until(is_declared)
    assert (await line.clock("B"))["A"] == SEQUENCE_MAX
