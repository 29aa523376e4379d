"""A node whose Redis fails, comes back, or is another one; with its parts as in production."""

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis as BlockingRedis
from redis.exceptions import ConnectionError as RedisConnectionError

from app.redis_program import find_redis_server
from app.vector_clock import VectorClock
from app.write import Put
from tests.model import Node
from tests.one_node import (
    Client,
    Logs,
    clock_of,
    context,
    grave,
    new_node_a,
    node_a,
    problem,
    put,
    put_by,
    replicate,
    replicated,
)
from tests.processes import until


class OwnRedis:
    """A durable redis-server of the test's own, that it may kill and start again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{directory}/redis.sock"

    def client(self) -> BlockingRedis:
        return BlockingRedis(unix_socket_path=f"{self._directory}/redis.sock")

    def start(self) -> None:
        """It answers."""
        self._process = subprocess.Popen(
            [str(find_redis_server().path), "--port", "0", "--unixsocket", "redis.sock"]
            + ["--save", "", "--appendonly", "yes", "--appendfsync", "always"],
            cwd=self._directory,
            stdout=subprocess.DEVNULL,
        )
        with self.client() as redis:
            while True:
                try:
                    redis.ping()
                    return
                except RedisConnectionError:
                    assert self._process.poll() is None, "redis-server ended while it started"

    def kill(self) -> None:
        """It is gone, without having had a chance to say so."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    directory = Path(tempfile.mkdtemp(prefix="lightcone-"))
    redis = OwnRedis(directory)
    redis.start()
    try:
        yield redis
    finally:
        redis.kill()
        shutil.rmtree(directory)


async def assert_nothing_is_written(client: Client) -> None:
    """All that would change something is refused, and has changed nothing."""
    await problem(await client.put("/kv/lunch", data=b"lost?"), 503, "redis-unavailable")
    await problem(await client.delete("/kv/lunch"), 503, "redis-unavailable")
    response = await replicate(client, [put_by(Node("B"), "tea", b"five")])
    await problem(response, 503, "redis-unavailable")


async def is_read(client: Client) -> bool:
    """Whether the node shows what it holds."""
    return (await client.get("/kv/lunch")).status == 200


async def test_without_its_redis_a_node_is_alive_and_says_what_it_cannot_do(
    own_redis: OwnRedis, logs: Logs
) -> None:
    async with node_a(own_redis.url) as client:
        await put(client, "lunch", b"noon?")
        own_redis.kill()
        await problem(await client.get("/readyz"), 503, "redis-unavailable")
        assert (await client.get("/healthz")).status == 200
        await assert_nothing_is_written(client)
        for path in ("/kv/lunch", "/status", "/pending"):
            await problem(await client.get(path), 503, "redis-unavailable")
        own_redis.start()
        response = await client.get("/readyz")
        assert response.status == 200, await response.text()
        assert await (await client.get("/kv/lunch")).read() == b"noon?"
        assert await put(client, "lunch", b"one?") == "lc1;A:2"
        assert (await replicated(client, put_by(Node("B"), "tea", b"five"))).applied == 1
    assert grave(logs) == []


async def test_a_node_survives_that_its_redis_goes_and_comes_time_and_again(
    own_redis: OwnRedis,
) -> None:
    async with node_a(own_redis.url, sweep_ms=5, heartbeat_ms=5, retry_max_ms=50) as client:
        for n in range(1, 4):
            assert await put(client, "lunch", b"%d" % n) == f"lc1;A:{n}"
            own_redis.kill()
            await problem(await client.get("/readyz"), 503, "redis-unavailable")
            own_redis.start()
            assert (await client.get("/readyz")).status == 200


async def test_a_full_redis_is_read_and_not_written(own_redis: OwnRedis, logs: Logs) -> None:
    async with node_a(own_redis.url) as client:
        await put(client, "lunch", b"noon?")
        with own_redis.client() as redis:
            redis.config_set("maxmemory", "1")
            await assert_nothing_is_written(client)
            assert await (await client.get("/kv/lunch")).read() == b"noon?"
            assert await clock_of(client) == {"A": 1}
            redis.config_set("maxmemory", "0")
        assert await put(client, "lunch", b"one?") == "lc1;A:2"
    assert grave(logs) == []


async def test_so_it_is_by_a_worker_that_starts_before_it(own_redis: OwnRedis, logs: Logs) -> None:
    async with node_a(own_redis.url) as client:
        await put(client, "lunch", b"noon?")
    with own_redis.client() as redis:
        redis.config_set("maxmemory", "1")
        async with node_a(own_redis.url) as client:
            assert (await client.get("/healthz")).status == 200
            assert await (await client.get("/kv/lunch")).read() == b"noon?"
            await assert_nothing_is_written(client)
            redis.config_set("maxmemory", "0")
            assert await put(client, "lunch", b"one?") == "lc1;A:2"
    assert grave(logs) == []


