"""The pending buffer: what waits, for what, and what becomes of what a crash left behind.

What is applied, and when, is tested with the script: tests/lua/test_receive_writes.py.
"""

import pytest

from app.buffer import Blocked
from app.vector_clock import Dot, VectorClock
from app.write import Put, Write
from tests.conftest import MakeStore
from tests.listeners import listeners
from tests.model import Node


def clock(text: str) -> VectorClock:
    return VectorClock.parse(text)


def chain() -> tuple[Write, Write, Write, Write]:
    """A writes twice; B answers the second; C answers B. Each depends on all before it."""
    a, b, c = Node("A"), Node("B"), Node("C")
    first = a.write([Put("lunch", b"noon?")], 1)
    second = a.write([Put("lunch", b"or one?")], 2)
    b.receive([first, second])
    third = b.write([Put("lunch", b"one"), Put("tea", b"five")], 3)
    c.receive([first, second, third])
    return first, second, third, c.write([Put("lunch", b"fine")], 4)


def in_short(blocked: list[Blocked]) -> list[tuple[str, list[str]]]:
    return [(str(b.waiting.write.dot), [str(dot) for dot in b.waiting_for]) for b in blocked]


# --- what waits, and for what ---------------------------------------------------------------------


async def test_an_empty_buffer_holds_nothing(make_store: MakeStore) -> None:
    d = await make_store("D")
    assert await d.buffer.counts() == {}
    assert await d.buffer.blocked(10) == []
    assert await d.buffer.missing_for(clock("A:7")) == clock("A:1")


async def test_what_waits_is_counted_by_actor(make_store: MakeStore) -> None:
    d = await make_store("D")
    first, second, third, fourth = chain()
    await d.buffer.receive([second, third, fourth])
    assert await d.buffer.counts() == {"A": 1, "B": 1, "C": 1}
    await d.buffer.receive([first])
    assert await d.buffer.counts() == {}


async def test_each_waiting_write_is_shown_with_what_it_waits_for(make_store: MakeStore) -> None:
    d = await make_store("D")
    d.set_time(77)
    first, second, third, fourth = chain()
    await d.buffer.receive([third, fourth])
    assert in_short(await d.buffer.blocked(10)) == [("B:1", ["A:2"]), ("C:1", ["A:2", "B:1"])]
    await d.buffer.receive([first])
    [blocked, _] = await d.buffer.blocked(10)
    assert blocked.waiting.write == third
    assert blocked.waiting.since_us == 77
    await d.buffer.receive([second])
    assert await d.buffer.blocked(10) == []


async def test_a_write_after_a_gap_waits_for_the_write_before_it(make_store: MakeStore) -> None:
    d, b = await make_store("D"), Node("B")
    writes = [b.write([Put("x", b"1")], n) for n in range(1, 4)]
    await d.buffer.receive([writes[0], writes[2]])
    assert in_short(await d.buffer.blocked(10)) == [("B:3", ["B:2"])]


async def test_the_first_that_wait_are_shown_when_there_are_many(make_store: MakeStore) -> None:
    d, b, c = await make_store("D"), Node("B"), Node("C")
    of_b = [b.write([Put("x", b"1")], n) for n in range(1, 13)]
    of_c = [c.write([Put("x", b"1")], n) for n in range(1, 4)]
    await d.buffer.receive([*of_b[:0:-1], *of_c[1:]])
    shown = [str(blocked.waiting.write.dot) for blocked in await d.buffer.blocked(4)]
    assert shown == ["B:2", "B:3", "C:2", "C:3"], "one actor does not hide another"
    assert len(await d.buffer.blocked(100)) == 13
    assert await d.buffer.counts() == {"B": 11, "C": 2}


# --- what has to come first -----------------------------------------------------------------------


async def test_what_waits_leads_to_the_write_that_everything_waits_for(
    make_store: MakeStore,
) -> None:
    d = await make_store("D")
    first, second, third, fourth = chain()
    await d.buffer.receive([second, third, fourth])
    assert await d.buffer.missing_for(clock("C:1")) == clock("A:1")
    assert await d.buffer.missing_for(clock("A:2")) == clock("A:1")
    await d.buffer.receive([first])
    assert await d.buffer.missing_for(clock("A:2 B:1 C:1")) == VectorClock()


async def test_a_chain_with_several_holes_names_them_all(make_store: MakeStore) -> None:
    d = await make_store("D")
    _, second, _, fourth = chain()
    await d.buffer.receive([second, fourth])
    assert await d.buffer.missing_for(clock("C:1")) == clock("A:1 B:1")


async def test_what_neither_is_here_nor_waits_names_itself_or_what_comes_before_it(
    make_store: MakeStore,
) -> None:
    d = await make_store("D")
    first, _, _, _ = chain()
    assert await d.buffer.missing_for(clock("B:1")) == clock("B:1")
    await d.buffer.receive([first])
    assert await d.buffer.missing_for(clock("A:9")) == clock("A:2")


