"""Backups of real nodes are made under load, and put back into an empty or a living cluster."""

import asyncio
import os
from pathlib import Path

import aiohttp
import pytest

from app.local_nodes import LocalCluster
from client import BadInput, Lightcone, NotApplied
from client.backups import Progress, backup, check, restore
from tests.clusters import client_of, put_many, status, values
from tests.processes import until_equal_clocks

pytestmark = pytest.mark.timeout(300)

SMALL_PARTS = {"BATCH_MAX_BYTES": "3000", "WORKERS": "2"}


KEYS = [f"key-{n}" for n in range(150)]


async def test_a_backup_goes_into_an_empty_cluster(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    file = tmp_path / "all.backup"
    async with (
        LocalCluster(tmp_path / "one", env=SMALL_PARTS) as cluster,
        client_of(cluster) as kv,
    ):
        a, b, _ = cluster.urls.values()
        await put_many(kv, a, KEYS, "first")
        await put_many(kv, b, KEYS[:50], "second")
        for key in KEYS[140:]:
            await kv.session().at(a).delete(key)
        await until_equal_clocks(cluster.urls)
        told: list[Progress] = []
        made = await backup(a, file, told.append)
        assert made.keys >= 140 and len(told) > 1
        assert check(file) == made
    async with (
        LocalCluster(tmp_path / "two", env=SMALL_PARTS) as cluster,
        client_of(cluster) as kv,
    ):
        a, b, _ = cluster.urls.values()
        restored = await restore(a, file)
        assert restored.cut == (await status(http, a))["clock"]
        # The names that A had given are not given again.
        assert (await status(http, a))["actor"].startswith("A~")
        await put_many(kv, b, ["after"], "x")
        await until_equal_clocks(cluster.urls)
        expected = ["second"] * 50 + ["first"] * 90 + [None] * 10
        for url in cluster.urls.values():
            assert await values(kv, url, KEYS) == expected
        # Once more changes nothing.
        await restore(a, file)
        assert await values(kv, a, KEYS) == expected


async def test_a_backup_made_while_clients_write_is_one_state(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """Two keys are written in turn: a backup never has the second write without the first."""
    file = tmp_path / "all.backup"
    async with (
        LocalCluster(tmp_path / "one", nodes=1, env=SMALL_PARTS) as cluster,
        Lightcone(list(cluster.urls.values()), timeout_s=30) as kv,
    ):
        [a] = cluster.urls.values()
        await put_many(kv, a, KEYS, "x")
        stop = asyncio.Event()

        async def write() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                await put_many(kv, a, [f"cause-{n % 7}"], f"{n}")
                await put_many(kv, a, [f"effect-{n % 5}"], f"{n}")

        writing = asyncio.create_task(write())
        for _ in range(3):
            await backup(a, file)
        stop.set()
        await writing
    async with (
        LocalCluster(tmp_path / "two", nodes=1, env=SMALL_PARTS) as cluster,
        Lightcone(list(cluster.urls.values()), timeout_s=30) as kv,
    ):
        [a] = cluster.urls.values()
        await restore(a, file)
        causes = await values(kv, a, [f"cause-{n}" for n in range(7)])
        effects = await values(kv, a, [f"effect-{n}" for n in range(5)])
        newest_cause = max(int(text) for text in causes if text)
        newest_effect = max(int(text) for text in effects if text)
        assert newest_effect in (newest_cause, newest_cause - 1)
        # All that came before is there as well, not only the newest.
        assert {int(text) for text in causes if text} == set(
            range(newest_cause - 6, newest_cause + 1)
        )


async def test_in_a_living_cluster_nothing_returns_that_was_deleted_since(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    file = tmp_path / "all.backup"
    async with (
        LocalCluster(tmp_path / "one", env=SMALL_PARTS) as cluster,
        client_of(cluster) as kv,
    ):
        a, b, c = cluster.urls.values()
        await put_many(kv, a, KEYS, "old")
        await until_equal_clocks(cluster.urls)
        await backup(b, file)
        for key in KEYS[:40]:
            await kv.session().at(c).delete(key)
        await put_many(kv, c, KEYS[40:80], "new")
        await until_equal_clocks(cluster.urls)
        before = (await status(http, a))["clock"]
        await restore(a, file)
        await until_equal_clocks(cluster.urls)
        assert (await status(http, a))["clock"] == before, "all of it was known"
        for url in (a, b, c):
            expected = [None] * 40 + ["new"] * 40 + ["old"] * 70
            assert await values(kv, url, KEYS) == expected


async def test_what_is_no_whole_backup_changes_nothing(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    file, damaged = tmp_path / "all.backup", tmp_path / "damaged"
    async with (
        LocalCluster(tmp_path / "one", nodes=1, env=SMALL_PARTS) as cluster,
        Lightcone(list(cluster.urls.values()), timeout_s=30) as kv,
    ):
        [a] = cluster.urls.values()
        await put_many(kv, a, KEYS, "x")
        await backup(a, file)
        data = file.read_bytes()
        for name, wrong in {
            "cut short": data[:-40],
            "altered": data[:2000] + bytes([data[2000] ^ 1]) + data[2001:],
            "no backup": b"hello",
        }.items():
            damaged.write_bytes(wrong)
            with pytest.raises(BadInput):
                await restore(a, damaged)
            async with http.post(f"{a}/restore", data=wrong) as answer:
                problem = await answer.json()
            assert answer.status == 400, name
            assert problem["outcome"] == "not_applied"
            assert (await status(http, a))["snapshot"] is None
        assert (await status(http, a))["clock"] == {"A": len(KEYS)}
        file_before = file.read_bytes()
        with pytest.raises(NotApplied):
            await backup("http://127.0.0.1:9", file)
        assert file.read_bytes() == file_before
        assert not [name for name in os.listdir(tmp_path) if name.startswith(f".{file.name}")]


async def test_a_backup_of_another_cluster_is_refused(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """Its dots name other writes than those that are here."""
    file = tmp_path / "all.backup"
    async with (
        LocalCluster(tmp_path / "one", nodes=1) as cluster,
        Lightcone(list(cluster.urls.values())) as kv,
    ):
        await put_many(kv, cluster.urls["A"], KEYS[:9], "theirs")
        await backup(cluster.urls["A"], file)
    async with (
        LocalCluster(tmp_path / "two", nodes=1) as cluster,
        Lightcone(list(cluster.urls.values())) as kv,
    ):
        a = cluster.urls["A"]
        await put_many(kv, a, KEYS[:5], "ours")
        with pytest.raises(NotApplied, match="another cluster"):
            await restore(a, file)
        assert await values(kv, a, KEYS[:9]) == ["ours"] * 5 + [None] * 4
        assert (await status(http, a))["actor"] == "A"
