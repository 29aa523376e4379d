"""The node's own redis-server, as real processes: it keeps data through every kind of end."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app import embedded_redis
from app.embedded_redis import EmbeddedRedis, redis_pid
from app.errors import StartupError
from app.local_nodes import children_of
from app.redis_program import RedisServer, find_redis_server, redis_servers
from tests.processes import alive, until


@pytest.fixture(
    params=redis_servers(), ids=lambda program: "v" + ".".join(map(str, program.version))
)
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """Every test that asks for it runs once with each redis-server of this machine."""
    found: RedisServer = request.param
    monkeypatch.setattr(embedded_redis, "find_redis_server", lambda: found)
    return found


@contextlib.asynccontextmanager
async def running(directory: Path, fsync: str = "always") -> AsyncIterator[EmbeddedRedis]:
    redis = EmbeddedRedis(directory, fsync)
    await redis.start()
    try:
        yield redis
    finally:
        await redis.stop()


def client_of(redis: EmbeddedRedis) -> Redis:
    return Redis.from_url(redis.url, decode_responses=True)


async def put(redis: EmbeddedRedis, key: str, value: str) -> None:
    async with client_of(redis) as client:
        await client.set(key, value)


async def get(redis: EmbeddedRedis, key: str) -> str | None:
    async with client_of(redis) as client:
        value = await client.get(key)
        assert not isinstance(value, bytes)
        return value


def append_only_files(directory: Path) -> list[Path]:
    """Where Redis 6.2 and where later ones keep the latest writes."""
    return [
        *directory.glob("appendonly.aof"),
        *directory.glob("appendonlydir/*.incr.aof"),
    ]


SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from app import log
from app.embedded_redis import EmbeddedRedis

async def main():
    redis = EmbeddedRedis(Path(sys.argv[1]), "always")
    await redis.start()
    print(redis.pid, flush=True)
    await asyncio.Event().wait()

log.configure("error", "text")
asyncio.run(main())
"""


async def leave_behind(directory: Path, program: RedisServer) -> int:
    """The pid of a redis-server that runs in `directory`, and whose supervisor was killed."""
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SUPERVISOR, directory),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PATH": str(program.path.parent)},
    )
    assert supervisor.stdout
    pid = int(await supervisor.stdout.readline())
    supervisor.kill()
    await supervisor.communicate()
    return pid


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    """Also not when a test fails."""
    yield
    if left := redis_pid(tmp_path):
        os.kill(left, signal.SIGKILL)


async def test_it_is_configured_to_lose_nothing(program: RedisServer, tmp_path: Path) -> None:
    wanted = {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": "",
        "port": "0",
        "dir": str(tmp_path / "A"),
    }
    async with running(tmp_path / "A") as redis, client_of(redis) as client:
        for name, value in wanted.items():
            assert await client.config_get(name) == {name: value}
        assert (await client.info("server"))["process_id"] == redis.pid
    assert (tmp_path / "A").stat().st_mode & 0o077 == 0


async def test_a_version_of_some_hundred_bytes_is_kept_in_one_piece(
    program: RedisServer, tmp_path: Path
) -> None:
    async with running(tmp_path / "A") as redis, client_of(redis) as client:
        await client.hset("kv:lunch", "A:1", "x" * 1000)
        assert await client.object("encoding", "kv:lunch") in ("listpack", "ziplist")


@pytest.mark.parametrize(
    ("fsync", "appendfsync"), [("everysec", "everysec"), ("always", "always"), ("trust", "always")]
)
async def test_fsync_is_as_the_setting_says(tmp_path: Path, fsync: str, appendfsync: str) -> None:
    async with running(tmp_path, fsync) as redis, client_of(redis) as client:
        assert await client.config_get("appendfsync") == {"appendfsync": appendfsync}


async def test_it_stops_cleanly_and_starts_with_its_data(
    program: RedisServer, tmp_path: Path
) -> None:
    async with running(tmp_path) as redis:
        await put(redis, "lunch", "noon?")
        pid = redis.pid
    assert pid and not alive(pid)
    assert not (tmp_path / "redis.sock").exists()
    assert not (tmp_path / "redis.pid").exists()
    async with running(tmp_path) as redis:
        assert await get(redis, "lunch") == "noon?"
        assert redis.pid != pid


async def test_when_it_is_killed_it_runs_again_with_its_data(
    program: RedisServer, tmp_path: Path
) -> None:
    async with running(tmp_path) as redis:
        for turn in range(3):
            await put(redis, "turn", str(turn))
            await kill_and_await_the_next(redis)
            assert await get(redis, "turn") == str(turn)


async def kill_and_await_the_next(redis: EmbeddedRedis) -> None:
    killed = redis.pid

    async def another_one_answers() -> bool:
        try:
            async with client_of(redis) as client:
                return bool((await client.info("server"))["process_id"] != killed)
        except RedisError:
            return False

    redis.kill()
    await until(another_one_answers)


async def test_a_second_node_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "A") as redis:
        with pytest.raises(StartupError, match=rf"DATA_DIR: .*/A is in use .*{os.getpid()}"):
            await EmbeddedRedis(tmp_path / "A", "always").start()
        assert await get(redis, "lunch") is None
    async with running(tmp_path / "A"):
        pass


