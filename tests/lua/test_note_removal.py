"""lua/note_removal.lua: a node knows that it was told of its removal."""

from typing import Any

from app.keys import Keys
from app.scripts import Scripts
from tests.conftest import MakeRedis, begin


async def test_a_removal_is_noted_told_to_the_workers_and_revoked(make_redis: MakeRedis) -> None:
    redis: Any = make_redis()
    scripts = Scripts(redis, Keys())
    await begin(scripts, "A")
    async with redis.pubsub() as channel:
        await channel.subscribe(Keys().system_channel)
        assert await scripts.note_removal("A", "B:7 C")
        assert await redis.hget("meta", "removed") == b"B:7 C"
        assert await scripts.note_removal("A", "")
        assert not await redis.hexists("meta", "removed")
        told = 0
        while told < 2:
            message = await channel.get_message(timeout=5)
            assert message is not None
            told += message["type"] == "message"


async def test_a_redis_that_was_emptied_is_left_empty(make_redis: MakeRedis) -> None:
    redis: Any = make_redis()
    scripts = Scripts(redis, Keys())
    assert not await scripts.note_removal("A", "B:7 C")
    assert await redis.keys() == []
    await begin(scripts, "B")
    assert not await scripts.note_removal("A", "B:7 C")
    assert not await redis.hexists("meta", "removed")
