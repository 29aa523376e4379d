"""The node's own state: commits, what a reader has seen, the log, and whose Redis it is."""

import pytest

from app.errors import LogTrimmed, RedisUnavailable
from app.kv_store import LogSize, Reading
from app.vector_clock import Dot, VectorClock
from app.write import Delete, Put, Version, Write
from tests.conftest import SERVERS, MakeStore, Store, begin
from tests.model import Node


def clock(text: str) -> VectorClock:
    return VectorClock.parse(text)


async def say(store: Store, *values: bytes) -> None:
    """The node writes these values of lunch, one after the other."""
    for value in values:
        await store.store.commit([Put("lunch", value)])


async def receive(store: Store, *writes: Write) -> None:
    """The writes come to the node, and it can apply them all."""
    received = await store.buffer.receive(writes)
    assert (received.pending, received.refused) == (0, 0)


# --- commit ---------------------------------------------------------------------------------------


async def test_a_commit_moves_the_progress_of_its_worker(make_store: MakeStore) -> None:
    a = await make_store("A")
    await receive(a, Node("B").write([Put("x", b"1")], 5))
    await say(a, b"noon?")
    assert a.progress.clock == clock("A:1 B:1")


async def test_what_was_committed_is_found(make_store: MakeStore) -> None:
    a = await make_store("A")
    a.set_time(77)
    await a.store.commit([Put("lunch", b"noon?", "text/plain")])
    version = Version(Dot("A", 1), 77, "text/plain", b"noon?")
    assert await a.store.read("lunch") == Reading((version,), clock("A:1"))


# --- what a reader has seen (DESIGN.md, section 3) ------------------------------------------------


async def test_who_finds_a_key_has_seen_its_version_and_no_more(make_store: MakeStore) -> None:
    a = await make_store("A")
    await say(a, b"noon?", b"one?")
    await a.store.commit([Put("dinner", b"six?")])
    await receive(a, Node("B").write([Put("tea", b"five?")], 5))
    assert (await a.store.read("lunch")).context == clock("A:2")


async def test_who_finds_siblings_has_seen_them_all(make_store: MakeStore) -> None:
    a = await make_store("A")
    b, c = Node("B"), Node("C")
    b.write([Put("x", b"1")], 1)
    await say(a, b"pizza")
    await receive(a, *b.applied, b.write([Put("lunch", b"soup")], 5))
    await receive(a, c.write([Put("lunch", b"bread")], 6))
    reading = await a.store.read("lunch")
    assert [v.value for v in reading.versions] == [b"pizza", b"bread", b"soup"]
    assert reading.context == clock("A:1 B:2 C:1")


async def test_who_finds_nothing_has_seen_all_that_is_applied(make_store: MakeStore) -> None:
    a = await make_store("A")
    assert await a.store.read("lunch") == Reading((), VectorClock())
    await say(a, b"noon?")
    await a.store.commit([Delete("lunch")])
    await receive(a, Node("B").write([Put("tea", b"five?")], 5))
    assert await a.store.read("lunch") == Reading((), clock("A:2 B:1"))
    assert await a.store.read("never") == Reading((), clock("A:2 B:1"))


async def test_what_waits_is_not_seen(make_store: MakeStore) -> None:
    a, b = await make_store("A"), Node("B")
    b.write([Put("lunch", b"soup")], 5)
    await a.buffer.receive([b.write([Put("lunch", b"more soup")], 6)])
    assert await a.store.read("lunch") == Reading((), VectorClock())


async def test_who_finds_a_survivor_of_a_delete_has_seen_the_delete(make_store: MakeStore) -> None:
    a, b, c = await make_store("A"), Node("B"), Node("C")
    question = b.write([Put("lunch", b"noon?")], 5)
    c.receive([question])
    delete, put = b.write([Delete("lunch")], 6), c.write([Put("lunch", b"one?")], 7)
    await receive(a, question, delete, put)
    reading = await a.store.read("lunch")
    assert [v.value for v in reading.versions] == [b"one?"]
    assert reading.context == clock("B:2 C:1")
    await say(a, b"two?")
    assert (await a.store.read("lunch")).context == clock("A:1"), "a write covers the delete"


# --- the log --------------------------------------------------------------------------------------


async def test_the_log_is_read_from_any_place_a_part_at_a_time(make_store: MakeStore) -> None:
    a = await make_store("A")
    await say(a, b"1", b"2", b"3", b"4", b"5")

    async def sequences(after: int, count: int) -> list[int]:
        return [write.dot.sequence for write in await a.store.log_after("A", after, count)]

    assert await sequences(0, 10) == [1, 2, 3, 4, 5]
    assert await sequences(2, 2) == [3, 4]


async def test_the_log_gives_back_what_was_received(make_store: MakeStore) -> None:
    a, b = await make_store("A"), Node("B")
    writes = [b.write([Put("a", b"\0\n", "x/y; z=1"), Delete("b")], 5), b.write([Delete("a")], 6)]
    await receive(a, *writes)
    assert await a.store.log_after("B", 0, 10) == writes


async def test_a_log_says_that_it_does_not_go_back_so_far(make_store: MakeStore) -> None:
    a = await make_store("A")
    await say(a, b"1", b"2", b"3")
    await a.store.trim_log("A", 2, 1)
    with pytest.raises(LogTrimmed, match="does not go back to A:2"):
        await a.store.log_after("A", 1, 10)
    assert [write.dot for write in await a.store.log_after("A", 2, 10)] == [Dot("A", 3)]
    await a.store.trim_log("A", 3, 3)
    with pytest.raises(LogTrimmed):
        await a.store.log_after("A", 2, 10)


async def test_a_log_goes_on_after_all_of_it_was_trimmed(make_store: MakeStore) -> None:
    a = await make_store("A")
    await say(a, b"1", b"2")
    await a.store.trim_log("A", 2, 1)
    await say(a, b"3")
    assert [write.dot for write in await a.store.log_after("A", 2, 10)] == [Dot("A", 3)]


@pytest.mark.parametrize("make_redis", SERVERS, indirect=True)
async def test_how_large_the_logs_are(make_store: MakeStore) -> None:
    a = await make_store("A")
    await say(a, b"1" * 5000, b"2" * 5000)
    sizes = await a.store.log_sizes(["A", "B"])
    assert sizes["A"].entries == 2
    assert sizes["A"].bytes > 10_000
    assert sizes["B"] == LogSize(0, 0)


# --- whose Redis it is ----------------------------------------------------------------------------


async def test_the_check_passes_while_the_state_is_there(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.store.check()
    await a.redis.flushall()
    with pytest.raises(
        RedisUnavailable, match="no longer holds what this node has applied"
    ) as refusal:
        await a.store.check()
    assert refusal.value.outcome == "not_applied"


async def test_the_check_fails_when_another_nodes_redis_is_put_in_place(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await a.redis.flushall()
    await begin(a.scripts, "B")
    with pytest.raises(RedisUnavailable, match="no longer holds what this node has applied"):
        await a.store.check()


async def test_a_store_that_starts_knows_what_it_held(make_store: MakeStore) -> None:
    a = await make_store("A")
    assert (await a.store.clock(), (await a.store.life()).timestamp) == (VectorClock(), 0)
    await say(a, b"noon?")
    assert (await a.store.clock(), (await a.store.life()).timestamp) == (clock("A:1"), 1_000_000)
