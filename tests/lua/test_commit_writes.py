"""lua/commit_writes.lua: a local write is named, stamped, applied and logged in one step."""

import asyncio

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from app.commits import Committed
from app.conditions import Condition
from app.errors import IdempotencyKeyReused, PreconditionFailed, RedisUnavailable
from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock
from app.write import SYSTEM, TIMESTAMP_MAX, Delete, Operation, Put, write_problem
from tests.commits import commit_one
from tests.conftest import SERVERS, MakeRedis, MakeStore, Store
from tests.listeners import listeners
from tests.model import Node

real_redis_only = pytest.mark.parametrize("make_redis", SERVERS, indirect=True)


async def commit(store: Store, *operations: Operation) -> Committed:
    """The write of these operations is committed; a put of lunch if none is named."""
    committed = await store.store.commit(operations or [Put("lunch", b"noon?")])
    assert isinstance(committed, Committed)
    return committed


async def fields(store: Store, key: str) -> set[bytes]:
    """The fields of the hash of a user key: its dots, and perhaps `deletes`."""
    return set(await store.redis.hkeys(f"kv:{key}"))


async def test_sequences_begin_at_1_and_have_no_gaps(make_store: MakeStore) -> None:
    a = await make_store("A")
    committed = [await commit(a) for _ in range(5)]
    assert [c.dot for c in committed] == [Dot("A", n) for n in range(1, 6)]
    assert [c.clock for c in committed] == [VectorClock({"A": n}) for n in range(1, 6)]
    assert await a.redis.hgetall("clock") == {b"A": b"5"}


