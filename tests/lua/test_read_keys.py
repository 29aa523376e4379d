"""lua/read_keys.lua: several keys are read at one instant, up to a limit."""

import asyncio

import pytest

from app.conditions import Condition
from app.errors import PreconditionFailed, TooLarge
from app.vector_clock import NOTHING, Dot, VectorClock
from app.write import Delete, Put
from tests.conftest import MakeStore, Store
from tests.model import Node


async def snapshot(store: Store, *keys: str, most: int = 1000) -> dict[str, list[bytes]]:
    """The values of these keys at one instant."""
    readings, _ = await store.store.snapshot(keys, NOTHING, (), most)
    return {key: [v.value for v in one.versions] for key, one in readings.items()}


async def test_a_snapshot_shows_what_keys_hold_and_what_a_reader_of_them_has_seen(
    make_store: MakeStore,
) -> None:
    a, b = await make_store("A"), Node("B")
    await a.store.commit([Put("lunch", b"1"), Put("tea", b"2")])
    await a.buffer.receive([b.write([Put("lunch", b"3")], 9_000_000)])
    readings, clock = await a.store.snapshot(["tea", "lunch", "x"], NOTHING, (), 1000)
    assert clock == VectorClock({"A": 1, "B": 1})
    assert {key: one.context for key, one in readings.items()} == {
        "tea": VectorClock({"A": 1}),
        "lunch": clock,
        "x": clock,
    }
    assert await snapshot(a, "lunch", "x") == {"lunch": [b"3", b"1"], "x": []}


async def test_a_transaction_is_seen_whole(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.store.commit([Put("from", b"0"), Put("to", b"0")])

    async def write() -> None:
        for number in range(50):
            await a.store.commit([Put("from", b"%d" % number), Put("to", b"%d" % number)])

    async def read() -> None:
        for _ in range(50):
            seen = await snapshot(a, "to", "from")
            assert seen["from"] == seen["to"]

    await asyncio.gather(write(), read(), read())


async def test_more_than_the_limit_is_not_read(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.store.commit([Put("lunch", b"x" * 400), Put("tea", b"y" * 400)])
    assert len(await snapshot(a, "lunch", "tea")) == 2
    with pytest.raises(TooLarge, match="TXN_MAX_BYTES"):
        await snapshot(a, "lunch", "tea", "lunch")
    before = {key: await a.redis.dump(key) for key in await a.redis.keys()}
    with pytest.raises(TooLarge, match="TXN_MAX_BYTES"):
        await a.store.commit([Delete("lunch")], NOTHING, (), ["lunch"], 300)
    assert {key: await a.redis.dump(key) for key in await a.redis.keys()} == before


async def test_a_snapshot_is_given_only_if_its_conditions_hold(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.store.commit([Put("lunch", b"x")])
    wanted = [Condition.exists("lunch"), Condition.absent("lunch"), Condition.exists("tea")]
    with pytest.raises(PreconditionFailed) as refusal:
        await a.store.snapshot(["lunch", "tea"], NOTHING, wanted, 1000)
    assert [(h.key, h.dots) for h in refusal.value.held] == [("lunch", (Dot("A", 1),)), ("tea", ())]
    await a.store.snapshot(["lunch", "tea"], NOTHING, wanted[:1], 1000)
