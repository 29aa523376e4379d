"""The scripts and the model, side by side on the same random histories.

Three nodes write, and their writes reach each other late, repeated, reordered, in any batches.
After every step each node's Redis and its model say the same; in the end all nodes agree.
"""

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass

from fakeredis import FakeAsyncRedis, FakeServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import codec
from app.buffer import PendingBuffer
from app.keys import Keys
from app.kv_store import KVStore
from app.progress import Progress
from app.scripts import Received, Scripts
from app.vector_clock import VectorClock
from app.write import Delete, Operation, Put, Write
from tests.conftest import FirstLife, begin
from tests.model import Node

NODES = "ABC"
KEYS = ("lunch", "dinner")
PENDING_MAX = 4


@dataclass
class MakeWrite:
    """A write at a node, by its wall clock."""

    node: str
    operations: list[Operation]
    now_us: int


@dataclass
class Deliver:
    """Some of all writes made so far, by index, come to a node in this order."""

    node: str
    which: list[int]


def operations() -> st.SearchStrategy[list[Operation]]:
    operation = st.sampled_from(KEYS).flatmap(
        lambda key: st.one_of(
            st.binary(max_size=3).map(lambda value: Put(key, value, "text/plain")),
            st.just(Delete(key)),
        )
    )
    return st.lists(operation, min_size=1, max_size=2, unique_by=lambda operation: operation.key)


node = st.sampled_from(NODES)
steps = st.lists(
    st.one_of(
        st.builds(MakeWrite, node, operations(), st.integers(1, 100)),
        st.builds(Deliver, node, st.lists(st.integers(0, 30), min_size=1, max_size=6)),
    ),
    max_size=30,
)


class Pair:
    """A node's Redis and its model."""

    def __init__(self, name: str) -> None:
        self.model = Node(name, PENDING_MAX)
        self.redis = FakeAsyncRedis(server=FakeServer())
        self.keys = Keys()
        self.scripts = Scripts(self.redis, self.keys)
        self.now_us = 1
        progress, life = Progress(), FirstLife(name)
        self.store = KVStore(
            self.redis, self.keys, self.scripts, progress, life, lambda: self.now_us
        )
        self.buffer = PendingBuffer(
            self.redis,
            self.keys,
            self.scripts,
            progress,
            name,
            life,
            lambda: self.now_us,
            pending_max=PENDING_MAX,
            drain_max=2,
        )

    async def write(self, step: MakeWrite) -> Write:
        self.now_us = step.now_us
        committed = await self.store.commit(step.operations)
        write = self.model.write(step.operations, step.now_us)
        assert (committed.dot, committed.timestamp) == (write.dot, write.timestamp)
        return write

    async def receive(self, writes: list[Write]) -> Received:
        received = await self.buffer.receive(writes)
        outcomes = Counter(self.model.receive(writes))
        assert received.applied == outcomes["applied"]
        assert received.duplicate == outcomes["duplicate"]
        assert received.pending == outcomes["pending"]
        assert received.refused == outcomes["refused"]
        assert received.clock.merge(received.received) == self.model.received
        assert (not received.missing) == (not self.model.pending)
        return received

    async def assert_equal(self) -> None:
        model = self.model
        assert await self.store.clock() == model.clock
        assert (await self.store.life()).timestamp == model.timestamp
        assert {b.waiting.write for b in await self.buffer.blocked(100)} == set(
            model.pending.values()
        )
        for key in KEYS:
            reading = await self.store.read(key)
            assert list(reading.versions) == model.versions(key)
            assert model.is_safe_context(key, reading.context)
            assert reading.context <= model.clock
            if not reading.versions:
                assert reading.context == model.clock
                assert not await self.redis.exists(self.keys.kv(key)), "a delete left a trace"
        for actor in model.clock:
            log = await self.store.log_after(actor, 0, 100)
            assert log == [w for w in model.applied if w.dot.actor == actor]

    async def applied_in_causal_order(self) -> None:
        """Replays what the channel of this node would say, from its logs: see the model."""
        clock = VectorClock()
        for write in self.model.applied:
            assert write.dependencies <= clock
            clock = clock.with_dot(write.dot)


async def run(history: list[MakeWrite | Deliver]) -> None:
    pairs = {name: Pair(name) for name in NODES}
    for name, pair in pairs.items():
        await begin(pair.scripts, name)
    made: list[Write] = []
    for step in history:
        match step:
            case MakeWrite():
                made.append(await pairs[step.node].write(step))
            case Deliver() if made:
                await pairs[step.node].receive([made[i % len(made)] for i in step.which])
        await pairs[step.node].assert_equal()

    # Now all that was made comes everywhere, latest first; what is refused comes again.
    for pair in pairs.values():
        for _ in made:
            if (await pair.receive(made[::-1])).refused == 0:
                break
        await pair.assert_equal()
        await pair.applied_in_causal_order()
    for one, other in itertools.pairwise(pairs.values()):
        assert one.model.clock == other.model.clock
        for key in KEYS:
            assert (await one.store.read(key)).versions == (await other.store.read(key)).versions
            authors = [v.dot.actor for v in (await one.store.read(key)).versions]
            assert len(authors) == len(set(authors)), "an actor has two siblings"
    for pair in pairs.values():
        await pair.redis.aclose()


@given(steps)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_scripts_and_model_agree_on_any_history(history: list[MakeWrite | Deliver]) -> None:
    asyncio.run(run(history))


def test_the_model_keeps_what_it_was_given() -> None:
    """The twin would agree with anything if it could not tell two histories apart."""
    a, b = Node("A"), Node("B")
    first = a.write([Put("lunch", b"noon?")], 5)
    b.receive([first])
    reply = b.write([Put("lunch", b"yes")], 3)
    assert reply.dependencies == VectorClock({"A": 1})
    assert reply.timestamp == 6
    c = Node("C")
    assert c.receive([reply, reply]) == ["pending", "duplicate"]
    assert c.versions("lunch") == []
    assert c.receive([first]) == ["applied"]
    assert [v.value for v in c.versions("lunch")] == [b"yes"]
    assert codec.unpack_operations(codec.pack_operations(reply.operations)) == reply.operations
