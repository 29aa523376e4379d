"""The node's own state: commits, what a reader has seen, the log, and whose Redis it is."""

import asyncio

import pytest

from app.errors import RedisUnavailable
from app.kv_store import Reading
from app.vector_clock import Dot, VectorClock
from app.write import Delete, Put, Version
from tests.conftest import MakeStore, begin
from tests.model import Node


def clock(text: str) -> VectorClock:
    return VectorClock.parse(text)


# --- commit ---------------------------------------------------------------------------------------


async def test_a_commit_moves_the_progress_of_its_worker(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.take(Node("B").write([Put("x", b"1")], 5))
    await a.say(b"noon?")
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
    await a.say(b"noon?", b"one?")
    await a.store.commit([Put("dinner", b"six?")])
    await a.take(Node("B").write([Put("tea", b"five?")], 5))
    assert (await a.store.read("lunch")).context == clock("A:2")


async def test_who_finds_siblings_has_seen_them_all(make_store: MakeStore) -> None:
    a = await make_store("A")
    b, c = Node("B"), Node("C")
    b.write([Put("x", b"1")], 1)
    await a.say(b"pizza")
    await a.take(*b.applied, b.write([Put("lunch", b"soup")], 5))
    await a.take(c.write([Put("lunch", b"bread")], 6))
    reading = await a.store.read("lunch")
    assert [v.value for v in reading.versions] == [b"pizza", b"bread", b"soup"]
    assert reading.context == clock("A:1 B:2 C:1")


async def test_who_finds_nothing_has_seen_all_that_is_applied(make_store: MakeStore) -> None:
    a = await make_store("A")
    assert await a.store.read("lunch") == Reading((), VectorClock())
    await a.say(b"noon?")
    await a.store.commit([Delete("lunch")])
    await a.take(Node("B").write([Put("tea", b"five?")], 5))
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
    await a.take(question, delete, put)
    reading = await a.store.read("lunch")
    assert [v.value for v in reading.versions] == [b"one?"]
    assert reading.context == clock("B:2 C:1")
    await a.say(b"two?")
    assert (await a.store.read("lunch")).context == clock("A:1"), "a write covers the delete"


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


async def test_a_reader_whose_turn_comes_after_a_loss_is_not_shown_less_than_it_has_seen(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await a.say(b"noon?")
    asked = asyncio.ensure_future(a.store.read("lunch", clock("A:1")))
    await asyncio.sleep(0)  # from now on it waits for its turn
    a.progress.restart(VectorClock())  # and meanwhile Redis was found to have lost the write
    with pytest.raises(RedisUnavailable, match="no longer holds what this node has applied"):
        await asked


async def test_a_store_that_starts_knows_what_it_held(make_store: MakeStore) -> None:
    a = await make_store("A")
    assert (await a.store.clock(), (await a.store.life()).timestamp) == (VectorClock(), 0)
    await a.say(b"noon?")
    assert (await a.store.clock(), (await a.store.life()).timestamp) == (clock("A:1"), 1_000_000)