async def test_a_worker_of_a_redis_that_is_another_run_and_full_says_so(
    own_redis: OwnRedis,
) -> None:
    async with node_a(own_redis.url) as client:
        await put(client, "lunch", b"noon?")
    own_redis.kill()
    own_redis.start()
    with own_redis.client() as redis:
        redis.config_set("maxmemory", "1")
        async with node_a(own_redis.url) as client:
            assert (await client.get("/healthz")).status == 200
            await problem(await client.get("/kv/lunch"), 503, "redis-unavailable")
            await assert_nothing_is_written(client)
            redis.config_set("maxmemory", "0")
            await until(lambda: is_read(client))
            assert await put(client, "lunch", b"one?") == "lc1;A:2"


async def test_a_redis_that_became_a_replica_is_read_and_not_written(
    own_redis: OwnRedis, logs: Logs
) -> None:
    async with node_a(own_redis.url) as client:
        await put(client, "lunch", b"noon?")
        with own_redis.client() as redis:
            redis.replicaof("127.0.0.1", "1")
            await assert_nothing_is_written(client)
            assert await (await client.get("/kv/lunch")).read() == b"noon?"
            assert await clock_of(client) == {"A": 1}
            redis.replicaof("NO", "ONE")
        assert await put(client, "lunch", b"one?") == "lc1;A:2"
    assert grave(logs) == []


async def test_scripts_that_redis_forgot_are_no_matter(own_redis: OwnRedis) -> None:
    async with node_a(own_redis.url) as client:
        await put(client, "lunch", b"noon?")
        with own_redis.client() as redis:
            redis.script_flush()
        assert await put(client, "lunch", b"one?") == "lc1;A:2"
        assert (await replicated(client, put_by(Node("B"), "tea", b"five"))).applied == 1


async def test_under_an_emptied_redis_a_node_goes_on_as_another_incarnation(
    own_redis: OwnRedis,
) -> None:
    async with node_a(own_redis.url) as client:
        lunch = Node("A").write([Put("lunch", b"noon?", "text/plain")], 5)
        mine = await put(client, "lunch", b"noon?")
        with own_redis.client() as redis:
            redis.flushall()
        later = await put(client, "dinner", b"six?")
        assert re.fullmatch(r"lc1;A~[0-9a-z]{8}:1", later), "A:1 names two writes"
        status = await (await client.get("/status")).json()
        assert later == f"lc1;{status['actor']}:1"
        assert status["clock"] == {status["actor"]: 1}
        assert "A has written before" in status["incarnation"]["reason"]
        assert (await client.get("/readyz")).status == 200
        # Who has seen what was lost is not told that it never was.
        response = await client.get("/kv/lunch?wait=0", headers=context(mine))
        shown = await problem(response, 503, "not-caught-up")
        assert [one["dot"] for one in shown["missing"]] == ["A:1"]
        # It comes home under its old name.
        assert (await replicated(client, lunch)).applied == 1
        response = await client.get("/kv/lunch", headers=context(mine))
        assert await response.read() == b"noon?"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_who_has_seen_what_is_lost_is_not_served_from_what_is_left(
    own_redis: OwnRedis, method: str
) -> None:
    """Though this worker had applied it, as far as it knew when the request came."""
    async with node_a(own_redis.url) as client:
        mine = await put(client, "lunch", b"noon?")
        with own_redis.client() as redis:
            redis.flushall()
        response = await client.request(method, "/kv/lunch", headers=context(mine))
        await problem(response, 503, "redis-unavailable")
        response = await client.request(method, "/kv/lunch?wait=0", headers=context(mine))
        await problem(response, 503, "not-caught-up")
        assert await clock_of(client) == {}


async def test_a_peer_that_has_seen_more_of_a_node_than_itself_ends_its_incarnation(
    redis_url: str,
) -> None:
    """As after an old copy was put back."""
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        model = Node("A")
        for n in range(3):
            model.write([Put("lunch", b"%d" % n)], 5 + n)
        _, second, third = model.applied
        # A heartbeat that says so, or one of the writes that were lost.
        response = await replicate(client, [third], clock=VectorClock({"A": 3}))
        await problem(response, 503, "redis-unavailable")
        after = await put(client, "dinner", b"six?")
        assert re.fullmatch(r"lc1;A~[0-9a-z]{8}:1", after)
        assert (await replicated(client, second, third)).applied == 2
        clock = await clock_of(client)
        assert clock.pop("A") == 3
        assert list(clock.values()) == [1]
        assert await put(client, "dinner", b"seven?") == after.replace(":1", ":2"), "it stays"


async def test_a_new_node_whose_peers_are_silent_takes_another_name_after_a_while(
    redis_url: str,
) -> None:
    async with new_node_a(redis_url, first_start_wait_ms=3000) as client:
        assert (await client.get("/status")).status == 200
        await problem(await client.get("/readyz"), 503, "not-ready")
        await problem(await client.put("/kv/lunch", data=b"x"), 503, "not-ready")
        async with asyncio.timeout(30):
            while (await client.get("/readyz")).status != 200:
                await asyncio.sleep(0.005)
        assert (await put(client, "lunch", b"noon?")).startswith("lc1;A~")
