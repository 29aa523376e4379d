"""lua/accept_deferred.lua, lua/commit_deferred.lua and lua/commit_former.lua: a write is named and
kept, and committed when its context has come."""

import asyncio

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from app import codec
from app.commits import Accepted, Committed
from app.errors import DeferredFull, IdempotencyKeyReused, RedisUnavailable, Syncing
from app.incarnation import Settled
from app.keys import end_key
from app.lane_scripts import LaneScripts
from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock
from app.write import Delete, Operation, Put, Write
from tests.conftest import SERVERS, MakeStore, Store
from tests.model import Node

real_redis_only = pytest.mark.parametrize("make_redis", SERVERS, indirect=True)

REPLY = Put("reply", b"yes", "text/plain")


def clock(text: str) -> VectorClock:
    return VectorClock.parse(text)


async def accept(
    store: Store, context: str, *operations: Operation, request: str = ""
) -> Accepted | Committed:
    return await store.deferred.accept(operations or (REPLY,), clock(context), request)


async def waiting(store: Store) -> list[str]:
    return [str(one.dot) for one in await store.deferred.first(100)]


async def log_of(store: Store, actor: str) -> list[Write]:
    return await store.store.log.after(actor, 0, 100)


async def new_incarnation(store: Store, actor: str) -> None:
    """The node writes under another name from now on."""
    settled = Settled(actor, "a test")
    before = await store.redis.hmget("meta", "actor", "run")
    await store.redis.hset("meta", "actor", settled.actor)
    assert before[0] != actor.encode()
    store.life.node = actor


# --- accepting -----------------------------------------------------------------------------------


async def test_what_is_accepted_has_the_next_dot_of_the_lane_and_changes_nothing_else(
    make_store: MakeStore,
) -> None:
    c = await make_store("C")
    accepted = [await accept(c, "A:2") for _ in range(3)]
    assert [one.dot for one in accepted] == [Dot("C+", n) for n in (1, 2, 3)]
    assert await waiting(c) == ["C+:1", "C+:2", "C+:3"]
    assert await c.store.clock() == VectorClock()
    assert (await c.store.read("reply")).versions == ()
    assert await c.redis.exists("log:C+") == 0
    assert await c.redis.hgetall("deferred") == {b"C+": b"3"}


async def test_many_at_once_have_dots_of_their_own(make_store: MakeStore) -> None:
    c = await make_store("C")
    dots = await asyncio.gather(*(accept(c, "A:2") for _ in range(20)))
    assert {one.dot for one in dots} == {Dot("C+", n) for n in range(1, 21)}


async def test_no_more_are_accepted_than_may_wait(make_store: MakeStore) -> None:
    c, a = await make_store("C", deferred_max=2), Node("A")
    await accept(c, "A:1")
    await accept(c, "A:1")
    with pytest.raises(DeferredFull, match="DEFERRED_MAX"):
        await accept(c, "A:1")
    await c.buffer.receive([a.write([Put("lunch", b"noon?")], 1)])
    await c.deferred.commit_due()
    assert (await accept(c, "A:2")).dot == Dot("C+", 3)


async def test_nor_more_bytes_than_may_wait(make_store: MakeStore) -> None:
    c, a = await make_store("C", deferred_max_bytes=300), Node("A")
    await accept(c, "A:1", Put("key", bytes(200)))
    with pytest.raises(DeferredFull, match="DEFERRED_MAX_BYTES"):
        await accept(c, "A:1", Put("key", bytes(200)))
    await c.buffer.receive([a.write([Put("lunch", b"noon?")], 1)])
    await c.deferred.commit_due()
    assert await c.redis.hget("meta", "deferred_bytes") == b"0"
    await accept(c, "A:2", Put("key", bytes(200)))


async def test_a_redis_of_another_name_accepts_nothing(make_store: MakeStore) -> None:
    c = await make_store("C")
    scripts = LaneScripts(c.redis, c.keys)
    assert await scripts.accept_deferred("B", [REPLY], clock("A:1"), 5) is None
    assert await scripts.commit_deferred("B", 5, 10) is None
    assert await c.redis.keys("deferred*") == []


