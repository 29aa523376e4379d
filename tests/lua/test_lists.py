"""lua/list_keys.lua and lua/list_conflicts.lua: the index of keys is exact, and read in order.

That it stays exact through every history is shown by tests/test_twin.py; here it is large.
"""

import random

import pytest

from app.write import Delete, Put
from tests.conftest import MakeStore, Store
from tests.model import Node


async def pages(store: Store, prefix: str = "", limit: int = 7) -> list[str]:
    """All keys with this prefix, a page at a time."""
    found: list[str] = []
    cursor = ""
    while True:
        page = await store.store.list_keys(prefix, cursor, limit)
        assert len(page.keys) <= limit
        found += page.keys
        cursor = page.cursor
        if not cursor:
            return found


async def test_keys_are_listed_in_order_through_many_buckets(make_store: MakeStore) -> None:
    a = await make_store("A")
    names = [f"{kind}/{number:03}" for kind in ("user", "order", "ü") for number in range(200)]
    shuffled = random.Random(7).sample(names, len(names))
    for start in range(0, len(names), 100):
        await a.store.commit([Put(key, b"x") for key in shuffled[start : start + 100]])
    buckets = await a.redis.zrange("keys", 0, -1)
    assert len(buckets) > 4
    sizes = [await a.redis.zcard(b"keys:" + start) for start in buckets]
    assert sum(sizes) == len(names) and max(sizes) <= 64
    assert await pages(a, limit=90) == sorted(names)
    assert await pages(a, "order/1") == [f"order/{number}" for number in range(100, 200)]
    assert await pages(a, "ü") == sorted(name for name in names if name[0] == "ü")
    assert await pages(a, "nothing") == []

    gone = sorted(names)[50:550]
    for start in range(0, len(gone), 100):
        await a.store.commit([Delete(key) for key in gone[start : start + 100]])
    assert await pages(a, limit=90) == sorted(set(names) - set(gone))
    await a.store.commit([Delete(key) for key in names if key not in gone])
    assert await pages(a) == []
    assert not await a.redis.keys("keys*"), "nothing is left of an index of nothing"


async def test_a_key_that_is_there_throughout_is_listed_once_though_others_come_and_go(
    make_store: MakeStore,
) -> None:
    a, rng = await make_store("A"), random.Random(3)
    stays = [f"k{number:03}" for number in range(0, 600, 3)]
    for start in range(0, len(stays), 100):
        await a.store.commit([Put(key, b"x") for key in stays[start : start + 100]])
    found: list[str] = []
    cursor = None
    while cursor != "":
        page = await a.store.list_keys("", cursor or "", 11)
        found += page.keys
        cursor = page.cursor
        others = {f"k{rng.randrange(600):03}" for _ in range(60)} - set(stays)
        await a.store.commit(
            [Put(key, b"y") if rng.random() < 0.6 else Delete(key) for key in others]
        )
    assert found == sorted(set(found))
    assert set(stays) <= set(found)


@pytest.mark.parametrize("key", ["\0member/B", "\0"])
async def test_what_is_the_systems_own_is_in_no_index(make_store: MakeStore, key: str) -> None:
    a, b = await make_store("A"), Node("B")
    await a.store.commit([Put(key, b"x")])
    await a.buffer.receive([b.write([Put(key, b"y"), Put("lunch", b"z")], 5)])
    assert await pages(a) == ["lunch"]
    assert (await a.store.list_conflicts("", "", 10)).keys == {}


async def test_conflicts_are_listed_with_their_dots_and_leave_when_they_are_settled(
    make_store: MakeStore,
) -> None:
    a, b = await make_store("A"), Node("B")
    await a.store.commit([Put("lunch", b"1"), Put("dinner", b"1"), Put("tea", b"1")])
    await a.buffer.receive([b.write([Put("lunch", b"2"), Put("tea", b"2")], 5)])
    page = await a.store.list_conflicts("", "", 1)
    assert {key: sorted(map(str, dots)) for key, dots in page.keys.items()} == {
        "lunch": ["A:1", "B:1"]
    }
    assert page.cursor == "lunch"
    assert list((await a.store.list_conflicts("", "lunch", 5)).keys) == ["tea"]
    assert list((await a.store.list_conflicts("t", "", 5)).keys) == ["tea"]
    await a.store.commit([Put("lunch", b"both"), Delete("tea")])
    assert (await a.store.list_conflicts("", "", 5)).keys == {}
    assert not await a.redis.exists("conflicts")
