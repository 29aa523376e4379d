"""Nodes of which some never reach each other: what they hear by way of the others is enough.

In one process, each with a database of its own on a real redis-server, and wires that are cut for
good (tests/test_links.py).
"""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.conftest import begin_at
from tests.processes import until
from tests.test_former_lanes import defer, deferred, is_empty, put_back
from tests.test_links import Cluster

NODES = "ABCDE"


@pytest.fixture
async def line(redis_socket: Path) -> AsyncIterator[Cluster]:
    """Five nodes in a line: each reaches its neighbours alone. It takes the writes of one four
    steps to come to the other end."""
    async with Redis(unix_socket_path=str(redis_socket)) as redis:
        await redis.flushall()
    cluster = Cluster(redis_socket)
    neighbours = set(itertools.pairwise(NODES))
    cluster.cut = {
        frozenset(pair) for pair in itertools.combinations(NODES, 2) if pair not in neighbours
    }
    for node in NODES:
        await begin_at(cluster.redis_url(node), node)
        await start(cluster, node)
    try:
        yield cluster
    finally:
        await cluster.stop_all()


async def start(line: Cluster, node: str) -> None:
    await line.start(node, NODES.replace(node, ""), faults=True, trim_ms=50, relay_after_ms=50)


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
