"""What was in logs is kept, whatever becomes of them: trimmed, begun anew, put back, and silent."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from app.codec import pack_operations
from app.write import Delete
from tests.chaos.logbook import Logbook, LogReader
from tests.processes import until
from tests.redis_processes import RedisProcess


class Logs:
    """The logs in a redis-server, written as a node does."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "redis.sock"
        self.server = RedisProcess(directory / "server", f"unixsocket {self.socket}")
        self.server.start()
        self.redis: Any = self.server.client()

    def write(self, *dots: str, key: str = "lunch") -> None:
        """There is a delete of the key under each of these names."""
        for dot in dots:
            actor, _, sequence = dot.rpartition(":")
            fields = {
                "timestamp": sequence,
                "dependencies": "",
                "operations": pack_operations([Delete(key)]),
            }
            self.redis.xadd(f"log:{actor}", fields, id=f"{sequence}-0")
            self.redis.hset("clock", actor, sequence)


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    made = Logs(tmp_path)
    yield made
    made.server.kill()


@pytest.fixture
def book() -> Logbook:
    return Logbook()


@pytest.fixture
def reader(book: Logbook, logs: Logs) -> LogReader:
    return LogReader(book, "A", logs.socket)


async def test_what_was_trimmed_is_still_in_the_book(
    book: Logbook, logs: Logs, reader: LogReader
) -> None:
    await reader.read()
    assert not book.writes
    logs.write("A:1", "A:2", "B:1")
    await reader.read()
    logs.redis.xtrim("log:A", maxlen=0)
    logs.write("A:3")
    await reader.read()
    assert set(book.writes) == {"A:1", "A:2", "A:3", "B:1"}
    assert book.writes["A:3"].timestamp == 3
    assert book.writes["A:3"].operations == (Delete("lunch"),)
    assert not book.conflicts


async def test_a_log_that_a_merge_has_begun_anew_is_read_on(
    book: Logbook, logs: Logs, reader: LogReader
) -> None:
    logs.write("B:1", "B:2")
    await reader.read()
    logs.redis.delete("log:B")
    logs.redis.hset("clock", "B", 70)
    await reader.read()
    logs.write("B:71")
    await reader.read()
    assert set(book.writes) == {"B:1", "B:2", "B:71"}


async def test_a_redis_that_was_put_back_is_read_from_the_begin(
    book: Logbook, logs: Logs, reader: LogReader
) -> None:
    """What is there under a name that was read before may be another write."""
    logs.write("A:1", "A:2")
    await reader.read()
    logs.redis.flushall()
    logs.write("A:1")
    logs.write("A:2", "A:3", key="dinner")
    logs.server.kill()
    logs.server.start()
    await reader.read()
    assert [conflict.partition(" ")[0] for conflict in book.conflicts] == ["A:2"]
    assert set(book.writes) == {"A:1", "A:2", "A:3"}
    assert book.writes["A:2"].operations == (Delete("lunch"),), "as it was first seen"


async def test_two_nodes_with_different_writes_under_a_name_are_a_conflict_for_ever(
    book: Logbook, logs: Logs, reader: LogReader, tmp_path: Path
) -> None:
    other = Logs(tmp_path / "b")
    logs.write("A:1", "A:2")
    other.write("A:1")
    other.write("A:2", key="dinner")
    try:
        await reader.read()
        assert (book.compared, book.conflicts) == (0, [])
        await LogReader(book, "B", other.socket).read()
    finally:
        other.server.kill()
    assert book.compared == 2
    assert book.conflicts == ["A:2 is another write in the log of B than in that of A"]


async def test_a_redis_that_is_dead_or_silent_is_asked_again(
    book: Logbook, logs: Logs, reader: LogReader
) -> None:
    logs.write("A:1")
    keeping = asyncio.create_task(reader.keep())
    await until(lambda: "A:1" in book.writes)
    logs.server.pause()
    with pytest.raises(TimeoutError):
        await reader.read()
    logs.server.resume()
    logs.server.kill()
    with pytest.raises(RedisError):
        await reader.read()
    logs.server.start()
    logs.write("A:2")
    await until(lambda: "A:2" in book.writes)
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping


def test_whether_an_entry_is_as_it_was_first_seen(book: Logbook) -> None:
    book.note("A", {"log:A": [(b"1-0", {b"timestamp": b"1"})]})
    assert book.has("log:A", (b"1-0", {b"timestamp": b"1"}))
    assert not book.has("log:A", (b"1-0", {b"timestamp": b"2"}))
    assert not book.has("log:A", (b"2-0", {b"timestamp": b"1"}))
