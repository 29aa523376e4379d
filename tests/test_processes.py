"""Three nodes as they run for people: processes, HTTP, real Redis, killed and cut apart.

What a test here asserts, it asserts of what clients and `redis-cli` can see.
"""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from app.local_nodes import LocalCluster, free_ports
from app.write import Put
from client import Lightcone, Unreachable
from tests.clusters import contents_of, kill_workers, status, under_load
from tests.contents import sequence_of, writes_of
from tests.processes import WHOLE_LOGS, until

pytestmark = pytest.mark.timeout(300)

KILLS = 20
NARROW = 500_000
"""Bytes a second on a narrow link."""


class NarrowCluster(LocalCluster):
    """Two nodes; A reaches B over a narrow link."""

    def __init__(self, data_dir: Path, env: dict[str, str]) -> None:
        super().__init__(data_dir, nodes=2, env=env)
        [self.port] = free_ports(1)

    def environment(self, node: str) -> dict[str, str]:
        """As any node's, but for where A finds B."""
        peers = {"PEERS": f"B=http://127.0.0.1:{self.port}"} if node == "A" else {}
        return {**super().environment(node), **peers}

    @asynccontextmanager
    async def link(self) -> AsyncIterator[None]:
        """It leads to B."""
        async with await asyncio.start_server(self._carry, "127.0.0.1", self.port):
            yield

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self.urls["B"].removeprefix("http://").split(":")
        from_b, to_b = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_slowly(reader, to_b), _slowly(from_b, writer))


async def _slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(8192):
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(len(data) / NARROW)
    writer.close()


async def test_kill_9_of_every_worker_under_load_loses_and_repeats_nothing(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with LocalCluster(tmp_path, env={"WORKERS": "2", **WHOLE_LOGS}) as cluster:
        async with under_load(cluster, http) as load:
            for _, node in zip(range(KILLS), itertools.cycle(cluster.names), strict=False):
                await kill_workers(cluster, node)
                await load.progress(1)

        for key, value in load.acknowledged.values():
            if key.startswith("own"):
                async with http.get(f"{cluster.urls['C']}/kv/{key}") as response:
                    assert (response.status, await response.text()) == (200, value)
        clock = (await status(http, cluster.urls["A"]))["clock"]
        logs = await contents_of(cluster, "A", "log:*")
        for actor, last in clock.items():
            sequences = [sequence_of(entry_id) for entry_id, _ in logs[f"log:{actor}"]]
            assert sequences == list(range(1, last + 1))
        logged = {write.dot: write.operations for write in writes_of(logs)}
        for dot, (key, value) in load.acknowledged.items():
            [put] = logged[dot]
            assert isinstance(put, Put) and (put.key, put.value) == (key, value.encode())


async def test_whole_nodes_killed_under_load_come_back_with_everything(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with LocalCluster(tmp_path, env=WHOLE_LOGS) as cluster, under_load(cluster, http) as load:
        for node in cluster.names:
            await load.progress()
            await cluster.kill(node)
            await cluster.start(node)


async def test_redis_killed_under_load_is_started_again_and_nothing_acknowledged_is_lost(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with LocalCluster(tmp_path, env=WHOLE_LOGS) as cluster, under_load(cluster, http) as load:
        for node in cluster.names:
            await load.progress()
            redis = cluster.redis_pid(node)
            assert redis is not None
            os.kill(redis, signal.SIGKILL)
            await until(lambda n=node, r=redis: cluster.redis_pid(n) not in (None, r))  # type: ignore[misc]


async def test_links_that_lose_repeat_and_reorder_under_load_lose_nothing(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    bad = {"delay_ms": 2, "jitter_ms": 20, "drop": 0.3, "duplicate": 0.3, "reorder": 0.3}
    async with LocalCluster(tmp_path, env=WHOLE_LOGS) as cluster:
        for node, peer in itertools.permutations(cluster.names, 2):
            async with http.put(f"{cluster.urls[node]}/faults/{peer}", json=bad) as response:
                assert response.status == 200
        # The links stay bad: repeats alone must bring everything everywhere.
        async with under_load(cluster, http) as load:
            await load.progress(1500)


async def test_what_a_narrow_link_cannot_carry_in_time_at_once_it_carries_by_and_by(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """Full batches, of which there are two, take four times as long as an answer is waited for; and
    one value nearly twice as long."""
    cluster = NarrowCluster(tmp_path, {"PEER_TIMEOUT_MS": "500"})
    async with cluster.link(), cluster:
        fault = f"{cluster.urls['A']}/faults/B"
        async with http.put(fault, json={"cut": True}) as response:
            assert response.status == 200
        for number, size in enumerate([10_000] * 80 + [400_000] + [10_000] * 80):
            async with http.put(f"{cluster.urls['A']}/kv/{number}", data=bytes(size)) as response:
                assert response.status == 200
        async with http.delete(fault) as response:
            assert response.status == 204

        async def has_all() -> bool:
            return bool((await status(http, cluster.urls["B"]))["clock"].get("A") == 161)

        await until(has_all)


async def test_a_node_that_is_told_to_end_leaves_no_client_in_doubt(tmp_path: Path) -> None:
    async with (
        LocalCluster(tmp_path, nodes=1, env=WHOLE_LOGS) as cluster,
        Lightcone([cluster.urls["A"]], timeout_s=3) as kv,
    ):
        written: list[str] = []

        async def write_until_refused(client: int) -> None:
            session = kv.session()
            with pytest.raises(Unreachable):  # OutcomeUnknown would fail the test
                for number in itertools.count():
                    await session.put(f"{client}-{number}", "x")
                    written.append(f"{client}-{number}")

        clients = [asyncio.create_task(write_until_refused(client)) for client in range(4)]
        await until(lambda: len(written) > 200)
        await cluster.stop("A")
        await asyncio.gather(*clients)
        await cluster.start("A")
        values = await contents_of(cluster, "A", "kv:*")
        assert sorted(values) == sorted(f"kv:{key}" for key in written)


async def test_a_cut_between_two_nodes_is_bridged_by_the_third(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with LocalCluster(tmp_path, env=WHOLE_LOGS) as cluster:
        a, c = cluster.urls["A"], cluster.urls["C"]
        for url, peer in ((a, "C"), (c, "A")):
            async with http.put(f"{url}/faults/{peer}", json={"cut": True}) as response:
                assert response.status == 200
        async with http.put(f"{a}/kv/lunch", data=b"noon?") as response:
            context = response.headers["Causal-Context"]

        async def seen_at_c() -> bool:
            headers = {"Causal-Context": context}
            async with http.get(f"{c}/kv/lunch?wait=5", headers=headers) as response:
                return (response.status, await response.read()) == (200, b"noon?")

        await until(seen_at_c)
        peers = (await status(http, a))["peers"]
        assert not peers["C"]["reachable"]
        assert peers["C"]["error"] == "the link is cut by a fault"
