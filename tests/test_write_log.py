"""The log gives back what was applied, from any place that it still goes back to."""

import pytest

from app.errors import LogTrimmed
from app.vector_clock import Dot
from app.write import Delete, Put
from app.write_log import LogSize
from tests.conftest import SERVERS, MakeStore
from tests.model import Node


async def test_the_log_is_read_from_any_place_a_part_at_a_time(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.say(b"1", b"2", b"3", b"4", b"5")

    async def sequences(after: int, count: int) -> list[int]:
        return [write.dot.sequence for write in await a.store.log.after("A", after, count)]

    assert await sequences(0, 10) == [1, 2, 3, 4, 5]
    assert await sequences(2, 2) == [3, 4]


async def test_the_log_gives_back_what_was_received(make_store: MakeStore) -> None:
    a, b = await make_store("A"), Node("B")
    writes = [b.write([Put("a", b"\0\n", "x/y; z=1"), Delete("b")], 5), b.write([Delete("a")], 6)]
    await a.take(*writes)
    assert await a.store.log.after("B", 0, 10) == writes


async def test_a_log_says_that_it_does_not_go_back_so_far(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.say(b"1", b"2", b"3")
    await a.store.log.trim("A", 2, 1)
    with pytest.raises(LogTrimmed, match="does not go back to A:2"):
        await a.store.log.after("A", 1, 10)
    assert [write.dot for write in await a.store.log.after("A", 2, 10)] == [Dot("A", 3)]
    await a.store.log.trim("A", 3, 3)
    with pytest.raises(LogTrimmed):
        await a.store.log.after("A", 2, 10)


async def test_a_log_goes_on_after_all_of_it_was_trimmed(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.say(b"1", b"2")
    await a.store.log.trim("A", 2, 1)
    await a.say(b"3")
    assert [write.dot for write in await a.store.log.after("A", 2, 10)] == [Dot("A", 3)]


@pytest.mark.parametrize("make_redis", SERVERS, indirect=True)
async def test_how_large_the_logs_are(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.say(b"1" * 5000, b"2" * 5000)
    sizes = await a.store.log.sizes(["A", "B"])
    assert sizes["A"].entries == 2
    assert sizes["A"].bytes > 10_000
    assert sizes["B"] == LogSize(0, 0)