async def test_a_redis_that_forgot_what_its_lane_gave_accepts_nothing(
    make_store: MakeStore,
) -> None:
    """It was emptied, or put back, and would give the dot again (G4)."""
    c = await make_store("C")
    await accept(c, "A:1")
    await c.redis.delete("deferred", "deferred:C+")
    with pytest.raises(RedisUnavailable):
        await accept(c, "A:1")
    assert c.life.doubts
    assert await c.redis.keys("deferred*") == []


async def test_a_redis_that_forgot_what_its_lane_did_does_not_do_it_again(
    make_store: MakeStore,
) -> None:
    """It was put back to when the write still waited, and would give it another time (G4, G5)."""
    c = await make_store("C")
    await accept(c, "")
    packed = await c.redis.hgetall("deferred:C+")
    await c.deferred.commit_due()
    assert c.progress.clock == clock("C+:1")
    await c.redis.hdel("clock", "C+")
    await c.redis.delete("log:C+")
    await c.redis.hset("deferred", "C+", 1)
    await c.redis.hset("deferred:C+", mapping=packed)
    with pytest.raises(RedisUnavailable):
        await c.deferred.commit_due()
    assert c.life.doubts
    assert await waiting(c) == ["C+:1"]
    assert not await c.redis.exists("log:C+")


async def test_nothing_is_accepted_or_committed_while_a_snapshot_is_merged(
    make_store: MakeStore,
) -> None:
    c = await make_store("C")
    await accept(c, "")
    await c.redis.hset("meta", "merging", "a snapshot")
    with pytest.raises(Syncing):
        await accept(c, "A:1")
    with pytest.raises(Syncing):
        await c.deferred.commit_due()
    assert await waiting(c) == ["C+:1"]


@real_redis_only
async def test_a_full_redis_accepts_nothing_and_keeps_what_waits(make_store: MakeStore) -> None:
    c = await make_store("C")
    await accept(c, "")
    await c.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises((OutOfMemoryError, ResponseError, RedisUnavailable)):
            await accept(c, "A:1")
        with pytest.raises((OutOfMemoryError, ResponseError, RedisUnavailable)):
            await c.deferred.commit_due()
    finally:
        await c.redis.config_set("maxmemory", 0)
    assert await waiting(c) == ["C+:1"]
    assert (await c.deferred.commit_due()).committed == 1


# --- committing ----------------------------------------------------------------------------------


async def test_it_is_committed_once_its_context_has_come_and_not_before(
    make_store: MakeStore,
) -> None:
    c, a = await make_store("C"), Node("A")
    writes = [a.write([Put("lunch", b"noon?")], 10), a.write([Put("lunch", b"one?")], 20)]
    await accept(c, "A:2")
    due = await c.deferred.commit_due()
    assert (due.committed, due.lacks) == (0, clock("A:2"))
    await c.buffer.receive(writes[:1])
    assert (await c.deferred.commit_due()).committed == 0
    assert (await c.store.read("reply")).versions == ()
    await c.buffer.receive(writes[1:])
    due = await c.deferred.commit_due()
    assert (due.committed, due.lacks, due.clock) == (1, VectorClock(), clock("A:2 C+:1"))
    assert (await c.store.read("reply")).versions[0].dot == Dot("C+", 1)
    assert await waiting(c) == []
    assert await c.redis.keys("deferred*") == []
    assert (await c.deferred.commit_due()).committed == 0


async def test_it_depends_on_all_that_is_here_when_it_is_committed_and_is_later_than_that(
    make_store: MakeStore,
) -> None:
    c, a = await make_store("C"), Node("A")
    await accept(c, "A:1")
    await c.store.commit([Put("reply", b"mine")])
    await c.buffer.receive([a.write([Put("lunch", b"noon?")], 7_000_000)])
    await c.deferred.commit_due()
    [write] = await log_of(c, "C+")
    assert write.dependencies == clock("A:1 C:1")
    assert write.timestamp == 7_000_001
    assert [v.dot for v in (await c.store.read("reply")).versions] == [Dot("C+", 1)]
    assert write.operations == (REPLY,)


