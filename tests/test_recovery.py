"""Nodes that lost what they had acknowledged: wiped, put back from a copy, or cut short.

What is told of them is what clients and `redis-cli` see of real processes (G4, G8).
"""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.local_nodes import LocalCluster
from app.write import Put
from client import Lightcone, Lost, NotCaughtUp, Session
from tests.clusters import assert_nodes_equal, client_of, cut, heal, heal_links_to, put, status
from tests.contents import covers, redis_contents, writes_of
from tests.processes import WHOLE_LOGS, until, until_equal_clocks

pytestmark = pytest.mark.timeout(300)


async def assert_whole(
    http: aiohttp.ClientSession, cluster: LocalCluster, acknowledged: dict[str, tuple[str, str]]
) -> None:
    """The nodes end equal, and under each acknowledged dot all have the write that has it."""
    clock = await until_equal_clocks(cluster.urls)
    assert all(covers(clock, dot) for dot in acknowledged)
    await assert_nodes_equal(cluster)
    logs = await redis_contents(cluster.data_dir / "A" / "redis.sock", "log:*")
    written = {write.dot: write.operations for write in writes_of(logs)}
    for dot, (key, value) in acknowledged.items():
        [operation] = written[dot]
        assert isinstance(operation, Put), f"{dot} names two writes"
        assert (operation.key, operation.value) == (key, value.encode()), f"{dot} names two writes"


