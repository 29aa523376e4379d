"""lua/read_states.lua, lua/read_cut.lua, lua/stage_part.lua, lua/merge_keys.lua,
lua/finish_merge.lua, lua/give_up_snapshot.lua: a snapshot is read in parts of limited size, the
last at one instant, kept part by part in one order, and merged so that nothing is lost and nothing
that was deleted returns.

That merging is by definition what it should be, tests/test_twin.py shows on random histories.
"""

from typing import Any

import pytest

from app import codec, part_forms
from app.errors import ForeignBackup, LogTrimmed, Syncing
from app.snapshot import Cut, Kept, KeyState, Part
from app.vector_clock import Dot, VectorClock
from app.write import Delete, Put, Version, Write
from tests.conftest import SERVERS, MakeStore, Store
from tests.model import Node

PATIENCE_US = 1000


def clock(text: str) -> VectorClock:
    return VectorClock.parse(text)


def state(key: str, *dots: str, deletes: str = "") -> KeyState:
    versions = tuple(
        Version(Dot.parse(dot), 100 + n, "text/plain", dot.encode()) for n, dot in enumerate(dots)
    )
    return KeyState(key, versions, clock(deletes))


def cut_at(text: str, deletes: str = "") -> Cut:
    return Cut(clock(text), clock(deletes), 5_000)


async def stage(store: Store, part: Part, source: str = "B", now_us: int = 0) -> Kept | Dot | None:
    return await store.snapshots.stage_part(store.node, source, part, now_us, PATIENCE_US)


async def begun(store: Store, name: str = "s1") -> None:
    assert await stage(store, Part(name, "", "", 9)) == Kept(name, "")


async def merge(store: Store, name: str = "s1", *, twice: bool = False) -> VectorClock:
    """Merge the whole, as the receiver does; with `twice`, begun anew after a crash."""
    scripts, redis = store.snapshots, store.redis
    for staged in (False, False, True, True) if twice else (False, True):
        stem = f"staged:{name}:" if staged else "kv:"
        names = [key.decode().removeprefix(stem) for key in await redis.keys(f"{stem}*")]
        assert await scripts.merge_keys(name, names, staged=staged)
    return await scripts.finish_merge(name)


async def dots(store: Store, key: str) -> list[str]:
    """What the key holds; `deletes` if something is noted beside it."""
    return sorted(field.decode() for field in await store.redis.hkeys(f"kv:{key}"))


# --- reading --------------------------------------------------------------------------------------


async def test_the_cut_is_read_with_the_keys_written_since(make_store: MakeStore) -> None:
    a = await make_store("A")
    for key in ("x", "y", "z"):
        await a.store.commit([Put(key, key.encode(), "text/plain")])
    await a.store.commit([Delete("y")])
    found = await a.snapshots.read_cut(clock("A:1"), 3, 1000)
    assert found is not None
    cut, states = found
    assert cut == Cut(clock("A:4"), clock("A:4"), (await a.store.life()).timestamp)
    held = {s.key: [str(version.dot) for version in s.versions] for s in states}
    assert held == {"y": [], "z": ["A:3"]}


async def test_with_more_writes_than_allowed_it_is_not_read(make_store: MakeStore) -> None:
    a = await make_store("A")
    for _ in range(3):
        await a.store.commit([Put("x", b"")])
    assert await a.snapshots.read_cut(clock(""), 2, 1000) is None
    assert await a.snapshots.read_cut(clock(""), 3, 1000) is not None


LARGE = Version(Dot("A~" + "z" * 62, 2**53 - 1), 2**53 - 1, "x" * 255, b"", 2**53 - 1)
STATES = {
    "absent": KeyState("k", (), clock("")),
    "small": KeyState("k", (Version(Dot("A", 1), 1, "x", b""),), clock("")),
    "large numbers": KeyState("k" * 512, (LARGE,), clock("")),
    "a large value": KeyState(
        "é", (Version(Dot("A", 2**32), 2**40, "x", bytes(70_000)),), clock("")
    ),
    "siblings": KeyState(
        "k",
        tuple(Version(Dot(f"n{n}", 128), 2**32, "x", bytes(n)) for n in range(300)),
        VectorClock({f"node-{n}" + "x" * (n % 23): 2 ** (n % 50) for n in range(300)}),
    ),
}


