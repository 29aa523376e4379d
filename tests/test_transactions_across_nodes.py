"""What transactions, conditions, replicas and idempotency keys promise, on real nodes whose links
are bad and whose workers are killed."""

import asyncio
import itertools
import os
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.local_nodes import LocalCluster
from client import Lightcone
from tests.clusters import kill_workers
from tests.contents import redis_contents, writes_of
from tests.processes import until

pytestmark = pytest.mark.timeout(300)

BAD = {"delay_ms": 2, "jitter_ms": 20, "drop": 0.2, "duplicate": 0.3, "reorder": 0.3}
SEEN_AT_LEAST = 60 * int(os.environ.get("TIMES", "1"))
"""States that each reader sees before it is enough; with TIMES=30, half a minute of it."""
KILLS = 8


async def transact(http: aiohttp.ClientSession, url: str, *ops: Any) -> dict[str, Any]:
    async with http.post(f"{url}/txn", json={"ops": ops}) as response:
        assert response.status in (200, 412), await response.text()
        answer: dict[str, Any] = await response.json()
        return answer


async def test_nobody_anywhere_ever_sees_half_of_a_transaction(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """Two keys are always written together, at two nodes at once, by chance with a condition; so
    at every instant they have the same versions, siblings included."""
    async with LocalCluster(tmp_path, env={"WORKERS": "2"}) as cluster:
        for node, peer in itertools.permutations(cluster.names, 2):
            async with http.put(f"{cluster.urls[node]}/faults/{peer}", json=BAD) as response:
                assert response.status == 200
        seen: dict[str, set[str]] = {node: set() for node in cluster.names}
        over = asyncio.Event()

        async def write(url: str) -> None:
            number = 0
            while not over.is_set():
                got = await transact(http, url, {"get": "left"})
                condition = {"if": got["results"][0]["etag"]} if number % 2 else {}
                await transact(
                    http,
                    url,
                    {"put": "left", "value": f"{number}", **condition},
                    {"put": "right", "value": f"{number}"},
                )
                number += 1

        async def read(node: str) -> None:
            while not over.is_set():
                answer = await transact(http, cluster.urls[node], {"get": "right"}, {"get": "left"})
                right, left = answer["results"]
                assert right["etag"] == left["etag"], "half of a transaction is seen"
                assert [v.get("text") for v in right["siblings"]] == [
                    v.get("text") for v in left["siblings"]
                ]
                seen[node].add(right["etag"])

        async with asyncio.TaskGroup() as group:
            for node in cluster.names:
                group.create_task(read(node))
            for node in ("A", "B"):
                group.create_task(write(cluster.urls[node]))
            await until(
                lambda: all(len(etags) >= SEEN_AT_LEAST for etags in seen.values()), deadline_s=250
            )
            over.set()


async def test_a_conflict_is_found_and_settled_at_every_node(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with LocalCluster(tmp_path) as cluster:
        cut = list(itertools.permutations(cluster.names, 2))
        for node, peer in cut:
            async with http.put(f"{cluster.urls[node]}/faults/{peer}", json={"cut": True}):
                pass
        for node, url in cluster.urls.items():
            async with http.put(
                f"{url}/kv/menu", data=node, headers={"If-None-Match": "*"}
            ) as response:
                assert response.status == 200, "each is the first, as far as it knows"
        for node, peer in cut:
            async with http.delete(f"{cluster.urls[node]}/faults/{peer}"):
                pass

        async def conflicts(url: str) -> list[dict[str, Any]]:
            async with http.get(f"{url}/conflicts") as response:
                keys: list[dict[str, Any]] = (await response.json())["keys"]
                return keys

        async def all_conflicts_are(expected: list[dict[str, Any]]) -> bool:
            return all([await conflicts(url) == expected for url in cluster.urls.values()])

        etag = '"A:1,B:1,C:1"'
        await until(lambda: all_conflicts_are([{"key": "menu", "etag": etag, "siblings": 3}]))
        async with http.put(
            f"{cluster.urls['C']}/kv/menu", data="all", headers={"If-Match": etag}
        ) as response:
            assert response.status == 200
        await until(lambda: all_conflicts_are([]))
        for url in cluster.urls.values():
            async with http.get(f"{url}/kv") as response:
                assert (await response.json())["keys"] == ["menu"]


async def test_a_write_waits_for_as_many_nodes_as_it_was_asked_to(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """Whichever worker is asked, and whichever sends to the peer."""
    async with LocalCluster(tmp_path, env={"WORKERS": "2"}) as cluster:
        a = cluster.urls["A"]
        for number in range(20):
            url = f"{a}/kv/{number}?replicas=3&wait=20"
            async with http.put(url, data="x") as response:
                assert response.status == 200, await response.text()
                assert response.headers["Replicas"] == "A, B, C"
            for peer in ("B", "C"):  # so it is there, without any context
                async with http.get(f"{cluster.urls[peer]}/kv/{number}") as response:
                    assert response.status == 200

        async with http.put(f"{a}/faults/C", json={"cut": True}):
            pass
        async with http.put(f"{cluster.urls['B']}/faults/C", json={"no_relay": True}):
            pass
        async with http.put(f"{a}/kv/lunch?replicas=2&wait=20", data="x") as response:
            assert response.headers["Replicas"] == "A, B"
        async with http.put(f"{a}/kv/lunch?replicas=3&wait=0.5", data="y") as response:
            assert response.status == 504
            problem = await response.json()
        assert (problem["outcome"], problem["dot"]) == ("applied", "A:22")
        assert "C" not in problem["nodes"]
        async with http.delete(f"{a}/faults/C"):
            pass
        async with http.delete(f"{a}/kv/lunch?replicas=3&wait=20") as response:
            assert (response.status, response.headers["Replicas"]) == (204, "A, B, C")


async def test_a_request_that_is_repeated_is_one_write_though_workers_are_killed_under_it(
    tmp_path: Path,
) -> None:
    """No client is left in doubt: whatever breaks off is repeated until it is known."""
    async with (
        LocalCluster(tmp_path, nodes=1, env={"WORKERS": "2"}) as cluster,
        Lightcone([cluster.urls["A"]], timeout_s=60) as kv,
    ):
        acknowledged: dict[str, str] = {}
        over = asyncio.Event()

        async def write(client: int) -> None:
            session = kv.session()
            for number in itertools.count():
                if over.is_set():
                    return
                key = f"{client}-{number}"
                written = await session.put(key, key, idempotency_key=f"request {key}")
                acknowledged[written.dot] = key

        async def kill() -> None:
            for _ in range(KILLS):
                goal = len(acknowledged) + 20
                await until(lambda goal=goal: len(acknowledged) >= goal)  # type: ignore[misc]
                await kill_workers(cluster, "A")
            over.set()

        async with asyncio.TaskGroup() as group:
            for client in range(4):
                group.create_task(write(client))
            group.create_task(kill())
        logs = await redis_contents(cluster.data_dir / "A" / "redis.sock", "log:*")
        written = {write.dot: [o.key for o in write.operations] for write in writes_of(logs)}
        assert written == {dot: [key] for dot, key in acknowledged.items()}
        assert max(Counter(key for [key] in written.values()).values()) == 1
