"""What each failure of Redis is told as: its cause, and an honest outcome. On real servers, where a
server can be brought to fail so; else on a small one that fails as it is told."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app import redis_link
from app.errors import InvariantError, Outcome, RedisUnavailable
from app.keys import Keys
from app.redis_link import translated
from app.scripts import Scripts
from app.write import Put
from tests.commits import commit_one
from tests.conftest import begin
from tests.one_redis import (
    LONG_MS,
    SHORT_MS,
    FakeServer,
    Then,
    connected,
    fake_server,
    hang_up,
    redis_server,
    say,
    say_nothing,
)

OPERATIONS = [Put("lunch", b"noon?", "text/plain")]

Command = Callable[[Redis], Awaitable[object]]


# --- real servers --------------------------------------------------------------------------------


@pytest.fixture
def url() -> Iterator[str]:
    """A redis-server of the test's own: it may do with it as it likes."""
    with redis_server() as url:
        yield url


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Redis]:
    """The node's way to it."""
    async with connected(url) as redis:
        yield redis


@pytest.fixture
async def admin(url: str) -> AsyncIterator[Any]:
    """Another way to it, to bring it into the state of the test."""
    async with connected(url) as admin:
        yield admin


async def commit(redis: Redis) -> object:
    """What the node does: a write by a script."""
    return await commit_one(Scripts(redis, Keys()), "A", OPERATIONS, 1)


async def set_(redis: Redis) -> object:
    """A write by a plain command."""
    return await redis.set("key", "value")


commands = pytest.mark.parametrize("command", [commit, set_])


async def claim(redis: Redis) -> None:
    await begin(Scripts(redis, Keys()), "A")


async def failure(redis: Redis, command: Command, *, changes: bool = True) -> RedisUnavailable:
    """How it is told that `command` failed."""
    with pytest.raises(RedisUnavailable) as caught, translated(changes=changes):
        await command(redis)
    assert caught.value.cause in caught.value.detail
    assert caught.value.__cause__ is not None
    return caught.value


async def shut_down(redis: Redis) -> object:
    server: Any = redis
    return await server.execute_command("SHUTDOWN", "NOSAVE")


async def keys_of(admin: Any) -> set[bytes]:
    return set(await admin.keys("*"))


@commands
async def test_a_redis_that_is_out_of_memory_has_not_applied_the_write(
    redis: Redis, admin: Any, command: Command
) -> None:
    await claim(redis)
    await admin.config_set("maxmemory", 1)
    error = await failure(redis, command)
    assert "OOM" in error.cause or "maxmemory" in error.cause
    assert error.outcome == "not_applied"
    assert "Nothing was changed." in error.detail
    assert await keys_of(admin) == {b"meta", b"births"}
    await admin.config_set("maxmemory", 0)
    assert await command(redis), "and goes on when there is memory again"


@commands
async def test_a_replica_has_not_applied_the_write(
    redis: Redis, admin: Any, command: Command
) -> None:
    await claim(redis)
    await admin.replicaof("127.0.0.1", 1)
    error = await failure(redis, command)
    assert "read only replica" in error.cause
    assert error.outcome == "not_applied"
    assert await keys_of(admin) == {b"meta", b"births"}


async def test_a_replica_that_has_lost_its_primary_cannot_be_read(redis: Redis, admin: Any) -> None:
    await admin.config_set("replica-serve-stale-data", "no")
    await admin.replicaof("127.0.0.1", 1)

    async def get(redis: Redis) -> object:
        return await redis.get("key")

    error = await failure(redis, get, changes=False)
    assert "MASTER" in error.cause
    assert error.outcome == "not_applied"


async def test_a_replica_that_was_promoted_is_in_another_run(redis: Redis, admin: Any) -> None:
    run = await redis_link.run_of(redis)
    assert not redis_link.took_over(run)
    for _ in range(2):
        await admin.replicaof("127.0.0.1", 1)
        await admin.replicaof("NO", "ONE")
        runs = {run, promoted := await redis_link.run_of(redis)}
        assert len(runs) == 2 and redis_link.took_over(promoted)
        run = promoted


@pytest.mark.parametrize("was_primary", [True, False])
async def test_who_connects_is_asked_of_the_run_by_the_same_name(
    redis: Redis, admin: Any, url: str, was_primary: bool
) -> None:
    if not was_primary:
        await admin.replicaof("127.0.0.1", 1)
        await admin.replicaof("NO", "ONE")
    asked: list[str] = []

    def admits(run: str) -> bool:
        asked.append(run)
        return True

    admitted = redis_link.connect(url, LONG_MS, admits)
    assert await admitted.ping()
    await admitted.aclose()
    assert asked == [await redis_link.run_of(redis)]


