"""The node's own state: commits, what a reader has seen, the log, and whose Redis it is."""

import asyncio

import pytest

from app.commits import Committed
from app.errors import RedisUnavailable
from app.kv_store import Reading
from app.vector_clock import Dot, VectorClock
from app.write import Delete, Put, Version
from tests.commits import commit_one
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


async def test_who_has_seen_what_was_lost_does_not_fail_the_others(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.say(b"noon?")
    lost = clock("A:9")
    shown = await asyncio.gather(
        a.store.read("lunch", lost), a.store.read("lunch"), return_exceptions=True
    )
    assert isinstance(shown[0], RedisUnavailable)
    assert isinstance(shown[1], Reading)
    assert shown[1].context == clock("A:1")
    done = await asyncio.gather(
        a.store.commit([Put("reply", b"yes")], lost),
        a.store.commit([Put("reply", b"no")]),
        return_exceptions=True,
    )
    assert isinstance(done[0], RedisUnavailable)
    assert done[0].outcome == "not_applied"
    assert isinstance(done[1], Committed)
    assert done[1].dot == Dot("A", 2)


async def test_what_was_committed_is_known_though_a_request_that_was_done_before_came_with_it(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await a.store.commit([Put("x", b"1")], request="r")
    fresh, again = await asyncio.gather(
        a.store.commit([Put("y", b"2")]), a.store.commit([Put("x", b"1")], request="r")
    )
    assert (fresh.dot, again.dot) == (Dot("A", 2), Dot("A", 1))
    assert a.progress.clock == clock("A:2"), "or a Redis without it would give its name again"


async def test_a_write_is_not_done_where_what_its_session_has_seen_was_lost(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await a.say(b"noon?")
    await a.take(Node("B").write([Put("question", b"one?")], 5))
    # Redis is put back under the running node, to a state with A:1 and without B:1.
    await a.redis.flushall()
    await begin(a.scripts, "A")
    await commit_one(a.scripts, "A", [Put("lunch", b"noon?")], 1)
    with pytest.raises(
        RedisUnavailable, match="no longer holds what this node has applied"
    ) as refusal:
        await a.store.commit([Put("reply", b"yes")], clock("A:1 B:1"))
    assert refusal.value.outcome == "not_applied"
    assert a.life.doubts
    assert await a.store.clock() == clock("A:1")


async def test_what_a_worker_has_shown_it_knows(make_store: MakeStore) -> None:
    a = await make_store("A")

    async def another_worker_commits() -> Dot:
        committed = await commit_one(a.scripts, "A", [Put("lunch", b"noon?")], 1)
        assert isinstance(committed, Committed)
        assert not a.progress.clock.covers(committed.dot)
        return committed.dot

    dot = await another_worker_commits()
    await a.store.read("lunch")
    assert a.progress.clock.covers(dot)
    dot = await another_worker_commits()
    await a.store.list_keys("", "", 10)
    assert a.progress.clock.covers(dot)
    dot = await another_worker_commits()
    await a.store.list_conflicts("", "", 10)
    assert a.progress.clock.covers(dot)


async def test_a_store_that_starts_knows_what_it_held(make_store: MakeStore) -> None:
    a = await make_store("A")
    assert (await a.store.clock(), (await a.store.life()).timestamp) == (VectorClock(), 0)
    await a.say(b"noon?")
    assert (await a.store.clock(), (await a.store.life()).timestamp) == (clock("A:1"), 1_000_000)