@pytest.mark.parametrize("name", STATES)
async def test_a_key_takes_no_more_in_a_part_than_is_counted(
    make_store: MakeStore, name: str
) -> None:
    a, held = await make_store("A"), STATES[name]
    if fields := codec.pack_key_state(held):
        await a.redis.hset(f"kv:{held.key}", items=fields)
    left, [found] = await a.snapshots.read_states([held.key], 1_000_000, 0)
    assert set(found.versions) == set(held.versions) and found.deletes == held.deletes
    taken = len(part_forms.encode(Part("", "", "", 9, (held,))))
    counted = 1_000_000 - left + len(part_forms.encode(Part("", "", "", 9)))
    assert taken <= counted <= taken + 40 * (1 + len(held.versions) + len(held.deletes))


async def test_as_many_keys_are_read_as_there_is_room_for(make_store: MakeStore) -> None:
    a = await make_store("A")
    for key in ("x", "y", "z"):
        await a.store.commit([Put(key, bytes(1_000))])

    async def read(room: int, least: int) -> list[str]:
        left, states = await a.snapshots.read_states(["x", "gone", "y", "z"], room, least)
        assert all(len(state.versions) == (state.key != "gone") for state in states)
        assert room - left >= sum(1_000 * len(state.versions) for state in states)
        assert (left >= 0) or len(states) == least
        return [state.key for state in states]

    assert await read(10_000, 0) == ["x", "gone", "y", "z"]
    assert await read(2_500, 1) == ["x", "gone", "y"]
    assert await read(1_000, 0) == []
    assert await read(1_000, 1) == ["x"]
    assert await read(1_000, 3) == ["x", "gone", "y"]


