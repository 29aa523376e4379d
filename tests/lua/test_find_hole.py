"""lua/find_hole.lua: a log that is trimmed is whole, and one that lacks a write is not."""

from typing import Any

import pytest

from app.keys import Keys
from app.scripts import Scripts
from app.write import Put
from tests.commits import commit_one
from tests.conftest import MakeRedis, begin


async def scripts_with_log(redis: Any, writes: int = 5) -> Scripts:
    """The scripts on a Redis in which A has written so often."""
    scripts = Scripts(redis, Keys())
    await begin(scripts, "A")
    for n in range(writes):
        await commit_one(scripts, "A", [Put(f"key-{n}", b"x")], 1)
    return scripts


async def test_what_scripts_wrote_has_no_hole(make_redis: MakeRedis) -> None:
    assert await (await scripts_with_log(make_redis(), 0)).find_hole() == ""
    assert await (await scripts_with_log(make_redis())).find_hole() == ""


@pytest.mark.parametrize("trimmed", [1, 4, 5])
async def test_a_log_that_begins_later_or_is_empty_has_no_hole(
    make_redis: MakeRedis, trimmed: int
) -> None:
    redis: Any = make_redis()
    scripts = await scripts_with_log(redis)
    await redis.xtrim("log:A", minid=f"{trimmed + 1}-0", approximate=False)
    assert await redis.xlen("log:A") == 5 - trimmed
    assert await scripts.find_hole() == ""


@pytest.mark.parametrize(
    ("gone", "left"),
    [("3-0", "from A:1 to A:5"), ("5-0", "from A:1 to A:4")],
    ids=["middle", "end"],
)
async def test_a_log_that_lacks_a_write_is_told_of(
    make_redis: MakeRedis, gone: str, left: str
) -> None:
    redis: Any = make_redis()
    scripts = await scripts_with_log(redis)
    await redis.hset("clock", "B", 9)  # whose log was trimmed wholly
    await redis.xdel("log:A", gone)
    hole = await scripts.find_hole()
    assert hole == f"the log of A has 4 writes, {left}, and the clock says A:5"


async def test_a_log_that_goes_beyond_the_clock_is_told_of(make_redis: MakeRedis) -> None:
    redis: Any = make_redis()
    scripts = await scripts_with_log(redis)
    await redis.hset("clock", "A", 4)
    assert (await scripts.find_hole()).endswith("and the clock says A:4")
