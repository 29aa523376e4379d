"""What clients are told when a node's Redis is in trouble, and that nothing comes of it.

Each trouble strikes a node that runs for real, under load, with a peer beside it. The table says
how it is made, what is told of it, and how it ends; the test what holds whatever the trouble was.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.exceptions import ResponseError

from app.errors import StartupError
from app.write import Put
from tests.clusters import kill_workers, status
from tests.contents import sequence_of, unequal, writes_of
from tests.processes import until, until_equal_clocks
from tests.redis_processes import NodesWithRedis, RedisProcess
from tests.writers import Writers, held, writing

pytestmark = pytest.mark.timeout(300)

REDIS_TIMEOUT_MS = 500
PROBLEM = "urn:lightcone:redis-unavailable"


# --- how each trouble is made, and how it ends ----------------------------------------------------


def start_slowly(redis: RedisProcess) -> None:
    """Started again, it takes longer to load what it holds than anybody here waits."""
    with redis.client() as admin:
        # What cannot be compressed, for it answers after so many bytes of its file.
        admin.mset({f"kv:filling-{n}": os.urandom(2048) for n in range(4000)})
        rewritten = admin.info()["aof_rewrites"]
        admin.bgrewriteaof()
        while (info := admin.info())["aof_rewrite_in_progress"] or info[
            "aof_rewrites"
        ] == rewritten:
            pass
    redis.kill()
    redis.start("--key-load-delay", "25000", "--loading-process-events-interval-bytes", "1024")


def load_fast(redis: RedisProcess) -> None:
    with redis.client() as admin:
        admin.config_set("key-load-delay", 0)


def fail_to_save(redis: RedisProcess) -> None:
    """A directory stands where its snapshot should go, as if the disk took no file."""
    (redis.directory / "dump.rdb").mkdir()
    with redis.client() as admin:
        admin.config_set("save", "3600 1")
        with pytest.raises(ResponseError):
            admin.save()
        admin.bgsave()
        while admin.info()["rdb_last_bgsave_status"] == "ok":
            pass


def save_again(redis: RedisProcess) -> None:
    (redis.directory / "dump.rdb").rmdir()
    with redis.client() as admin:
        admin.bgsave()
        while admin.info()["rdb_last_bgsave_status"] != "ok":
            pass


def setting(name: str, value: object) -> Callable[[RedisProcess], None]:
    def set_it(redis: RedisProcess) -> None:
        with redis.client() as admin:
            admin.config_set(name, value)

    return set_it


def demote(redis: RedisProcess) -> None:
    with redis.client() as admin:
        admin.replicaof("127.0.0.1", "1")


def promote(redis: RedisProcess) -> None:
    with redis.client() as admin:
        admin.replicaof("NO", "ONE")


class OneClient:
    """All connections are closed, and only this test's may be made."""

    def __init__(self) -> None:
        self._admin: Any = None

    def make(self, redis: RedisProcess) -> None:
        self._admin = redis.client()
        self._admin.config_set("maxclients", 1)
        for kind in ("normal", "pubsub"):
            self._admin.execute_command("CLIENT", "KILL", "TYPE", kind)

    def heal(self, _redis: RedisProcess) -> None:
        self._admin.config_set("maxclients", 10_000)
        self._admin.close()


class EndlessScript:
    """Somebody's script goes on and on."""

    def __init__(self) -> None:
        self._admin: Any = None

    def make(self, redis: RedisProcess) -> None:
        self._admin = redis.client()
        self._admin.config_set("lua-time-limit", 50)
        connection = self._admin.connection_pool.get_connection()
        connection.send_command("EVAL", "while true do end", 0)

    def heal(self, redis: RedisProcess) -> None:
        with redis.client() as other:
            other.script_kill()
        self._admin.close()


def forget_scripts(redis: RedisProcess) -> None:
    with redis.client() as admin:
        admin.script_flush()


@dataclass(frozen=True)
class Trouble:
    """What befalls a Redis.

    `told` is searched for in what a writer is told, nothing if there is nothing to tell; `outcomes`
    are those that it may be told; `reads` says whether reads are served meanwhile.
    """

    make: Callable[[RedisProcess], None]
    heal: Callable[[RedisProcess], None]
    told: str
    outcomes: frozenset[str] = frozenset({"not_applied"})
    reads: bool = False


one_client, endless_script = OneClient(), EndlessScript()

TROUBLES = {
    "down": Trouble(RedisProcess.kill, RedisProcess.start, "the connection failed"),
    "loading": Trouble(start_slowly, load_fast, "loading the dataset"),
    "cannot save": Trouble(fail_to_save, save_again, "RDB snapshots|MISCONF", reads=True),
    "out of memory": Trouble(
        setting("maxmemory", 1), setting("maxmemory", 0), "> 'maxmemory'", reads=True
    ),
    "a replica": Trouble(demote, promote, "read only replica", reads=True),
    "without replicas": Trouble(
        setting("min-replicas-to-write", 1),
        setting("min-replicas-to-write", 0),
        "[Nn]ot enough good replicas",
        reads=True,
    ),
    "hangs": Trouble(
        RedisProcess.pause,
        RedisProcess.resume,
        "did not answer in time",
        # Those who had a connection cannot know; those who had none were not heard.
        frozenset({"not_applied", "unknown"}),
    ),
    "busy": Trouble(endless_script.make, endless_script.heal, "busy running a script"),
    "no more clients": Trouble(one_client.make, one_client.heal, "max number of clients"),
    "forgot the scripts": Trouble(forget_scripts, forget_scripts, ""),
}


# --- those who write meanwhile --------------------------------------------------------------------


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    process = RedisProcess(tmp_path / "redis")
    process.start()
    yield process
    process.kill()