async def test_they_are_committed_in_the_order_in_which_they_were_accepted(
    make_store: MakeStore,
) -> None:
    """One that could be done waits for the one before it."""
    c, a = await make_store("C"), Node("A")
    await accept(c, "A:1", Put("x", b"1"))
    await accept(c, "", Put("x", b"2"))
    await accept(c, "A:2", Put("x", b"3"))
    assert (await c.deferred.commit_due()).committed == 0
    await c.buffer.receive([a.write([Put("lunch", b"noon?")], 1)])
    due = await c.deferred.commit_due()
    assert (due.committed, due.lacks) == (2, clock("A:2"))
    assert (await c.store.read("x")).versions[0].value == b"2"


async def test_clocks_are_written_alike_by_nodes_that_commit_and_that_receive(
    make_store: MakeStore,
) -> None:
    c, b = await make_store("C"), await make_store("B")
    await c.store.commit([Put("lunch", b"noon?")])
    for number in range(3):
        await accept(c, "", Put("x", b"%d" % number))
    await c.deferred.commit_due()
    for actor in ("C", "C+"):
        await b.take(*await log_of(c, actor))
        assert await b.redis.xrange(f"log:{actor}") == await c.redis.xrange(f"log:{actor}")


async def test_who_waits_for_what_was_accepted_before_has_it_in_its_context(
    make_store: MakeStore,
) -> None:
    c, a = await make_store("C"), Node("A")
    await accept(c, "A:1")
    await accept(c, "A:1 C+:1")
    await c.buffer.receive([a.write([Put("lunch", b"noon?")], 1)])
    assert (await c.deferred.commit_due()).committed == 2


async def test_other_writes_of_the_node_do_not_wait_for_them(make_store: MakeStore) -> None:
    c = await make_store("C")
    await accept(c, "A:1")
    assert (await c.store.commit([Put("lunch", b"noon?")])).dot == Dot("C", 1)


@pytest.mark.parametrize("most", [1, 2])
async def test_however_few_are_committed_at_once_all_are(make_store: MakeStore, most: int) -> None:
    c = await make_store("C", drain_max=most)
    for number in range(5):
        await accept(c, "", Put(f"key-{number}", b"x"))
    await c.deferred.commit_due()
    assert await c.store.clock() == clock("C+:5")
    assert len(await log_of(c, "C+")) == 5


async def test_a_worker_commits_what_it_accepted_as_soon_as_it_is_due(
    make_store: MakeStore,
) -> None:
    c, a = await make_store("C"), Node("A")
    keeping = asyncio.create_task(c.deferred.keep())
    await accept(c, "A:1")
    await c.buffer.receive([a.write([Put("lunch", b"noon?")], 1)])
    assert not await c.progress.reach(clock("C+:1"), 20, c.store.clock)
    assert await waiting(c) == []
    keeping.cancel()


async def test_deletes_and_transactions_are_deferred_as_well(make_store: MakeStore) -> None:
    c, a = await make_store("C"), Node("A")
    await accept(c, "A:1", Delete("lunch"), Put("dinner", b"six?"))
    await c.buffer.receive([a.write([Put("lunch", b"noon?")], 1)])
    await c.deferred.commit_due()
    assert (await c.store.read("lunch")).versions == ()
    assert (await c.store.read("dinner")).versions[0].dot == Dot("C+", 1)
    assert await c.redis.zcard("conflicts") == 0


# --- once for a request --------------------------------------------------------------------------