async def test_with_more_bytes_than_there_is_room_for_it_is_not_read(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.store.commit([Put("x", bytes(1_000))])
    await a.store.commit([Put("y", bytes(1_000)), Put("z", bytes(1_000))])
    found = {
        (since, room): await a.snapshots.read_cut(clock(since), 10, room)
        for since in ("", "A:1")
        for room in (2_000, 2_500, 3_500)
    }
    assert {of for of, cut in found.items() if cut is None} == {
        *(("", 2_000), ("", 2_500), ("A:1", 2_000)),
    }
    keys = {since: [s.key for s in cut[1]] for (since, _), cut in found.items() if cut}
    assert keys == {"": ["x", "y", "z"], "A:1": ["y", "z"]}


async def test_one_key_is_read_with_the_cut_whatever_it_has(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.store.commit([Put("x", bytes(1_000))])
    found = await a.snapshots.read_cut(clock(""), 10, 100)
    assert found is not None and [state.key for state in found[1]] == ["x"]


async def test_no_more_is_read_of_the_logs_than_there_is_room_for(make_store: MakeStore) -> None:
    """Though the keys are small by now: Redis does nothing else while it reads."""
    a = await make_store("A")
    for _ in range(4):
        await a.store.commit([Put("x", bytes(1_000))])
    await a.store.commit([Delete("x")])
    assert await a.snapshots.read_cut(clock(""), 10, 2_500) is None
    assert await a.snapshots.read_cut(clock("A:2"), 10, 2_500) is not None


async def test_what_the_log_has_no_more_cannot_be_read_again(make_store: MakeStore) -> None:
    a = await make_store("A")
    for _ in range(3):
        await a.store.commit([Put("x", b"")])
    await a.store.log.trim("A", 2, 1)
    with pytest.raises(LogTrimmed):
        await a.snapshots.read_cut(clock("A:1"), 10, 1000)
    assert await a.snapshots.read_cut(clock("A:2"), 10, 1000) is not None


async def test_no_cut_is_read_while_a_snapshot_is_merged(make_store: MakeStore) -> None:
    a = await make_store("A")
    await begun(a)
    await stage(a, Part("s1", "p1", "", 9, (), cut_at("B:1")))
    assert await a.snapshots.read_cut(clock(""), 10, 1000) is None


# --- staging --------------------------------------------------------------------------------------


async def test_parts_are_kept_in_one_order_and_once(make_store: MakeStore) -> None:
    a = await make_store("A")
    await begun(a)
    first = Part("s1", "p1", "", 9, (state("x", "B:1"),))
    assert await stage(a, first) == Kept("s1", "p1")
    assert await stage(a, Part("s1", "p2", "p1", 9, (state("x", "B:2"),))) == Kept("s1", "p2")
    assert await stage(a, first) == Kept("s1", "p2"), "a part came again, late"
    assert await stage(a, Part("s1", "p9", "p8", 9, (state("x", "B:9"),))) == Kept("s1", "p2")
    assert await a.redis.hkeys("staged:s1:x") == [b"B:2"]
    assert await a.redis.hget("snapshot", "keys") == b"2"
    assert await a.redis.keys("kv:*") == []


async def test_a_key_that_is_gone_in_a_later_part_is_not_staged(make_store: MakeStore) -> None:
    a = await make_store("A")
    await begun(a)
    await stage(a, Part("s1", "p1", "", 9, (state("x", "B:1"), state("y", "B:2"))))
    await stage(a, Part("s1", "p2", "p1", 9, (state("x"),)))
    assert await a.redis.keys("staged:*") == [b"staged:s1:y"]


async def test_another_snapshot_waits_until_the_first_is_silent_for_long(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await begun(a)
    await stage(a, Part("s1", "p1", "", 9, (state("x", "B:1"),)), now_us=500)
    other = Part("s2", "", "", 9)
    assert await stage(a, other, "C", now_us=500 + PATIENCE_US - 1) == Kept("s1", "p1")
    assert await stage(a, other, "C", now_us=500 + PATIENCE_US) == Kept("s2", "")
    late = Part("s1", "p2", "p1", 9, (state("x", "B:2"),))
    assert await stage(a, late) == Kept("s2", ""), "what was given up is not gone on with"
    assert await stage(a, Part("s1", "", "", 9), now_us=10**9) == Kept("s2", "")
    assert await a.redis.smembers("staging") == {b"s1", b"s2"}


async def test_who_takes_a_place_is_waited_for_twice_as_long_as_who_had_it(
    make_store: MakeStore,
) -> None:
    """Or two whose parts take longer than that, on narrow links, would take it from each other for
    ever."""
    a = await make_store("A")
    await begun(a)
    now_us = 0
    for times, (name, source) in enumerate([("s2", "C"), ("s3", "B"), ("s4", "C")]):
        asks = Part(name, "", "", 9)
        now_us += 2**times * PATIENCE_US
        assert await stage(a, asks, source, now_us - 1) == Kept(f"s{times + 1}", "")
        assert await stage(a, asks, source, now_us) == Kept(name, "")
    await stage(a, Part("s5", "", "", 9), "C", now_us)
    asks = Part("s6", "", "", 9)
    assert await stage(a, asks, "B", now_us + 8 * PATIENCE_US - 1) == Kept("s5", ""), "it is C's"
    assert await stage(a, Part("s5", "p1", "", 9), "C", now_us) == Kept("s5", "p1")
    assert await a.snapshots.give_up_snapshot("s5")
    await begun(a, "s7")
    assert await stage(a, asks, "C", PATIENCE_US) == Kept("s6", ""), "that is over"


async def test_two_senders_of_large_parts_over_narrow_links_come_to_an_end(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    takes_us = {"B": 5 * PATIENCE_US, "C": 7 * PATIENCE_US}
    arrives_us = dict.fromkeys(takes_us, 0)
    under_way: dict[str, Part] = {}
    for now_us in range(0, 200 * PATIENCE_US, PATIENCE_US):
        for source in takes_us:
            part = under_way.get(source) or Part(f"{source}{now_us}", "", "", 9)
            if part.name and now_us < arrives_us[source]:
                continue
            kept = await stage(a, part, source, now_us)
            assert isinstance(kept, Kept)
            if kept == Kept(part.snapshot, "p3"):
                return
            under_way.pop(source, None)
            if kept == Kept(part.snapshot, part.name):
                name = f"p{int(part.name[1:] or 0) + 1}"
                under_way[source] = Part(part.snapshot, name, part.name, 9)
                arrives_us[source] = now_us + takes_us[source]
    pytest.fail("no snapshot has come to its third part")


async def test_who_asks_to_go_on_with_a_snapshot_begins_none(make_store: MakeStore) -> None:
    a = await make_store("A")
    assert await stage(a, Part("s1", "", "p2", 9)) == Kept("", ""), "it is not here any more"
    assert not await a.redis.exists("snapshot", "staging")
    await begun(a)
    await stage(a, Part("s1", "p1", "", 9, (state("x", "B:1"),)))
    assert await stage(a, Part("s1", "", "p2", 9)) == Kept("s1", "p1")
    assert await stage(a, Part("s2", "", "p2", 9)) == Kept("s1", "p1")


async def test_a_sender_that_begins_anew_does_not_wait_for_itself(make_store: MakeStore) -> None:
    """It does not go on with the first, so nothing would come of waiting for that."""
    a = await make_store("A")
    await begun(a)
    await stage(a, Part("s1", "p1", "", 9, (state("x", "B:1"),)))
    assert await stage(a, Part("s2", "", "", 9)) == Kept("s2", "")
    assert await stage(a, Part("s1", "p2", "p1", 9, (state("x", "B:2"),))) == Kept("s2", "")
    assert await stage(a, Part("s1", "", "", 9)) == Kept("s2", ""), "the question came again, late"


async def test_what_was_merged_or_given_up_is_not_begun_again_by_a_question_that_comes_late(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await begun(a)
    await stage(a, Part("s1", "p1", "", 9, (state("x", "B:1"),), cut_at("B:1")))
    await merge(a)
    assert await stage(a, Part("s1", "", "", 9)) == Kept("", "")
    await begun(a, "s2")
    assert await a.snapshots.give_up_snapshot("s2")
    await a.redis.srem("staging", "s2")  # as once its parts are removed
    assert await stage(a, Part("s2", "", "", 9)) == Kept("", "")
    assert not await a.redis.exists("snapshot", "staging")
    assert await stage(a, Part("s3", "", "", 9), "C") == Kept("s3", ""), "another may come"


async def test_a_merge_is_not_given_up_for_the_next_snapshot_of_its_sender(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await begun(a)
    await stage(a, Part("s1", "p1", "", 9, (state("x", "B:1"),), cut_at("B:1")))
    assert await stage(a, Part("s2", "", "", 9)) == Kept("s1", "p1")


async def test_a_cut_beyond_what_this_node_wrote_shows_that_it_lost_writes(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await begun(a)
    last = Part("s1", "p1", "", 9, (state("x", "A:3"),), cut_at("A:3 B:1"))
    assert await stage(a, last) == Dot("A", 3)
    assert await a.redis.keys("staged:*") == []
    assert not await a.redis.hexists("meta", "merging")


async def test_the_redis_of_another_node_is_left_alone(make_store: MakeStore) -> None:
    a = await make_store("A")
    part = Part("s1", "", "", 9)
    assert await a.snapshots.stage_part("B", "C", part, 0, PATIENCE_US) is None
    assert not await a.redis.exists("snapshot")


BACKUP = (("A", "old a"), ("B", "old b"), ("C", "old c"))
"""The nodes of a backup; tests.conftest.begin has A begin with `a birth`."""


@pytest.mark.parametrize("name", ["", "p1"])
@pytest.mark.parametrize(
    ("births", "writes", "stranger"),
    [
        ({}, "A:1", "A"),
        ({}, "A+:1", "A"),
        ({"B": "b"}, "B:1", "B"),
        ({"B": "b"}, "B~x1:1", "B"),
        ({"B": "b", "C": "old c"}, "B+:1 C:1", "B"),
    ],
)
async def test_the_backup_of_another_cluster_is_not_kept_where_its_nodes_have_written(
    make_store: MakeStore, births: dict[str, str], writes: str, stranger: str, name: str
) -> None:
    """Neither when it asks to begin nor with its last part: there may be a write between."""
    a = await make_store("A")
    await a.redis.hset("births", mapping={"A": "a birth", **births})
    if name:
        await begun(a)
    await a.redis.hset("clock", mapping=clock(writes).to_dict())
    cut = cut_at("B:3") if name else None
    keys = (state("x", "B:3"),) if name else ()
    before = {key: await a.redis.dump(key) for key in await a.redis.keys("*")}
    with pytest.raises(ForeignBackup, match=f"its node {stranger} is not the {stranger} of this"):
        await stage(a, Part("s1", name, "", 9, keys, cut, BACKUP))
    assert {key: await a.redis.dump(key) for key in await a.redis.keys("*")} == before


@pytest.mark.parametrize(
    ("births", "writes"),
    [
        ({"B": "b"}, ""),
        ({"B": "b"}, "C:1"),
        ({"B": "old b", "C": "old c"}, "B:1 C:1"),
        ({"B": "b"}, "A~x1:1 A~x1+:1 D:1"),
    ],
)
async def test_a_backup_is_kept_where_its_nodes_are_the_same_or_have_written_nothing(
    make_store: MakeStore, births: dict[str, str], writes: str
) -> None:
    """What this node wrote after its first life, by a name that nobody else had, does not count.

    It is of its cluster from then on: but not a node that wrote nothing in it, and goes on here.
    """
    a = await make_store("A")
    known = {"A": "a birth", **births}
    await a.redis.hset("births", mapping=known)
    if writes:
        await a.redis.hset("clock", mapping=clock(writes).to_dict())
    assert await stage(a, Part("s1", "", "", 9, births=BACKUP)) == Kept("s1", "")
    last = Part("s1", "p1", "", 9, (state("x", "B:3"),), cut_at("B:3 D:1"), BACKUP)
    assert await stage(a, last) == Kept("s1", "p1")
    found = {n.decode(): birth.decode() for n, birth in (await a.redis.hgetall("births")).items()}
    assert found == {**known, "B": "old b"}


@pytest.mark.parametrize("make_redis", SERVERS, indirect=True)
async def test_a_full_redis_refuses_the_whole_part(make_store: MakeStore) -> None:
    a = await make_store("A")
    await begun(a)
    await a.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(Exception, match="maxmemory"):
            await stage(a, Part("s1", "p1", "", 9, (state("x", "B:1"),)))
    finally:
        await a.redis.config_set("maxmemory", 0)
    assert await a.redis.hget("snapshot", "last") == b""
    assert await a.redis.keys("staged:*") == []


# --- merging --------------------------------------------------------------------------------------


async def test_nothing_is_read_written_or_received_while_keys_are_merged(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await a.store.commit([Put("x", b"mine")])
    await begun(a)
    await stage(a, Part("s1", "p1", "", 9, (state("x", "B:1"),), cut_at("B:1")))
    write = Write(Dot("B", 2), clock("B:1"), 7, (Put("x", b""),))
    for refused in (
        a.store.read("x"),
        a.store.commit([Put("x", b"")]),
        a.buffer.receive([write]),
        a.store.check(),
    ):
        with pytest.raises(Syncing):
            await refused
    await merge(a)
    assert len((await a.store.read("x")).versions) == 2
    await a.buffer.receive([write])
    assert await a.store.clock() == clock("A:1 B:2")


@pytest.mark.parametrize("twice", [False, True])
async def test_a_version_survives_if_the_other_side_has_not_seen_it_go(
    make_store: MakeStore, twice: bool
) -> None:
    a = await make_store("A")
    b1 = Write(Dot("B", 1), clock(""), 1, (Put("both", b""), Put("gone-there", b"")))
    c1 = Write(Dot("C", 1), clock(""), 1, (Put("gone-here", b""),))
    await a.buffer.receive([b1, c1])
    await a.store.commit([Put("mine", b"")])
    await a.store.commit([Delete("gone-here")])
    await begun(a)
    keys = (
        state("both", "B:1"),
        state("theirs", "B:2"),
        state("gone-here", "C:1"),
        state("mine", "B:3"),
    )
    await stage(a, Part("s1", "p1", "", 9, keys, cut_at("B:4 C:1", deletes="B:4")))
    assert await merge(a, twice=twice) == clock("A:2 B:4 C:1")
    assert await dots(a, "both") == ["B:1"]
    assert await dots(a, "gone-there") == []
    assert await dots(a, "gone-here") == []
    assert await dots(a, "mine") == ["A:1", "B:3"]
    assert (await dots(a, "theirs"))[0] == "B:2"
    assert await a.redis.keys("staged:*") == []
    assert await a.redis.hgetall("deletes") == {b"A": b"2", b"B": b"4"}


async def test_a_reader_is_told_of_deletes_that_the_other_side_saw(make_store: MakeStore) -> None:
    """The key is absent there, by a delete that is concurrent with the version here."""
    a = await make_store("A")
    await a.store.commit([Put("x", b"mine")])
    await begun(a)
    await stage(a, Part("s1", "p1", "", 9, (), cut_at("B:7", deletes="B:7")))
    await merge(a)
    assert (await a.store.read("x")).context == clock("A:1 B:7")


async def test_after_a_merge_logs_go_on_after_the_cut_and_what_waits_is_looked_at(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    early = [
        Write(Dot("B", n), clock(f"B:{n - 1}"), n, (Put("x", b"%d" % n),)) for n in (3, 5, 6, 8)
    ]
    await a.buffer.receive([Write(Dot("B", 1), clock(""), 1, (Put("x", b""),)), *early])
    await begun(a)
    await stage(a, Part("s1", "p1", "", 9, (state("x", "B:4"),), cut_at("B:4")))
    await merge(a)
    assert await a.redis.hkeys("pending:B") == [b"5", b"6", b"8"]
    received = await a.buffer.sweep()
    assert (received.drained, received.clock) == (2, clock("B:6"))
    assert [w.dot.sequence for w in await a.store.log.after("B", 4, 9)] == [5, 6]
    with pytest.raises(LogTrimmed):
        await a.store.log.after("B", 3, 9)


async def test_merging_what_is_not_to_be_merged_changes_nothing(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.store.commit([Put("x", b"mine")])
    scripts = a.snapshots
    assert not await scripts.merge_keys("s1", ["x"], staged=False)
    assert await scripts.finish_merge("s1") == clock("")
    assert await dots(a, "x") == ["A:1"]


async def test_the_timestamp_after_a_merge_is_later_than_all_that_was_merged(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await begun(a)
    far = Cut(clock("B:1"), clock(""), 9_000_000_000)
    await stage(a, Part("s1", "p1", "", 9, (state("x", "B:1"),), far))
    await merge(a)
    committed: Any = await a.store.commit([Put("x", b"")])
    assert committed.timestamp == 9_000_000_001


async def test_what_is_given_up_makes_room_unless_it_is_being_merged(make_store: MakeStore) -> None:
    a = await make_store("A")
    await begun(a)
    assert not await a.snapshots.give_up_snapshot("another")
    assert await a.snapshots.give_up_snapshot("s1")
    assert not await a.snapshots.give_up_snapshot("s1")
    await begun(a, "s2")
    await stage(a, Part("s2", "p1", "", 9, (state("x", "B:1"),), cut_at("B:1")))
    assert not await a.snapshots.give_up_snapshot("s2")
    assert await merge(a, "s2") == clock("B:1")


async def test_what_came_on_since_is_not_given_up(make_store: MakeStore) -> None:
    a = await make_store("A")
    await begun(a)
    await stage(a, Part("s1", "p1", "", 9, (state("x", "B:1"),)), now_us=500)
    assert not await a.snapshots.give_up_snapshot("s1", 500)
    assert await a.snapshots.give_up_snapshot("s1", 501)
    await begun(a, "s2")
    await stage(a, Part("s2", "p1", "", 9, (state("x", "B:1"),), cut_at("B:1")))
    assert not await a.snapshots.give_up_snapshot("s2", 10**9), "its merge has begun"


# --- what expires ---------------------------------------------------------------------------------

NOW_US = 1_000_000
"""What the clocks of the nodes of these tests show."""


def lunch_until(expires_us: int) -> list[Write]:
    """B puts lunch twice, the second time for a while; C puts it and knows of neither."""
    b, c = Node("B"), Node("C")
    ttl_us = expires_us - NOW_US - 1
    return [
        b.write([Put("lunch", b"old")], NOW_US),
        b.write([Put("lunch", b"new", "text/plain", ttl_us)], NOW_US),
        c.write([Put("lunch", b"beside")], NOW_US),
    ]


@pytest.mark.parametrize("twice", [False, True])
async def test_what_expired_at_the_sender_is_gone_here_and_leaves_its_trace(
    make_store: MakeStore, twice: bool
) -> None:
    """Or who reads the sibling could be shown again, elsewhere, what it had replaced."""
    a = await make_store("A")
    await a.take(*lunch_until(NOW_US + 50))
    await begun(a)
    await stage(a, Part("s1", "p1", "", 9, (), cut_at("B:2", "B:2")))  # there it was alone
    await merge(a, twice=twice)
    assert await dots(a, "lunch") == ["C:1", "deletes"]
    assert (await a.store.read("lunch")).context == clock("B:2 C:1")
    assert await a.redis.zcard("expiring") == 0


@pytest.mark.parametrize("twice", [False, True])
async def test_what_expired_here_does_not_return_and_leaves_its_trace(
    make_store: MakeStore, twice: bool
) -> None:
    a = await make_store("A")
    old, new, _ = lunch_until(NOW_US + 50)
    await a.take(old, new)
    assert await a.scripts.remove_expired("A", NOW_US + 50, 9)
    there = (
        Version(Dot("B", 2), NOW_US + 1, "text/plain", b"new", NOW_US + 50),
        Version(Dot("C", 1), NOW_US, "text/plain", b"beside"),
    )
    await begun(a)
    part = Part("s1", "p1", "", 9, (KeyState("lunch", there, clock("")),), cut_at("B:2 C:1"))
    await stage(a, part)
    await merge(a, twice=twice)
    assert await dots(a, "lunch") == ["C:1", "deletes"]
    assert (await a.store.read("lunch")).context == clock("B:2 C:1")
    assert await a.redis.zcard("expiring") == 0


@pytest.mark.parametrize("is_known", [False, True])
async def test_what_comes_with_a_snapshot_expires_as_all_else(
    make_store: MakeStore, is_known: bool
) -> None:
    """Also beside a version that is here already, which is another way through the script."""
    a = await make_store("A")
    if is_known:
        await a.take(lunch_until(NOW_US + 50)[2])
    there = Version(Dot("B", 2), NOW_US + 1, "text/plain", b"new", NOW_US + 50)
    await begun(a)
    part = Part("s1", "p1", "", 9, (KeyState("lunch", (there,), clock("")),), cut_at("B:2"))
    await stage(a, part)
    await merge(a)
    assert f"B:2@{NOW_US + 50}" in await dots(a, "lunch")
    assert await a.redis.zscore("expiring", "lunch") == NOW_US + 50
    a.set_time(NOW_US + 50)
    values = [version.value for version in (await a.store.read("lunch")).versions]
    assert values == ([b"beside"] if is_known else [])