async def test_a_redis_server_that_was_left_behind_is_replaced(
    program: RedisServer, tmp_path: Path
) -> None:
    left = await leave_behind(tmp_path, program)
    assert alive(left) and redis_pid(tmp_path) == left
    async with Redis(unix_socket_path=str(tmp_path / "redis.sock")) as client:
        await client.set("lunch", "noon?")
    async with running(tmp_path) as redis:
        assert not alive(left)
        assert await get(redis, "lunch") == "noon?"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the /proc of Linux")
async def test_one_that_was_left_behind_without_its_pid_file_is_replaced(
    program: RedisServer, tmp_path: Path
) -> None:
    left = await leave_behind(tmp_path, program)
    # As it is when the disk was full at the moment of its birth.
    (tmp_path / "redis.pid").write_text("")
    assert redis_pid(tmp_path) == left
    async with running(tmp_path) as redis:
        assert not alive(left)
        assert redis.pid == redis_pid(tmp_path)


async def test_one_that_was_left_behind_and_hangs_is_killed(
    monkeypatch: pytest.MonkeyPatch, program: RedisServer, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedded_redis, "STOP_MAX_S", 0.5)
    left = await leave_behind(tmp_path, program)
    os.kill(left, signal.SIGSTOP)
    async with running(tmp_path):
        assert not alive(left)


async def test_one_that_hangs_is_killed_when_it_is_to_stop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedded_redis, "STOP_MAX_S", 0.1)
    async with running(tmp_path) as redis:
        await put(redis, "lunch", "noon?")
        pid = redis.pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        await redis.stop()
        assert not alive(pid)
    async with running(tmp_path) as redis:
        assert await get(redis, "lunch") == "noon?"


async def test_what_a_killed_redis_server_leaves_is_removed(
    program: RedisServer, tmp_path: Path
) -> None:
    left = await leave_behind(tmp_path, program)
    os.kill(left, signal.SIGKILL)
    await until(lambda: not alive(left))
    assert (tmp_path / "redis.sock").exists()
    # Its process id may belong to somebody else by now: to this very process, say.
    (tmp_path / "redis.pid").write_text(str(os.getpid()))
    assert redis_pid(tmp_path) is None
    async with running(tmp_path) as redis:
        assert await get(redis, "lunch") is None


async def test_what_is_left_of_an_unfinished_rewrite_is_removed(
    program: RedisServer, tmp_path: Path
) -> None:
    async with running(tmp_path) as redis, client_of(redis) as client:
        for number in range(2000):
            await client.set(f"key-{number}", "value" * 100)
        # Each key takes its time, so that the rewrite does not end by itself.
        await client.config_set("rdb-key-save-delay", 1_000_000)
        await client.bgrewriteaof()
        await until(lambda: unfinished_rewrites(tmp_path))
        assert redis.pid
        os.kill(redis.pid, signal.SIGSTOP)  # it would tidy up behind its child
        [child] = children_of(redis.pid)
        os.kill(child, signal.SIGKILL)
        assert unfinished_rewrites(tmp_path)
        await kill_and_await_the_next(redis)
        assert not unfinished_rewrites(tmp_path)
        assert await get(redis, "key-1999") == "value" * 100


def unfinished_rewrites(directory: Path) -> list[Path]:
    return list(directory.glob("temp-rewriteaof-*.aof"))


async def test_a_long_path_is_used_from_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    async with running(Path("data/A")) as redis:
        await put(redis, "lunch", "noon?")
        assert await get(redis, "lunch") == "noon?"


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"DATA_DIR: .* too long.* shorter path"):
        EmbeddedRedis(tmp_path / ("d" * 120) / "A", "always")


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StartupError, match=r"DATA_DIR: .*data/A cannot be used: Not a directory"):
        await EmbeddedRedis(tmp_path / "data" / "A", "always").start()


async def test_a_damaged_file_is_told_in_the_words_of_redis(
    program: RedisServer, tmp_path: Path
) -> None:
    async with running(tmp_path) as redis:
        await put(redis, "lunch", "noon?")
    for file in append_only_files(tmp_path):
        file.write_bytes(b"*3\r\nthis is no command\r\n" * 100)
    with pytest.raises(StartupError, match=r"(?s)ended with code 1 .*Bad file format"):
        await EmbeddedRedis(tmp_path, "always").start()
    assert redis_pid(tmp_path) is None


async def test_a_torn_last_write_is_forgotten(program: RedisServer, tmp_path: Path) -> None:
    async with running(tmp_path) as redis:
        await put(redis, "lunch", "noon?")
    for file in append_only_files(tmp_path):
        with file.open("ab") as stream:
            stream.write(b"*3\r\n$3\r\nSET\r\n$5\r\nlun")
    async with running(tmp_path) as redis:
        assert await get(redis, "lunch") == "noon?"


async def test_data_of_redis_7_is_not_ignored_by_6(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "appendonlydir").mkdir()
    old = RedisServer(find_redis_server().path, (6, 2))
    monkeypatch.setattr(embedded_redis, "find_redis_server", lambda: old)
    with pytest.raises(StartupError, match=r"written by Redis 7 or later, .* version 6\.2"):
        await EmbeddedRedis(tmp_path, "always").start()


async def test_a_large_log_is_put_aside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded_redis, "REDIS_LOG_MAX_BYTES", 10)
    (tmp_path / "redis.log").write_text("a long log\n" * 10)
    async with running(tmp_path):
        assert (tmp_path / "redis.log.1").read_text() == "a long log\n" * 10
        assert "a long log" not in (tmp_path / "redis.log").read_text()