async def test_a_request_that_is_repeated_is_accepted_once(make_store: MakeStore) -> None:
    c, a = await make_store("C"), Node("A")
    first = await accept(c, "A:1", request="r")
    again = await accept(c, "A:1", request="r")
    assert (first.dot, first.replayed, again.dot, again.replayed) == (
        *(Dot("C+", 1), False),
        *(Dot("C+", 1), True),
    )
    assert isinstance(again, Accepted)
    as_a_write = await c.store.commit([REPLY], request="r")
    assert (type(as_a_write), as_a_write.dot) == (Accepted, Dot("C+", 1))
    with pytest.raises(IdempotencyKeyReused):
        await accept(c, "A:1", Put("reply", b"no"), request="r")
    assert await waiting(c) == ["C+:1"]

    await c.buffer.receive([a.write([Put("lunch", b"noon?")], 1)])
    await c.deferred.commit_due()
    for done in (await accept(c, "A:1", request="r"), await c.store.commit([REPLY], request="r")):
        assert isinstance(done, Committed)
        assert (done.dot, done.replayed, done.clock) == (Dot("C+", 1), True, clock("A:1 C+:1"))
    assert len(await log_of(c, "C+")) == 1


async def test_a_request_that_was_done_is_not_accepted_again(make_store: MakeStore) -> None:
    c = await make_store("C")
    done = await c.store.commit([REPLY], request="r")
    again = await accept(c, "A:1", request="r")
    assert isinstance(again, Committed) and again.replayed and again.dot == done.dot
    assert await waiting(c) == []


# --- a later incarnation -------------------------------------------------------------------------


async def test_a_lane_that_has_ended_commits_nothing_under_its_name(make_store: MakeStore) -> None:
    c = await make_store("C")
    await accept(c, "")
    await new_incarnation(c, "C~x1")
    due = await c.deferred.commit_due()
    assert (due.committed, due.former) == (0, ("C+",))
    assert (await accept(c, "")).dot == Dot("C~x1+", 1)
    due = await c.deferred.commit_due()
    assert (due.committed, due.former) == (1, ("C+",))
    assert await waiting(c) == ["C+:1"]


async def test_what_comes_home_to_a_lane_that_has_ended_waits_no_more(
    make_store: MakeStore,
) -> None:
    """It had been committed and sent in what Redis has lost."""
    c = await make_store("C")
    await accept(c, "A:1", Put("x", b"1"))
    await accept(c, "A:1", Put("x", b"2"))
    await new_incarnation(c, "C~x1")
    a, before = Node("A"), Node("C+")
    cause = a.write([Put("lunch", b"noon?")], 1)
    before.receive([cause])
    effect = before.write([Put("x", b"1")], 5)
    await c.take(cause, effect)
    assert (await c.deferred.commit_due()).former == ("C+",)
    assert await waiting(c) == ["C+:2"]
    await c.take(before.write([Put("x", b"2")], 6))
    assert (await c.deferred.commit_due()).former == ()
    assert await c.redis.keys("deferred*") == []
    assert await c.redis.hget("meta", "deferred_bytes") == b"0"
    assert [v.dot for v in (await c.store.read("x")).versions] == [Dot("C+", 2)]


