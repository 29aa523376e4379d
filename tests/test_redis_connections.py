"""Connections and their pool, on a small server that does as it is told. What failures are told as
is in test_redis_link.py."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app import redis_link
from tests.one_redis import LONG_MS, SHORT_MS, FakeServer, connected, fake_server, say


@pytest.fixture
async def fake() -> AsyncIterator[FakeServer]:
    async with fake_server() as fake:
        yield fake


@pytest.fixture
async def redis(fake: FakeServer) -> AsyncIterator[Redis]:
    async with connected(fake.url, LONG_MS) as redis:
        yield redis


def _connections(redis: Redis) -> list[Any]:
    """Those that are free."""
    pool: Any = redis.connection_pool
    return list(pool._available_connections)


async def test_commands_at_the_same_time_have_each_their_own(
    fake: FakeServer, redis: Redis
) -> None:
    await asyncio.gather(*(redis.set("key", "value") for _ in range(3)))
    assert fake.greetings == 3
    await asyncio.gather(*(redis.set("key", "value") for _ in range(3)))
    assert fake.greetings == 3


async def test_who_waits_for_a_connection_has_the_next_that_is_free(redis: Redis) -> None:
    pool: Any = redis.connection_pool
    in_use = [await pool.get_connection() for _ in range(redis_link.CONNECTIONS_MAX)]
    given: list[str] = []

    async def wait(name: str) -> None:
        connection = await pool.get_connection()
        given.append(name)
        await pool.release(connection)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(wait("first"))
        while not pool._condition._waiters:
            await asyncio.sleep(0)
        await pool.release(in_use.pop())
        # Whoever comes now stands behind.
        tasks.create_task(wait("second"))
    assert given == ["first", "second"]
    for connection in in_use:
        await pool.release(connection)


async def test_a_connection_on_which_something_was_left_is_not_used_again(
    fake: FakeServer, redis: Redis
) -> None:
    fake.then = say(b"+OK\r\n+an answer to nothing\r\n")
    await redis.set("key", "value")
    fake.then = say(b"+OK\r\n")
    assert await redis.set("key", "value") is True
    assert fake.greetings == 2


async def test_a_connection_that_was_reset_while_it_was_idle_is_not_used_again(
    fake: FakeServer, redis: Redis
) -> None:
    """Nothing would be sent on it, and its user be told that a write may have been done."""
    writers: list[asyncio.StreamWriter] = []

    async def stay(writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await say(b"+OK\r\n")(writer)

    fake.then = stay
    await redis.set("key", "value")
    [connection] = _connections(redis)
    writers[0].get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    writers[0].transport.abort()
    while connection._reader.exception() is None:
        await asyncio.sleep(0)
    assert await redis.set("key", "value") is True
    assert fake.greetings == 2


async def test_the_answer_to_who_does_not_wait_for_it_is_nobody_elses(
    fake: FakeServer, redis: Redis
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def later(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await answer.wait()
        await say(b"+his\r\n")(writer)

    fake.then = later
    given_up = asyncio.ensure_future(redis.echo("his"))
    await asked.wait()
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    fake.then = say(b"+hers\r\n")
    answer.set()
    assert await redis.echo("hers") == b"hers"
    assert fake.greetings == 2


async def test_an_answer_that_came_when_it_was_given_up_fails_nobody(
    fake: FakeServer, redis: Redis
) -> None:
    pool: Any = redis.connection_pool
    connection = await pool.get_connection()
    reader = connection._reader
    feed = reader.feed_data

    def feed_and_give_up(data: bytes) -> None:
        feed(data)
        connection._give_up()

    reader.feed_data = feed_and_give_up
    await pool.release(connection)
    assert await redis.set("key", "value") is True
    assert await redis.set("key", "value") is True
    assert fake.greetings == 2


async def test_a_refusal_leaves_its_connection_to_the_next(fake: FakeServer, redis: Redis) -> None:
    fake.then = say(b"-ERR no\r\n")
    with pytest.raises(ResponseError, match="no"):
        await redis.set("key", "value")
    fake.then = say(b"+OK\r\n")
    assert await redis.set("key", "value") is True
    assert fake.greetings == 1


async def test_a_server_that_reads_no_more_is_not_waited_for_for_ever(fake: FakeServer) -> None:
    over = asyncio.Event()

    async def read_no_more(_: asyncio.StreamWriter) -> None:
        await over.wait()

    fake.then = read_no_more
    async with connected(fake.url, SHORT_MS) as redis:
        pool: Any = redis.connection_pool
        connection = await pool.get_connection()
        await connection.send_command("SET", "key", "value")
        with pytest.raises(RedisTimeoutError, match="writing"):
            await connection.send_command("SET", "key", b"x" * 2**26)
        assert not connection.is_connected
        await pool.release(connection)
        over.set()
        while fake.is_serving:
            await asyncio.sleep(0)
