"""lua/receive_writes.lua: what comes from peers is applied in causal order and once, or waits."""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st

from app.buffer import PendingBuffer
from app.errors import RedisUnavailable
from app.keys import Keys
from app.kv_store import KVStore
from app.progress import Progress
from app.scripts import Received, Scripts
from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock
from app.write import Delete, Put, Write, winner_first
from tests.conftest import SERVERS, FirstLife, MakeStore, Store, begin
from tests.listeners import listeners
from tests.model import Node

real_redis_only = pytest.mark.parametrize("make_redis", SERVERS, indirect=True)


# --- what the tests speak of ----------------------------------------------------------------------


def counts(received: Received) -> dict[str, int]:
    """What became of a batch: the counts that are not 0."""
    names = ("applied", "duplicate", "pending", "refused", "drained")
    return {name: count for name in names if (count := getattr(received, name))}


def clock(text: str) -> VectorClock:
    return VectorClock.parse(text)


def notes(node: str, count: int, *, after: VectorClock = VectorClock()) -> list[Write]:  # noqa: B008 (immutable)
    """`count` writes of a node in a row, the first of them after what `after` covers."""
    return [
        Write(
            Dot(node, n),
            after.merge(VectorClock({node: n - 1})),
            1000 + n,
            (Put(f"note-{node}", b"%d" % n),),
        )
        for n in range(1, count + 1)
    ]


def a_conversation() -> list[Write]:
    """Six writes of three nodes: answers, a delete, and some that are concurrent."""
    a, b, c = Node("A"), Node("B"), Node("C")
    question = a.write([Put("lunch", b"noon?")], 10)
    b.receive([question])
    answer = b.write([Put("lunch", b"yes"), Put("dinner", b"no")], 20)
    other_answer = a.write([Put("lunch", b"one?")], 20)
    c.receive([question, answer])
    forget = c.write([Delete("lunch"), Put("tea", b"at five")], 30)
    a.receive([answer])
    last = a.write([Delete("dinner")], 40)
    b.receive([forget])
    end = b.write([Put("tea", b"at six")], 50)
    return [question, answer, other_answer, forget, last, end]


async def state(store: Store) -> dict[str, Any]:
    """What two nodes that applied the same writes have in common (G5)."""
    now = await store.store.clock()
    keys = sorted(key.decode() for key in await store.redis.keys("kv:*"))
    return {
        "clock": now,
        "timestamp": (await store.store.life()).timestamp,
        "versions": {key: (await store.store.read(key[3:])).versions for key in keys},
        "logs": {actor: await store.store.log.after(actor, 0, 100) for actor in now},
        "pending": await store.redis.keys("pending:*"),
        "received": await store.redis.hgetall("received"),
    }


def expected(writes: Iterable[Write]) -> dict[str, Any]:
    """The state of a node that applied all of `writes`, by the model."""
    model = Node("D")
    model.receive(writes)
    assert not model.pending
    keys = sorted({operation.key for write in model.applied for operation in write.operations})
    return {
        "clock": model.clock,
        "timestamp": model.timestamp,
        "versions": {
            f"kv:{key}": tuple(versions) for key in keys if (versions := model.versions(key))
        },
        "logs": {
            actor: [write for write in model.applied if write.dot.actor == actor]
            for actor in model.clock
        },
        "pending": [],
        "received": {},
    }


async def step(store: Store, writes: Sequence[Write] = (), drain_max: int = 1) -> Received:
    """One call of the script, which applies at most `drain_max` waiting writes."""
    received = await store.scripts.receive_writes(store.node, writes, 7, 1000, drain_max)
    assert isinstance(received, Received)
    return received


# --- duplicate, apply, pending --------------------------------------------------------------------


async def test_the_next_write_of_an_actor_is_applied(make_store: MakeStore) -> None:
    a = await make_store("A")
    first, second = notes("B", 2)
    assert counts(await a.buffer.receive([first])) == {"applied": 1}
    received = await a.buffer.receive([second])
    assert counts(received) == {"applied": 1}
    assert received.clock == clock("B:2")
    assert received.received == received.missing == VectorClock()
    assert await a.store.log.after("B", 0, 10) == [first, second]