class Troubled(NodesWithRedis):
    """Two nodes, of which A soon gives up a Redis that is silent: the other one is never so, but
    may be slow where the machine is busy."""

    def environment(self, node: str) -> dict[str, str]:
        soon = {"REDIS_TIMEOUT_MS": str(REDIS_TIMEOUT_MS)} if node == "A" else {}
        return {**super().environment(node), **soon}


# --- what holds, whatever the trouble was ---------------------------------------------------------


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
async def test_trouble_is_told_and_leaves_no_trace(
    tmp_path: Path, http: aiohttp.ClientSession, redis: RedisProcess, trouble: Trouble
) -> None:
    other = RedisProcess(tmp_path / "other-redis")
    other.start()
    nodes = (Troubled if trouble.told else NodesWithRedis)(
        tmp_path / "data",
        {"A": redis.url, "B": other.url},
        nodes=2,
        env={"WORKERS": "2"},
    )
    try:
        async with nodes:
            workers = nodes.worker_pids("A")
            a, b = Writers("a", nodes.urls["A"], http), Writers("b", nodes.urls["B"], http)
            async with writing(a, b):
                await a.more()
                await asyncio.to_thread(trouble.make, redis)
                if trouble.told:
                    await assert_told(http, a, trouble)
                await b.more()  # the other node goes on
                await asyncio.to_thread(trouble.heal, redis)
                await a.more()

            clock = await until_equal_clocks(nodes.urls)
            assert nodes.worker_pids("A") == workers, "a worker died"
            await assert_as_told(redis, other, clock, a, b)
            if not trouble.told:
                assert not a.problems
            if "unknown" in trouble.outcomes:
                assert any(problem["outcome"] == "unknown" for problem in a.problems)
            assert not b.problems
            peer = (await status(http, nodes.urls["B"]))["peers"]["A"]
            assert peer["reachable"], "replication goes on by itself"
    finally:
        other.kill()


@pytest.mark.parametrize("name", ["down", "hangs"])
async def test_a_worker_that_begins_in_trouble_tells_it(
    tmp_path: Path, http: aiohttp.ClientSession, redis: RedisProcess, name: str
) -> None:
    trouble = TROUBLES[name]
    async with Troubled(tmp_path / "data", {"A": redis.url}, nodes=1) as nodes:
        a = Writers("a", nodes.urls["A"], http)
        await a.write()
        await asyncio.to_thread(trouble.make, redis)
        await kill_workers(nodes, "A")
        await assert_told(http, a, trouble)
        begun = nodes.worker_pids("A")
        await asyncio.to_thread(trouble.heal, redis)

        async def served() -> bool:
            return not await a.write()

        await until(served)
        assert nodes.worker_pids("A") == begun, "a worker died"
        async with http.get(f"{a.url}/readyz") as response:
            assert response.status == 200


async def assert_told(http: aiohttp.ClientSession, a: Writers, trouble: Trouble) -> None:
    """While it lasts each request gets an answer, with the cause and what became of it."""

    async def told() -> bool:
        return re.search(trouble.told, (await a.write()).get("detail", "")) is not None

    await until(told)  # the first may have been told that a connection was closed
    for _ in range(10):
        problem = await a.write()
        assert problem["type"] == PROBLEM, problem
        assert problem["outcome"] in trouble.outcomes, problem
        assert "user_script" not in problem["detail"], problem
    async with http.get(f"{a.url}/kv/{next(iter(a.acknowledged))}") as response:
        if trouble.reads:
            assert response.status == 200
        else:
            problem = json.loads(await response.text())
            assert (response.status, problem["type"]) == (503, PROBLEM)
            assert problem["outcome"] == "not_applied"
    async with http.get(f"{a.url}/healthz") as response:
        assert response.status == 200


async def assert_as_told(
    redis: RedisProcess, other: RedisProcess, clock: dict[str, int], *writers: Writers
) -> None:
    """Both nodes hold each acknowledged write, wholly, and none that was not applied."""
    contents = {"A": await held(redis, "kv:*"), "B": await held(other, "kv:*")}
    assert not unequal(contents)
    logs = {"A": await held(redis, "log:*"), "B": await held(other, "log:*")}
    assert not unequal(logs)
    for log, entries in logs["A"].items():
        last = clock[log.removeprefix("log:")]
        assert [sequence_of(entry) for entry, _ in entries] == list(range(1, last + 1))
    logged = {write.dot: write.operations for write in writes_of(logs["A"])}
    written = {}
    for dot, [operation] in logged.items():
        assert isinstance(operation, Put)
        written[operation.key] = dot
        assert f"kv:{operation.key}" in contents["A"], "in the log, and no value"
    assert len(written) == len(logged), "a write was applied twice"
    assert len(contents["A"]) == len(written), "a value, and not in the log"
    for writer in writers:
        for key, dot in writer.acknowledged.items():
            assert written[key] == dot
        assert not writer.refused & written.keys(), "told `not_applied`, and was applied"


async def test_a_node_does_not_start_where_writes_are_missing_in_the_middle(
    tmp_path: Path, http: aiohttp.ClientSession, redis: RedisProcess
) -> None:
    async with NodesWithRedis(tmp_path / "data", {"A": redis.url}, nodes=1) as nodes:
        writers = Writers("a", nodes.urls["A"], http)
        for _ in range(3):
            await writers.write()
        await nodes.stop("A")
        with redis.client() as admin:
            admin.xdel("log:A", "2-0")
        with pytest.raises(StartupError, match=r"code 2(.|\n)*lost writes in the middle.*log of A"):
            await nodes.start("A")
