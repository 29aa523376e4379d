"""Things of unknown sizes are read a few at a time, until there are enough."""

from collections.abc import Sequence

import pytest

from app.bounded_read import read_about


class Things:
    """Things of these sizes, and how many were read at a time."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.reads: list[int] = []

    async def read(self, start: int, count: int) -> Sequence[int]:
        self.reads.append(count)
        return self.sizes[start : start + count]

    async def about(self, max_bytes: int, most: int = 1000) -> list[int]:
        return await read_about(max_bytes, most, self.read, lambda size: size)


async def test_all_are_read_if_they_are_few_and_small() -> None:
    things = Things(*[1] * 10)
    assert await things.about(10_000) == [1] * 10
    assert things.reads == [16]


async def test_no_more_than_wanted_are_read() -> None:
    things = Things(*[1] * 100)
    assert await things.about(10_000, most=40) == [1] * 40
    assert sum(things.reads) == 40


@pytest.mark.parametrize("size", [1, 10, 100])
async def test_what_is_read_is_about_as_large_as_wanted(size: int) -> None:
    things = Things(*[size] * (20_000 // size))
    found = await things.about(10_000, most=20_000)
    assert 10_000 <= sum(found) <= 10_000 + size
    assert len(things.reads) <= 3


async def test_the_first_read_is_small_for_all_of_it_may_be_large() -> None:
    things = Things(*[1_000_000] * 100)
    assert len(await things.about(1_000_000)) == 16


async def test_the_end_of_all_ends_the_reading() -> None:
    things = Things(*[1] * 20)
    assert len(await things.about(10_000)) == 20
    assert await Things().about(10_000) == []