async def test_a_write_that_follows_one_that_waits_is_not_taken_to_be_covered(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    [first, waiting] = notes("B", 1) + notes("C", 2)[1:]
    past = waiting.dependencies.with_dot(waiting.dot)
    [follows] = notes("D", 1, after=past)
    received = await a.buffer.receive([first, waiting, follows])
    assert counts(received) == {"applied": 1, "pending": 2}
    assert received.clock == clock("B:1")
    assert received.missing == clock("C:2"), "what the last one waits for"


async def test_a_write_that_follows_one_that_was_here_is_applied(make_store: MakeStore) -> None:
    a = await make_store("A")
    b = notes("B", 3, after=clock("C:1"))
    await a.buffer.receive([*notes("C", 1), *b[:1]])
    assert counts(await a.buffer.receive(b)) == {"duplicate": 1, "applied": 2}
    assert await state(a) == expected([*notes("C", 1), *b])


async def test_a_batch_in_order_is_applied_at_once(make_store: MakeStore) -> None:
    a = await make_store("A")
    received = await a.buffer.receive(notes("B", 50))
    assert counts(received) == {"applied": 50}
    assert await state(a) == expected(notes("B", 50))


async def test_a_write_that_was_applied_is_a_duplicate(make_store: MakeStore) -> None:
    a = await make_store("A")
    writes = notes("B", 3)
    await a.buffer.receive(writes)
    before = await state(a)
    assert counts(await a.buffer.receive(writes)) == {"duplicate": 3}
    assert counts(await a.buffer.receive([writes[0], writes[0]])) == {"duplicate": 2}
    assert await state(a) == before


async def test_a_write_of_the_node_itself_is_a_duplicate(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.store.commit([Put("lunch", b"noon?")])
    own = await a.store.log.after("A", 0, 1)
    assert counts(await a.buffer.receive(own)) == {"duplicate": 1}


async def test_a_write_twice_in_one_batch_is_applied_once(make_store: MakeStore) -> None:
    a = await make_store("A")
    [first] = notes("B", 1)
    assert counts(await a.buffer.receive([first, first])) == {"applied": 1, "duplicate": 1}


async def test_a_write_after_a_gap_waits(make_store: MakeStore) -> None:
    a = await make_store("A")
    first, second, third = notes("B", 3)
    received = await a.buffer.receive([third])
    assert counts(received) == {"pending": 1}
    assert received.clock == VectorClock()
    assert received.missing == clock("B:1")
    assert (await a.store.read("note-B")).versions == ()
    assert not await a.redis.exists("log:B", "clock")
    received = await a.buffer.receive([first])
    assert counts(received) == {"applied": 1}
    assert received.missing == clock("B:2")
    assert counts(await a.buffer.receive([second])) == {"applied": 1, "drained": 1}
    assert await state(a) == expected(notes("B", 3))


async def test_a_write_waits_for_its_dependencies_on_other_actors(make_store: MakeStore) -> None:
    c = await make_store("C")
    a, b = Node("A"), Node("B")
    question = a.write([Put("lunch", b"noon?")], 5)
    b.receive([question])
    answer = b.write([Put("lunch", b"yes")], 6)
    received = await c.buffer.receive([answer])
    assert counts(received) == {"pending": 1}
    assert received.missing == clock("A:1")
    assert (await c.store.read("lunch")).versions == ()
    received = await c.buffer.receive([question])
    assert counts(received) == {"applied": 1, "drained": 1}
    assert received.missing == VectorClock()
    assert received.clock == clock("A:1 B:1")
    assert [v.value for v in (await c.store.read("lunch")).versions] == [b"yes"]


async def test_within_a_batch_an_effect_may_precede_its_cause(make_store: MakeStore) -> None:
    d = await make_store("D")
    received = await d.buffer.receive(a_conversation()[::-1])
    assert received.applied + received.drained == 6
    assert received.refused == received.duplicate == 0
    assert await state(d) == expected(a_conversation())


async def test_a_chain_over_three_actors_is_drained_by_its_first_write(
    make_store: MakeStore,
) -> None:
    d = await make_store("D")
    nodes, chain = [Node("A"), Node("B"), Node("C")], []
    for n in range(12):
        write = nodes[n % 3].write([Put("count", b"%d" % n)], n + 1)
        chain.append(write)
        for node in nodes:
            node.receive([write])
    assert counts(await d.buffer.receive(chain[:0:-1])) == {"pending": 11}
    assert counts(await d.buffer.receive(chain[:1])) == {"applied": 1, "drained": 11}
    assert await state(d) == expected(chain)


async def test_a_waiting_write_that_comes_again_is_a_duplicate(make_store: MakeStore) -> None:
    a = await make_store("A")
    _, second = notes("B", 2)
    await a.buffer.receive([second])
    before = await a.redis.hgetall("pending:B")
    assert counts(await a.buffer.receive([second, second])) == {"duplicate": 2}
    assert await a.redis.hgetall("pending:B") == before


async def test_a_waiting_write_that_comes_again_with_its_cause_is_applied_once(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    first, second = notes("B", 2)
    await a.buffer.receive([second])
    assert counts(await a.buffer.receive([first, second])) == {"applied": 2}
    assert await state(a) == expected([first, second])


async def test_what_waits_can_be_read_by_a_person(make_store: MakeStore) -> None:
    a = await make_store("A")
    a.set_time(77)
    b, c = Node("B"), Node("C")
    b.receive([c.write([Put("x", b"1")], 4)])
    await a.buffer.receive([b.write([Put("lunch", b"noon?", "text/plain")], 5)])
    assert await a.redis.hgetall("pending:B") == {
        b"1": b"77 5 C:1\n3:put,5:lunch,10:text/plain,5:noon?,"
    }


@pytest.mark.parametrize(("workers", "told"), [(2, [b"B:2 C:3"]), (1, [])])
async def test_other_workers_are_told_what_was_applied(
    make_store: MakeStore, workers: int, told: list[bytes]
) -> None:
    a = await make_store("A")
    first, second = notes("B", 2)
    async with listeners(a, workers) as listener:
        await a.buffer.receive([second])
        await a.buffer.receive([first, *notes("C", 3)])
        assert await listener.hears() == told


async def test_the_timestamp_is_that_of_the_latest_applied(make_store: MakeStore) -> None:
    a = await make_store("A")
    b, c = Node("B"), Node("C")
    late, early = b.write([Put("x", b"1")], 9_000_000), c.write([Put("x", b"2")], 5)
    waiting = c.write([Put("x", b"3")], 99_000_000)
    lost = c.write([Put("x", b"3")], 100_000_000)
    await a.buffer.receive([late, lost])
    await a.buffer.receive([early])
    assert (await a.store.life()).timestamp == 9_000_000
    await a.buffer.receive([waiting])
    assert (await a.store.life()).timestamp == 100_000_000


async def test_sequences_stay_exact_where_doubles_end(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.redis.hset("clock", "B", SEQUENCE_MAX - 2)
    one, two = (
        Write(Dot("B", n), VectorClock({"B": n - 1}), 5, (Put("x", b"1"),))
        for n in (SEQUENCE_MAX - 1, SEQUENCE_MAX)
    )
    received = await a.buffer.receive([two])
    assert received.missing == VectorClock({"B": SEQUENCE_MAX - 1})
    received = await a.buffer.receive([one])
    assert counts(received) == {"applied": 1, "drained": 1}
    assert received.clock == VectorClock({"B": SEQUENCE_MAX})
    assert await a.store.log.after("B", SEQUENCE_MAX - 2, 10) == [one, two]


@pytest.mark.parametrize("value", [b"", b"\0\n:,", bytes(range(256)), b"1 2 C:1\n3:put,"])
async def test_a_waiting_value_may_be_any_bytes(make_store: MakeStore, value: bytes) -> None:
    a, b = await make_store("A"), Node("B")
    first = b.write([Put("lunch", b"noon?")], 5)
    second = b.write([Put("lunch", value, "x/y; z=1"), Put("dinner", value)], 6)
    await a.buffer.receive([second])
    await a.buffer.receive([first])
    assert [v.value for v in (await a.store.read("lunch")).versions] == [value]
    assert await a.store.log.after("B", 0, 10) == [first, second]


async def test_a_redis_that_was_emptied_is_not_written_to(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.buffer.receive(notes("B", 1))
    await a.redis.flushall()
    with pytest.raises(
        RedisUnavailable, match="no longer holds what this node has applied"
    ) as refusal:
        await a.buffer.receive(notes("B", 2))
    assert refusal.value.outcome == "not_applied"
    assert await a.redis.dbsize() == 0


async def test_the_redis_of_another_node_is_not_written_to(make_store: MakeStore) -> None:
    a = await make_store("A")
    assert await a.scripts.receive_writes("X", notes("B", 1), 7, 10, 10) is None
    assert set(await a.redis.keys()) == {b"meta", b"births"}


# --- the order of application ---------------------------------------------------------------------


async def test_at_every_step_of_a_drain_nothing_is_applied_before_its_dependencies(
    make_store: MakeStore,
) -> None:
    writes = a_conversation()
    for last in range(len(writes)):
        d = await make_store("D")
        held_back = writes[last]
        await step(d, [write for write in reversed(writes) if write is not held_back])
        await step(d, [held_back])
        for _ in writes:
            now = (await step(d)).clock
            applied = [write for write in writes if now.covers(write.dot)]
            assert all(write.dependencies <= now for write in applied), f"after {now}"
        assert await state(d) == expected(writes)


async def test_any_order_of_arrival_gives_the_same_state(make_store: MakeStore) -> None:
    writes = a_conversation()[:5]
    end = expected(writes)
    d = await make_store("D")
    for order in itertools.permutations(writes):
        await d.redis.flushdb()
        await begin(d.scripts, "D")
        for write in order:
            now = (await d.buffer.receive([write])).clock
            for applied in writes:
                assert not now.covers(applied.dot) or applied.dependencies <= now
        assert await state(d) == end, f"after {[str(write.dot) for write in order]}"


@given(
    st.lists(st.lists(st.sampled_from(a_conversation()), max_size=8), max_size=8),
    st.integers(1, 3),
    st.integers(0, 3),
)
@settings(max_examples=100, deadline=None)
def test_batches_with_repeats_in_any_order_give_the_same_state(
    batches: list[list[Write]], drain_max: int, pending_max: int
) -> None:
    asyncio.run(batches_give_the_same_state(batches, drain_max, pending_max))


async def batches_give_the_same_state(
    batches: list[list[Write]], drain_max: int, pending_max: int
) -> None:
    redis, keys, progress = FakeAsyncRedis(server=FakeServer()), Keys(), Progress()
    scripts = Scripts(redis, keys)
    life = FirstLife("D")
    store = KVStore(redis, keys, scripts, progress, life, lambda: 1)
    limits = {"pending_max": pending_max, "drain_max": drain_max}
    buffer = PendingBuffer(redis, keys, scripts, progress, "D", life, lambda: 1, **limits)
    await begin(scripts, "D")
    for batch in batches:
        received = await buffer.receive(batch)
        became = received.applied + received.duplicate + received.pending + received.refused
        assert became == len(batch)
        assert not received.more
        assert sum((await buffer.counts()).values()) <= pending_max
    await buffer.receive(a_conversation())
    d = Store("D", redis, keys, scripts, progress, life, store, buffer, cast(Any, None), [1])
    assert await state(d) == expected(a_conversation())
    await redis.aclose()


# --- limits ---------------------------------------------------------------------------------------


async def test_a_full_buffer_refuses_and_still_applies_what_is_deliverable(
    make_store: MakeStore,
) -> None:
    a = await make_store("A", pending_max=2)
    b, c = notes("B", 5), notes("C", 2)
    received = await a.buffer.receive([b[4], b[3], b[2], b[1]])
    assert counts(received) == {"pending": 2, "refused": 2}
    assert await a.buffer.counts() == {"B": 2}
    assert counts(await a.buffer.receive(c)) == {"applied": 2}
    # B:1 is deliverable; it makes nothing that waits deliverable, since B:2 was refused.
    received = await a.buffer.receive([b[0]])
    assert counts(received) == {"applied": 1}
    assert received.missing == clock("B:2")


async def test_what_was_refused_is_not_lost_when_it_comes_again(make_store: MakeStore) -> None:
    a = await make_store("A", pending_max=1)
    writes = notes("B", 4)
    assert counts(await a.buffer.receive(writes[:0:-1])) == {"pending": 1, "refused": 2}
    received = await a.buffer.receive(writes)
    assert counts(received) == {"applied": 4}
    assert await state(a) == expected(writes)


async def test_room_in_the_buffer_is_room_again_after_a_drain(make_store: MakeStore) -> None:
    a = await make_store("A", pending_max=2)
    b = notes("B", 6)
    await a.buffer.receive([b[1], b[2]])
    assert counts(await a.buffer.receive([b[5]])) == {"refused": 1}
    assert counts(await a.buffer.receive([b[0]])) == {"applied": 1, "drained": 2}
    assert counts(await a.buffer.receive([b[5], b[4]])) == {"pending": 2}


async def test_a_repeat_of_a_waiting_write_needs_no_room(make_store: MakeStore) -> None:
    a = await make_store("A", pending_max=1)
    b = notes("B", 2)
    await a.buffer.receive([b[1]])
    assert counts(await a.buffer.receive([b[1]])) == {"duplicate": 1}


async def test_one_call_drains_at_most_drain_max_and_says_that_there_is_more(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    b = notes("B", 6)
    await step(a, b[1:])
    received = await step(a, b[:1], drain_max=2)
    assert counts(received) == {"applied": 1, "drained": 2}
    assert received.more
    assert received.clock == clock("B:3")
    received = await step(a, drain_max=2)
    assert (counts(received), received.more) == ({"drained": 2}, True)
    received = await step(a, drain_max=2)
    assert (counts(received), received.more) == ({"drained": 1}, False)
    assert await state(a) == expected(b)


async def test_a_drain_that_ends_exactly_at_drain_max_says_that_there_is_no_more(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    b = notes("B", 3)
    await step(a, b[1:])
    received = await step(a, b[:1], drain_max=2)
    assert (counts(received), received.more) == ({"applied": 1, "drained": 2}, False)


async def test_what_is_drained_is_counted_by_operations_and_is_one_write_at_least(
    make_store: MakeStore,
) -> None:
    a, b = await make_store("A"), Node("B")
    writes = [b.write([Put(f"{n}-{i}", b"x") for i in range(3)], n + 1) for n in range(4)]
    await step(a, writes[1:])
    received = await step(a, writes[:1], drain_max=4)
    assert (counts(received), received.more) == ({"applied": 1, "drained": 2}, True)
    assert counts(await step(a, drain_max=1)) == {"drained": 1}
    assert await state(a) == expected(writes)


async def test_the_buffer_drains_on_until_there_is_no_more(make_store: MakeStore) -> None:
    a = await make_store("A", drain_max=2)
    b = notes("B", 8)
    await a.buffer.receive(b[1:])
    received = await a.buffer.receive(b[:1])
    assert counts(received) == {"applied": 1, "drained": 7}
    assert not received.more
    assert received.clock == clock("B:8")


# --- what the answer says -------------------------------------------------------------------------


async def test_received_is_how_far_there_is_no_gap(make_store: MakeStore) -> None:
    c = await make_store("C")
    after_a = notes("B", 7, after=clock("A:1"))
    received = await c.buffer.receive([after_a[1], after_a[2]])
    assert received.received == VectorClock(), "B:1 has not come"
    received = await c.buffer.receive([after_a[0]])
    assert received.received == clock("B:3")
    received = await c.buffer.receive([after_a[5], after_a[6]])
    assert received.received == clock("B:3")
    received = await c.buffer.receive([after_a[4]])
    assert received.received == clock("B:3")
    received = await c.buffer.receive([after_a[3]])
    assert received.received == clock("B:7")
    received = await c.buffer.receive(notes("A", 1))
    assert received.received == VectorClock(), "nothing waits"
    assert received.clock == clock("A:1 B:7")


async def test_received_never_falls_behind_what_was_applied(make_store: MakeStore) -> None:
    a = await make_store("A")
    b = notes("B", 9)
    await a.buffer.receive([b[8]])
    received = await a.buffer.receive(b[:4])
    assert received.received == clock("B:4")


async def test_missing_names_the_first_that_each_waiting_actor_lacks(make_store: MakeStore) -> None:
    d = await make_store("D")
    b, c = notes("B", 9), notes("C", 2, after=clock("A:3 B:1"))
    assert (await d.buffer.receive([b[4], b[8]])).missing == clock("B:1")
    assert (await d.buffer.receive(b[:2])).missing == clock("B:3")
    received = await d.buffer.receive(c)
    assert received.missing == clock("A:3 B:3")
    received = await d.buffer.receive(notes("A", 3))
    assert counts(received) == {"applied": 3, "drained": 2}
    assert received.missing == clock("B:3")


async def test_missing_names_the_greatest_of_what_several_lack_of_one_actor(
    make_store: MakeStore,
) -> None:
    d = await make_store("D")
    received = await d.buffer.receive(
        [*notes("B", 1, after=clock("A:2")), *notes("C", 1, after=clock("A:5"))]
    )
    assert received.missing == clock("A:5")
    received = await d.buffer.receive(notes("A", 2))
    assert received.missing == clock("A:5")
    assert received.drained == 1


# --- cost -----------------------------------------------------------------------------------------


async def commands_of(store: Store, writes: Sequence[Write], drain_max: int = 256) -> int:
    """How many commands Redis executes for one call of the script with `writes`."""
    await store.redis.config_resetstat()
    await step(store, writes, drain_max)
    stats = await store.redis.info("commandstats")
    ours = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
    return sum(calls for name, calls in ours.items() if not name.startswith(("config", "info")))


async def waiting(store: Store, writes: Sequence[Write]) -> None:
    """All of `writes` are in the pending buffer."""
    for start in range(0, len(writes), 1000):
        received = await store.scripts.receive_writes(
            store.node, writes[start : start + 1000], 7, 100_000, 256
        )
        assert isinstance(received, Received)
        assert received.pending == len(writes[start : start + 1000])


def behind_a_gap(count: int) -> list[Write]:
    """Writes of B, of which the first has not come."""
    return notes("B", count + 1)[1:]


def behind_a_cause(count: int) -> list[Write]:
    """Writes of B that wait for a write of A."""
    return notes("B", count, after=clock("A:1"))


def of_many_actors(count: int) -> list[Write]:
    """Writes of ten actors that wait for a write of A."""
    return [w for n in range(10) for w in notes(f"B{n}", count // 10, after=clock("A:1"))]


@real_redis_only
@pytest.mark.parametrize("waiting_writes", [behind_a_gap, behind_a_cause, of_many_actors])
async def test_applying_a_write_costs_the_same_whether_10_or_10_000_wait(
    make_store: MakeStore, waiting_writes: Any
) -> None:
    [news] = notes("C", 1)
    costs = {}
    for count in (10, 10_000):
        store = await make_store("N")
        await waiting(store, waiting_writes(count))
        costs[count] = await commands_of(store, [news])
        assert sum((await store.buffer.counts()).values()) == count
        assert (await store.store.clock()) == clock("C:1")
    assert costs[10_000] == costs[10]


@real_redis_only
async def test_draining_costs_per_write_applied_and_not_per_write_waiting(
    make_store: MakeStore,
) -> None:
    """Of C some writes become deliverable; of B many or few wait on."""
    drained = notes("C", 50, after=clock("A:1"))
    costs = {}
    for count in (10, 10_000):
        store = await make_store("N")
        await waiting(store, behind_a_gap(count))
        await waiting(store, drained)
        costs[count] = await commands_of(store, notes("A", 1))
        assert (await store.store.clock()) == clock("A:1 C:50")
        assert await store.buffer.counts() == {"B": count}
    assert costs[10_000] == costs[10]


@real_redis_only
async def test_draining_twice_as_many_writes_costs_twice_as_much(make_store: MakeStore) -> None:
    costs = {}
    for count in (100, 200, 300, 2000):
        store = await make_store("N")
        await waiting(store, behind_a_gap(count))
        costs[count] = await commands_of(store, notes("B", 1), drain_max=count)
        assert (await store.store.clock()) == VectorClock({"B": count + 1})
    per_hundred = costs[200] - costs[100]
    assert costs[300] - costs[200] == per_hundred
    assert costs[2000] - costs[300] == 17 * per_hundred


# --- siblings -------------------------------------------------------------------------------------


def three_lunches() -> list[Write]:
    """Three nodes put lunch without knowing of each other, two of them at the same instant."""
    return [
        Node("A").write([Put("lunch", b"pizza")], 5),
        Node("B").write([Put("lunch", b"soup")], 9),
        Node("C").write([Put("lunch", b"bread")], 9),
    ]


async def test_concurrent_puts_are_all_kept_and_have_one_winner_in_any_order(
    make_store: MakeStore,
) -> None:
    d = await make_store("D")
    for order in itertools.permutations(three_lunches()):
        await d.redis.flushdb()
        await begin(d.scripts, "D")
        for write in order:
            await d.buffer.receive([write])
        reading = await d.store.read("lunch")
        assert [v.value for v in reading.versions] == [b"bread", b"soup", b"pizza"]
        assert list(reading.versions) == winner_first(reading.versions)
        assert reading.context == clock("A:1 B:1 C:1")


async def test_nodes_that_wrote_concurrently_converge(make_store: MakeStore) -> None:
    a, b = await make_store("A"), await make_store("B")
    a.set_time(500)
    b.set_time(400)
    await a.store.commit([Put("lunch", b"pizza")])
    await b.store.commit([Put("lunch", b"soup")])
    await b.buffer.receive(await a.store.log.after("A", 0, 10))
    await a.buffer.receive(await b.store.log.after("B", 0, 10))
    assert await state(a) == await state(b)
    assert [v.value for v in (await a.store.read("lunch")).versions] == [b"pizza", b"soup"]


async def test_an_actor_has_at_most_one_sibling(make_store: MakeStore) -> None:
    a, b, c = await make_store("A"), Node("B"), Node("C")
    for n in range(1, 6):
        await a.buffer.receive([b.write([Put("lunch", b"b%d" % n)], n)])
        await a.buffer.receive([c.write([Put("lunch", b"c%d" % n)], 100 - n)])
        values = [version.value for version in (await a.store.read("lunch")).versions]
        assert values == [b"c%d" % n, b"b%d" % n]


async def test_a_write_supersedes_only_the_siblings_that_it_knew(make_store: MakeStore) -> None:
    d, b = await make_store("D"), Node("B")
    pizza, soup, bread = three_lunches()
    b.receive([pizza])
    b.applied.append(soup)
    better = b.write([Put("lunch", b"better soup")], 20)
    await d.buffer.receive([pizza, soup, bread])
    await d.buffer.receive([better])
    assert [v.value for v in (await d.store.read("lunch")).versions] == [b"better soup", b"bread"]


# --- deletes --------------------------------------------------------------------------------------


@pytest.fixture
def lunch() -> Write:
    return Node("A").write([Put("lunch", b"noon?")], 5)


def delete_of(lunch: Write) -> Write:
    """A has deleted lunch."""
    a = Node("A", applied=[lunch])
    return a.write([Delete("lunch")], 6)


def concurrent_put(lunch: Write) -> Write:
    """B, which does not know of the delete, has put another lunch."""
    b = Node("B")
    b.receive([lunch])
    return b.write([Put("lunch", b"one?")], 7)


async def test_a_put_that_is_concurrent_with_a_delete_survives_it(
    make_store: MakeStore, lunch: Write
) -> None:
    for order in itertools.permutations([delete_of(lunch), concurrent_put(lunch)]):
        c = await make_store("C")
        await c.buffer.receive([lunch])
        for write in order:
            await c.buffer.receive([write])
        assert [v.value for v in (await c.store.read("lunch")).versions] == [b"one?"]


async def test_a_delete_does_not_undo_the_version_it_did_not_know_at_its_own_node(
    make_store: MakeStore, lunch: Write
) -> None:
    a = await make_store("A")
    a.set_time(5)
    await a.store.commit([Put("lunch", b"noon?")])
    await a.store.commit([Delete("lunch")])
    assert not await a.redis.exists("kv:lunch")
    await a.buffer.receive([concurrent_put(lunch)])
    assert [v.value for v in (await a.store.read("lunch")).versions] == [b"one?"]


@pytest.mark.parametrize("first", ["delete", "put"])
async def test_who_reads_the_surviving_sibling_has_seen_the_delete(
    make_store: MakeStore, lunch: Write, first: str
) -> None:
    delete, put = delete_of(lunch), concurrent_put(lunch)
    c = await make_store("C")
    await c.buffer.receive([lunch])
    for write in [delete, put] if first == "delete" else [put, delete]:
        await c.buffer.receive([write])
    assert (await c.store.read("lunch")).context == clock("A:2 B:1")
    assert await c.redis.hget("kv:lunch", "deletes") == b"A:2"


@pytest.mark.parametrize("first", ["delete", "put"])
async def test_the_trace_of_a_delete_goes_when_a_write_covers_it(
    make_store: MakeStore, lunch: Write, first: str
) -> None:
    delete, put = delete_of(lunch), concurrent_put(lunch)
    c = await make_store("C")
    await c.buffer.receive([lunch])
    for write in [delete, put] if first == "delete" else [put, delete]:
        await c.buffer.receive([write])
    b = Node("B")
    b.receive([lunch, put, delete])
    b.applied.sort(key=lambda write: write.timestamp)
    await c.buffer.receive([b.write([Put("lunch", b"two?")], 20)])
    assert await c.redis.hkeys("kv:lunch") == [b"B:2"]
    assert (await c.store.read("lunch")).context == clock("B:2")


async def test_a_delete_elsewhere_in_the_meantime_removes_only_what_it_knew(
    make_store: MakeStore, lunch: Write
) -> None:
    """Two deletes and a put, all concurrent: the put stays."""
    c = Node("C")
    c.receive([lunch])
    other_delete = c.write([Delete("lunch")], 8)
    writes = [delete_of(lunch), other_delete, concurrent_put(lunch)]
    for order in itertools.permutations(writes):
        d = await make_store("D")
        await d.buffer.receive([lunch])
        for write in order:
            await d.buffer.receive([write])
        assert [v.value for v in (await d.store.read("lunch")).versions] == [b"one?"]


async def test_a_delete_that_was_noted_is_known_still_when_all_that_it_left_is_deleted_too(
    make_store: MakeStore,
) -> None:
    """A writes and deletes; B, which never hears of it, writes, deletes, and writes again."""
    a, b, c = Node("A"), Node("B"), await make_store("C")
    pizza, no_pizza = a.write([Put("lunch", b"pizza")], 5), a.write([Delete("lunch")], 6)
    soup, no_soup = b.write([Put("lunch", b"soup")], 5), b.write([Delete("lunch")], 6)
    bread = b.write([Put("lunch", b"bread")], 7)
    for write in (pizza, soup, no_pizza, no_soup, bread):
        await c.buffer.receive([write])
    reading = await c.store.read("lunch")
    assert [v.value for v in reading.versions] == [b"bread"]
    # At B, where pizza has come and its delete has not, this reader would see pizza again.
    b.receive([pizza])
    assert [v.value for v in b.versions("lunch")] == [b"bread", b"pizza"]
    assert not reading.context <= b.clock


class History:
    """What three nodes wrote about one key, each having heard of some of the others' writes."""

    def __init__(self) -> None:
        self.nodes = {name: Node(name) for name in "ABC"}
        self.writes: list[Write] = []

    def __repr__(self) -> str:
        return "\n".join(
            f"{write.operations[0]} as {write.dot} after {write.dependencies}"
            for write in self.writes
        )

    def write(self, name: str, *, delete: bool) -> None:
        operation = Delete("lunch") if delete else Put("lunch", b"%d" % len(self.writes))
        self.writes.append(self.nodes[name].write([operation], len(self.writes) + 1))

    def deliver(self, which: int, name: str) -> None:
        if self.writes:
            self.nodes[name].receive([self.writes[which % len(self.writes)]])

    def causal_pasts(self) -> Iterable[list[Write]]:
        """Every set of writes that a node may have applied."""
        last = [range(len([w for w in self.writes if w.dot.actor == name]) + 1) for name in "ABC"]
        for sequences in itertools.product(*last):
            now = VectorClock(zip("ABC", sequences, strict=True))
            past = [write for write in self.writes if now.covers(write.dot)]
            if all(write.dependencies <= now for write in past):
                yield past


@st.composite
def histories(draw: st.DrawFn) -> tuple[History, list[Write]]:
    """A history, and an order in which some of it arrives at a fourth node."""
    history = History()
    for _ in range(draw(st.integers(0, 14))):
        name = draw(st.sampled_from("ABC"))
        match draw(st.sampled_from(["put", "delete", "deliver"])):
            case "deliver":
                history.deliver(draw(st.integers(0, 9)), name)
            case what:
                history.write(name, delete=what == "delete")
    order = draw(st.permutations(history.writes))
    return history, order[: draw(st.integers(0, len(order)))]


@given(histories())
@settings(max_examples=200, deadline=None)
def test_what_a_reader_saw_removed_it_sees_nowhere_again(
    story: tuple[History, list[Write]],
) -> None:
    asyncio.run(what_was_removed_is_seen_nowhere_again(*story))


async def what_was_removed_is_seen_nowhere_again(history: History, order: list[Write]) -> None:
    redis, keys, progress = FakeAsyncRedis(server=FakeServer()), Keys(), Progress()
    scripts = Scripts(redis, keys)
    store = KVStore(redis, keys, scripts, progress, FirstLife("D"), lambda: 1)
    await begin(scripts, "D")
    for write in order:
        await scripts.receive_writes("D", [write], 1, 1000, 1000)
    here, reading = await store.clock(), await store.read("lunch")
    await redis.aclose()
    remaining = {version.dot for version in reading.versions}
    removed = {w.dot for w in history.writes if here.covers(w.dot)} - remaining
    assert reading.context <= here, "a context asks for what its own node does not have"
    for past in history.causal_pasts():
        elsewhere = Node("E", applied=past)
        if reading.context <= elsewhere.clock:
            seen = {version.dot for version in elsewhere.versions("lunch")}
            assert not seen & removed, (
                f"applied in the order {[str(write.dot) for write in order]}, "
                f"read {remaining} with {reading.context}, then at {elsewhere.clock}"
            )


async def test_a_key_deleted_everywhere_leaves_nothing_on_any_node(make_store: MakeStore) -> None:
    stores = [await make_store(name) for name in "ABC"]
    a, b, c = stores
    for store in stores:
        await store.store.commit([Put("lunch", store.node.encode())])
    await exchange(stores)
    assert len((await a.store.read("lunch")).versions) == 3
    await b.store.commit([Delete("lunch")])
    await c.store.commit([Put("dinner", b"six?")])
    await exchange(stores)
    for store in stores:
        assert await store.redis.keys("kv:*") == [b"kv:dinner"]
        assert not await store.redis.keys("pending:*")


async def test_a_deleted_key_does_not_come_back_with_a_node_that_was_away(
    make_store: MakeStore,
) -> None:
    stores = [await make_store(name) for name in "ABC"]
    a, b, c = stores
    await a.store.commit([Put("lunch", b"noon?")])
    await exchange(stores)
    await a.store.commit([Delete("lunch")])
    await exchange([a, b])
    await c.store.commit([Put("dinner", b"six?")])
    # C returns, and sends all it ever had.
    for actor in await c.store.clock():
        for store in (a, b):
            await store.buffer.receive(await c.store.log.after(actor, 0, 10))
    await exchange(stores)
    for store in stores:
        assert await store.redis.keys("kv:*") == [b"kv:dinner"]


async def exchange(stores: Sequence[Store]) -> None:
    """Every one of `stores` has received all writes of all of them."""
    for receiver in stores:
        for sender in stores:
            if (await sender.store.clock())[sender.node]:
                await receiver.buffer.receive(await sender.store.log.after(sender.node, 0, 100))
    for receiver in stores:
        assert await receiver.buffer.counts() == {}