@commands
async def test_a_primary_without_its_replicas_has_not_applied_the_write(
    redis: Redis, admin: Any, command: Command
) -> None:
    await claim(redis)
    await admin.config_set("min-replicas-to-write", 1)
    error = await failure(redis, command)
    assert "replicas" in error.cause
    assert error.outcome == "not_applied"
    assert await keys_of(admin) == {b"meta", b"births"}


@commands
async def test_a_redis_that_cannot_save_has_not_applied_the_write(
    redis: Redis, admin: Any, url: str, command: Command
) -> None:
    await claim(redis)
    # Where its snapshot should go there is a directory.
    (Path(url.removeprefix("unix://")).parent / "dump.rdb").mkdir()
    await admin.config_set("save", "3600 1")
    with pytest.raises(ResponseError):
        await admin.save()
    await admin.bgsave()
    async with asyncio.timeout(30):
        while (await admin.info())["rdb_last_bgsave_status"] == "ok":
            await asyncio.sleep(0.01)
    error = await failure(redis, command)
    assert "MISCONF" in error.cause or "disk" in error.cause
    assert error.outcome == "not_applied"
    assert await keys_of(admin) == {b"meta", b"births"}


@commands
async def test_a_redis_that_is_busy_with_a_script_has_not_applied_the_write(
    redis: Redis, admin: Any, command: Command
) -> None:
    await claim(redis)
    await admin.config_set("lua-time-limit", 1)
    endless = asyncio.create_task(admin.eval("while true do end", 0))
    try:
        with pytest.raises(ResponseError, match="SCRIPT KILL"):
            while not endless.done():
                await redis.ping()
        error = await failure(redis, command)
        assert "BUSY" in error.cause or "SCRIPT KILL" in error.cause
        assert error.outcome == "not_applied"
    finally:
        await redis.script_kill()
        await asyncio.gather(endless, return_exceptions=True)
    assert await keys_of(admin) == {b"meta", b"births"}


@commands
async def test_a_user_who_may_not_write_has_not_applied_the_write(
    redis: Redis, admin: Any, url: str, command: Command
) -> None:
    await claim(redis)
    await admin.acl_setuser(
        "reader",
        enabled=True,
        passwords="+pw",
        keys="*",
        commands=["+@read", "+@connection", "-set", "-evalsha", "-script"],
    )
    async with connected(url.replace("unix://", "unix://reader:pw@")) as reader:
        error = await failure(reader, command)
    assert "permission" in error.cause
    assert error.outcome == "not_applied"
    assert await keys_of(admin) == {b"meta", b"births"}


@pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:secret@"])
@commands
async def test_a_missing_or_wrong_password_has_not_applied_the_write(
    command: Command, credentials: str
) -> None:
    with redis_server("--requirepass", "secret") as url:
        async with connected(url.replace("unix://", f"unix://{credentials}")) as stranger:
            error = await failure(stranger, command)
        assert "auth" in error.cause.lower() or "password" in error.cause
        assert error.outcome == "not_applied"


async def test_a_redis_with_too_many_clients_has_not_applied_the_write(
    redis: Redis, admin: Any
) -> None:
    await admin.config_set("maxclients", 1)
    error = await failure(redis, set_)
    assert error.outcome == "not_applied"
    assert await keys_of(admin) == set()


@pytest.mark.parametrize("changes", [False, True])
async def test_a_key_of_the_wrong_type_puts_the_guarantees_in_doubt(
    redis: Redis, changes: bool
) -> None:
    await claim(redis)
    await redis.set("clock", "not a hash")

    async def read_clock(redis: Redis) -> object:
        reading: Any = redis
        return await reading.hgetall("clock")

    for command in (read_clock, commit):
        with (
            pytest.raises(InvariantError, match="cannot have written"),
            translated(changes=changes),
        ):
            await command(redis)


async def test_a_script_that_fails_puts_the_guarantees_in_doubt(redis: Redis) -> None:
    failing: Any = redis
    for script in ("error('broken')", "return redis.call('HGET')", "not lua"):
        with pytest.raises(InvariantError), translated(changes=True):
            await failing.eval(script, 0)


async def test_scripts_that_redis_forgot_are_loaded_again_and_run_once(
    redis: Redis, admin: Any
) -> None:
    await claim(redis)
    await commit(redis)
    await admin.script_flush()
    await commit(redis)
    assert await admin.hgetall("clock") == {b"A": b"2"}
    assert await admin.xlen("log:A") == 2