async def test_sequences_stay_exact_where_doubles_end(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.redis.hset("clock", "A", SEQUENCE_MAX - 2)
    assert (await commit(a)).dot == Dot("A", SEQUENCE_MAX - 1)
    assert (await commit(a)).dot == Dot("A", SEQUENCE_MAX)
    assert await a.redis.hget("clock", "A") == str(SEQUENCE_MAX).encode()
    [write] = await a.store.log.after("A", SEQUENCE_MAX - 1, 10)
    assert write.dependencies == VectorClock({"A": SEQUENCE_MAX - 1})


async def test_a_write_depends_on_all_that_was_applied_before_it(make_store: MakeStore) -> None:
    a, b = await make_store("A"), Node("B")
    first = await commit(a)
    await a.buffer.receive([b.write([Put("dinner", b"six?")], 1), b.write([Delete("dinner")], 2)])
    second = await commit(a)
    assert second.clock == VectorClock({"A": 2, "B": 2})
    log = await a.store.log.after("A", 0, 10)
    assert [write.dependencies for write in log] == [VectorClock(), VectorClock({"A": 1, "B": 2})]
    assert [write.dot for write in log] == [first.dot, second.dot]


async def test_a_timestamp_follows_the_wall_clock_when_that_is_ahead(make_store: MakeStore) -> None:
    a = await make_store("A")
    a.set_time(1_700_000_000_000_000)
    assert (await commit(a)).timestamp == 1_700_000_000_000_000
    a.set_time(1_700_000_000_000_500)
    assert (await commit(a)).timestamp == 1_700_000_000_000_500


@pytest.mark.parametrize("later", [1_000_000, 999_999, 1], ids=["stands still", "back", "far back"])
async def test_a_timestamp_is_later_than_all_before_though_the_wall_clock_is_not(
    make_store: MakeStore, later: int
) -> None:
    a = await make_store("A")
    a.set_time(1_000_000)
    first = await commit(a)
    a.set_time(later)
    second, third = await commit(a), await commit(a)
    assert (first.timestamp, second.timestamp, third.timestamp) == (1_000_000, 1_000_001, 1_000_002)


async def test_a_timestamp_is_later_than_what_came_from_a_node_whose_clock_is_ahead(
    make_store: MakeStore,
) -> None:
    a, b = await make_store("A"), Node("B")
    await a.buffer.receive([b.write([Put("lunch", b"noon?")], 9_000_000)])
    assert (await commit(a)).timestamp == 9_000_001
    assert (await a.store.life()).timestamp == 9_000_001


@pytest.mark.parametrize("whose", ["its own", "a peer's"])
async def test_no_clock_makes_a_node_write_what_its_peers_refuse(
    make_store: MakeStore, whose: str
) -> None:
    """Else it would be acknowledged, and reach nobody; nor would what follows it."""
    a, b = await make_store("A"), Node("B")
    if whose == "its own":
        a.set_time(2**60)
    else:
        await a.buffer.receive([b.write([Put("lunch", b"noon?")], TIMESTAMP_MAX)])
    for value in (b"one?", b"two?"):
        await commit(a, Put("lunch", value))
    log = await a.store.log.after("A", 0, 10)
    assert [(write.timestamp, write_problem(write)) for write in log] == 2 * [(TIMESTAMP_MAX, None)]
    other = await make_store("C")
    await other.buffer.receive([*b.applied, *log])
    assert await fields(other, "lunch") == {b"A:2"}


@pytest.mark.parametrize(
    "value",
    [b"", b"\0", bytes(range(256)), b"3:put,5:lunch,", b"line\nbreak\n", b" ", "çâ".encode()],
)
async def test_a_value_may_be_any_bytes(make_store: MakeStore, value: bytes) -> None:
    a = await make_store("A")
    await commit(a, Put("lunch", value, "text/plain; charset=utf-8"))
    [version] = (await a.store.read("lunch")).versions
    assert (version.value, version.content_type) == (value, "text/plain; charset=utf-8")
    [logged] = await a.store.log.after("A", 0, 1)
    assert logged.operations == (Put("lunch", value, "text/plain; charset=utf-8"),)


@pytest.mark.parametrize("key", ["é", "a b", "a\nb", "a,b:c", "\0", "deletes", "A:1", "kv:x"])
async def test_a_key_may_be_any_text(make_store: MakeStore, key: str) -> None:
    a = await make_store("A")
    await commit(a, Put(key, b"1"), Put("another", b"2"))
    assert [v.value for v in (await a.store.read(key)).versions] == [b"1"]
    await commit(a, Delete(key))
    assert (await a.store.read(key)).versions == ()
    assert [v.value for v in (await a.store.read("another")).versions] == [b"2"]


async def test_several_operations_share_one_dot(make_store: MakeStore) -> None:
    a = await make_store("A")
    await commit(a, Put("gone", b"x"))
    committed = await commit(a, Put("lunch", b"1"), Delete("gone"), Put("dinner", b"2"))
    assert committed.dot == Dot("A", 2)
    for key in ("lunch", "dinner"):
        [version] = (await a.store.read(key)).versions
        assert (version.dot, version.timestamp) == (committed.dot, committed.timestamp)
    assert (await a.store.read("gone")).versions == ()
    [_, logged] = await a.store.log.after("A", 0, 10)
    assert logged.operations == (Put("lunch", b"1"), Delete("gone"), Put("dinner", b"2"))


async def test_as_many_operations_as_a_write_may_have(make_store: MakeStore) -> None:
    a = await make_store("A")
    await commit(a, *(Put(f"key{n}", b"x") for n in range(1000)))
    assert (await a.store.read("key999")).versions[0].dot == Dot("A", 1)


async def siblings_at(store: Store) -> None:
    """Lunch has two siblings there, of B and of C, and a delete that they do not know is noted."""
    b, c, d = Node("B"), Node("C"), Node("D")
    first = b.write([Put("lunch", b"pizza")], 4)
    c.receive([first])
    d.receive([first])
    concurrent = [
        b.write([Put("lunch", b"pasta")], 5),
        c.write([Put("lunch", b"soup")], 6),
        d.write([Delete("lunch")], 7),
    ]
    await store.buffer.receive([first, *concurrent])
    assert await fields(store, "lunch") == {b"B:2", b"C:1", b"deletes"}


async def test_a_put_supersedes_all_siblings_here_and_what_is_noted_of_deletes(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await siblings_at(a)
    await commit(a, Put("lunch", b"both"))
    assert await fields(a, "lunch") == {b"A:1"}


async def test_a_delete_removes_all_siblings_here_and_leaves_no_key_behind(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await siblings_at(a)
    await commit(a, Delete("lunch"))
    assert not await a.redis.exists("kv:lunch")


async def test_a_delete_of_something_is_noted_once_for_the_node(make_store: MakeStore) -> None:
    a = await make_store("A")
    await commit(a, Put("lunch", b"noon?"), Put("dinner", b"six?"))
    await commit(a, Delete("lunch"))
    assert await a.redis.hgetall("deletes") == {b"A": b"2"}
    await commit(a, Delete("dinner"))
    assert await a.redis.hgetall("deletes") == {b"A": b"3"}


async def test_a_delete_of_nothing_is_a_write_and_leaves_no_note(make_store: MakeStore) -> None:
    a = await make_store("A")
    assert (await commit(a, Delete("lunch"))).dot == Dot("A", 1)
    assert not await a.redis.exists("deletes", "kv:lunch")
    [logged] = await a.store.log.after("A", 0, 10)
    assert logged.operations == (Delete("lunch"),)


async def test_an_emptied_redis_is_not_written_to(make_store: MakeStore) -> None:
    a = await make_store("A")
    await commit(a)
    await a.redis.flushall()
    with pytest.raises(
        RedisUnavailable, match="no longer holds what this node has applied"
    ) as refusal:
        await commit(a)
    assert refusal.value.outcome == "not_applied"
    assert await a.redis.dbsize() == 0


async def test_the_redis_of_another_actor_is_not_written_to(make_store: MakeStore) -> None:
    a = await make_store("A")
    await commit(a)
    before = {key: await a.redis.dump(key) for key in await a.redis.keys()}
    assert await commit_one(a.scripts, "B", [Put("lunch", b"mine")], 5) is None
    assert {key: await a.redis.dump(key) for key in await a.redis.keys()} == before


@pytest.mark.parametrize(("workers", "told"), [(2, [b"A:1", b"A:2"]), (1, [])])
async def test_other_workers_are_told_of_the_write(
    make_store: MakeStore, workers: int, told: list[bytes]
) -> None:
    a = await make_store("A")
    async with listeners(a, workers) as listener:
        await commit(a)
        await commit(a)
        assert await listener.hears() == told


async def test_the_log_entry_can_be_found_and_read_by_a_person(make_store: MakeStore) -> None:
    a = await make_store("A")
    a.set_time(5)
    await commit(a, Put("lunch", b"noon?", "text/plain"), Delete("dinner"))
    [(entry_id, entry)] = await a.redis.xrange("log:A")
    assert entry_id == b"1-0"
    assert entry == {
        b"timestamp": b"5",
        b"dependencies": b"",
        b"operations": b"3:put,5:lunch,10:text/plain,5:noon?,6:delete,6:dinner,",
    }


@real_redis_only
async def test_a_full_redis_refuses_the_whole_write(
    make_store: MakeStore, make_redis: MakeRedis
) -> None:
    a = await make_store("A")
    await commit(a)
    before = {key: await a.redis.dump(key) for key in await a.redis.keys()}
    settings: Redis = make_redis()
    await settings.config_set("maxmemory", "1")
    try:
        with pytest.raises((OutOfMemoryError, ResponseError), match="used memory"):
            await commit_one(a.scripts, "A", [Put("lunch", b"x"), Delete("lunch2")], 5)
    finally:
        await settings.config_set("maxmemory", "0")
    assert {key: await a.redis.dump(key) for key in await a.redis.keys()} == before
    assert (await commit(a)).dot == Dot("A", 2)


# --- conditions and reads ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Condition.exists("lunch"), True),
        (Condition.absent("lunch"), False),
        (Condition.exists("dinner"), False),
        (Condition.absent("dinner"), True),
        (Condition.matches("lunch", ["B:2,C:1"]), True),
        (Condition.matches("lunch", ["D:1", "B:2,C:1"]), True),
        (Condition.matches("lunch", ["C:1,B:2"]), False),
        (Condition.matches("lunch", ["B:2"]), False),
        (Condition.matches("lunch", ["A:1,B:2,C:1"]), False),
        (Condition.matches("lunch", []), False),
        (Condition.matches("dinner", ["A:1"]), False),
        (Condition.matches("dinner", []), False),
    ],
    ids=lambda value: f"{value.key} {value.wanted}" if isinstance(value, Condition) else str(value),
)
async def test_a_write_is_done_only_if_its_condition_holds(
    make_store: MakeStore, condition: Condition, holds: bool
) -> None:
    a = await make_store("A")
    await siblings_at(a)
    before = {key: await a.redis.dump(key) for key in await a.redis.keys()}
    write = a.store.commit([Put("tea", b"five")], VectorClock(), [condition])
    if holds:
        assert (await write).dot == Dot("A", 1)
        return
    with pytest.raises(PreconditionFailed) as refusal:
        await write
    assert {key: await a.redis.dump(key) for key in await a.redis.keys()} == before
    [held] = refusal.value.held
    assert held.key == condition.key
    if held.key == "lunch":
        assert set(held.dots) == {Dot("B", 2), Dot("C", 1)}
        assert held.seen == VectorClock({"B": 2, "C": 1, "D": 1}), "the delete is seen, too"
    else:
        assert (held.dots, held.seen) == ((), a.progress.clock)


async def test_every_condition_that_fails_is_told(make_store: MakeStore) -> None:
    a = await make_store("A")
    await commit(a)
    conditions = [
        Condition.exists("dinner"),
        Condition.exists("lunch"),
        Condition.absent("lunch"),
        Condition.absent("tea"),
    ]
    with pytest.raises(PreconditionFailed) as refusal:
        await a.store.commit([Put("tea", b"five")], VectorClock(), conditions)
    assert [held.key for held in refusal.value.held] == ["dinner", "lunch"]


async def test_what_is_read_is_what_was_there_before_the_write(make_store: MakeStore) -> None:
    a = await make_store("A")
    await siblings_at(a)
    committed = await a.store.commit(
        [Put("lunch", b"both"), Put("tea", b"five")],
        VectorClock(),
        [Condition.absent("tea")],
        ["tea", "lunch"],
    )
    tea, lunch = committed.before
    assert tea == {}
    assert set(lunch) == {b"B:2", b"C:1", b"deletes"}
    assert await fields(a, "lunch") == {b"A:1"}


# --- requests that are repeated -------------------------------------------------------------------

DAY_US = 24 * 60 * 60 * 10**6


async def ask(store: Store, request: str, *operations: Operation) -> Committed:
    """The write is committed for a request with this Idempotency-Key."""
    asked = operations or [Put("lunch", b"noon?")]
    committed = await store.store.commit(asked, request=request)
    assert isinstance(committed, Committed)
    return committed


async def test_a_request_is_done_once_and_answered_the_same(make_store: MakeStore) -> None:
    a = await make_store("A")
    first = await ask(a, "request 1")
    await commit(a, Put("lunch", b"later"))
    again = await ask(a, "request 1")
    assert again == replace(first, replayed=True)
    assert not first.replayed
    assert await a.redis.hgetall("clock") == {b"A": b"2"}
    assert [v.value for v in (await a.store.read("lunch")).versions] == [b"later"]
    other = await ask(a, "request 2")
    assert (other.dot, other.replayed) == (Dot("A", 3), False)


async def test_a_request_is_done_once_though_it_comes_many_times_at_once(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    done = await asyncio.gather(*(ask(a, "request") for _ in range(20)))
    assert {committed.dot for committed in done} == {Dot("A", 1)}
    assert sorted(committed.replayed for committed in done) == [False] + 19 * [True]


async def test_a_request_for_something_else_is_refused(make_store: MakeStore) -> None:
    a = await make_store("A")
    await ask(a, "request")
    before = {key: await a.redis.dump(key) for key in await a.redis.keys()}
    for operation in (Put("lunch", b"one?"), Put("tea", b"noon?"), Delete("lunch")):
        with pytest.raises(IdempotencyKeyReused):
            await ask(a, "request", operation)
    with pytest.raises(IdempotencyKeyReused):
        await a.store.commit(
            [Put("lunch", b"noon?")], VectorClock(), [Condition.exists("lunch")], request="request"
        )
    assert {key: await a.redis.dump(key) for key in await a.redis.keys()} == before


async def test_a_conditional_request_that_was_done_is_answered_the_same_though_its_condition_fails(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    absent, put = [Condition.absent("lunch")], [Put("lunch", b"noon?")]
    first = await a.store.commit(put, VectorClock(), absent, request="request")
    again = await a.store.commit(put, VectorClock(), absent, request="request")
    assert again == replace(first, replayed=True)


async def test_a_request_that_was_refused_may_be_sent_again(make_store: MakeStore) -> None:
    a = await make_store("A")
    exists, put = [Condition.exists("lunch")], [Put("lunch", b"noon?")]
    with pytest.raises(PreconditionFailed):
        await a.store.commit(put, VectorClock(), exists, request="request")
    await commit(a)
    assert (await a.store.commit(put, VectorClock(), exists, request="request")).dot == Dot("A", 2)


async def test_requests_are_remembered_for_a_day_and_at_most_so_many(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")

    async def remembered() -> set[bytes]:
        requests = set(await a.redis.hkeys("requests"))
        assert requests == set(await a.redis.lrange("requests-order", 0, -1))
        return requests

    for number in range(4):
        await ask(a, f"{number}")
    a.set_time(1_000_000 + DAY_US - 1)
    await ask(a, "almost a day later")
    assert len(await remembered()) == 5
    a.set_time(1_000_000 + DAY_US)
    await ask(a, "a day later")
    assert await remembered() == {b"2", b"3", b"almost a day later", b"a day later"}
    for number in range(3):
        await commit_one(a.scripts, "A", [Delete("x")], 5, request=f"more {number}", requests_max=3)
    assert await remembered() == {b"more 0", b"more 1", b"more 2"}


@real_redis_only
async def test_what_cannot_be_published_is_written_whole(make_store: MakeStore) -> None:
    a = await make_store("A")
    key = f"{SYSTEM}a key of the system"
    for right in ("resetchannels", "-publish", "-pubsub"):
        await a.redis.execute_command("ACL", "SETUSER", "default", right)
    try:
        first = await a.store.commit([Put(key, b"1")])
        second = await a.store.commit([Put(key, b"2")])
    finally:
        await a.redis.execute_command("ACL", "SETUSER", "default", "allchannels", "+@all")
    assert (first.dot, second.dot) == (Dot("A", 1), Dot("A", 2))
    assert await a.store.clock() == VectorClock({"A": 2})
    assert [write.dot for write in await a.store.log.after("A", 0, 10)] == [first.dot, second.dot]
