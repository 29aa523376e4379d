"""Which Redis is turned down, on real servers with such settings, and what is said to change."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import pytest
from redis.asyncio import Redis

from app import redis_check
from app.errors import RedisUnavailable, StartupError
from app.redis_check import check, until_it_answers
from tests.one_redis import (
    LONG_MS,
    SHORT_MS,
    FakeServer,
    connected,
    fake_server,
    hang_up,
    redis_server,
    say,
    say_nothing,
)

Fsync = Literal["always", "everysec", "trust"]
FIT = ("--appendonly", "yes", "--appendfsync", "always")


async def problems(redis: Redis, fsync: Fsync = "always") -> list[str]:
    """What `check` wants changed, a line each."""
    with pytest.raises(StartupError) as caught:
        await check(redis, fsync)
    first, *lines = str(caught.value).splitlines()
    assert first == "REDIS_URL: this Redis cannot keep the guarantees:"
    assert all(line.startswith("  ") for line in lines)
    return [line.strip() for line in lines]


@pytest.fixture
async def fit() -> AsyncIterator[Any]:
    """A Redis that keeps the guarantees, until the test changes it."""
    with redis_server(*FIT) as url:
        async with connected(url) as redis:
            yield redis


# --- what it has to be ---------------------------------------------------------------------------


@pytest.mark.parametrize("fsync", ["always", "everysec", "trust"])
async def test_a_redis_that_keeps_what_it_is_given_is_fit(fit: Any, fsync: Fsync) -> None:
    await check(fit, fsync)


async def test_a_redis_without_the_append_only_file_is_turned_down(fit: Any) -> None:
    await fit.config_set("appendonly", "no")
    for fsync in ("always", "everysec"):
        assert await problems(fit, fsync) == [
            "appendonly is off, so a restart loses writes: set `appendonly yes`"
        ]


@pytest.mark.parametrize(
    ("is_", "promised"), [("everysec", "always"), ("no", "always"), ("no", "everysec")]
)
async def test_a_redis_that_persists_less_than_is_promised_is_turned_down(
    fit: Any, is_: str, promised: Fsync
) -> None:
    await fit.config_set("appendfsync", is_)
    [problem] = await problems(fit, promised)
    assert problem.startswith(f"appendfsync is {is_}, less than FSYNC={promised} promises")
    assert f"set `appendfsync {promised}`" in problem


async def test_a_redis_that_persists_as_is_promised_is_fit(fit: Any) -> None:
    await fit.config_set("appendfsync", "everysec")
    await check(fit, "everysec")


@pytest.mark.parametrize("fsync", ["always", "everysec"])
async def test_a_redis_that_does_not_sync_during_a_rewrite_is_turned_down(
    fit: Any, fsync: Fsync
) -> None:
    await fit.config_set("no-appendfsync-on-rewrite", "yes")
    [problem] = await problems(fit, fsync)
    assert problem.startswith("no-appendfsync-on-rewrite is on, so what is written while Redis")
    assert "set `no-appendfsync-on-rewrite no`" in problem


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_a_redis_that_evicts_is_turned_down(fit: Any, policy: str) -> None:
    await fit.config_set("maxmemory-policy", policy)
    [problem] = await problems(fit)
    assert problem.startswith(f"maxmemory-policy is {policy}, so it may evict")
    assert "set `maxmemory-policy noeviction`" in problem


@pytest.mark.parametrize("fsync", ["always", "trust"])
async def test_a_redis_that_does_not_let_its_user_publish_is_turned_down(
    fit: Any, fsync: Fsync
) -> None:
    await fit.execute_command("ACL", "SETUSER", "default", "resetchannels")
    [problem] = await problems(fit, fsync)
    assert problem.startswith("its user may not publish") and "`&*`" in problem


@pytest.mark.parametrize("fsync", ["always", "trust"])
async def test_a_replica_is_turned_down_whatever_is_trusted(fit: Any, fsync: Fsync) -> None:
    await fit.replicaof("127.0.0.1", 1)
    assert await problems(fit, fsync) == ["it is a replica: name its primary instead"]


async def test_everything_that_is_wrong_is_said_at_once(fit: Any) -> None:
    await fit.config_set("appendonly", "no")
    await fit.config_set("maxmemory-policy", "allkeys-lru")
    await fit.replicaof("127.0.0.1", 1)
    found = await problems(fit)
    assert [problem.split()[0] for problem in found] == ["it", "appendonly", "maxmemory-policy"]


async def test_with_trust_the_configuration_is_not_asked_for(fit: Any) -> None:
    await fit.config_set("appendonly", "no")
    await fit.config_set("maxmemory-policy", "allkeys-lru")
    await check(fit, "trust")


async def test_a_redis_that_is_too_old_is_turned_down_whatever_is_trusted(
    fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = (await fit.info())["redis_version"]
    monkeypatch.setattr(redis_check, "OLDEST", (99, 0))
    for fsync in ("always", "trust"):
        [problem] = await problems(fit, fsync)
        assert problem.startswith(f"it is version {version}, and the oldest supported is")


@pytest.mark.parametrize(
    "settings",
    [
        ("--rename-command", "CONFIG", ""),
        ("--user", "default", "on", "nopass", "~*", "&*", "+@all", "-config"),
    ],
    ids=["renamed", "forbidden"],
)
async def test_a_redis_that_hides_its_configuration_has_to_be_trusted(
    settings: tuple[str, ...],
) -> None:
    with redis_server(*FIT, *settings) as url:
        async with connected(url) as redis:
            [problem] = await problems(redis)
            assert problem.startswith("it hides its configuration")
            assert "set FSYNC=trust if you know that it is fit" in problem
            await check(redis, "trust")


async def test_a_redis_that_cannot_be_reached_is_unavailable() -> None:
    with redis_server(*FIT) as url:
        pass
    async with connected(url) as redis:
        with pytest.raises(RedisUnavailable):
            await check(redis, "always")


# --- waiting for it ------------------------------------------------------------------------------


async def test_a_redis_that_answers_is_not_waited_for(fit: Any) -> None:
    await until_it_answers(fit)


@pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:secret@"])
async def test_a_redis_that_wants_another_password_is_not_waited_for(credentials: str) -> None:
    with redis_server("--requirepass", "secret") as url:
        async with connected(url.replace("unix://", f"unix://{credentials}")) as redis:
            with pytest.raises(RedisUnavailable) as caught:
                async with asyncio.timeout(10):
                    await until_it_answers(redis)
            assert "secret" not in caught.value.detail
        async with connected(url.replace("unix://", "unix://:secret@")) as redis:
            await until_it_answers(redis)


@pytest.fixture
async def fake() -> AsyncIterator[FakeServer]:
    async with fake_server() as fake:
        yield fake


def at_first(failing: Callable[..., Awaitable[None]], times: int) -> Callable[..., Awaitable[None]]:
    """Fails so many times as told, and answers after that."""
    left = times

    async def then(writer: asyncio.StreamWriter) -> None:
        nonlocal left
        left -= 1
        await (failing if left >= 0 else say(b":0\r\n"))(writer)

    return then


LOADING = say(b"-LOADING Redis is loading the dataset in memory\r\n")


@pytest.mark.parametrize(
    ("failing", "timeout_ms"),
    [(LOADING, LONG_MS), (hang_up, LONG_MS), (say_nothing, SHORT_MS)],
    ids=["loading", "hangs up", "hangs"],
)
async def test_a_redis_that_is_not_ready_is_waited_for(
    fake: FakeServer, failing: Callable[..., Awaitable[None]], timeout_ms: int
) -> None:
    fake.then = at_first(failing, 2)
    async with connected(fake.url, timeout_ms) as redis, asyncio.timeout(30):
        await until_it_answers(redis)
    assert len(fake.commands) >= 3


async def test_a_redis_that_is_not_there_yet_is_waited_for() -> None:
    with redis_server(*FIT) as url:
        pass
    async with connected(url) as redis:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await until_it_answers(redis)
