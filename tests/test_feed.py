"""Writes are told in causal order, each once, from whatever clock on and whoever tells the rest."""

import random

import pytest

from app.errors import InvariantError, LogTrimmed
from app.feed import Feed
from app.keys import end_key
from app.recent import RecentWrites
from app.vector_clock import Dot, VectorClock
from app.write import Operation, Put, Write
from tests.conftest import MakeStore, Store
from tests.model import Node


def clock(text: str) -> VectorClock:
    return VectorClock.parse(text)


def feed_of(store: Store, at: VectorClock) -> Feed:
    return Feed(store.store.log, RecentWrites(store.store.log), at)


async def told(feed: Feed, store: Store, most: int = 1000) -> list[str]:
    """What the feed tells of what is in the store, `most` writes of it."""
    names: list[str] = []
    now = await store.store.clock()
    while len(names) < most and (write := await feed.next(now)):
        assert write.dependencies <= feed.at
        names.append(str(write.dot))
    return names


def chain(actor: str, *dependencies: str, timestamp: int = 0) -> list[Write]:
    """Writes of `actor`, one after the other, each after what else it depends on."""
    writes = []
    for number, text in enumerate(dependencies, 1):
        past = clock(text).merge(VectorClock({actor: number - 1}))
        operations: tuple[Operation, ...] = (Put(f"{actor}-{number}", b"x"),)
        writes.append(Write(Dot(actor, number), past, timestamp + number, operations))
    return writes


async def test_writes_are_told_in_causal_order(make_store: MakeStore) -> None:
    c: Store = await make_store("C")
    await c.buffer.receive(chain("B", "A:2", "A:3"))
    await c.buffer.receive(chain("A", "", "", "B:1"))
    assert (await c.store.clock()) == clock("A:3 B:2")
    # By their timestamps B:1 comes before A:2, on which it depends.
    feed = feed_of(c, VectorClock())
    assert await told(feed, c) == ["A:1", "A:2", "B:1", "A:3", "B:2"]
    assert feed.at == clock("A:3 B:2")
    assert await told(feed, c) == []
    await c.store.commit([Put("x", b"")])
    assert await told(feed, c) == ["C:1"]


async def test_a_feed_begins_after_a_clock(make_store: MakeStore) -> None:
    c: Store = await make_store("C")
    await c.buffer.receive(chain("A", *[""] * 40) + chain("B", "A:39"))
    assert await told(feed_of(c, clock("A:38")), c) == ["A:39", "B:1", "A:40"]
    assert await told(feed_of(c, clock("A:40")), c) == ["B:1"]
    assert await told(feed_of(c, clock("A:99 B:1")), c) == [], "also one that is ahead"


async def test_what_one_node_began_to_tell_another_goes_on_with(make_store: MakeStore) -> None:
    """Random histories of three nodes; the watcher changes its node again and again."""
    rng = random.Random(5)
    models = {name: Node(name) for name in "ABC"}
    writes: list[Write] = []
    for number in range(120):
        model = models[rng.choice("ABC")]
        if rng.random() < 0.5:
            writes.append(model.write([Put(f"key-{rng.randrange(5)}", b"")], number + 1))
        else:
            model.receive(rng.sample(writes, min(len(writes), 30)))
    stores: list[Store] = [await make_store(name) for name in ("X", "Y")]
    for store in stores:
        await store.buffer.receive(rng.sample(writes, len(writes)))
        assert not (await store.buffer.counts())
    at, names = VectorClock(), []
    while found := await told(feed := feed_of(rng.choice(stores), at), stores[0], 7):
        names += found
        at = feed.at
    assert sorted(names) == sorted(str(write.dot) for write in writes)


async def test_what_is_not_in_the_log_any_more_is_not_passed_over(make_store: MakeStore) -> None:
    a: Store = await make_store("A")
    for _ in range(5):
        await a.store.commit([Put("x", b"")])
    await a.store.log.trim("A", 2, 1)
    with pytest.raises(LogTrimmed):
        await told(feed_of(a, clock("A:1")), a)
    assert await told(feed_of(a, clock("A:2")), a) == ["A:3", "A:4", "A:5"]
    await a.store.log.trim("A", 5, 3)
    with pytest.raises(LogTrimmed):
        await told(feed_of(a, clock("A:4")), a)
    assert await told(feed_of(a, clock("A:5")), a) == []


async def test_an_actor_whose_end_is_declared_is_told_up_to_it(make_store: MakeStore) -> None:
    """A:3 and A:4 are lost, and B:1 had seen them."""
    c: Store = await make_store("C")
    await c.buffer.receive(chain("A", "", ""))
    lost = Write(Dot("B", 1), clock("A:4"), 9, (Put("x", b""),))
    end = Write(Dot("D", 1), clock("A:2"), 99, (Put(end_key("A"), b"2"),))
    await c.buffer.receive([lost, end])
    feed = feed_of(c, clock("A:1"))
    assert await told(feed, c) == ["A:2", "D:1", "B:1"]
    assert feed.at == await c.store.clock()
    assert await told(feed_of(c, feed.at), c) == []


async def test_a_log_that_lacks_what_another_depends_on_is_an_alarm(make_store: MakeStore) -> None:
    c: Store = await make_store("C")
    await c.buffer.receive(chain("A", "") + chain("B", "A:1"))
    await c.redis.hdel("clock", "A")
    with pytest.raises(InvariantError, match="G1"):
        await told(feed_of(c, VectorClock()), c)
