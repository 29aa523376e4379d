"""What tests do with real nodes: write, read, look, cut links, and put them under load.

What it assumes and guarantees: the cluster is the test's own, and a step is done when it returns.

What it does not know: what the tests are about.
"""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from app.local_nodes import LocalCluster
from client import Lightcone
from tests.contents import Contents, covers, redis_contents, unequal
from tests.processes import until, until_equal_clocks

SHARED_KEYS = 5
CLIENTS_PER_NODE = 2
#: Between a client's writes: enough to be in the middle of something, and no more.
PAUSE_S = 0.01


# --- clients --------------------------------------------------------------------------------------


def client_of(cluster: LocalCluster) -> Lightcone:
    """A client of all its nodes, patient enough for a machine that is busy with something else."""
    return Lightcone(list(cluster.urls.values()), timeout_s=30, patience_s=20)


async def put(kv: Lightcone, url: str, key: str, value: str) -> str:
    """The name of the write, by somebody who has seen nothing."""
    return (await kv.session().at(url).put(key, value)).dot


async def put_many(kv: Lightcone, url: str, keys: list[str], value: str) -> None:
    session = kv.session().at(url)
    for key in keys:
        await session.put(key, value)


async def values(kv: Lightcone, url: str, keys: list[str]) -> list[str | None]:
    session = kv.session().at(url)
    found = [await session.get(key) for key in keys]
    return [None if one is None else one.text for one in found]


# --- looking --------------------------------------------------------------------------------------


async def kill_workers(cluster: LocalCluster, node: str) -> None:
    """All workers of the node were killed, and another one is there."""
    killed = cluster.worker_pids(node)
    assert killed, "nothing was killed"
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    await until(lambda: set(cluster.worker_pids(node)) - set(killed))


async def status(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with http.get(f"{url}/status") as response:
        assert response.status == 200, await response.text()
        answer: dict[str, Any] = await response.json()
        return answer


async def contents_of(cluster: LocalCluster, node: str, pattern: str) -> Contents:
    return await redis_contents(cluster.data_dir / node / "redis.sock", pattern)


async def assert_nodes_equal(cluster: LocalCluster) -> None:
    """The same versions of every key, and under every dot the same write, on all nodes."""
    await until_same(cluster, "kv:*")
    await until_same(cluster, "log:*")


async def until_same(cluster: LocalCluster, pattern: str) -> dict[str, Contents]:
    """All nodes hold the same under such keys of Redis, and something; also what nodes may write of
    themselves a moment after all else. The result is that, by node."""
    contents: dict[str, Contents] = {}

    async def same() -> bool:
        nonlocal contents
        contents = {node: await contents_of(cluster, node, pattern) for node in cluster.names}
        return all(contents.values()) and not unequal(contents)

    await until(same)
    return contents


# --- links ----------------------------------------------------------------------------------------


async def cut(http: aiohttp.ClientSession, cluster: LocalCluster, node: str, *peers: str) -> None:
    """Nothing passes between the node and these peers."""
    for one, other in itertools.chain(*(((node, peer), (peer, node)) for peer in peers)):
        url = f"{cluster.urls[one]}/faults/{other}"
        async with http.put(url, json={"cut": True}) as response:
            assert response.status == 200


async def heal_links_to(
    http: aiohttp.ClientSession, cluster: LocalCluster, node: str, *peers: str
) -> None:
    """These peers reach the node once it is there: one that begins with nothing is ready only
    when it has what they have."""
    for peer in peers:
        async with http.delete(f"{cluster.urls[peer]}/faults/{node}") as response:
            assert response.status == 204


async def heal(http: aiohttp.ClientSession, cluster: LocalCluster) -> None:
    for one, other in itertools.permutations(cluster.names, 2):
        async with http.delete(f"{cluster.urls[one]}/faults/{other}") as response:
            assert response.status == 204


# --- load -----------------------------------------------------------------------------------------


@dataclass
class Load:
    """Clients that write for as long as they may, and remember what was acknowledged."""

    urls: dict[str, str]
    http: aiohttp.ClientSession
    acknowledged: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Dot -> the key and the value written."""
    repeated: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, clients_per_node: int) -> None:
        await asyncio.gather(
            *(self._client(url) for url in self.urls.values() for _ in range(clients_per_node))
        )

    def stop(self) -> None:
        self._stop.set()

    async def progress(self, writes: int = 20) -> None:
        """So many writes more were acknowledged."""
        goal = len(self.acknowledged) + writes
        await until(lambda: len(self.acknowledged) >= goal)

    async def _client(self, url: str) -> None:
        while not self._stop.is_set():
            number = next(self.numbers)
            # Every other write is to a key that all nodes write, the rest to keys of their own.
            key = f"shared-{number % SHARED_KEYS}" if number % 2 else f"own-{number}"
            try:
                async with self.http.put(f"{url}/kv/{key}", data=str(number)) as response:
                    if response.status == 200:
                        dot = (await response.json())["dot"]
                        if dot in self.acknowledged:
                            self.repeated.append(dot)
                        self.acknowledged[dot] = (key, str(number))
            except (aiohttp.ClientError, TimeoutError):
                pass  # killed under us: the outcome is unknown
            await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def under_load(cluster: LocalCluster, http: aiohttp.ClientSession) -> AsyncIterator[Load]:
    """Clients write while the body breaks things, and after it nothing acknowledged is missing.

    All nodes end equal, no dot was given twice, and every node has applied what was acknowledged.
    """
    load = Load(cluster.urls, http)
    running = asyncio.create_task(load.run(CLIENTS_PER_NODE))
    try:
        yield load
    finally:
        load.stop()
        await running
    clock = await until_equal_clocks(cluster.urls)
    assert load.acknowledged, "there was no load"
    assert not load.repeated, "a dot was given twice"
    assert all(covers(clock, dot) for dot in load.acknowledged)
    await assert_nodes_equal(cluster)
