"""lua/remove_expired.lua: what has expired is removed, and just that, and leaves a trace.

That it is so in every history is shown by tests/test_twin.py; here are the cases by name.
"""

import pytest

from app.errors import Syncing
from app.scripts import Removed
from app.vector_clock import VectorClock
from app.write import Delete, Put
from tests.conftest import MakeStore, Store
from tests.model import Node

NOW = 1_000_000


async def remove(node: Store, now_us: int, most: int = 100) -> Removed | None:
    return await node.scripts.remove_expired(node.node, now_us, most)


async def stored(node: Store, key: str) -> set[str]:
    """The names of the fields that the key has."""
    return {name.decode() for name in await node.redis.hkeys(node.keys.kv(key))}


async def expiring(node: Store) -> dict[bytes, float]:
    return dict(await node.redis.zrange(node.keys.expiring, 0, -1, withscores=True))


async def test_it_is_removed_when_its_time_has_come_and_not_before(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.store.commit([Put("lunch", b"x", "t", 50), Put("tea", b"y", "t", 60), Put("pie", b"z")])
    assert await expiring(a) == {b"lunch": NOW + 50, b"tea": NOW + 60}
    assert await stored(a, "lunch") == {f"A:1@{NOW + 50}"}
    assert await remove(a, NOW + 49) == Removed(0, False)
    assert await remove(a, NOW + 50) == Removed(1, False)
    assert (await stored(a, "lunch"), await stored(a, "tea")) == (set(), {f"A:1@{NOW + 60}"})
    assert await remove(a, NOW + 60) == Removed(1, False)
    assert list((await a.store.list_keys("", "", 9)).keys) == ["pie"]
    assert await expiring(a) == {}


async def test_the_time_is_that_of_the_newest_write_where_the_wall_clock_is_behind(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await a.store.commit([Put("lunch", b"x", "t", 50)])
    await a.take(Node("B").write([Put("tea", b"y")], NOW + 50))
    assert await remove(a, 1) == Removed(1, False)


async def test_so_many_keys_at_a_time_those_first_that_are_longest_due(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await a.store.commit([Put(f"k{n}", b"x", "t", 50 - n) for n in range(5)])
    assert await remove(a, NOW + 100, most=2) == Removed(2, True)
    assert set(await expiring(a)) == {b"k0", b"k1", b"k2"}
    assert await remove(a, NOW + 100, most=3) == Removed(3, False)
    assert await a.redis.keys("kv:*") == []


async def test_a_sibling_that_lives_longer_stays_and_the_conflict_is_settled(
    make_store: MakeStore,
) -> None:
    a, b, c = await make_store("A"), Node("B"), Node("C")
    await a.store.commit([Put("lunch", b"x", "t", 50)])
    await a.take(b.write([Put("lunch", b"y")], NOW), c.write([Put("lunch", b"z", "t", 70)], NOW))
    assert await remove(a, NOW + 60) == Removed(1, False)
    assert await stored(a, "lunch") == {"B:1", f"C:1@{NOW + 70}", "deletes"}
    assert await expiring(a) == {b"lunch": NOW + 70}
    assert "lunch" in (await a.store.list_conflicts("", "", 9)).keys
    assert await remove(a, NOW + 80) == Removed(1, False)
    assert await stored(a, "lunch") == {"B:1", "deletes"}
    assert (await a.store.list_conflicts("", "", 9)).keys == {}
    assert (await a.store.read("lunch")).context == VectorClock({"A": 1, "B": 1, "C": 1})


async def test_what_it_had_replaced_is_not_shown_again_to_who_sees_the_rest(
    make_store: MakeStore,
) -> None:
    """As after a delete: a node that has not seen what expired may still have what it replaced."""
    a, b = await make_store("A"), Node("B")
    old = b.write([Put("lunch", b"old")], NOW)
    new = b.write([Put("lunch", b"new", "t", 50)], NOW)
    beside = Node("C").write([Put("lunch", b"beside")], NOW)
    await a.take(old, new)
    await remove(a, NOW + 90)
    await a.take(beside)  # the key is born again
    reading = await a.store.read("lunch")
    assert [v.value for v in reading.versions] == [b"beside"]
    assert reading.context == VectorClock({"B": 2, "C": 1})


async def test_the_trace_goes_back_behind_no_later_delete(make_store: MakeStore) -> None:
    a, b = await make_store("A"), Node("B")
    writes = [
        *(b.write([Put("lunch", b"x", "t", 50)], NOW), b.write([Put("tea", b"y")], NOW)),
        b.write([Delete("tea")], NOW),
    ]
    await a.take(*writes)
    assert await a.redis.hgetall("deletes") == {b"B": b"3"}
    await remove(a, NOW + 90)
    assert await a.redis.hgetall("deletes") == {b"B": b"3"}


async def test_a_put_without_a_ttl_makes_it_live_for_ever(make_store: MakeStore) -> None:
    a, b = await make_store("A"), await make_store("B")
    for node in (a, b):
        await node.store.commit([Put("lunch", b"x", "t", 50)])
        await node.store.commit([Put("lunch", b"y")])
        assert await expiring(node) == {}
    [write] = await a.store.log.after("A", 1, 1)
    await b.store.commit([Put("lunch", b"z", "t", 50)])
    assert await remove(a, NOW + 90) == Removed(0, False)
    assert write.operations == (Put("lunch", b"y"),)
    assert await stored(a, "lunch") == {"A:2"}


@pytest.mark.parametrize("removed", [False, True])
async def test_a_put_on_what_has_expired_is_after_it(make_store: MakeStore, removed: bool) -> None:
    a = await make_store("A")
    await a.store.commit([Put("lunch", b"x", "t", 50)])
    a.set_time(NOW + 90)
    if removed:
        await remove(a, NOW + 90)
    await a.store.commit([Put("lunch", b"y", "t", 7)])
    [_, second] = await a.store.log.after("A", 0, 2)
    assert second.dependencies == VectorClock({"A": 1})
    assert await stored(a, "lunch") == {f"A:2@{NOW + 97}"}
    assert await expiring(a) == {b"lunch": NOW + 97}


async def test_what_has_expired_before_it_comes_is_applied_and_removed(
    make_store: MakeStore,
) -> None:
    a, b = await make_store("A"), Node("B")
    a.set_time(NOW + 90)
    write = b.write([Put("lunch", b"x", "t", 50), Put("tea", b"y")], NOW)
    await a.take(write)
    assert (await a.store.read("lunch")).versions == ()
    assert await remove(a, NOW + 90) == Removed(1, False)
    assert await a.store.log.after("B", 0, 5) == [write]
    assert list((await a.store.list_keys("", "", 9)).keys) == ["tea"]


async def test_nothing_is_removed_while_keys_are_merged_or_from_another_nodes_redis(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    await a.store.commit([Put("lunch", b"x", "t", 50)])
    assert await a.scripts.remove_expired("B", NOW + 90, 9) is None
    await a.redis.hset("meta", "merging", "a snapshot")
    with pytest.raises(Syncing):
        await remove(a, NOW + 90)
    assert await stored(a, "lunch") == {f"A:1@{NOW + 50}"}
