"""A snapshot is sent in parts, whatever happens between two of them."""

import random
from dataclasses import dataclass, field, replace

import pytest

from app import part_forms, snapshot_reading
from app.board import Board
from app.errors import RedisUnavailable
from app.snapshot import Cut, Kept, KeyState, Part
from app.snapshot_reading import SnapshotReader
from app.snapshot_sending import SnapshotSending
from app.vector_clock import VectorClock
from app.write import Delete, Put
from tests.conftest import MakeStore, Store
from tests.model import Node


def sending_of(store: Store, part_max_bytes: int = 300, seed: int = 1) -> SnapshotSending:
    return SnapshotSending(
        "B",
        "A",
        SnapshotReader(store.redis, store.keys, store.store, part_max_bytes),
        Board(store.redis, store.keys, store.scripts, "a worker"),
        lambda: store.time_us[0],
        random.Random(seed),
    )


@dataclass
class Receiver:
    """B, which keeps parts as the script does."""

    snapshot: str = ""
    last: str = ""
    staged: dict[str, KeyState] = field(default_factory=dict)
    cut: Cut | None = None
    parts: list[Part] = field(default_factory=list)

    def take(self, part: Part) -> Kept:
        self.parts.append(part)
        if not part.name and not part.after and self.snapshot != part.snapshot:
            self.snapshot, self.last, self.staged = part.snapshot, "", {}
        elif part.name and (self.snapshot, self.last) == (part.snapshot, part.after):
            self.last, self.cut = part.name, part.cut
            for state in part.keys:
                self.staged[state.key] = state
        return Kept(self.snapshot, self.last)

    @property
    def keys(self) -> list[str]:
        return sorted(key for key, state in self.staged.items() if state.versions)


async def exchange(sending: SnapshotSending, receiver: Receiver) -> bool:
    part = await sending.part()
    return part is not None and await sending.take(receiver.take(part))


async def send_all(sending: SnapshotSending, receiver: Receiver) -> None:
    while not await exchange(sending, receiver):
        pass


async def half_sent(
    make_store: MakeStore, exchanges: int
) -> tuple[Store, Receiver, SnapshotSending]:
    """A node, of which B has a part, and what sends the rest."""
    a, b = await make_store("A"), Receiver()
    await put(a, *KEYS)
    sending = sending_of(a)
    for _ in range(exchanges):
        await exchange(sending, b)
    return a, b, sending


async def put(store: Store, *keys: str, value: bytes = b"") -> None:
    for key in keys:
        await store.store.commit([Put(key, value, "text/plain")])


async def assert_same(store: Store, receiver: Receiver) -> None:
    """The receiver has what the store holds now, and the cut says when that was."""
    held = {key.decode().removeprefix("kv:") for key in await store.redis.keys("kv:*")}
    assert set(receiver.keys) == held
    for key in held:
        reading = await store.store.read(key)
        assert set(receiver.staged[key].versions) == set(reading.versions)
    assert receiver.cut is not None
    assert receiver.cut.clock == await store.store.clock()


def size_of_keys(part: Part) -> int:
    """How many bytes the keys take in the part."""
    return len(part_forms.encode(Part("", "", "", 0, part.keys))) - len(
        part_forms.encode(Part("", "", "", 0))
    )


def assert_bounded(parts: list[Part], most: int) -> None:
    """None of them has more than that, unless it is one key."""
    for part in parts:
        assert size_of_keys(part) <= most or len(part.keys) == 1


KEYS = [f"key-{n}" for n in range(60)]


async def test_all_keys_come_a_few_at_a_time(make_store: MakeStore) -> None:
    a, b, sending = await half_sent(make_store, 0)
    await send_all(sending, b)
    await assert_same(a, b)
    assert len(b.parts) > 4
    assert max(len(part.keys) for part in b.parts) < len(KEYS)


async def test_the_state_of_a_node_without_keys_is_a_cut(make_store: MakeStore) -> None:
    a, b = await make_store("A"), Receiver()
    await put(a, "x")
    await a.store.commit([Delete("x")])
    await send_all(sending_of(a), b)
    assert (b.keys, b.cut and b.cut.clock) == ([], VectorClock({"A": 2}))
    assert b.cut and b.cut.deletes == VectorClock({"A": 2})