async def test_a_wiped_node_goes_on_under_another_name_and_its_writes_come_home(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with (
        LocalCluster(tmp_path, env=WHOLE_LOGS) as cluster,
        client_of(cluster) as kv,
    ):
        a, b, c = cluster.urls.values()
        acknowledged = {
            await put(kv, a, f"own-{n}", f"{n}"): (f"own-{n}", f"{n}") for n in range(20)
        }
        await put(kv, a, "ghost", "boo")
        await kv.session().at(a).delete("ghost")
        await until_equal_clocks(cluster.urls)
        # C is cut off, and cannot say what it knows of A.
        await cut(http, cluster, "C", "A", "B")
        await cluster.kill("A")
        shutil.rmtree(cluster.data_dir / "A")
        await cluster.start("A")
        after = await put(kv, a, "after", "here again")
        acknowledged[after] = ("after", "here again")
        actor, _, number = after.rpartition(":")
        assert actor.startswith("A~") and number == "1"
        told = await status(http, a)
        assert told["actor"] == actor and "written before" in told["incarnation"]["reason"]
        acknowledged[await put(kv, c, "cut-off", "c")] = ("cut-off", "c")
        await heal(http, cluster)
        await assert_whole(http, cluster, acknowledged)
        for url in (a, b, c):
            assert await kv.session().at(url).get("ghost") is None
        assert (await put(kv, a, "later", "x")).startswith(f"{actor}:"), "it stays what it is"


async def test_a_node_put_back_from_an_old_copy_gives_no_name_again(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with (
        LocalCluster(tmp_path / "data") as cluster,
        client_of(cluster) as kv,
    ):
        a = cluster.urls["A"]
        acknowledged: dict[str, tuple[str, str]] = {}
        for n in range(10):
            acknowledged[await put(kv, a, f"own-{n}", f"{n}")] = (f"own-{n}", f"{n}")
        await put(kv, a, "ghost", "boo")
        await cluster.kill("A")
        shutil.copytree(cluster.data_dir / "A", tmp_path / "copy", ignore=_no_sockets)
        await cluster.start("A")
        for n in range(10, 20):
            acknowledged[await put(kv, a, f"own-{n}", f"{n}")] = (f"own-{n}", f"{n}")
        await kv.session().at(a).delete("ghost")
        await until_equal_clocks(cluster.urls)
        await cluster.kill("A")
        shutil.rmtree(cluster.data_dir / "A")
        shutil.copytree(tmp_path / "copy", cluster.data_dir / "A")
        await cluster.start("A")
        for n in range(20, 30):
            acknowledged[await put(kv, a, f"own-{n}", f"{n}")] = (f"own-{n}", f"{n}")
        assert "lost writes" in (await status(http, a))["incarnation"]["reason"]
        await assert_whole(http, cluster, acknowledged)
        for url in cluster.urls.values():
            assert await kv.session().at(url).get("ghost") is None


async def test_a_node_that_is_only_started_again_stays_who_it_is(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with (
        LocalCluster(tmp_path, env=WHOLE_LOGS) as cluster,
        Lightcone(list(cluster.urls.values()), timeout_s=30) as kv,
    ):
        a = cluster.urls["A"]
        assert await put(kv, a, "x", "1") == "A:1"
        await cluster.kill("A")
        await cluster.start("A")
        assert await put(kv, a, "x", "2") == "A:2"
        await cluster.stop("A")
        await cluster.start("A")
        assert await put(kv, a, "x", "3") == "A:3"
        redis = cluster.redis_pid("A")
        assert redis is not None
        os.kill(redis, signal.SIGKILL)
        await until(lambda: cluster.redis_pid("A") not in (None, redis))
        assert await put(kv, a, "x", "4") == "A:4"
        assert (await status(http, a))["incarnation"] is None


async def test_a_redis_that_syncs_once_a_second_and_was_killed_is_not_trusted(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with (
        LocalCluster(tmp_path, env={"FSYNC": "everysec", "WORKERS": "2"}) as cluster,
        Lightcone(list(cluster.urls.values()), timeout_s=30) as kv,
    ):
        a = cluster.urls["A"]
        acknowledged = {await put(kv, a, "x", "1"): ("x", "1")}
        assert list(acknowledged) == ["A:1"]
        redis = cluster.redis_pid("A")
        assert redis is not None
        os.kill(redis, signal.SIGKILL)
        await until(lambda: cluster.redis_pid("A") not in (None, redis))
        for n in range(10):  # by whichever worker
            acknowledged[await put(kv, a, "x", f"{n}")] = ("x", f"{n}")
        second = (await status(http, a))["actor"]
        await cluster.stop("A")
        await cluster.start("A")
        acknowledged[await put(kv, a, "x", "last")] = ("x", "last")
        assert {dot.rpartition(":")[0] for dot in acknowledged} == {
            "A",
            second,
            (await status(http, a))["actor"],
        }
        assert len(acknowledged) == 12
        await assert_whole(http, cluster, acknowledged)


async def told_what_is_lost(session: Session, key: str) -> Lost:
    """What the session is told, as soon as its node knows that nobody has what it has seen."""
    for _ in range(1000):
        try:
            await session.get(key, patience_s=0.05)
        except Lost as error:
            return error
        except NotCaughtUp:
            continue
        break
    raise AssertionError("nothing is lost")


async def test_who_has_seen_what_was_lost_with_a_disk_is_told_so_and_goes_on(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with (
        LocalCluster(tmp_path, env=WHOLE_LOGS) as cluster,
        client_of(cluster) as kv,
    ):
        a, b, _ = cluster.urls.values()
        session = kv.session(timeout_s=3)
        await session.at(a).put("x", "kept")
        await until_equal_clocks(cluster.urls)
        await cut(http, cluster, "A", "B", "C")
        for n in range(3):
            await session.at(a).put("x", f"lost {n}")
        await cluster.kill("A")
        shutil.rmtree(cluster.data_dir / "A")
        # As long as A is away, it may have it.
        with pytest.raises(NotCaughtUp):
            await session.at(b).get("x", patience_s=0)
        await heal_links_to(http, cluster, "A", "B", "C")
        await cluster.start("A")
        # As long as it has written nothing under its new name, others do not know of that.
        with pytest.raises(NotCaughtUp):
            await session.at(b).get("x", patience_s=0)
        acknowledged = {await put(kv, a, "y", "again"): ("y", "again"), "A:1": ("x", "kept")}
        await heal(http, cluster)
        told = [await told_what_is_lost(session.at(url), "x") for url in cluster.urls.values()]
        for lost in told:
            assert [(one.actor, one.after, one.through) for one in lost.writes] == [("A", 1, 4)]
        session.go_on(told[0])
        for url in cluster.urls.values():
            kept = await session.at(url).get("x")
            assert kept is not None
            assert kept.text == "kept"
        acknowledged[(await session.at(b).put("x", "anew")).dot] = ("x", "anew")
        await assert_whole(http, cluster, acknowledged)


async def test_a_write_that_waits_for_what_was_lost_with_two_disks_is_delivered_when_told(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with (
        LocalCluster(tmp_path, env=WHOLE_LOGS) as cluster,
        client_of(cluster) as kv,
    ):
        a, b, c = cluster.urls.values()
        await put(kv, a, "x", "kept")
        await until_equal_clocks(cluster.urls)
        await cut(http, cluster, "A", "C")
        async with http.put(f"{b}/faults/C", json={"no_relay": True}) as response:
            assert response.status == 200
        session = kv.session()
        await session.at(a).put("x", "lost")
        await session.at(b).get("x")
        assert (await session.at(b).put("y", "waits")).dot == "B:1"

        async def pending() -> Any:
            async with http.get(f"{c}/pending") as response:
                return (await response.json())["writes"]

        while not (waiting := await pending()):
            await asyncio.sleep(0.05)
        assert [(one["dot"], one["waiting_for"]) for one in waiting] == [("B:1", ["A:2"])]
        for name in "AB":
            await cluster.kill(name)
        for name in "AB":
            shutil.rmtree(cluster.data_dir / name)

        async def declare() -> int:
            async with http.post(f"{c}/lost", json={"dots": ["A:2"]}) as response:
                return response.status

        assert await declare() == 409, "as long as one is away"
        await heal_links_to(http, cluster, "A", "C")
        for name in "AB":
            await cluster.start(name)
        await heal(http, cluster)
        acknowledged = {
            await put(kv, a, "z", "again"): ("z", "again"),
            await put(kv, b, "z", "too"): ("z", "too"),
            "A:1": ("x", "kept"),
            "B:1": ("y", "waits"),
        }
        assert len(await pending()) == 1
        while await declare() != 200:
            await asyncio.sleep(0.1)
        await assert_whole(http, cluster, acknowledged)
        for url in (a, b, c):
            assert await pending() == []
            read = await session.at(url).get("x")
            assert read is not None
            assert read.text == "kept"
        await cluster.kill("C")
        await cluster.start("C")  # its logs are whole
        assert (await put(kv, c, "z", "last")).startswith("C:")


def _no_sockets(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(directory) / name).is_socket()]