async def test_a_waiting_write_beyond_a_gap_leads_to_the_gap(make_store: MakeStore) -> None:
    d, b = await make_store("D"), Node("B")
    writes = [b.write([Put("x", b"1")], n) for n in range(1, 10)]
    await d.buffer.receive([writes[0], writes[1], writes[8]])
    assert await d.buffer.missing_for(clock("B:9")) == clock("B:3")


# --- progress -------------------------------------------------------------------------------------


async def test_what_was_received_moves_the_progress_of_the_worker(make_store: MakeStore) -> None:
    d = await make_store("D")
    first, second, _, _ = chain()
    await d.buffer.receive([second])
    assert d.progress.clock == VectorClock()
    assert d.progress.known_for_s(Dot("A", 1)) >= 0
    await d.buffer.receive([first])
    assert d.progress.clock == clock("A:2")


async def test_the_limit_holds_over_all_actors_together(make_store: MakeStore) -> None:
    d = await make_store("D", pending_max=2)
    first, second, third, fourth = chain()
    received = await d.buffer.receive([fourth, third, second])
    assert (received.pending, received.refused) == (2, 1)
    assert await d.buffer.counts() == {"B": 1, "C": 1}
    received = await d.buffer.receive([second, first])
    assert (received.refused, received.applied) == (1, 1)
    received = await d.buffer.receive([second])
    assert (received.applied, received.drained) == (1, 2)
    assert await d.buffer.counts() == {}


# --- large batches -------------------------------------------------------------------------------


async def test_a_large_batch_is_taken_in_pieces_so_that_redis_answers_others_in_between(
    make_store: MakeStore,
) -> None:
    d, b = await make_store("D", drain_max=4), Node("B")
    sizes = (2, 2, 2, 2, 2, 6, 1)
    writes = [
        b.write([Put(f"{n}-{i}", b"x") for i in range(size)], n)
        for n, size in enumerate(sizes, start=1)
    ]
    async with listeners(d, 2) as listener:
        received = await d.buffer.receive(writes)
        said = await listener.hears()
    assert said == [b"B:2", b"B:4", b"B:5", b"B:6", b"B:7"], "a call applied up to each of these"
    assert (received.applied, received.clock) == (7, clock("B:7"))


async def test_what_became_of_a_large_batch_is_counted_as_a_whole(make_store: MakeStore) -> None:
    d, b = await make_store("D", drain_max=1, pending_max=2), Node("B")
    writes = [b.write([Put("x", b"%d" % n)], n) for n in range(1, 7)]
    await d.buffer.receive(writes[:1])
    received = await d.buffer.receive([writes[0], writes[5], writes[3], writes[4], writes[1]])
    assert (received.duplicate, received.pending, received.refused) == (1, 2, 1)
    assert (received.applied, received.clock) == (1, clock("B:2"))
    received = await d.buffer.receive([writes[2]])
    assert (received.applied, received.drained, received.clock) == (1, 1, clock("B:4"))


# --- the sweep ------------------------------------------------------------------------------------


@pytest.mark.parametrize("received", ["0", "1", "2"])
async def test_the_sweep_applies_what_is_deliverable_and_was_left_behind(
    make_store: MakeStore, received: str
) -> None:
    """As after a crash of a Redis that kept the entries and not what was made of them."""
    d = await make_store("D")
    await d.redis.hset("pending:B", "1", b"5 6 \n3:put,5:lunch,3:a/b,4:soup,")
    await d.redis.hset("pending:B", "2", b"5 7 B:1\n6:delete,3:tea,")
    await d.redis.hset("received", "B", received)
    swept = await d.buffer.sweep()
    assert (swept.drained, swept.clock) == (2, clock("B:2"))
    assert [v.value for v in (await d.store.read("lunch")).versions] == [b"soup"]
    assert [write.timestamp for write in await d.store.log.after("B", 0, 10)] == [6, 7]
    assert not await d.redis.exists("pending:B", "received")
    assert d.progress.clock == clock("B:2")


async def test_the_sweep_goes_on_where_a_drain_was_cut_short(make_store: MakeStore) -> None:
    """A worker that dies between two calls of the script leaves deliverable writes waiting."""
    d, b = await make_store("D", drain_max=2), Node("B")
    writes = [b.write([Put("x", b"%d" % n)], n) for n in range(1, 9)]
    await d.buffer.receive(writes[1:])
    first_call = await d.scripts.receive_writes("D", writes[:1], 5, 100, 2)
    assert first_call is not None
    assert first_call.more
    swept = await d.buffer.sweep()
    assert (swept.drained, swept.clock) == (5, clock("B:8"))


async def test_the_sweep_changes_nothing_where_nothing_is_deliverable(
    make_store: MakeStore,
) -> None:
    d = await make_store("D")
    _, second, _, _ = chain()
    await d.buffer.receive([second])
    before = {key: await d.redis.dump(key) for key in await d.redis.keys()}
    swept = await d.buffer.sweep()
    assert swept.drained == 0
    assert swept.missing == clock("A:1")
    assert {key: await d.redis.dump(key) for key in await d.redis.keys()} == before
