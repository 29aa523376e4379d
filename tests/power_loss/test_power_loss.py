"""Power cuts under load, on real nodes: nothing that was acknowledged is lost (G3).

A cut is a kill of every process of a node, after which its files lose what was not synced
(disk.py says what that is). With `FSYNC=always`, whatever is lost then, no acknowledged write is,
no dot names two writes, and the node starts by itself. With `FSYNC=everysec` acknowledged writes
are lost: the newest ones, and none that was acknowledged before the last whole sync began. That
shows too that the disk of these tests really loses what is not synced.

After a loss a node goes on as another incarnation (G4), and what it lost comes home from its peers.

Not covered: what a rewrite under `everysec` may lose. Redis 7 syncs the file that ends and the one
that begins in any order, so that what is lost may lie in the middle.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.errors import StartupError
from app.local_nodes import LocalCluster
from app.redis_program import RedisServer, find_redis_server, redis_servers
from client import Lightcone, NotApplied, OutcomeUnknown
from tests.load import Load, assert_nothing_lost
from tests.power_loss.disk import (
    SPOILT,
    WAYS,
    Disk,
    Way,
    build_library,
    cut_power,
    environment,
    why_no_disk,
)
from tests.processes import alive, until, until_equal_clocks

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(why_no_disk()), reason=why_no_disk()),
]

CUTS = 8
CLIENTS = 6
#: As long as a disk takes that is no fast one, so that mostly there is something unsynced.
SYNC_MS = 5.0
#: About as long as Redis takes here to rewrite its file: cuts come before, within and after it.
REWRITE_S = 0.5


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(params=redis_servers(), ids=lambda server: "v" + ".".join(map(str, server.version)))
def program(request: pytest.FixtureRequest) -> RedisServer:
    """Every test that asks for it runs once with each redis-server of this machine."""
    server: RedisServer = request.param
    return server


@pytest.fixture
def rng() -> random.Random:
    """Chance: the moments of the cuts cannot be repeated anyway."""
    return random.Random()


@dataclass
class Powered:
    """Nodes on disks of their own, whose power can be cut."""

    cluster: LocalCluster
    disks: dict[str, Disk]
    kv: Lightcone
    rng: random.Random

    def load(self, name: str) -> Load:
        """Clients that have not begun yet."""
        return Load(self.kv, self.cluster.urls, name)

    async def cut(self, node: str, way: Way) -> int:
        """The node has lost its power, and of its disk what the way says. It does not run.

        Returns how many bytes were not synced.
        """
        await cut_power(self.cluster, node)
        return self.disks[node].lose(way, self.rng)

    def redis(self, node: str) -> Redis:
        socket = self.cluster.data_dir / node / "redis.sock"
        return Redis(unix_socket_path=str(socket), decode_responses=True)


@asynccontextmanager
async def powered(
    directory: Path,
    library: Path,
    program: RedisServer,
    rng: random.Random,
    *,
    nodes: int = 1,
    fsync: str = "always",
    sync_ms: float = SYNC_MS,
) -> AsyncIterator[Powered]:
    """Nodes that run with this redis-server, until the end."""
    data, notes = directory / "data", directory / "notes"
    env = {
        **environment(library, data, notes, sync_ms),
        "PATH": str(program.path.parent),
        "FSYNC": fsync,
    }
    cluster = LocalCluster(data, nodes=nodes, env=env)
    disks = {name: Disk(name, data, notes) for name in cluster.names}
    async with cluster, Lightcone(list(cluster.urls.values()), timeout_s=30) as kv:
        yield Powered(cluster, disks, kv, rng)


@asynccontextmanager
async def writing(load: Load, clients: int = CLIENTS) -> AsyncIterator[None]:
    """So many clients write at every node, until the end."""
    running = asyncio.create_task(load.run(clients))
    try:
        yield
    finally:
        load.stop()
        await running


# --- every write is synced before it is acknowledged ---------------------------------------------


async def test_no_acknowledged_write_is_lost_whatever_a_power_cut_takes(
    tmp_path: Path, library: Path, program: RedisServer, rng: random.Random
) -> None:
    unsynced = []
    async with powered(tmp_path, library, program, rng) as it:
        load = it.load("cuts")
        async with writing(load):
            for number, way in zip(range(CUTS), cycle(WAYS), strict=False):
                await load.progress("A", writes=rng.randint(1, 60))
                if number % 2:
                    async with it.redis("A") as redis:
                        await redis.bgrewriteaof()
                    await asyncio.sleep(rng.uniform(0, REWRITE_S))
                unsynced.append(await it.cut("A", way))
                await it.cluster.start("A")
        await assert_nothing_lost(load)
    assert any(unsynced), "no cut came between a write and its sync"


async def test_no_acknowledged_write_is_lost_by_power_cuts_in_a_cluster(
    tmp_path: Path, library: Path, rng: random.Random
) -> None:
    """The others go on meanwhile: they have what the node may lose, and lack what it may keep."""
    async with powered(tmp_path, library, find_redis_server(), rng, nodes=3) as it:
        load = it.load("cluster")
        async with writing(load, clients=2):
            for node, way in zip(it.cluster.names, WAYS, strict=True):
                await load.progress(*it.cluster.names)
                await it.cut(node, way)
                await load.progress(*(other for other in it.cluster.names if other != node))
                await it.cluster.start(node)
            await load.progress(*it.cluster.names)
        await assert_nothing_lost(load)


async def test_what_a_reader_was_shown_after_a_crash_of_redis_survives_a_power_cut(
    tmp_path: Path, library: Path, program: RedisServer, rng: random.Random
) -> None:
    """A killed redis-server leaves what it wrote and did not sync yet; the next one loads it, and
    readers and peers may see it: it must be synced before that, or its dot is given again (G4)."""
    async with powered(tmp_path, library, program, rng) as it:
        async with unsynced_write(it, "A"):
            killed = it.cluster.redis_pid("A")
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            await until(lambda: not alive(killed))

        async def shown() -> bool:
            try:
                return await it.kv.session().get("unsynced") is not None
            except NotApplied:
                return False

        await until(shown)
        await it.cut("A", "nothing kept")
        await it.cluster.start("A")
        assert await shown()


@asynccontextmanager
async def unsynced_write(it: Powered, node: str) -> AsyncIterator[None]:
    """Within it, Redis has written something to its file that it cannot sync."""
    disk = it.disks[node]
    # Before it, whatever else a first write brings into the file: Redis 6.2 keeps scripts there.
    await it.kv.session().put("synced", "acknowledged")
    disk.stall()
    try:
        putting = asyncio.create_task(it.kv.session().put("unsynced", "never acknowledged"))
        await until(lambda: disk.holds(b"never acknowledged"))
        yield
    finally:
        disk.go_on()
    with contextlib.suppress(OutcomeUnknown):
        await putting


async def test_what_is_no_command_is_refused_in_words_and_can_be_taken_away(
    tmp_path: Path, library: Path, program: RedisServer, rng: random.Random
) -> None:
    """Some file systems leave something else in the place of what was not synced. Redis cannot
    tell that from a damaged disk, and so a person has to look, as docs/redis.md says."""
    async with powered(tmp_path, library, program, rng) as it:
        for way in SPOILT:
            async with unsynced_write(it, "A"):
                await it.cut("A", way)
            with pytest.raises(StartupError, match=r"Bad file format.*redis-check-aof --fix"):
                await it.cluster.start("A")
            await fix(program, it.disks["A"].append_only_file())
            await it.cluster.start("A")
            version = await it.kv.session().get("synced")
            assert version is not None and version.text == "acknowledged"
            assert await it.kv.session().get("unsynced") is None


async def fix(program: RedisServer, file: Path) -> None:
    """The file ends before the first thing in it that is no command, as a person would have it."""
    fixing = await asyncio.create_subprocess_exec(
        *("redis-check-aof", "--fix", file),
        executable=program.path,  # it is one program under several names
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await fixing.communicate(b"y\n")
    assert fixing.returncode == 0, said.decode()


# --- writes are synced every second --------------------------------------------------------------


async def test_with_everysec_the_newest_acknowledged_writes_are_lost_and_no_others(
    tmp_path: Path, library: Path, program: RedisServer, rng: random.Random
) -> None:
    async with powered(tmp_path, library, program, rng, fsync="everysec") as it:
        load, disk = it.load("everysec"), it.disks["A"]
        async with writing(load):
            await load.progress("A")
            safe, before = set(load.acknowledged), disk.syncs()
            # The first of two syncs may have begun before; the second has all that came before it.
            await until(lambda: disk.syncs() >= before + 2)
            disk.stall()
            await load.progress("A")
            await it.cut("A", "nothing kept")
            load.stop()
        disk.go_on()
        await it.cluster.start("A")
        async with it.redis("A") as redis:
            log: Any = await redis.xrange("log:A")
        kept = {f"A:{number}" for number in range(1, len(log) + 1)}
        assert [id_ for id_, _ in log] == [f"{number}-0" for number in range(1, len(log) + 1)]
        assert safe <= kept
        assert load.acknowledged.keys() - kept, "nothing was lost: these tests prove nothing"
        for number, (_, fields) in enumerate(log, 1):
            if written := load.acknowledged.get(f"A:{number}"):
                assert fields["operations"].endswith(f",{len(written[1])}:{written[1]},")


async def test_with_everysec_no_dot_is_given_again_after_a_planned_stop_and_a_power_cut(
    tmp_path: Path, library: Path, program: RedisServer, rng: random.Random
) -> None:
    """The power cut takes along that the node had worked again since."""
    async with powered(tmp_path, library, program, rng, fsync="everysec") as it:
        disk, session = it.disks["A"], it.kv.session()
        await session.put("x", "before")
        await it.cluster.stop("A")
        starting = asyncio.create_task(it.cluster.start("A"))
        async with it.redis("A") as redis:
            await until(lambda: answers(redis))
        disk.stall()  # no sync ends any more
        await starting
        acknowledged = await session.put("x", "acknowledged")
        await it.cut("A", "nothing kept")
        disk.go_on()
        await it.cluster.start("A")
        again = await it.kv.session().put("x", "another")
        assert again.dot != acknowledged.dot


async def answers(redis: Redis) -> bool:
    """Whether Redis has started."""
    try:
        return bool(await redis.ping())
    except RedisError:
        return False


async def test_with_everysec_what_a_node_lost_comes_home_from_its_peers(
    tmp_path: Path, library: Path, rng: random.Random
) -> None:
    program = find_redis_server()
    async with powered(tmp_path, library, program, rng, nodes=3, fsync="everysec") as it:
        load = it.load("home")
        it.disks["A"].stall()
        async with writing(load, clients=2):
            await load.progress(*it.cluster.names)
        clock = await until_equal_clocks(it.cluster.urls)
        await it.cut("A", "nothing kept")
        it.disks["A"].go_on()
        await it.cluster.start("A")
        at_once = await it.kv.session().at(it.cluster.urls["A"]).put("at-once", "here again")
        actor, _, number = at_once.dot.rpartition(":")
        assert actor.startswith("A~") and number == "1", "it may have had that name before"
        assert await until_equal_clocks(it.cluster.urls) == {**clock, actor: 1}
        await assert_nothing_lost(load)
