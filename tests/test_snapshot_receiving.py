"""A snapshot is staged while the node serves, and merged by whichever worker lives."""

import pytest

from app.board import MERGE, Board
from app.errors import RedisUnavailable
from app.snapshot import Cut, Kept, KeyState, Part
from app.snapshot_receiving import Receiving, SnapshotReceiving
from app.vector_clock import Dot, VectorClock
from app.write import Put, Version
from tests.conftest import MakeStore, Store
from tests.test_snapshot_sending import sending_of


def receiving_of(store: Store, worker: str = "first") -> SnapshotReceiving:
    return SnapshotReceiving(
        "A",
        store.redis,
        store.keys,
        Board(store.redis, store.keys, store.scripts, worker),
        store.buffer,
        store.progress,
        store.life,
        lambda: store.time_us[0],
        60_000,
    )


def part(name: str, after: str, *keys: str, cut: str = "", snapshot: str = "s1") -> Part:
    states = tuple(
        KeyState(key, (Version(Dot("B", n), n, "text/plain", b"b"),), VectorClock())
        for n, key in enumerate(keys, start=1)
    )
    at = Cut(VectorClock.parse(cut), VectorClock(), 9) if cut else None
    return Part(snapshot, name, after, 300, states, at)


MANY = [f"key-{n}" for n in range(300)]


async def test_the_node_serves_its_own_state_until_all_is_here(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.store.commit([Put("key-1", b"mine")])
    receiving = receiving_of(a)
    assert await receiving.state() is None
    await receiving.take("B", part("", ""))
    assert await receiving.take("B", part("p1", "", *MANY[:200])) == Kept("s1", "p1")
    await receiving.tidy()
    assert await receiving.state() == Receiving("s1", "B", 200, 300, 0, False, a.time_us[0])
    assert [v.value for v in (await a.store.read("key-1")).versions] == [b"mine"]
    assert (await a.store.read("key-2")).versions == ()
    assert await receiving.take("B", part("p2", "p1", *MANY[200:], cut="B:300")) == Kept("s1", "p2")
    state = await receiving.state()
    assert state is not None and state.is_merging
    await receiving.tidy()
    assert await receiving.state() is None
    assert {v.value for v in (await a.store.read("key-1")).versions} == {b"mine", b"b"}
    assert len((await a.store.read("key-299")).versions) == 1
    assert a.progress.clock == VectorClock({"A": 1, "B": 300})


async def test_a_merge_that_was_begun_is_finished_by_another_worker(make_store: MakeStore) -> None:
    a = await make_store("A")
    first = receiving_of(a)
    await first.take("B", part("", ""))
    await first.take("B", part("p1", "", *MANY, cut="B:300"))
    # The first worker has the lease, merges some, and dies.
    await a.scripts.hold_lease(MERGE, "first", 60_000)
    assert await a.snapshots.merge_keys("s1", MANY[:100], staged=True)
    second = receiving_of(a, "second")
    await second.tidy()
    state = await second.state()
    assert state is not None and state.is_merging, "only one merges"
    await a.scripts.release_lease(MERGE, "first")
    await second.tidy()
    assert await second.state() is None
    assert len(await a.redis.keys("kv:*")) == 300
    assert await a.redis.keys("staged:*") == []


async def begun(store: Store) -> SnapshotReceiving:
    """A snapshot of B is received there, and one part of it has come."""
    receiving = receiving_of(store)
    await receiving.take("B", part("", ""))
    await receiving.take("B", part("p1", "", *MANY))
    return receiving


async def test_what_was_staged_of_a_snapshot_that_was_given_up_is_removed(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    receiving = await begun(a)
    a.set_time(a.time_us[0] + 60_000_000)
    assert await receiving.take("C", part("", "", snapshot="s2")) == Kept("s2", "")
    await receiving.take("C", part("q1", "", "x", snapshot="s2"))
    await receiving.tidy()
    assert await a.redis.keys("staged:*") == [b"staged:s2:x"]
    assert await a.redis.smembers("staging") == {b"s2"}


MINUTE_US = 60_000_000


async def test_nothing_stays_of_a_snapshot_whose_sender_does_not_return(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    receiving = await begun(a)
    a.set_time(a.time_us[0] + 10 * MINUTE_US)
    await receiving.tidy()
    assert len(await a.redis.keys("staged:*")) == len(MANY), "its sender may be back in a moment"
    a.set_time(a.time_us[0] + 1)
    await receiving.tidy()
    assert await receiving.state() is None
    assert await a.redis.keys("staged:*") == []
    assert await a.redis.smembers("staging") == set()


async def test_what_came_late_begins_nothing(make_store: MakeStore) -> None:
    a = await make_store("A")
    receiving = receiving_of(a)
    await receiving.take("B", part("", ""))
    await receiving.take("B", part("p1", "", "x", cut="B:300"))
    await receiving.tidy()
    assert await receiving.take("B", part("", "")) == Kept()
    assert await receiving.state() is None


async def test_a_sender_that_returns_after_it_was_given_up_begins_anew(
    make_store: MakeStore,
) -> None:
    a, b = await make_store("A"), await make_store("B")
    for key in MANY[:60]:
        await b.store.commit([Put(key, b"b")])
    receiving, sending = receiving_of(a), sending_of(b)

    async def is_all_sent() -> bool:
        sent = await sending.part()
        assert sent is not None
        return await sending.take(await receiving.take("B", sent))

    for _ in range(3):
        assert not await is_all_sent()
    first = await receiving.state()
    assert first is not None and first.keys > 0
    for store in (a, b):
        store.set_time(store.time_us[0] + 11 * MINUTE_US)
    await receiving.tidy()
    assert not await is_all_sent()
    assert not sending.is_under_way
    while not await is_all_sent():
        pass
    last = await receiving.state()
    assert last is not None and last.snapshot != first.snapshot
    await receiving.tidy()
    assert a.progress.clock == VectorClock({"B": 60})
    assert await a.redis.keys("staged:*") == []
    assert len(await a.redis.keys("kv:*")) == 60


async def test_a_cut_with_writes_of_its_own_that_it_lost_makes_it_doubt(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    receiving = receiving_of(a)
    await receiving.take("B", part("", ""))
    with pytest.raises(RedisUnavailable, match="it has lost A:7"):
        await receiving.take("B", part("p1", "", "x", cut="A:7 B:1"))
    assert a.life.seen == VectorClock({"A": 7})
    assert a.life.doubts
    assert await receiving.take("B", part("", "")) == Kept("s1", "")
