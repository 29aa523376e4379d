"""What is under way to a peer: how much, at which intervals, and what an answer changes."""

import asyncio

import pytest

from app import wire
from app.config import REPLICATE_SLACK_BYTES, Config
from app.errors import PeerError, PeerRefused, PeerTakesLess, PeerTooSlow, PeerUnreachable
from app.snapshot import Part
from app.under_way import _EVERY_S, _FULL, _LATELY, _LONG_S, _MOST, UnderWay
from app.vector_clock import Dot, VectorClock
from app.wire import Answer, Batch
from app.write import Delete, Put, Write

TIMEOUT_S = 10.0


def writes(first: int, last: int, value: bytes = b"") -> list[Write]:
    return [
        Write(Dot("A", n), VectorClock({"A": n - 1}), n, (Put("k", value),))
        for n in range(first, last + 1)
    ]


def answer(received: int) -> Answer:
    clock = VectorClock({"A": received})
    return Answer("B", clock, clock, VectorClock(), 0, 0, 0, 0, 0)


async def begun(
    under_way: UnderWay,
    first: int,
    last: int,
    now: float,
    part: Part | None = None,
    size: int = 0,
) -> asyncio.Future[Answer]:
    """Such a batch is under way; the result is what its answer will be."""
    told: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    async def exchange() -> Answer:
        return await told

    batch = Batch("A", "B", VectorClock(), tuple(writes(first, last, bytes(size))), part=part)
    under_way.begin(batch, asyncio.create_task(exchange()), now)
    return told


async def long_link(max_writes: int, max_bytes: int) -> UnderWay:
    """Nothing is under way, and the last exchange took long."""
    under_way = UnderWay(max_writes, max_bytes, TIMEOUT_S)
    await come(under_way, await begun(under_way, 1, 0, 0.0), 0)
    under_way.end_oldest(2 * _LONG_S)
    return under_way


async def come(under_way: UnderWay, told: asyncio.Future[Answer], received: int) -> None:
    """The answer to the oldest batch has come."""
    told.set_result(answer(received))
    await under_way.oldest.answer


async def answered(under_way: UnderWay, first: int, last: int, at: float, size: int = 0) -> None:
    """Such a batch was alone under way, and has been answered."""
    await come(under_way, await begun(under_way, first, last, at - 0.3, size=size), last)
    under_way.end_oldest(at)


async def test_one_batch_may_be_under_way_where_little_was_answered() -> None:
    under_way = await long_link(5, 10_000)
    assert len(under_way.fitting(writes(1, 9), 1000)) == 5
    await begun(under_way, 1, 3, 0.0)
    assert under_way.sent == VectorClock({"A": 3})
    assert not under_way.is_full
    assert len(under_way.fitting(writes(4, 9), 1000)) == 2
    await begun(under_way, 4, 5, 1.0)
    assert under_way.is_full
    under_way.drop()


async def three_answered_and_two_begun(at: float) -> tuple[UnderWay, asyncio.Future[Answer]]:
    """Three full batches have been answered, and two more have left; and what the answer to the
    first of these will be."""
    under_way = await long_link(5, 10_000)
    for n in range(3):
        await answered(under_way, 5 * n + 1, 5 * n + 5, 1.0 + 0.3 * n)
    oldest = await begun(under_way, 16, 20, at)
    await begun(under_way, 21, 25, at)
    return under_way, oldest


async def test_or_as_much_as_was_answered_in_the_last_second() -> None:
    under_way, oldest = await three_answered_and_two_begun(1.7)
    assert len(under_way.fitting(writes(26, 39), 1000)) == 5, "a batch is no larger for it"
    await begun(under_way, 26, 28, 1.7)
    assert len(under_way.fitting(writes(29, 39), 1000)) == 2
    await come(under_way, oldest, 20)
    under_way.end_oldest(2.1)
    assert len(under_way.fitting(writes(29, 39), 1000)) == 5
    assert not under_way.is_full
    under_way.drop()


async def test_what_was_answered_longer_ago_does_not_count() -> None:
    under_way, oldest = await three_answered_and_two_begun(2.0)
    assert not under_way.is_full
    await come(under_way, oldest, 20)
    under_way.end_oldest(2.6)
    assert under_way.is_full
    under_way.drop()


