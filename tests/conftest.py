"""What several tests need: a Redis, of two kinds, and nodes' stores on top of it."""

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from fakeredis import FakeAsyncRedis, FakeServer
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from app import identity
from app.buffer import PendingBuffer
from app.deferred import DeferredWrites
from app.identity import Identity
from app.incarnation import Remembered, Settled
from app.keys import Keys
from app.kv_store import KVStore
from app.lane_scripts import LaneScripts
from app.progress import Progress
from app.redis_link import run_of
from app.redis_program import find_redis_server, redis_servers
from app.scripts import Scripts
from app.snapshot_scripts import SnapshotScripts
from app.vector_clock import VectorClock
from app.write import Put, Write
from tests import effort  # noqa: F401 (registers the profile that `make fuzz` chooses)

DATABASES = 16

# Nodes under test speak no TLS. To read the system's certificates, as aiohttp does when it is
# imported, is a tenth of what it takes to start a process, and most tests start several.
os.environ.setdefault("SSL_CERT_FILE", os.devnull)


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    """How a test has the process log is forgotten after it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@contextmanager
def running_redis(program: Path) -> Iterator[Path]:
    """The socket of a redis-server that runs, for tests, with nothing on disk."""
    directory = Path(tempfile.mkdtemp(prefix="lightcone-"))
    socket = directory / "redis.sock"
    process = subprocess.Popen(
        [
            str(program),
            *("--port", "0", "--unixsocket", "redis.sock"),
            *("--save", "", "--databases", str(DATABASES)),
        ],
        cwd=directory,
        stdout=subprocess.DEVNULL,
    )
    try:
        with BlockingRedis(unix_socket_path=str(socket)) as redis:
            while True:
                try:
                    redis.ping()
                    break
                except RedisConnectionError:
                    assert process.poll() is None, "redis-server ended while it started"
        yield socket
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def redis_socket() -> Iterator[Path]:
    """The socket of the redis-server that a node would run, for as long as the tests run."""
    with running_redis(find_redis_server().path) as socket:
        yield socket


SERVERS = {f"redis {'.'.join(map(str, s.version))}": s.path for s in redis_servers()}


@pytest.fixture(scope="session")
def redis_sockets() -> Iterator[dict[str, Path]]:
    """The sockets of one running redis-server of each version on this machine."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(running_redis(program)) for name, program in SERVERS.items()
        }


MakeRedis = Callable[[], Redis]


@pytest.fixture(params=["fakeredis", *SERVERS])
async def make_redis(
    request: pytest.FixtureRequest, redis_sockets: dict[str, Path]
) -> AsyncIterator[MakeRedis]:
    """Makes empty Redis databases: in-process ones, and again on every real server there is."""
    socket = redis_sockets.get(request.param)
    made: list[Redis] = []

    def make() -> Redis:
        redis: Redis
        if socket is None:
            redis = FakeAsyncRedis(server=FakeServer())
        else:
            redis = Redis(unix_socket_path=str(socket), db=len(made))
        made.append(redis)
        return redis

    if socket is not None:
        with BlockingRedis(unix_socket_path=str(socket)) as blocking:
            blocking.flushall()
    yield make
    for redis in made:
        await redis.aclose()


async def begin(scripts: Scripts, node: str, actor: str = "", run: str = "a run") -> None:
    """The empty Redis is the node's, which writes there under its own name or as `actor`."""
    await identity.claim(scripts, node, "a birth")
    new = Remembered("", "", 0, VectorClock())
    assert await scripts.settle_actor(node, new, Settled(actor or node), run, 0)


async def begin_at(redis_url: str, node: str, actor: str = "") -> None:
    """The Redis there is the node's, as if it had started before; no peer need be asked then."""
    async with Redis.from_url(redis_url) as redis:
        if not await redis.exists("meta"):
            await begin(Scripts(redis, Keys.of(redis)), node, actor, await run_of(redis))


class FirstLife(Identity):
    """Who a node is that has lost nothing: itself. What was to make it doubt that is kept."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.doubts = 0
        self.seen = VectorClock()
        self._given = VectorClock()

    @property
    def actor(self) -> str:
        return self.node

    @property
    def is_in_doubt(self) -> bool:
        return False

    async def writer(self) -> str:
        return self.node

    async def settles(self) -> bool:
        return True

    def doubt(self) -> None:
        self.doubts += 1

    def witness(self, seen: VectorClock) -> None:
        self.seen = self.seen.merge(seen)


@dataclass
class Store:
    """The store and the buffer of one node, with the Redis below them and a clock to set."""

    node: str
    redis: Any
    keys: Keys
    scripts: Scripts
    progress: Progress
    life: FirstLife
    store: KVStore
    buffer: PendingBuffer
    deferred: DeferredWrites
    time_us: list[int]

    @property
    def snapshots(self) -> SnapshotScripts:
        return SnapshotScripts(self.redis, self.keys)

    async def say(self, *values: bytes) -> None:
        """The node writes these values of lunch, one after the other."""
        for value in values:
            await self.store.commit([Put("lunch", value)])

    async def take(self, *writes: Write) -> None:
        """The writes come to the node, and it can apply them all."""
        received = await self.buffer.receive(writes)
        assert (received.pending, received.refused) == (0, 0)

    def set_time(self, now_us: int) -> None:
        """From now on the node's wall clock shows `now_us`."""
        self.time_us[0] = now_us


MakeStore = Callable[..., Any]


@pytest.fixture
def make_store(make_redis: MakeRedis) -> MakeStore:
    """Makes the stores of nodes: `await make_store("A", pending_max=..., drain_max=...)`."""

    async def make(
        node: str,
        *,
        pending_max: int = 1000,
        drain_max: int = 256,
        deferred_max: int = 1000,
        deferred_max_bytes: int = 2**20,
    ) -> Store:
        redis, keys, progress, time_us = make_redis(), Keys(), Progress(), [1_000_000]
        scripts = Scripts(redis, keys)
        await begin(scripts, node)

        def now_us() -> int:
            return time_us[0]

        life = FirstLife(node)
        store = KVStore(redis, keys, scripts, progress, life, now_us)
        buffer = PendingBuffer(
            redis,
            keys,
            scripts,
            progress,
            node,
            life,
            now_us,
            pending_max=pending_max,
            drain_max=drain_max,
        )
        deferred = DeferredWrites(
            redis,
            keys,
            LaneScripts(redis, keys),
            progress,
            life,
            now_us,
            deferred_max=deferred_max,
            deferred_max_bytes=deferred_max_bytes,
            drain_max=drain_max,
            requests_max=1000,
        )
        return Store(node, redis, keys, scripts, progress, life, store, buffer, deferred, time_us)

    return make


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """For requests to real nodes, on a machine that may be busy with something else."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


@pytest.fixture
def redis_url(redis_socket: Path) -> str:
    """An empty database of a real redis-server."""
    with BlockingRedis(unix_socket_path=str(redis_socket)) as redis:
        redis.flushall()
    return f"unix://{redis_socket}?db=3"


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    """What the node logs while the test runs."""
    with structlog.testing.capture_logs() as captured:
        yield captured