async def test_what_nobody_has_is_committed_under_another_name_and_ends_the_lane(
    make_store: MakeStore,
) -> None:
    c, a = await make_store("C"), Node("A")
    await accept(c, "A:1", Put("x", b"1"), request="r")
    await accept(c, "A:1 C+:1", Put("x", b"2"))
    await new_incarnation(c, "C~x1")
    assert not await c.deferred.commit_former("C+", 0), "its context has not come"
    await c.take(a.write([Put("lunch", b"noon?")], 1))
    assert not await c.deferred.commit_former("C+", 1), "another one is here"
    assert await c.deferred.commit_former("C+", 0)
    assert await c.store.clock() == clock("A:1 C~x1:2")
    assert await waiting(c) == ["C+:2"]
    assert await c.deferred.commit_former("C+", 0)
    assert not await c.deferred.commit_former("C+", 0)
    assert (await c.store.clock())["C+"] == SEQUENCE_MAX, "whoever waits for C+:2 waits no more"
    done, first, done_too, second, end = await log_of(c, "C~x1")
    twin = Node("C")
    twin.accept([Put("x", b"1")], clock("A:1"))
    twin.accept([Put("x", b"2")], clock("A:1 C+:1"))
    twin.name = "C~x1"
    assert twin.commit_former("C+", 1_000_000) is None
    twin.receive(await log_of(c, "A"))
    assert twin.commit_former("C+", 1_000_000) == first
    assert twin.applied[-2] == done
    assert done.operations == (Put("\0done/C+", b"1 C~x1:2", "text/plain"),)
    assert twin.commit_former("C+", 1_000_000) == second
    assert done_too.operations == (Put("\0done/C+", b"2 C~x1:4", "text/plain"),)
    assert (twin.applied[-3:], twin.clock) == ([done_too, second, end], await c.store.clock())
    assert (first.operations, second.operations) == ((Put("x", b"1"),), (Put("x", b"2"),))
    assert end.operations == (Put(end_key("C+"), b"0", "text/plain"),)
    assert await c.store.log.after("C+", 0, 10) == []
    assert await c.scripts.find_hole() == ""
    again = await accept(c, "", Put("x", b"1"), request="r")
    assert isinstance(again, Committed) and again.dot == Dot("C~x1", 2) and again.replayed


async def test_two_lanes_do_not_wait_for_each_other_when_one_of_them_has_ended(
    make_store: MakeStore,
) -> None:
    """A session has asked C, then B, then C; and what waits first at C has another name since."""
    c, b = await make_store("C"), await make_store("B")
    await accept(c, "A:1", Put("x", b"1"))
    await accept(b, "A:1 C+:1", Put("y", b"2"))
    await accept(c, "B+:1 C+:1", Put("x", b"3"))
    await new_incarnation(c, "C~x1")
    cause = Node("A").write([Put("lunch", b"noon?")], 1)
    twins = Node("C"), Node("B")
    for twin, store, writes in zip(
        twins, (c, b), (["A:1", "B+:1 C+:1"], ["A:1 C+:1"]), strict=True
    ):
        for seen in writes:
            twin.accept([Put("x", b"")], clock(seen))
        await store.take(cause)
        twin.receive([cause])
    twins[0].name = "C~x1"

    assert await c.deferred.commit_former("C+", 0) and twins[0].commit_former("C+", 1_000_000)
    assert not await c.deferred.commit_former("C+", 0), "B+:1 has not come"
    assert twins[0].commit_former("C+", 1_000_000) is None
    assert (await b.deferred.commit_due()).committed == 0, "it waits for C+:1"
    assert not twins[1].commit_deferred(1_000_000)
    for other in await log_of(c, "C~x1"):
        assert (await b.deferred.commit_due()).committed == 0
        await b.take(other)
    due = await b.deferred.commit_due()
    assert (due.committed, due.lacks) == (1, clock(""))
    twins[1].receive(twins[0].applied)
    assert [str(write.dot) for write in twins[1].commit_deferred(1_000_000)] == ["B+:1"]
    assert "C+" not in await b.store.clock(), "who reads with that name waits until all is done"
    await c.take(*await log_of(b, "B+"))
    twins[0].receive(twins[1].applied)
    assert await c.deferred.commit_former("C+", 0) and twins[0].commit_former("C+", 1_000_000)
    assert (
        twins[0].clock
        == await c.store.clock()
        == clock("A:1 B+:1 C~x1:5").merge(VectorClock([("C+", SEQUENCE_MAX)]))
    )


async def test_what_turns_up_of_a_lane_after_its_end_is_a_duplicate(make_store: MakeStore) -> None:
    c, b = await make_store("C"), await make_store("B")
    await accept(c, "", Put("x", b"1"))
    await new_incarnation(c, "C~x1")
    assert await c.deferred.commit_former("C+", 0)
    late = Node("C+").write([Put("x", b"1")], 5)
    for store in (b, c):
        await store.buffer.receive(await log_of(c, "C~x1"))
        assert (await store.buffer.receive([late])).duplicate == 1
        assert [v.dot for v in (await store.store.read("x")).versions] == [Dot("C~x1", 2)]