async def test_nor_does_what_was_answered_before_an_exchange_failed() -> None:
    under_way = await long_link(5, 10_000)
    await answered(under_way, 1, 5, 1.0)
    await answered(under_way, 6, 10, 1.0)
    await begun(under_way, 11, 15, 1.0)
    assert not under_way.is_full
    under_way.drop()
    await begun(under_way, 11, 15, 1.1)
    assert under_way.is_full
    under_way.drop()


async def test_so_it_is_with_bytes_and_one_write_may_pass_them() -> None:
    under_way = await long_link(100, 1000)
    assert len(under_way.fitting(writes(1, 9, b"x" * 600), 1000)) == 2
    assert len(under_way.fitting(writes(1, 9, b"x" * 6000), 1000)) == 1
    await answered(under_way, 1, 1, 1.0, size=3000)
    await begun(under_way, 2, 2, 1.0, size=1500)
    assert not under_way.is_full
    await begun(under_way, 3, 3, 1.0, size=1500)
    assert under_way.is_full
    under_way.drop()


@pytest.mark.parametrize("mib", [1, 4])
def test_what_fits_is_taken_by_whoever_has_the_same_settings(mib: int) -> None:
    """The keys have many bytes for their characters, the content types are long, and writes of
    nodes that have not heard of each other take turns."""
    size = mib * 1024 * 1024
    least = size + 1024 * 1024 + REPLICATE_SLACK_BYTES
    limits = {"batch_max_bytes": size, "txn_max_bytes": 1024 * 1024, "replicate_max_bytes": least}
    config = Config(node_id="A", batch_max_writes=10_000, **limits)
    past = {f"a-site-{n}": 1_000_000 for n in range(20)}
    for operations, seen in (
        (
            tuple(
                Put("\U00020000" * 126 + f"{n:03d}", b"x", "t/" + "x" * 253) for n in range(1000)
            ),
            {},
        ),
        ((Delete("k"),), past),
    ):
        writes = [
            Write(Dot(actor, n), VectorClock({**clock, actor: n - 1}), 2 * n, operations)
            for n in range(1, 5000)
            for actor, clock in (("A", seen), ("B", {}))
        ]
        fitting = UnderWay(10_000, size, TIMEOUT_S).fitting(writes, wire.ENTRIES_MAX)
        assert len(fitting) < len(writes)
        batch = wire.encode_batch(Batch("A", "B", VectorClock(past), tuple(fitting)))
        assert size / 2 < len(batch) <= config.replicate_max_bytes


async def test_so_many_full_batches_are_under_way_at_most() -> None:
    under_way = await long_link(5, 10_000)
    for n in range(3 * _FULL):
        await answered(under_way, 5 * n + 1, 5 * n + 5, 1.0)
    for n in range(3 * _FULL, 4 * _FULL):
        assert not under_way.is_full
        await begun(under_way, 5 * n + 1, 5 * n + 5, 1.0)
    assert under_way.is_full
    under_way.drop()


async def test_the_dependencies_of_a_batch_are_limited() -> None:
    # The first write depends on nothing, and each of the others on one.
    assert len(UnderWay(100, 10_000, TIMEOUT_S).fitting(writes(1, 9), 3)) == 4


async def test_no_more_than_so_many_are_under_way() -> None:
    under_way = await long_link(1000, 100_000)
    for n in range(1, _MOST + 1):
        assert not under_way.is_full
        await begun(under_way, n, n, float(n))
    assert under_way.is_full
    under_way.drop()


async def test_nothing_follows_a_part_of_a_snapshot() -> None:
    under_way = await long_link(1000, 100_000)
    await begun(under_way, 1, 0, 0.0, Part("s", "1", "", 0))
    assert under_way.is_full
    under_way.drop()


async def test_they_follow_each_other_at_an_interval() -> None:
    under_way = await long_link(1000, 100_000)
    await begun(under_way, 1, 1, 10.0)
    assert under_way.next_at == 10.0 + _EVERY_S
    await begun(under_way, 2, 2, 11.0)
    assert under_way.next_at == 11.0 + _EVERY_S
    under_way.drop()