async def test_what_is_written_meanwhile_is_in_it(make_store: MakeStore) -> None:
    a, b = await make_store("A"), Receiver()
    await put(a, *KEYS)
    sending = sending_of(a)
    for n in range(6):
        assert not await exchange(sending, b)
        await put(a, KEYS[n], f"new-{n}")
        await a.store.commit([Delete(KEYS[-1 - n])])
    await send_all(sending, b)
    await assert_same(a, b)


async def test_more_than_fits_the_cut_is_sent_before_it(make_store: MakeStore) -> None:
    a, b = await make_store("A"), Receiver()
    await put(a, *KEYS)
    sending = sending_of(a, part_max_bytes=150)
    for _ in range(3):
        await exchange(sending, b)
    await put(a, *(f"later-{n}" for n in range(300)))
    await send_all(sending, b)
    await assert_same(a, b)
    assert b.parts[-1].cut and len(b.parts[-1].keys) <= 128


@pytest.mark.parametrize("part_max_bytes", [1_000, 20_000])
@pytest.mark.parametrize(
    "sizes",
    [[9_000] * 20, [100, 100, 100, 19_000] * 15, [10] * 600],
    ids=["large", "mixed", "small"],
)
async def test_no_part_has_more_than_it_may_but_for_one_key(
    make_store: MakeStore, sizes: list[int], part_max_bytes: int
) -> None:
    a, b = await make_store("A"), Receiver()
    for n, size in enumerate(sizes):
        await put(a, f"key-{n}", value=bytes(size))
    await send_all(sending_of(a, part_max_bytes), b)
    await assert_same(a, b)
    assert_bounded(b.parts, part_max_bytes)
    assert len(b.parts) <= 3 + 2 * sum(size + 64 for size in sizes) // part_max_bytes


@pytest.mark.parametrize(
    ("count", "size"), [(120, 4_000), (480, 1_200), (700, 1_200)], ids=["few", "many", "far behind"]
)
async def test_what_was_written_meanwhile_comes_in_no_larger_parts(
    make_store: MakeStore, count: int, size: int
) -> None:
    """Though what was read before was small."""
    a, b = await make_store("A"), Receiver()
    await put(a, *KEYS)
    sending = sending_of(a, part_max_bytes=20_000)
    while not b.staged:
        await exchange(sending, b)
    await put(a, *(f"later-{n}" for n in range(count)), value=bytes(size))
    await send_all(sending, b)
    await assert_same(a, b)
    assert_bounded(b.parts, 20_000)
    assert len(b.parts) <= 6 + 2 * count * (size + 64) // 20_000


@pytest.mark.parametrize("count", [10, 200])
async def test_small_writes_to_large_keys_make_no_larger_parts(
    make_store: MakeStore, count: int
) -> None:
    """With the cut, or before it: what they bring is small beside the siblings that are there."""
    a, b, c = await make_store("A"), Receiver(), Node("C")
    for n in range(count):
        await put(a, f"key-{n}", value=bytes(3_000))
    sending = sending_of(a, part_max_bytes=20_000)
    while len(b.staged) < count:
        await exchange(sending, b)
    await a.take(*(c.write([Put(f"key-{n}", b"beside")], n + 1) for n in range(count)))
    await send_all(sending, b)
    await assert_same(a, b)
    assert all(len(state.versions) == 2 for state in b.staged.values())
    assert_bounded(b.parts, 20_000)


async def test_the_keys_of_one_write_come_in_several_parts(make_store: MakeStore) -> None:
    """Another worker that goes on amid them sends them all."""
    a, b, sending = await half_sent(make_store, 1)
    while len(b.staged) < len(KEYS):
        await exchange(sending, b)
    names = [f"of-one-{n}" for n in range(50)]
    await a.store.commit([Put(name, bytes(5_000)) for name in names])
    first = sending_of(a, part_max_bytes=20_000)
    while not b.staged.keys() & set(names):
        assert not await exchange(first, b)
    assert len(b.staged.keys() & set(names)) < 5
    await send_all(sending_of(a, part_max_bytes=20_000, seed=2), b)
    await assert_same(a, b)
    assert_bounded(b.parts, 20_000)
    assert {part.snapshot for part in b.parts} == {b.snapshot}, "nothing was begun anew"


async def test_it_ends_while_keys_are_written_that_are_larger_than_a_part(
    make_store: MakeStore,
) -> None:
    a, b = await make_store("A"), Receiver()
    sending = sending_of(a)
    for n in range(10):
        await put(a, f"key-{n}", value=bytes(400))
    for n in range(100):
        if await exchange(sending, b):
            break
        if n % 2:
            await put(a, f"key-{n % 10}", value=bytes(400 + n))
    await assert_same(a, b)
    assert max(len(part.keys) for part in b.parts) == 1