async def test_a_redis_that_forgot_what_was_done_under_another_name_does_not_do_it_again(
    make_store: MakeStore,
) -> None:
    """It was put back under a running node, and would give other writes the same names (G4)."""
    c = await make_store("C")
    await accept(c, "")
    lane = await c.redis.hgetall("deferred:C+")
    await new_incarnation(c, "C~x1")
    assert await c.deferred.commit_former("C+", 0)
    assert c.progress.clock["C~x1"] == 3
    await c.redis.delete("clock", "log:C~x1", *await c.redis.keys("kv:*"))
    await c.redis.hset("deferred", "C+", 1)
    await c.redis.hset("deferred:C+", mapping=lane)
    with pytest.raises(RedisUnavailable):
        await c.deferred.commit_former("C+", 0)
    assert c.life.doubts
    assert await waiting(c) == ["C+:1"]
    assert not await c.redis.exists("log:C~x1")


@pytest.mark.parametrize("came", [0, 1, 2, 3, 4, 5])
async def test_what_was_done_before_the_node_was_put_back_again_is_not_done_once_more(
    make_store: MakeStore, came: int
) -> None:
    """In between it was `C~x1`, and so many of that one's writes have come home."""
    copy, other = await make_store("C"), await make_store("B")
    for store in (copy, other):
        await accept(store, "", Put("x", b"1"), request="r")
        await accept(store, "", Put("y", b"2"))
    # What `other` holds is what the node held in between: the same disk, then lost.
    await other.redis.rename("deferred:B+", "deferred:C+")
    await other.redis.delete("deferred")
    await other.redis.hset("deferred", "C+", 2)
    await new_incarnation(other, "C~x1")
    while await other.deferred.commit_former("C+", 0):
        pass
    done = await log_of(other, "C~x1")
    assert len(done) == 5

    await new_incarnation(copy, "C~x2")
    await copy.buffer.receive(done[:came])
    twin = Node("C")
    twin.accept([Put("x", b"1")], VectorClock())
    twin.accept([Put("y", b"2")], VectorClock())
    twin.name = "C~x2"
    twin.receive(done[:came])
    while await copy.deferred.commit_former("C+", 0):
        twin.commit_former("C+", 1_000_000)
    assert await waiting(copy) == [] and not twin.deferred
    assert await copy.store.clock() == twin.clock
    assert twin.clock["C+"] == SEQUENCE_MAX
    by = {1: "C~x1", 2: "C~x2"}
    for key, number in (("x", 2), ("y", 4)):
        [version] = (await copy.store.read(key)).versions
        assert version.dot.actor == by[1 if came >= number else 2], key
    again = await accept(copy, "", Put("x", b"1"), request="r")
    assert isinstance(again, Committed) and again.replayed


async def test_the_lane_that_writes_is_never_ended(make_store: MakeStore) -> None:
    c = await make_store("C")
    await accept(c, "")
    assert not await c.deferred.commit_former("C+", 0)
    assert await waiting(c) == ["C+:1"]


async def test_a_write_of_its_lane_that_redis_has_lost_is_not_taken_from_a_peer(
    make_store: MakeStore,
) -> None:
    c = await make_store("C")
    with pytest.raises(RedisUnavailable):
        await c.buffer.receive([Node("C+").write([REPLY], 5)])
    assert c.life.seen == clock("C+:1")
    assert await c.store.clock() == VectorClock()


async def test_an_entry_can_be_read_by_a_person(make_store: MakeStore) -> None:
    c = await make_store("C")
    c.set_time(1_795_379_720_504_862)
    await accept(c, "B:7 A:3", request="a request")
    packed = await c.redis.hget("deferred:C+", "1")
    assert packed == (b"1795379720504862 A:3 B:7\na request\n3:put,5:reply,10:text/plain,3:yes,")
    unpacked = codec.unpack_deferred("C+", 1, packed)
    assert (unpacked.context, unpacked.operations) == (clock("A:3 B:7"), (REPLY,))