async def test_nothing_follows_on_a_link_that_was_short_lately() -> None:
    under_way = UnderWay(1000, 100_000, TIMEOUT_S)

    async def exchange(took_s: float) -> bool:
        """Whether something could follow."""
        told = await begun(under_way, 1, 1, 0.0)
        follows = not under_way.is_full
        await come(under_way, told, 1)
        under_way.end_oldest(took_s)
        return follows

    assert not await exchange(1.0), "nothing is known yet"
    assert await exchange(1.0)
    assert await exchange(_LONG_S / 2)
    assert not any([await exchange(1.0) for _ in range(_LATELY)])
    assert await exchange(1.0)


async def test_answers_are_taken_in_the_order_in_which_batches_left() -> None:
    under_way = await long_link(1000, 100_000)
    first, second = await begun(under_way, 1, 1, 0.0), await begun(under_way, 2, 2, 0.0)
    second.set_result(answer(2))
    await come(under_way, first, 1)
    assert [under_way.end_oldest(1.0)[1].received["A"] for _ in range(2)] == [1, 2]
    assert not under_way and under_way.sent == VectorClock()


async def test_an_answer_that_lacks_what_was_sent_ends_it_until_all_are_answered() -> None:
    under_way = await long_link(1000, 100_000)
    first, second = await begun(under_way, 1, 2, 0.0), await begun(under_way, 3, 3, 0.0)
    await come(under_way, first, 1)
    under_way.end_oldest(1.0)
    assert under_way.is_full
    assert under_way.sent == VectorClock({"A": 3})
    await come(under_way, second, 1)
    under_way.end_oldest(1.0)
    assert not under_way.is_full
    assert under_way.sent == VectorClock(), "it is sent again"


async def test_what_is_dropped_is_cancelled_and_forgotten() -> None:
    under_way = await long_link(1000, 100_000)
    failed = await begun(under_way, 1, 1, 0.0)
    await begun(under_way, 2, 2, 0.0)
    oldest = under_way.oldest.answer
    failed.set_exception(PeerUnreachable("gone"))
    with pytest.raises(PeerUnreachable):
        await oldest
    with pytest.raises(PeerUnreachable):
        under_way.end_oldest(1.0)
    newest = under_way.oldest.answer
    under_way.drop()
    await asyncio.wait([newest])
    assert newest.cancelled()
    assert not under_way and not under_way.is_full and under_way.sent == VectorClock()


# --- how much one batch may hold -----------------------------------------------------------------


def room(under_way: UnderWay) -> tuple[int, int]:
    """How many writes the next batch would hold, if they were small; and of how many bytes."""
    return len(under_way.fitting(writes(1, 999), 100_000)), under_way.room[1]


async def failed(
    under_way: UnderWay, error: PeerError, count: int, size: int = 0, part: Part | None = None
) -> None:
    """So many writes of that size were under way alone, and failed."""
    told = await begun(under_way, 1, count, 0.0, part, size)
    told.set_exception(error)
    await asyncio.wait([under_way.oldest.answer])
    with pytest.raises(type(error)):
        under_way.end_oldest(TIMEOUT_S)
    under_way.drop()


async def test_what_was_not_answered_in_time_is_halved_down_to_one_and_to_none() -> None:
    under_way = UnderWay(8, 10**6, TIMEOUT_S)
    for held, left in ((8, 4), (4, 2), (2, 1), (1, 0)):
        await failed(under_way, PeerTooSlow(""), held)
        assert room(under_way)[0] == left
        assert under_way.only_asks == (left == 0)
    await failed(under_way, PeerTooSlow(""), 0)
    assert room(under_way)[0] == 0