async def test_a_redis_that_is_killed_and_started_again_is_found_again() -> None:
    with redis_server() as url:
        path = Path(url.removeprefix("unix://"))
        async with connected(url) as redis, connected(url) as admin:
            await set_(redis)
            await failure(admin, shut_down, changes=False)
            await failure(redis, set_)  # on the connection that it had
            error = await failure(redis, set_)
            assert error.outcome == "not_applied", "nothing listens there"
            with redis_server(at=path):
                assert await set_(redis)


# --- servers that are not there ------------------------------------------------------------------


def test_a_connection_that_was_closed_meanwhile_is_told_so_by_every_loop(url: str) -> None:
    """uvloop has an error of its own for it, which would end a worker."""

    async def write_to_one_that_is_closed() -> None:
        async with connected(url) as redis:
            pool: Any = redis.connection_pool
            connection = await pool.get_connection()
            connection._writer.transport.abort()
            await asyncio.sleep(0)
            with translated():
                await connection.send_command("PING")
                await connection.read_response()

    for run in (asyncio.run, uvloop.run):
        with pytest.raises(RedisUnavailable):
            run(write_to_one_that_is_closed())


@pytest.mark.parametrize("changes", [False, True])
async def test_a_connection_that_is_refused_has_not_applied_the_write(
    tmp_path: Path, changes: bool
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        port = bound.getsockname()[1]
        for url in (
            f"redis://127.0.0.1:{port}",
            f"unix://{tmp_path}/none",
            f"rediss://127.0.0.1:{port}",
        ):
            redis = redis_link.connect(url, LONG_MS)
            error = await failure(redis, set_, changes=changes)
            await redis.aclose()
            assert error.outcome == "not_applied"
            assert "the connection failed" in error.cause


async def test_without_a_sentinel_that_answers_the_write_has_not_been_applied(
    tmp_path: Path,
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        port = bound.getsockname()[1]
        async with connected(f"redis+sentinel://127.0.0.1:{port}/main") as redis:
            error = await failure(redis, set_)
    assert error.outcome == "not_applied"
    assert "(of 1 Sentinels 0 answer, and none knows a primary of main that is up)" in error.cause


# --- a server that fails as it is told -----------------------------------------------------------


@pytest.fixture
async def fake() -> AsyncIterator[FakeServer]:
    async with fake_server() as fake:
        yield fake


@pytest.fixture
async def to_fake(fake: FakeServer) -> AsyncIterator[Redis]:
    async with connected(fake.url) as redis:
        yield redis


outcomes = pytest.mark.parametrize(
    ("changes", "outcome"), [(True, "unknown"), (False, "not_applied")]
)


@outcomes
async def test_a_connection_that_ends_in_the_middle_leaves_the_outcome_of_a_change_unknown(
    fake: FakeServer, to_fake: Redis, changes: bool, outcome: Outcome
) -> None:
    fake.then = hang_up
    error = await failure(to_fake, set_, changes=changes)
    assert error.outcome == outcome
    assert "the connection failed" in error.cause
    assert len(fake.commands) == 1, "it is never sent twice"


@outcomes
@pytest.mark.parametrize("reply", [b"", b"$100\r\nhalf of"], ids=["no answer", "half an answer"])
async def test_a_redis_that_does_not_answer_in_time_leaves_the_outcome_of_a_change_unknown(
    fake: FakeServer, changes: bool, outcome: Outcome, reply: bytes
) -> None:
    fake.then = say(reply)
    error = None
    # A noisy machine may not even greet in so short a time: then nothing was sent.
    async with connected(fake.url, SHORT_MS) as redis, asyncio.timeout(30):
        while not fake.commands:
            error = await failure(redis, set_, changes=changes)
    assert error is not None
    assert error.outcome == outcome
    assert "did not answer in time" in error.cause
    assert len(fake.commands) == 1, "it is never sent twice"


@pytest.mark.parametrize("then", [hang_up, say_nothing])
async def test_a_redis_that_does_not_greet_has_not_applied_the_write(
    fake: FakeServer, then: Then
) -> None:
    fake.greets, fake.then = False, then
    async with connected(fake.url, LONG_MS if then is hang_up else SHORT_MS) as redis:
        error = await failure(redis, set_)
    assert error.outcome == "not_applied"
    assert fake.commands == []


@pytest.mark.parametrize(
    "refusal",
    [
        b"-LOADING Redis is loading the dataset in memory",
        b"-MISCONF Errors writing to the AOF file: No space left on device",
        b"-CLUSTERDOWN The cluster is down",
        b"-ERR max number of clients reached",
        b"-OOM command not allowed when used memory > 'maxmemory'.",
    ],
)
@pytest.mark.parametrize("changes", [False, True])
async def test_what_redis_refuses_is_told_in_its_words_and_not_tried_again(
    fake: FakeServer, to_fake: Redis, refusal: bytes, changes: bool
) -> None:
    fake.then = say(refusal + b"\r\n")
    error = await failure(to_fake, set_, changes=changes)
    assert error.outcome == "not_applied"
    assert refusal.decode().split(maxsplit=1)[1] in error.cause
    assert len(fake.commands) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        b"-OOM command not allowed when used memory > 'maxmemory'. script: 0a, on @user_script:9.",
        b"-READONLY It is a replica, script: 0a, on @user_script:9.",
        b"-ERR Error running script (call to f_0a): @user_script:9: @user_script: 9: -OOM command "
        b"not allowed when used memory > 'maxmemory'.",
    ],
)
async def test_a_cause_does_not_speak_of_the_script_that_was_refused(
    fake: FakeServer, to_fake: Redis, refusal: bytes
) -> None:
    fake.then = say(refusal + b"\r\n")
    error = await failure(to_fake, set_)
    assert "script" not in error.cause and ".." not in error.detail
    assert error.cause.endswith(("'maxmemory'.", "It is a replica"))
    assert error.outcome == "not_applied"


