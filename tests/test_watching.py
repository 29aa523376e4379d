"""What a watcher is told by one node: its real parts as in production, its peers are this test."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis import Redis as BlockingRedis

from app import metrics, wire
from app.config import Config
from app.errors import RedisUnavailable
from app.members import Members
from app.node import World, worker
from app.snapshot import Cut, KeyState, Part, Sending
from app.snapshot_reading import SnapshotReader
from app.vector_clock import Dot, VectorClock
from app.watching import Cut as ToldCut
from app.watching import Watching
from app.wire import Batch
from app.write import Delete, Operation, Put, Version, Write
from tests.conftest import MakeStore, Store, begin_at
from tests.events import Event, dots, watching
from tests.one_node import PEERS, Client, asking, contents, nobody, node_a
from tests.processes import until

SECRET = "a secret of this cluster"


@pytest.fixture
def redis(redis_socket: Path) -> Any:
    with BlockingRedis(unix_socket_path=str(redis_socket), db=5) as redis:
        redis.flushdb()
        yield redis


@pytest.fixture
def redis_url(redis_socket: Path, redis: Any) -> str:
    return f"unix://{redis_socket}?db=5"


@pytest.fixture
async def a(redis_url: str) -> AsyncIterator[Client]:
    async with node_a(redis_url) as client:
        yield client


def write_of(actor: str, number: int, past: str, *operations: Operation) -> Write:
    dependencies = VectorClock.parse(past).merge(VectorClock({actor: number - 1}))
    return Write(Dot(actor, number), dependencies, number, operations or (Put("x", b"1"),))


async def receive(client: Client, *writes: Write, part: Part | None = None) -> None:
    batch = wire.encode_batch(Batch("B", "A", VectorClock(), writes, part=part))
    assert (await client.post("/replicate", data=batch)).status == 200


async def put(client: Client, key: str, value: str = "1") -> str:
    response = await client.put(f"/kv/{key}", data=value)
    assert response.status == 200
    return str((await response.json())["dot"])


async def refused(
    client: Client, query: str = "", **headers: str
) -> tuple[int, str, dict[str, Any]]:
    """Status, problem and body of a watch that is refused."""
    response = await client.get(f"/watch{query}", headers=headers)
    body = await response.json(content_type="application/problem+json")
    return response.status, str(body["type"]).removeprefix("urn:lightcone:"), body


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


# --- writes ---------------------------------------------------------------------------------------


async def test_a_write_is_told_with_all_that_it_does(a: Client) -> None:
    async with watching(a, "/watch?since=now") as stream:
        assert await stream.next() == Event("cut", {"clock": {}}, "lc1;")
        ops = [{"put": "x", "value": "é"}, {"put": "y", "base64": "/w=="}, {"delete": "z"}]
        assert (await a.post("/txn", json={"ops": ops})).status == 200
        told = await stream.next()
        assert (told.kind, told.id) == ("write", "lc1;A:1")
        timestamp = told.data.pop("timestamp")
        assert isinstance(timestamp, int) and timestamp > 10**15
        text = "text/plain; charset=utf-8"
        assert told.data == {
            "dot": "A:1",
            "node": "A",
            "dependencies": {},
            "operations": [
                {"put": "x", "content_type": text, "text": "é"},
                {"put": "y", "content_type": "application/octet-stream", "base64": "/w=="},
                {"delete": "z"},
            ],
        }


async def test_writes_of_others_are_told_once_all_that_they_depend_on_is(a: Client) -> None:
    async with watching(a, "/watch?since=now") as stream:
        await stream.next()
        await receive(a, write_of("B", 1, "A:1"), write_of("C", 1, "B:1"))
        await put(a, "lunch")
        told = await stream.take(3)
        assert dots(told) == ["A:1", "B:1", "C:1"]
        assert [one.id for one in told] == ["lc1;A:1", "lc1;A:1;B:1", "lc1;A:1;B:1;C:1"]
        assert told[1].data["dependencies"] == {"A": 1}


async def test_an_id_is_a_read_token_and_a_place_to_go_on_from(redis_url: str) -> None:
    async with node_a(redis_url, cluster_secret=SECRET) as a:
        async with watching(a, "/watch?since=now") as stream:
            await stream.next()
            for number in range(5):
                await put(a, f"key-{number}")
            told = await stream.take(5)
        assert dots(told) == ["A:1", "A:2", "A:3", "A:4", "A:5"]
        read = await a.get("/kv/key-1", headers={"Causal-Context": told[1].id})
        assert read.status == 200
        async with watching(a, "/watch?since=now", told[2].id) as stream:
            cut, *rest = await stream.take(3)
            assert (cut.kind, cut.id) == ("cut", told[2].id)
            assert dots(rest) == ["A:4", "A:5"]
        async with watching(a, f"/watch?since={quote(told[3].id)}") as stream:
            assert dots(await stream.take(2)) == ["A:5"]
        altered = told[3].id.replace("A:4", "A:3")
        assert (await refused(a, **{"Last-Event-ID": altered}))[:2] == (400, "bad-context")


async def test_only_what_begins_with_the_prefix_is_told(redis: Any, a: Client) -> None:
    query = f"/watch?since=now&prefix={quote('user/*é')}"
    async with watching(a, query) as stream:
        await stream.next()
        await put(a, "other")
        ops = [{"put": "user/*é/1", "value": "1"}, {"put": "user/2", "value": "1"}]
        assert (await a.post("/txn", json={"ops": ops})).status == 200
        told = await stream.next()
        assert told.data["dot"] == "A:2"
        assert [one["put"] for one in told.data["operations"]] == ["user/*é/1"]


async def test_who_is_told_nothing_hears_that_and_how_far_it_is(redis_url: str) -> None:
    async with (
        node_a(redis_url, watch_keepalive_ms=100) as a,
        watching(a, "/watch?since=now&prefix=mine/") as stream,
    ):
        await stream.next()
        await put(a, "other")
        await stream.until_comment()
        while stream.id != "lc1;A:1":
            await stream.until_comment()
        async with watching(a, "/watch?prefix=mine/", stream.id) as again:
            assert (await again.next()).id == "lc1;A:1"


async def test_keys_of_the_system_are_not_told(redis: Any, redis_url: str) -> None:
    async with node_a(redis_url) as a, watching(a, "/watch") as stream:
        assert kinds(await stream.take(2)) == ["begin", "cut"]
        answer = await a.post("/members", json={"id": "D", "url": "http://127.0.0.1:9"})
        assert answer.status == 201
        dot = await put(a, "x")
        assert dots(await stream.take(1)) == [dot]
        async with watching(a, "/watch") as other:
            told = await other.until("cut")
            assert [one.data["key"] for one in told if one.kind == "state"] == ["x"]


# --- the state first ------------------------------------------------------------------------------


async def test_the_state_comes_first_and_then_what_changes(a: Client) -> None:
    for number in range(3):
        await put(a, f"key-{number}", str(number))
    await receive(a, write_of("B", 1, "", Put("key-1", b"\xff", "image/x")))
    await a.delete("/kv/key-2")
    async with watching(a, "/watch") as stream:
        told = await stream.until("cut")
        assert kinds(told) == ["begin", "state", "state", "cut"]
        states = {one.data["key"]: one.data for one in told[1:-1]}
        assert [v["text"] for v in states["key-0"]["siblings"]] == ["0"]
        read = await a.get("/kv/key-1?siblings=true")
        assert states["key-1"] == {**await read.json(), "etag": read.headers["ETag"]}
        assert (told[-1].id, told[-1].data) == ("lc1;A:4;B:1", {"clock": {"A": 4, "B": 1}})
        assert [one.id for one in told[:-1]] == ["", "", ""], "there is no place to go on from yet"
        await put(a, "key-0", "new")
        assert dots(await stream.take(1)) == ["A:5"]


async def test_the_state_of_a_prefix_is_that_of_its_keys(a: Client) -> None:
    for key in ("a", "b/1", "b/2", "b%2A", "c"):
        await put(a, key)
    async with watching(a, "/watch?prefix=b/") as stream:
        told = await stream.until("cut")
        assert sorted(one.data["key"] for one in told[1:-1]) == ["b/1", "b/2"]
    async with watching(a, f"/watch?prefix={quote('b*')}") as stream:
        assert [one.data["key"] for one in (await stream.until("cut"))[1:-1]] == ["b*"]


async def test_a_state_that_is_told_while_it_changes_is_one_at_its_cut(redis_url: str) -> None:
    """Two keys are always written together. Whoever takes the last state of each has both alike;
    whoever then follows the writes ends with what is there."""
    async with node_a(redis_url, batch_max_bytes=2000) as a:
        for number in range(200):
            await put(a, f"filler-{number}", "x" * 100)
        over = asyncio.Event()

        async def keep_writing() -> None:
            number = 0
            while not over.is_set():
                ops: list[dict[str, str]] = [
                    {"put": f"{side}-{number % 7}", "value": str(number)}
                    for side in ("left", "right")
                ]
                if number % 5 == 0:
                    ops = [{"delete": op["put"]} for op in ops]
                assert (await a.post("/txn", json={"ops": ops})).status == 200
                number += 1

        writing = asyncio.create_task(keep_writing())
        held: dict[str, str] = {}
        try:
            await until(lambda: writing.done() or True)
            async with watching(a, "/watch") as stream:
                for event in await stream.until("cut"):
                    if event.kind == "state":
                        values = [version["text"] for version in event.data["siblings"]]
                        held[event.data["key"]] = ",".join(values)
                at_cut = {key: value for key, value in held.items() if value}
                for number in range(7):
                    assert at_cut.get(f"left-{number}") == at_cut.get(f"right-{number}")
                assert len(at_cut) > 200
                for event in await stream.take(30):
                    for op in event.data["operations"]:
                        key = op.get("put") or op["delete"]
                        held[key] = op.get("text", "")
                over.set()
                await writing
                last = await put(a, "last")
                while True:
                    event = await stream.next()
                    for op in event.data["operations"]:
                        held[op.get("put") or op["delete"]] = op.get("text", "")
                    if event.data["dot"] == last:
                        break
        finally:
            over.set()
            await asyncio.gather(writing, return_exceptions=True)
        for key, value in held.items():
            read = await a.get(f"/kv/{key}")
            assert (await read.text() if read.status == 200 else "") == value, key


# --- refused --------------------------------------------------------------------------------------


async def test_who_was_away_for_too_long_is_told_what_it_missed_and_where_to_go_on(
    redis: Any, a: Client
) -> None:
    for _ in range(9):
        await put(a, "x")
    await receive(a, write_of("B", 1, ""))
    redis.xtrim("log:A", minid="7-0", approximate=False)
    status, problem, body = await refused(a, **{"Last-Event-ID": "lc1;A:2;B:1"})
    assert (status, problem, body["outcome"]) == (410, "too-far-back", "not_applied")
    assert body["missed"] == [{"actor": "A", "after": 2, "through": 6}]
    assert body["go_on"] == "lc1;A:6;B:1"
    response = await a.get("/watch?since=lc1;A:2")
    assert response.headers["Causal-Context"] == "lc1;A:6", "B is told from its first write on"
    async with watching(a, "/watch", body["go_on"]) as stream:
        assert dots(await stream.take(4)) == ["A:7", "A:8", "A:9"]


async def test_a_stream_that_falls_too_far_back_ends_and_says_so(redis: Any, a: Client) -> None:
    async with watching(a, "/watch?since=now") as stream:
        await stream.next()
        await put(a, "x")
        await stream.next()
        # As if it were trimmed before the watcher is told it.
        entry = redis.xrange("log:A")[-1][1]
        redis.xadd("log:A", {**entry, b"dependencies": b"A:2"}, id="3-0")
        redis.xtrim("log:A", minid="3-0", approximate=False)
        redis.hset("clock", "A", 3)
        redis.publish("applied@5", "A:3")
        end = await stream.next()
        assert (end.kind, end.id) == ("end", "lc1;A:1")
        assert end.data["type"] == "urn:lightcone:too-far-back"
        assert end.data["go_on"] == "lc1;A:2"
        with pytest.raises(EOFError):
            await stream.next()


async def test_a_merged_snapshot_is_no_write_and_its_watchers_are_told(
    redis: Any, a: Client
) -> None:
    await put(a, "x")
    async with watching(a, "/watch?since=now") as stream:
        await stream.next()
        version = Version(Dot("B", 7), 9, "text/plain", b"merged")
        state = KeyState("y", (version,), VectorClock())
        cut = Cut(VectorClock({"B": 7}), VectorClock(), 9)
        await receive(a, part=Part("s", "", "", 1))
        await receive(a, part=Part("s", "p1", "", 1, (state,), cut))
        end = await stream.next()
        assert end.data["type"] == "urn:lightcone:too-far-back"
        assert end.data["missed"] == [{"actor": "B", "after": 0, "through": 7}]
    async with watching(a, "/watch") as stream:
        told = await stream.until("cut")
        assert sorted(one.data["key"] for one in told[1:-1]) == ["x", "y"]
        assert told[-1].id == "lc1;A:1;B:7"
        await receive(a, write_of("B", 8, "A:1"))
        assert dots(await stream.take(1)) == ["B:8"]


async def test_nobody_watches_a_node_that_merges(redis: Any, a: Client) -> None:
    redis.hset("meta", "merging", "a snapshot")
    assert (await refused(a))[:2] == (503, "syncing")
    redis.hdel("meta", "merging")


async def test_nobody_watches_a_node_that_was_removed(a: Client) -> None:
    async with watching(a, "/watch?since=now") as stream:
        await stream.next()
        assert (await a.delete("/members/A")).status == 204
        end = (await stream.until("end"))[-1]
        assert end.data["type"] == "urn:lightcone:node-removed"
    assert (await refused(a))[:2] == (410, "node-removed")


async def test_a_node_that_lacks_some_of_what_was_told_tells_the_rest(a: Client) -> None:
    async with watching(a, "/watch?wait=0", "lc1;B:2") as stream:
        await stream.next()
        await put(a, "x")
        assert (await stream.next()).id == "lc1;A:1;B:2"
        await receive(a, *(write_of("B", number, "") for number in (1, 2, 3)))
        assert (await stream.next()).data["dot"] == "B:3"


async def test_a_watcher_begins_with_what_its_session_has_seen(a: Client) -> None:
    for query in ("", "?since=now", "?since=lc1;"):
        query += "&wait=0" if query else "?wait=0"
        status, problem, body = await refused(a, query, **{"Causal-Context": "lc1;B:1"})
        assert (status, problem) == (503, "not-caught-up")
        assert [one["dot"] for one in body["missing"]] == ["B:1"]
    context = {"Causal-Context": "lc1;B:1"}
    opening = asyncio.create_task(a.get("/watch?wait=20&since=now", headers=context))
    await receive(a, write_of("B", 1, ""))
    async with await opening as response:
        assert response.headers["Causal-Context"] == "lc1;B:1"


async def test_who_was_told_what_is_lost_learns_that(redis_url: str) -> None:
    """B has lost B:3, and writes as another; the peers, which are not there, said that they have
    no more either."""
    async with node_a(redis_url) as a:
        await receive(a, write_of("B", 1, ""), write_of("B~1", 1, "B:1"))
        now_us = int(time.time() * 1e6)
        with BlockingRedis.from_url(redis_url) as redis:
            for peer in "BC":
                report = {"clock": "B:1 B~1:1", "received": "B:1 B~1:1", "error": ""}
                times = {"last_contact_us": now_us, "skew_us": 0}
                redis.hset(f"peer:{peer}", mapping={**report, **times})
            status, problem, body = await refused(a, "?wait=0", **{"Last-Event-ID": "lc1;B:3"})
        assert (status, problem) == (410, "lost")
        assert body["lost"] == [{"actor": "B", "after": 1, "through": 3}]


BAD = {
    "?limit=1": "bad-parameter",
    "?since=": None,
    "?since=yesterday": "bad-context",
    "?since=lc1;A:0": "bad-context",
    "?since=lc1;A:1;s=x": "bad-context",
    "?since=now&since=now": "bad-parameter",
    "?prefix=%FF": "bad-parameter",
    f"?prefix={'x' * 513}": "bad-parameter",
    "?wait=31": "bad-parameter",
    "?wait=0&since=lc1;Z:1": "foreign-context",
}


@pytest.mark.parametrize("query", [query for query, problem in BAD.items() if problem])
async def test_bad_input_is_refused_and_changes_nothing(redis: Any, a: Client, query: str) -> None:
    before = contents(redis)
    status, problem, body = await refused(a, query)
    assert (problem, body["outcome"]) == (BAD[query], "not_applied")
    assert status == 400
    assert contents(redis) == before


async def test_a_place_to_go_on_from_is_no_longer_than_a_context(redis_url: str) -> None:
    async with node_a(redis_url, context_max_bytes=64) as a:
        status, problem, _ = await refused(a, **{"Last-Event-ID": f"lc1;{'A' * 64}:1"})
        assert (status, problem) == (413, "too-large")


async def test_a_worker_tells_so_many_watchers_and_no_more(redis_url: str) -> None:
    async with node_a(redis_url, watchers_max=1) as a:
        async with watching(a, "/watch?since=now") as stream:
            await stream.next()
            assert "lightcone_watchers 1.0" in await (await a.get("/metrics")).text()
            status, problem, body = await refused(a)
            assert (status, problem) == (503, "too-many-watchers")
            assert "WATCHERS_MAX" in body["detail"]

        async def has_room() -> bool:
            response = await a.get("/watch?since=now")
            response.close()
            return response.status == 200

        await until(has_room)  # that its client has gone is noticed by itself


# --- its end --------------------------------------------------------------------------------------


async def test_a_reader_that_does_not_read_is_given_up_and_may_go_on(redis_url: str) -> None:
    given_up = metrics.WATCHERS_GIVEN_UP._value.get()
    async with node_a(redis_url, watch_stall_ms=300) as a:
        reader, writer = await asyncio.open_connection("127.0.0.1", a.port, limit=2**10)
        writer.write(b"GET /watch?since=now HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"event: cut")
        value = "x" * 500_000
        written = 0

        async def is_given_up() -> bool:
            nonlocal written
            await put(a, "x", value)
            written += 1
            return bool(metrics.WATCHERS_GIVEN_UP._value.get() > given_up)

        await until(is_given_up)
        # What was on its way comes still, or not: the last whole event says where to go on.
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(2**20):
                received += chunk
        writer.close()
        whole = received[: received.rfind(b"\n\r\n")]
        ids = [line for line in whole.split(b"\n") if line.startswith(b"id: ")]
        last_id = ids[-1].decode().removeprefix("id: ").strip()
        told = int(last_id.partition(":")[2])
        assert 0 < told < written
        async with watching(a, "/watch", last_id) as stream:
            rest = await stream.take(1 + written - told)
            assert dots(rest) == [f"A:{number}" for number in range(told + 1, written + 1)]


async def test_streams_end_with_their_worker_and_say_where_to_go_on(redis_url: str) -> None:
    await begin_at(redis_url, "A", "A")
    config = Config(node_id="A", peers=PEERS, redis_url=redis_url)
    async with (
        worker(config, World(exchange=nobody)) as interface,
        asking(interface) as a,
    ):
        async with watching(a, "/watch?since=now") as stream:
            await stream.next()
            dot = await put(a, "x")
            assert dots([await stream.next()]) == [dot]
            interface.end()  # as http_server.py does when it is told to stop
            end = await stream.next()
            assert (end.kind, end.data["type"], end.id) == (
                "end",
                "urn:lightcone:stopping",
                "lc1;A:1",
            )
            with pytest.raises(EOFError):
                await stream.next()
        assert (await refused(a))[:2] == (503, "stopping")


async def test_what_redis_has_lost_is_not_told_on(redis: Any, redis_url: str) -> None:
    async with (
        node_a(redis_url, first_start_wait_ms=1) as a,
        watching(a, "/watch?since=now") as stream,
    ):
        await stream.next()
        await put(a, "x")
        await stream.next()
        redis.flushdb()
        await a.get("/kv/x")  # whoever comes first notices
        end = (await stream.until("end"))[-1]
        assert (end.data["status"], end.id) == (503, "lc1;A:1")


def watching_of(store: Store, reader: type[SnapshotReader] = SnapshotReader) -> Watching:
    return Watching(
        store.store,
        store.progress,
        Members(Config(node_id="A"), store.redis, store.keys, store.scripts),
        lambda prefix: reader(store.redis, store.keys, store.store, 2**20, prefix),
        lambda: store.time_us[0],
    )


async def test_what_redis_loses_while_its_state_is_told_does_not_count_as_applied_again(
    make_store: MakeStore,
) -> None:
    """Or a write would be accepted that follows what is not here (G7)."""
    a = await make_store("A")
    await a.say(b"1")
    async with contextlib.aclosing(watching_of(a).events("", None)) as events:

        async def next_state() -> str:
            while not isinstance(event := await anext(events), KeyState):
                pass
            return event.key

        assert await next_state() == "lunch"
        await a.store.commit([Put("late", b"2")])
        assert await next_state() == "late", "it is read with the cut"
        a.progress.restart(VectorClock({"A": 1}))  # the watcher was slow
        with pytest.raises(RedisUnavailable):
            await anext(events)
    assert a.progress.clock == VectorClock({"A": 1})


async def test_a_cut_that_redis_loses_before_it_is_told_is_not_told(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.say(b"1", b"2")

    class Losing(SnapshotReader):
        async def read(self, at: Sending) -> tuple[Sending, list[KeyState], Cut | None] | None:
            found = await super().read(at)
            if found and found[2]:
                loop = asyncio.get_running_loop()
                loop.call_soon(a.progress.restart, VectorClock({"A": 1}))
            return found

    with pytest.raises(RedisUnavailable):
        async for event in watching_of(a, Losing).events("", None):
            assert not isinstance(event, ToldCut)
    assert a.progress.clock == VectorClock({"A": 1})


async def test_a_deleted_key_is_told_as_deleted(a: Client) -> None:
    await put(a, "x")
    async with watching(a, "/watch?since=now") as stream:
        await stream.next()
        assert (await a.delete("/kv/x")).status == 204
        assert (await stream.next()).data["operations"] == [{"delete": "x"}]
        await receive(a, write_of("B", 1, "A:2", Delete("y"), Put("z", json.dumps("\n").encode())))
        operations = (await stream.next()).data["operations"]
        assert operations[0] == {"delete": "y"} and operations[1]["text"] == '"\\n"'