async def test_of_bytes_it_is_half_of_what_the_batch_held() -> None:
    under_way = UnderWay(100, 10**6, TIMEOUT_S)
    await failed(under_way, PeerTooSlow(""), 4, 100_000)
    left = sum(map(wire.size_of, writes(1, 4, bytes(100_000)))) // 2
    assert room(under_way) == (2, left)
    await failed(under_way, PeerTooSlow(""), 3, 500_000)
    assert room(under_way) == (1, left // 2), "it had held more than it might have"


async def test_that_nothing_came_for_what_holds_nothing_says_nothing_of_size() -> None:
    under_way = UnderWay(8, 10**6, TIMEOUT_S)
    await failed(under_way, PeerTooSlow(""), 0)
    assert room(under_way) == (8, 10**6)


async def test_after_a_part_of_a_snapshot_that_was_not_answered_in_time_it_is_asked() -> None:
    under_way = UnderWay(8, 10**6, TIMEOUT_S)
    await failed(under_way, PeerTooSlow(""), 0, part=Part("s", "1", "", 0))
    assert under_way.only_asks


async def test_what_is_too_large_for_the_peer_is_halved_down_to_one() -> None:
    under_way = UnderWay(8, 10**6, TIMEOUT_S)
    for held, left in ((8, 4), (4, 2), (2, 1), (1, 1)):
        await failed(under_way, PeerTakesLess(""), held)
        assert room(under_way)[0] == left


@pytest.mark.parametrize("error", [PeerUnreachable("gone"), PeerRefused("no")])
async def test_another_failure_says_nothing_of_size(error: PeerError) -> None:
    under_way = UnderWay(8, 10**6, TIMEOUT_S)
    await failed(under_way, error, 8)
    assert room(under_way) == (8, 10**6)


async def narrowed(under_way: UnderWay) -> UnderWay:
    """Nothing came, until it only asks."""
    while not under_way.only_asks:
        await failed(under_way, PeerTooSlow(""), room(under_way)[0])
    return under_way


async def came(under_way: UnderWay, count: int, took_s: float, size: int = 0) -> None:
    """So many writes of that size were under way alone, and were answered so much later."""
    await come(under_way, await begun(under_way, 1, count, 0.0, size=size), count)
    under_way.end_oldest(took_s)


async def test_while_it_only_asks_nothing_follows() -> None:
    under_way = await narrowed(await long_link(8, 10**6))
    await begun(under_way, 1, 0, 0.0)
    assert under_way.is_full
    under_way.drop()


@pytest.mark.parametrize(
    ("took", "allowed"),
    [(0.49, [1, 3, 7, 15, 31, 50, 50]), (0.51, [1, 2, 3, 4])],
    ids=["soon: the double", "late: a little more"],
)
async def test_answers_let_a_batch_grow_by_how_soon_they_come(
    took: float, allowed: list[int]
) -> None:
    under_way = await narrowed(UnderWay(50, 10**6, TIMEOUT_S))
    found = []
    for _ in allowed:
        await came(under_way, room(under_way)[0], took * TIMEOUT_S)
        found.append(room(under_way)[0])
    assert found == allowed


async def test_answers_to_less_than_it_may_hold_say_nothing_of_more() -> None:
    under_way = UnderWay(50, 10**6, TIMEOUT_S)
    await failed(under_way, PeerTooSlow(""), 40)
    for took_s in (0.1, 9.0):
        await came(under_way, 3, took_s)
        assert room(under_way)[0] == 20


async def test_a_large_write_that_came_through_lets_bytes_grow_up_to_the_setting() -> None:
    under_way = await narrowed(UnderWay(50, 10**6, TIMEOUT_S))
    await came(under_way, 0, 0.1)
    assert len(under_way.fitting(writes(1, 9, b"x" * 400_000), 1000)) == 1
    await came(under_way, 1, 0.1, 400_000)
    assert 800_000 < room(under_way)[1] < 900_000
    await came(under_way, 2, 0.1, 400_000)
    assert room(under_way)[1] == 10**6


async def test_where_little_time_is_given_less_is_under_way() -> None:
    """What was answered within a quarter of it."""
    under_way = UnderWay(5, 10**6, 1.0)
    await come(under_way, await begun(under_way, 1, 0, 0.0), 0)
    under_way.end_oldest(2 * _LONG_S)
    await answered(under_way, 1, 5, 1.0)
    await answered(under_way, 6, 10, 1.1)
    await begun(under_way, 11, 15, 1.2)
    assert not under_way.is_full
    under_way.drop()
    await answered(under_way, 11, 15, 2.0)
    await answered(under_way, 16, 20, 2.3)
    await begun(under_way, 21, 25, 2.3)
    assert under_way.is_full
    under_way.drop()