async def test_a_redis_that_loads_while_it_greets_has_not_applied_the_write(
    fake: FakeServer, to_fake: Redis
) -> None:
    fake.greets, fake.then = False, say(b"-LOADING Redis is loading the dataset in memory\r\n")
    error = await failure(to_fake, set_)
    assert error.outcome == "not_applied"
    assert "loading" in error.cause
    assert fake.commands == []


async def test_an_answer_that_is_no_redis_leaves_the_outcome_of_a_change_unknown(
    fake: FakeServer, to_fake: Redis
) -> None:
    fake.then = say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert (await failure(to_fake, set_)).outcome == "unknown"
    assert len(fake.commands) == 1


async def test_a_connection_that_ended_while_nobody_used_it_costs_no_write(
    fake: FakeServer, to_fake: Redis
) -> None:
    ended = asyncio.Event()

    async def answer_and_hang_up(writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        ended.set()

    fake.then = answer_and_hang_up
    assert await set_(to_fake)
    await ended.wait()
    for _ in range(20):
        await asyncio.sleep(0)  # the other side has seen the end, too
    fake.then = say(b"+OK\r\n")
    assert await set_(to_fake)
    assert fake.greetings == 2
    assert len(fake.commands) == 2


async def test_one_connection_serves_one_command_after_another(
    fake: FakeServer, to_fake: Redis
) -> None:
    for _ in range(5):
        assert await set_(to_fake)
    assert fake.greetings == 1
    assert len(fake.commands) == 5


async def test_a_failed_connection_is_not_used_again(fake: FakeServer, to_fake: Redis) -> None:
    fake.then = hang_up
    await failure(to_fake, set_)
    fake.then = say(b"+OK\r\n")
    assert await set_(to_fake)
    assert fake.greetings == 2


async def test_a_write_that_waits_in_vain_for_a_connection_has_not_been_applied(
    fake: FakeServer,
) -> None:
    async with connected(fake.url, LONG_MS) as redis:
        pool: Any = redis.connection_pool
        in_use = [await pool.get_connection() for _ in range(redis_link.CONNECTIONS_MAX)]
        pool.timeout = SHORT_MS / 1000
        try:
            error = await failure(redis, set_)
        finally:
            for connection in in_use:
                await pool.release(connection)
    assert fake.commands == []
    assert error.outcome == "not_applied"


async def test_the_name_of_a_socket_is_no_word_of_redis(fake: FakeServer) -> None:
    """A NODE_ID, and so the path of a socket, may be a word that begins Redis' refusals."""
    with tempfile.TemporaryDirectory(prefix="lightcone-BUSY-OOM-") as directory:
        path = Path(directory) / "redis.sock"
        fake.then = say_nothing
        server = await asyncio.start_unix_server(fake.serve, path)
        error = None
        async with connected(f"unix://{path}", SHORT_MS) as redis, asyncio.timeout(30):
            while not fake.commands:
                error = await failure(redis, set_)
        server.close()
    assert error is not None
    assert error.outcome == "unknown"


# --- what is not Redis' failure ------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("x"), TimeoutError(), asyncio.CancelledError()])
def test_what_is_no_failure_of_redis_is_left_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, translated(changes=True):
        raise error
    assert caught.value is error


def test_what_does_not_fail_is_left_alone() -> None:
    with translated(changes=True):
        done = True
    assert done
