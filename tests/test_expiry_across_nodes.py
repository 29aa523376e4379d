"""What expires is gone at all nodes, and its memory is free there: on real processes, which are
stopped and started, are cut off, are sent snapshots, and whose backups are put back."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from app.local_nodes import LocalCluster
from client.backups import backup, restore
from tests.clusters import assert_nodes_equal, contents_of, cut, heal, status
from tests.contents import unequal
from tests.processes import until, until_equal_clocks

pytestmark = pytest.mark.timeout(300)

QUICK = {"EXPIRY_MS": "50", "WORKERS": "2"}
SHORT_LOGS = {
    **{**QUICK, "LOG_MAX_ENTRIES": "20", "LOG_MIN_ENTRIES": "5", "TRIM_MS": "50"},
    **{"BATCH_MAX_BYTES": "2000", "RETRY_MAX_MS": "100", "HEARTBEAT_MS": "100"},
}
LONG = "?ttl=3600"
SHORT = "?ttl=4"
"""Long enough for what a test does before it has to be gone."""


async def put(http: aiohttp.ClientSession, url: str, key: str, query: str = "") -> str:
    async with http.put(f"{url}/kv/{key}{query}", data=key) as response:
        assert response.status == 200, await response.text()
        return response.headers.get("Expires", "")


async def get(http: aiohttp.ClientSession, url: str, key: str) -> tuple[int, str]:
    """The status, and when the value expires."""
    async with http.get(f"{url}/kv/{key}") as response:
        return response.status, response.headers.get("Expires", "")


async def fields(cluster: LocalCluster, key: str) -> dict[str, set[bytes]]:
    """By node: the versions that its Redis holds of the key."""
    return {
        node: set((await contents_of(cluster, node, f"kv:{key}")).get(f"kv:{key}", {}))
        - {b"deletes"}
        for node in cluster.names
    }


async def everywhere_gone(http: aiohttp.ClientSession, cluster: LocalCluster, key: str) -> None:
    """Nobody is shown the key, and no Redis holds it; in whatever order that comes."""

    async def is_gone() -> bool:
        shown = [(await get(http, url, key))[0] for url in cluster.urls.values()]
        return set(shown) == {404} and not any((await fields(cluster, key)).values())

    await until(is_gone)
    for node in cluster.names:
        assert not await contents_of(cluster, node, f"kv:{key}")


async def test_a_value_expires_at_all_nodes_at_once(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with LocalCluster(tmp_path, env=QUICK) as cluster:
        a, b, _ = cluster.urls.values()
        expires = await put(http, a, "lunch", SHORT)
        long = await put(http, b, "dinner", LONG)
        await put(http, b, "tea")
        await until_equal_clocks(cluster.urls)
        for url in cluster.urls.values():
            assert await get(http, url, "lunch") in ((200, expires), (404, ""))
            assert await get(http, url, "dinner") == (200, long)
        await everywhere_gone(http, cluster, "lunch")
        for url in cluster.urls.values():
            assert await get(http, url, "dinner") == (200, long)
            assert await get(http, url, "tea") == (200, "")
        await assert_nodes_equal(cluster)


async def test_a_sibling_without_a_ttl_survives(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with LocalCluster(tmp_path, env=QUICK) as cluster:
        a, b, c = cluster.urls.values()
        await cut(http, cluster, "A", "B", "C")
        await put(http, a, "lunch", SHORT)
        await put(http, b, "lunch")
        await heal(http, cluster)
        await until_equal_clocks(cluster.urls)

        async def one_is_left() -> bool:
            held = await fields(cluster, "lunch")
            return all(versions == {b"B:1"} for versions in held.values())

        await until(one_is_left)
        for url in (a, b, c):
            assert await get(http, url, "lunch") == (200, "")
            async with http.get(f"{url}/conflicts") as response:
                assert (await response.json())["keys"] == []


async def test_it_survives_a_restart_and_expires_though_its_node_is_away(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with LocalCluster(tmp_path, env=QUICK) as cluster:
        a, b, c = cluster.urls.values()
        await put(http, a, "lunch", SHORT)
        long = await put(http, a, "dinner", LONG)
        await until_equal_clocks(cluster.urls)
        await cluster.stop("A")

        async def is_gone() -> bool:
            return [(await get(http, url, "lunch"))[0] for url in (b, c)] == [404, 404]

        await until(is_gone)
        await cluster.start("A")
        await everywhere_gone(http, cluster, "lunch")
        for url in (a, b, c):
            assert await get(http, url, "dinner") == (200, long)


async def test_a_snapshot_carries_it(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """C was cut off for longer than the logs go back."""
    async with LocalCluster(tmp_path, env=SHORT_LOGS) as cluster:
        a, _, c = cluster.urls.values()
        await put(http, a, "before", SHORT)
        await until_equal_clocks(cluster.urls)
        await cut(http, cluster, "C", "A", "B")
        long = await put(http, a, "dinner", LONG)
        await put(http, a, "lunch", SHORT)
        for number in range(60):
            await put(http, a, f"tea-{number}")

        async def is_trimmed() -> bool:
            entries: int = (await status(http, a))["log"]["entries"]
            return entries <= 30

        await until(is_trimmed)
        await heal(http, cluster)
        await until_equal_clocks(cluster.urls)
        assert await get(http, c, "dinner") == (200, long)
        await everywhere_gone(http, cluster, "before")
        await everywhere_gone(http, cluster, "lunch")
        assert not unequal({n: await contents_of(cluster, n, "kv:*") for n in cluster.names})


async def test_a_backup_keeps_when_it_expires(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    file = tmp_path / "all.backup"
    async with LocalCluster(tmp_path / "one", nodes=1, env=QUICK) as cluster:
        [a] = cluster.urls.values()
        long = await put(http, a, "dinner", LONG)
        await put(http, a, "lunch", SHORT)
        await put(http, a, "tea")
        await backup(a, file)
        await everywhere_gone(http, cluster, "lunch")
    async with LocalCluster(tmp_path / "two", env=QUICK) as cluster:
        a, _, c = cluster.urls.values()
        await restore(a, file)
        await until_equal_clocks(cluster.urls)
        for url in (a, c):
            assert await get(http, url, "dinner") == (200, long)
            assert await get(http, url, "tea") == (200, "")
        await everywhere_gone(http, cluster, "lunch")


async def test_when_a_lock_expires_just_one_of_many_gets_it_at_a_node(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """Whether its memory is free already or not."""
    async with LocalCluster(tmp_path, nodes=1, env=QUICK) as cluster:
        [a] = cluster.urls.values()
        taken: list[int] = []

        async def take(who: int) -> None:
            url = f"{a}/kv/lock{LONG}"
            headers = {"If-None-Match": "*"}
            async with http.put(url, data=str(who), headers=headers) as response:
                assert response.status in (200, 412)
                if response.status == 200:
                    taken.append(who)

        async def somebody_has_it() -> bool:
            await asyncio.gather(*(take(who) for who in range(8)))
            return bool(taken)

        await put(http, a, "lock", "?ttl=0.5")
        await until(somebody_has_it)
        await asyncio.gather(*(take(who) for who in range(8)))
        assert len(taken) == 1
