"""Backups of real nodes are made under load, and put back into an empty or a living cluster; and
what is said of one whose restore fails is true."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis import Redis as BlockingRedis

from app import backup as app_backup
from app.backup import Backups
from app.backup_file import Reader
from app.board import Board
from app.errors import Busy, Outcome, RedisUnavailable
from app.local_nodes import LocalCluster
from app.snapshot import BACKUP, Kept, Part
from app.snapshot_reading import SnapshotReader
from app.snapshot_receiving import Receiving, SnapshotReceiving
from client import BadInput, Lightcone, NotApplied
from client.backups import Progress, backup, check, restore
from tests.clusters import client_of, cut, heal, put_many, status, values
from tests.conftest import MakeStore, Store, begin_at
from tests.one_node import Client, clock_of, new_node_a, node_a, problem, put
from tests.processes import until, until_equal_clocks
from tests.redis_processes import RedisProcess

pytestmark = pytest.mark.timeout(300)

SMALL_PARTS = {"BATCH_MAX_BYTES": "3000", "WORKERS": "2"}
# As little as a node may take in one batch, beside the values.
SMALL_BATCHES = {
    **{"VALUE_MAX_BYTES": "60000", "TXN_MAX_BYTES": "60000"},
    **{"BATCH_MAX_BYTES": "60000", "REPLICATE_MAX_BYTES": f"{120_000 + 65_536}"},
}


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


async def test_a_backup_of_the_largest_values_can_be_put_back(tmp_path: Path) -> None:
    file = tmp_path / "all.backup"
    async with (
        LocalCluster(tmp_path / "one", nodes=1, env=SMALL_BATCHES) as cluster,
        client_of(cluster) as kv,
    ):
        await put_many(kv, cluster.urls["A"], KEYS[:40], "x" * 60_000)
        await backup(cluster.urls["A"], file)
    async with (
        LocalCluster(tmp_path / "two", nodes=1, env=SMALL_BATCHES) as cluster,
        client_of(cluster) as kv,
    ):
        await restore(cluster.urls["A"], file)
        assert await values(kv, cluster.urls["A"], KEYS[:40]) == ["x" * 60_000] * 40


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


@pytest.mark.parametrize("cut_off", ["both ways", "from here"])
async def test_a_backup_of_another_cluster_is_refused_where_another_member_has_written(
    tmp_path: Path, http: aiohttp.ClientSession, cut_off: str
) -> None:
    """What it has written would be taken for what the backup says of writes of the same dots."""
    file = tmp_path / "all.backup"
    async with LocalCluster(tmp_path / "one", nodes=2) as cluster, client_of(cluster) as kv:
        a, b = cluster.urls.values()
        await put_many(kv, a, ["old"], "theirs")
        await put_many(kv, b, KEYS[:3], "theirs")
        await until_equal_clocks(cluster.urls)
        await backup(a, file)
    async with LocalCluster(tmp_path / "two", nodes=2) as cluster, client_of(cluster) as kv:
        a, b = cluster.urls.values()
        if cut_off == "both ways":
            await cut(http, cluster, "A", "B")
        else:
            async with http.put(f"{b}/faults/A", json={"cut": True}) as response:
                assert response.status == 200
        await put_many(kv, b, ["order"], "paid")
        says = (
            "B may have, which does not answer" if cut_off == "both ways" else "whose writes B has"
        )
        with pytest.raises(NotApplied, match=says):
            await restore(a, file)
        assert (await status(http, a))["clock"] == {}
        await heal(http, cluster)
        assert await until_equal_clocks(cluster.urls) == {"B": 1}
        for url in (a, b):
            assert await values(kv, url, ["order", "old", *KEYS[:3]]) == ["paid", *[None] * 4]
        assert (await status(http, b))["actor"] == "B"


# --- who does not read ----------------------------------------------------------------------------


async def test_a_backup_that_nobody_reads_is_broken_off_and_another_can_be_made(
    redis_url: str,
) -> None:
    async with node_a(redis_url, backup_stall_ms=300) as a:
        for n in range(16):  # more than a connection holds
            await put(a, f"x{n}", os.urandom(1_000_000))
        reader, writer = await asyncio.open_connection(a.host, a.port, limit=2**10)
        writer.write(b"GET /backup HTTP/1.1\r\nHost: a\r\n\r\n")
        received = bytearray(await reader.readuntil(b"lightcone-backup "))
        made = b""

        async def can_be_made() -> bool:
            nonlocal made
            async with a.get("/backup") as response:
                made = await response.read()
                return response.status == 200

        await until(can_be_made)
        backup_reader = Reader(2**24)
        backup_reader.feed(made)
        assert backup_reader.is_whole
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(2**20):
                received += chunk
        writer.close()
        assert len(received) < len(made), "the first one has no end"


# --- one at a time --------------------------------------------------------------------------------


def backups_of(store: Store, worker: str) -> Backups:
    def reader() -> SnapshotReader:
        return SnapshotReader(store.redis, store.keys, store.store, 300)

    board = Board(store.redis, store.keys, store.scripts, worker)
    nobody: Any = None  # who is asked only where one is put back
    return Backups(
        *("A", store.redis, store.keys, board, nobody, nobody, nobody, reader),
        *(store.store.clock, lambda: store.time_us[0], 2**20),
    )


async def test_of_two_backups_at_the_same_time_one_is_made(make_store: MakeStore) -> None:
    backups = backups_of(await make_store("A"), "a worker")
    streams = backups.stream(), backups.stream()
    first, second = await asyncio.gather(*map(anext, streams), return_exceptions=True)
    assert isinstance(first, bytes) and isinstance(second, Busy)
    assert [data async for data in streams[0]]


async def test_a_backup_whose_place_another_worker_has_taken_is_broken_off(
    make_store: MakeStore,
) -> None:
    """Its client was too slow for the lease, and the log is kept for one backup."""
    a = await make_store("A")
    await a.say(*(b"x" * 100 for _ in range(9)))
    slow, other = backups_of(a, "slow").stream(), backups_of(a, "other").stream()
    await anext(slow)
    await a.redis.delete(a.keys.lease(BACKUP))
    await anext(other)
    await anext(other)
    with pytest.raises(Busy):
        await anext(slow)
    board = Board(a.redis, a.keys, a.scripts, "a third")
    assert await board.sending(BACKUP) is not None
    assert not await board.hold_lease(BACKUP, 60_000)
    assert [data async for data in other]
    assert await board.sending(BACKUP) is None
    assert await board.hold_lease(BACKUP, 60_000)


# --- what fails late ------------------------------------------------------------------------------

Take = Callable[[Part], Awaitable[Kept]]


@pytest.fixture
async def whole(redis_url: str) -> bytes:
    """A backup of a node that has written x."""
    async with node_a(redis_url) as a:
        await put(a, "x", "from the backup")
        async with a.get("/backup") as response:
            return await response.read()


@pytest.fixture
def empty_url(redis_url: str) -> str:
    """Another database of the same redis-server."""
    return redis_url.replace("db=3", "db=4")


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[RedisProcess]:
    process = RedisProcess(tmp_path / "redis")
    process.start()
    yield process
    process.kill()


@pytest.fixture
def last_part(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Take, Part], Any]], None]:
    """From now on the last part of a backup is taken so."""
    take = SnapshotReceiving.take

    def instead(taken: Callable[[Take, Part], Any]) -> None:
        async def other(self: SnapshotReceiving, source: str, part: Part) -> Kept:
            if part.cut is None:
                return await take(self, source, part)
            kept: Kept = await taken(lambda part: take(self, source, part), part)
            return kept

        monkeypatch.setattr(SnapshotReceiving, "take", other)

    return instead


LastPart = Callable[[Callable[[Take, Part], Any]], None]


async def restored(a: Client, data: bytes | AsyncIterator[bytes]) -> aiohttp.ClientResponse:
    async with asyncio.timeout(60):
        return await a.post("/restore", data=data)


async def assert_nothing_was_changed(a: Client, url: str) -> None:
    """Nor will be: no merge was begun."""
    with BlockingRedis.from_url(url) as redis:
        assert not redis.hexists("meta", "merging")
        assert not redis.exists("snapshot")
    assert await clock_of(a) == {}
    assert (await a.get("/kv/x")).status == 404


async def test_a_write_just_before_the_last_part_shows_that_the_backup_is_of_another_cluster(
    empty_url: str, whole: bytes, last_part: LastPart
) -> None:
    """They have the same dot."""
    await begin_at(empty_url, "A")
    with BlockingRedis.from_url(empty_url) as redis:
        redis.hset("meta", "birth", "of another cluster")
    written: list[str] = []
    async with new_node_a(empty_url) as a:

        async def taken(take: Take, part: Part) -> Kept:
            if not written:
                written.append(await put(a, "y", "written here"))
            return await take(part)

        last_part(taken)
        said = await problem(await restored(a, whole), 409, "foreign-backup")
        assert "its node A is not the A of this one, whose writes are here" in said["detail"]
        assert (written, await clock_of(a)) == (["lc1;A:1"], {"A": 1})
        assert await (await a.get("/kv/y")).text() == "written here"
        assert (await a.get("/kv/x")).status == 404


@pytest.mark.parametrize("more", ["a newline", "a backup"])
async def test_what_comes_long_after_the_end_of_a_backup_keeps_it_out(
    empty_url: str, whole: bytes, more: str
) -> None:
    async with node_a(empty_url) as a:

        async def is_taken() -> bool:
            said = await (await a.get("/status")).json()
            return bool(said["snapshot"] or said["clock"])

        async def body() -> AsyncIterator[bytes]:
            yield whole
            await until(is_taken)
            yield b"\n" if more == "a newline" else whole

        said = await problem(await restored(a, body()), 400, "bad-backup")
        assert "goes on after its end" in said["detail"]
        await assert_nothing_was_changed(a, empty_url)


async def test_a_backup_is_in_though_the_answer_to_its_last_part_was_lost(
    empty_url: str, whole: bytes, last_part: LastPart
) -> None:
    """And it was merged, and so forgotten, before Redis was asked again."""
    lost: list[Part] = []
    async with node_a(empty_url) as a:

        async def is_merged() -> bool:
            return await clock_of(a) == {"A": 1}

        async def taken(take: Take, part: Part) -> Kept:
            kept = await take(part)
            if kept == Kept(part.snapshot, part.name) and not lost:
                lost.append(part)
                await until(is_merged)
                raise RedisUnavailable("it did not answer in time", outcome="unknown")
            return kept

        last_part(taken)
        response = await restored(a, whole)
        assert (response.status, await response.json()) == (200, {"keys": 1, "cut": {"A": 1}})
        assert await (await a.get("/kv/x")).text() == "from the backup"
        assert lost


async def test_a_backup_of_what_a_node_has_is_answered_when_it_is_merged_as_well(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cut is covered before; until then the node would refuse who comes after the answer."""
    early: list[bool] = []
    asked: list[bool] = []
    merge, state = SnapshotReceiving._merge, SnapshotReceiving.state
    async with node_a(empty_url) as a:
        await put(a, "x", "1")
        backup = await (await a.get("/backup")).read()

        async def noted(self: SnapshotReceiving) -> Receiving | None:
            asked.append(True)
            return await state(self)

        async def late(self: SnapshotReceiving, snapshot: str) -> None:
            asked.clear()

            async def is_waited_for_or_answered() -> bool:
                return bool(asked) or restoring.done()

            await until(is_waited_for_or_answered)
            early.append(restoring.done())
            await merge(self, snapshot)

        monkeypatch.setattr(SnapshotReceiving, "state", noted)
        monkeypatch.setattr(SnapshotReceiving, "_merge", late)
        restoring = asyncio.create_task(restored(a, backup))
        response = await restoring
        assert (response.status, early) == (200, [False])
        assert (await (await a.get("/status")).json())["snapshot"] is None
        assert (await a.get("/kv/x")).status == 200