async def test_what_could_not_be_noted_is_read_again(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was away for a moment, just when a part was to be sent."""
    a, b = await make_store("A"), Receiver()
    await put(a, *KEYS)
    sending = sending_of(a)
    noted = Board.post_sending

    async def fail(*_: object) -> None:
        raise RedisUnavailable("away")

    n = 0
    while not await exchange(sending, b):
        n += 1
        if n == 8:
            await put(a, *KEYS, value=b"x" * 50)
        if n in (4, 30):  # amid the scan, and amid what was written meanwhile
            monkeypatch.setattr(Board, "post_sending", fail)
            with pytest.raises(RedisUnavailable):
                await sending.part()
            monkeypatch.setattr(Board, "post_sending", noted)
    await assert_same(a, b)
    assert n > 30


async def test_a_part_that_is_too_large_for_the_peer_is_made_again(make_store: MakeStore) -> None:
    """Until somebody has written its key anew, which has made it smaller."""
    a, b = await make_store("A"), Receiver()
    await put(a, *KEYS, "large")
    await put(a, "large", value=bytes(5_000))
    sending, refused = sending_of(a), []
    while not (b.cut and b.parts[-1].cut):
        part = await sending.part()
        assert part is not None
        if size_of_keys(part) < 1_000:
            await sending.take(b.take(part))
        else:
            sending.refused()
            refused.append(part.name)
            if len(refused) == 3:
                await put(a, "large", value=b"small")
    await assert_same(a, b)
    assert len(set(refused)) == 3
    assert {part.snapshot for part in b.parts} == {b.snapshot}, "nothing was begun anew"


async def test_parts_get_smaller_for_a_peer_that_takes_less_than_a_full_one(
    make_store: MakeStore,
) -> None:
    """It was started with less, or a proxy before it takes less."""
    a, b = await make_store("A"), Receiver()
    await put(a, *KEYS)
    sending, takes, refused = sending_of(a, part_max_bytes=1_000), 200, 0
    while not (b.cut and b.parts[-1].cut):
        part = await sending.part()
        assert part is not None
        if size_of_keys(part) <= takes:
            if len(b.parts) < 9:
                await put(a, f"meanwhile-{len(b.parts)}")
            await sending.take(b.take(part))
        else:
            sending.refused()
            refused += 1
            assert refused < 9, "the same is sent again and again"
    await assert_same(a, b)
    await sending.end()
    await send_all(sending, b)
    assert max(map(size_of_keys, b.parts)) > takes, "the next snapshot begins with full ones"
    await assert_same(a, b)


async def test_a_question_stays_as_it_is_though_it_was_refused(make_store: MakeStore) -> None:
    a, b, sending = await half_sent(make_store, 0)
    asked = await sending.part()
    sending.refused()
    assert await sending.part() == asked
    await send_all(sending, b)
    await assert_same(a, b)


async def test_a_part_is_the_same_until_it_is_there(make_store: MakeStore) -> None:
    a, b, sending = await half_sent(make_store, 1)
    lost = await sending.part()
    await put(a, *KEYS, value=b"changed")
    assert await sending.part() == lost
    assert lost is not None
    b.take(lost)  # and the answer was lost: it comes again
    assert await sending.part() == lost
    assert not await exchange(sending, b)
    assert await sending.part() != lost
    await send_all(sending, b)
    await assert_same(a, b)


@pytest.mark.parametrize("arrives", [False, True])
async def test_another_worker_goes_on_where_the_first_died(
    make_store: MakeStore, arrives: bool
) -> None:
    a, b, first = await half_sent(make_store, 4)
    on_its_way = await first.part()
    assert on_its_way is not None
    if arrives:  # but its answer does not
        b.take(on_its_way)
    second = sending_of(a, seed=2)
    await exchange(second, b)
    asked = Part(b.snapshot, "", on_its_way.name, b.parts[0].total)
    assert b.parts[-1] == asked, "it asks what is there"
    part = await second.part()
    assert part is not None and part.after == b.last
    await send_all(second, b)
    await assert_same(a, b)
    assert {part.snapshot for part in b.parts} == {b.snapshot}, "nothing was begun anew"


async def test_a_part_may_arrive_after_its_senders_death_amid_what_another_sends(
    make_store: MakeStore,
) -> None:
    a, b, first = await half_sent(make_store, 4)
    on_its_way = await first.part()
    second = sending_of(a, seed=2)
    await exchange(second, b)
    part = await second.part()
    assert on_its_way is not None and part is not None
    b.take(on_its_way)
    assert not await second.take(b.take(part)), "it was not kept, for another came before it"
    await send_all(second, b)
    await assert_same(a, b)
    assert {part.snapshot for part in b.parts} == {b.snapshot}, "nothing was begun anew"


async def test_who_does_not_hear_what_the_peer_has_asks_again(make_store: MakeStore) -> None:
    a, b, _ = await half_sent(make_store, 4)
    second = sending_of(a, seed=2)
    asked = await second.part()
    assert asked is not None
    b.take(asked)  # and the answer was lost
    assert await second.part() == asked
    await send_all(second, b)
    await assert_same(a, b)
    assert {part.snapshot for part in b.parts} == {b.snapshot}, "nothing was begun anew"


async def test_who_has_merged_it_is_not_taken_for_one_who_has_nothing_of_it_yet(
    make_store: MakeStore,
) -> None:
    a, b, first = await half_sent(make_store, 1)
    while not (part := await first.part()) or not part.cut:
        assert part is not None
        await first.take(b.take(part))
    b.take(part)  # and its sender dies
    merged, b = b, Receiver()
    second = sending_of(a, seed=2)
    assert not await exchange(second, b)
    assert not second.is_under_way
    assert b.snapshot == "", "it begins no snapshot that was begun before"
    a.set_time(a.time_us[0] + 1)
    await send_all(second, b)
    await assert_same(a, b)
    assert b.snapshot != merged.snapshot


@pytest.mark.parametrize("is_asked", [False, True])
async def test_who_was_put_back_to_an_older_copy_is_sent_all_of_it_again(
    make_store: MakeStore, is_asked: bool
) -> None:
    a, b, sending = await half_sent(make_store, 3)
    copy = replace(b, staged=dict(b.staged))
    for _ in range(2):
        await exchange(sending, b)
    if is_asked:
        sending = sending_of(a, seed=2)
    assert not await exchange(sending, copy)
    assert not sending.is_under_way
    a.set_time(a.time_us[0] + 1)
    await send_all(sending, copy)
    await assert_same(a, copy)
    assert copy.snapshot != b.snapshot


async def test_after_redis_was_started_again_it_begins_anew(make_store: MakeStore) -> None:
    a, b, sending = await half_sent(make_store, 3)
    name = b.snapshot
    a.set_time(a.time_us[0] + 1)
    await a.redis.hset("meta", "run", "another run")
    await send_all(sending, b)
    assert b.snapshot != name
    await assert_same(a, b)


async def test_when_the_log_was_cut_short_meanwhile_it_begins_anew(make_store: MakeStore) -> None:
    a, b, sending = await half_sent(make_store, 3)
    name = b.snapshot
    await put(a, "one", "two", "three")
    await a.store.log.trim("A", len(KEYS) + 2, 1)
    await send_all(sending, b)
    assert b.snapshot != name
    await assert_same(a, b)


async def test_nothing_is_sent_while_this_node_merges_a_snapshot_itself(
    make_store: MakeStore,
) -> None:
    a, b, sending = await half_sent(make_store, 1)
    await a.redis.hset("meta", "merging", "s1")
    assert await sending.part() is None
    await a.redis.hdel("meta", "merging")
    await send_all(sending, b)
    await assert_same(a, b)


async def test_who_receives_another_snapshot_is_left_alone(make_store: MakeStore) -> None:
    a = await make_store("A")
    await put(a, *KEYS)
    sending = sending_of(a)
    assert await sending.part() is not None
    assert not await sending.take(Kept("another", "p7"))
    assert await Board(a.redis, a.keys, a.scripts, "a worker").sending("B") is None
    again = await sending.part()
    assert again is not None and again.name == "", "it is asked again"


async def test_the_logs_need_not_go_back_to_where_the_scan_began(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_reading, "_DELTA_WRITES_MAX", 10)
    a, b = await make_store("A"), Receiver()
    await put(a, *(f"key-{n}" for n in range(400)))
    sending = sending_of(a)
    for number in range(40):
        assert not await exchange(sending, b)
        await put(a, "hot", f"new-{number % 7}")
        last = (await a.store.clock())["A"]
        await a.store.log.trim("A", last - 20, last - 22)
    await send_all(sending, b)
    await assert_same(a, b)
    assert len({part.snapshot for part in b.parts}) == 1, "it was not begun anew"