async def test_that_a_merge_is_broken_off_does_not_mean_that_nothing_was_changed(
    redis_process: RedisProcess, empty_url: str, whole: bytes, last_part: LastPart
) -> None:
    async with node_a(redis_process.url) as a:

        async def taken(take: Take, part: Part) -> Kept:
            kept = await take(part)
            if kept == Kept(part.snapshot, part.name):
                redis_process.kill()
            return kept

        last_part(taken)
        await problem(await restored(a, whole), 503, "redis-unavailable", "unknown")
        redis_process.start()

        async def is_in() -> bool:
            response = await a.get("/kv/x")
            return response.status == 200 and await response.text() == "from the backup"

        await until(is_in)


async def test_a_redis_that_forgets_the_last_part_is_not_waited_for(
    empty_url: str, whole: bytes, last_part: LastPart
) -> None:
    async with node_a(empty_url) as a:

        async def taken(_take: Take, part: Part) -> Kept:
            return Kept(part.snapshot, part.name)

        last_part(taken)
        said = await problem(await restored(a, whole), 503, "redis-unavailable", "unknown")
        assert "no longer holds" in said["detail"] and "put it back again" in said["detail"]


@pytest.mark.parametrize("outcome", ["not_applied", "unknown"])
async def test_if_redis_never_takes_the_last_part_it_is_said_whether_it_may_have(
    empty_url: str,
    whole: bytes,
    last_part: LastPart,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Outcome,
) -> None:
    """Only the first time it may: what is known of the last time does not make up for that."""
    monkeypatch.setattr(app_backup, "_ASK_AGAIN_S", 0)
    outcomes = [outcome]
    async with node_a(empty_url) as a:

        async def taken(_take: Take, _part: Part) -> Kept:
            raise RedisUnavailable("no", outcome=outcomes.pop() if outcomes else "not_applied")

        last_part(taken)
        await problem(await restored(a, whole), 503, "redis-unavailable", outcome)
        await assert_nothing_was_changed(a, empty_url)


@pytest.mark.parametrize("answer_was_lost", [False, True])
async def test_a_backup_whose_place_another_snapshot_has_taken_is_not_in(
    empty_url: str, whole: bytes, last_part: LastPart, answer_was_lost: bool
) -> None:
    """If an answer was lost, this is how it looks, too, when it was merged first."""
    lost = [] if answer_was_lost else [True]
    async with node_a(empty_url) as a:

        async def taken(take: Take, part: Part) -> Kept:
            with BlockingRedis.from_url(empty_url) as redis:
                redis.hset("snapshot", "id", "another")
            if not lost:
                lost.append(True)
                raise RedisUnavailable("it did not answer in time", outcome="unknown")
            return await take(part)

        last_part(taken)
        response = await restored(a, whole)
        if answer_was_lost:
            await problem(response, 503, "redis-unavailable", "unknown")
        else:
            await problem(response, 409, "busy")
        assert await clock_of(a) == {}
