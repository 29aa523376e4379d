"""A node's Redis, worked on behind the back of its workers: so much is there in seconds that would
take clients minutes.

What it is: `planted`, which yields the `Planter` of one node.

What it assumes and guarantees: the node runs, with a Redis of its own. What is planted is what the
node's own scripts leave there, one write for each key, and its workers hear of it as they do of
what another worker did. A link that is shut is opened by its lease: no process does anything
meanwhile that it would not do if another worker sent.

What it does not know: what it is planted for.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from redis.asyncio import Redis

from app.commits import Commit, Committed
from app.embedded_redis import EmbeddedRedis
from app.keys import Keys
from app.local_nodes import LocalCluster
from app.scripts import Scripts
from app.vector_clock import Dot, VectorClock
from app.write import Put, Write
from bench.contenders import VALUE
from bench.launch import until

_Thing = TypeVar("_Thing")

LEASE_MS: Final = 1000
"""What a node is given as LEASE_MS whose links are shut: so long that takes."""
_AT_ONCE: Final = 100
"""Writes in one step."""
_SLOW_US: Final = 100
"""What took less is not noted."""
_SLOW_MAX: Final = 100_000
"""How much is noted."""


@asynccontextmanager
async def planted(cluster: LocalCluster, node: str) -> AsyncIterator["Planter"]:
    """What can be done to the node's Redis."""
    async with connected(EmbeddedRedis(cluster.data_dir / node, "always").url) as redis:
        yield Planter(redis, node)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Redis]:
    """A connection to the Redis there."""
    redis = Redis.from_url(url)
    try:
        yield redis
    finally:
        await redis.aclose()


class Planter:
    """One node's Redis."""

    def __init__(self, redis: Redis, node: str) -> None:
        self.redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._node = node
        self._keys = Keys()
        self._scripts = Scripts(redis, self._keys)

    async def commit(self, keys: Iterable[str]) -> None:
        """The node has made a write of each of these keys."""
        actor = (await self.redis.hget(self._keys.meta, "actor")).decode()
        for some in _pieces(keys):
            commits = [Commit((Put(key, VALUE),)) for key in some]
            done = await self._scripts.commit_writes(actor, commits, _now_us())
            assert done and all(isinstance(one, Committed) for one in done), done
        await self._tell()

    async def receive(self, writes: Iterable[Write]) -> None:
        """These writes have come to the node."""
        for some in _pieces(writes):
            got = await self._scripts.receive_writes(self._node, some, _now_us(), 10**9, _AT_ONCE)
            assert not isinstance(got, Dot) and got and not got.refused, got
        await self._tell()

    async def _tell(self) -> None:
        """The workers know. A script tells nobody who listens alone (`workers.inc.lua`)."""
        clock = (await self.clock()).entries_text()
        await self.redis.publish(self._keys.applied_channel, clock)

    async def clock(self) -> VectorClock:
        """What is applied there."""
        flat = await self.redis.hgetall(self._keys.clock)
        return VectorClock((actor.decode(), int(sequence)) for actor, sequence in flat.items())

    async def shut_link(self, peer: str) -> None:
        """The node sends nothing to the peer."""
        await self.redis.set(self._keys.lease(peer), "nobody")
        # Whoever had the lease may send until it would have ended.
        await asyncio.sleep(LEASE_MS / 1000)

    async def open_link(self, peer: str) -> None:
        """A worker of the node may send to the peer."""
        await self.redis.delete(self._keys.lease(peer))

    async def until_trimmed(self, most: int) -> None:
        """The log of the node's own writes has no more than so many, and nothing is rewritten."""

        async def is_so() -> bool:
            about = await self.redis.info("persistence")
            length = await self.redis.xlen(self._keys.log(self._node))
            rewriting = about["aof_rewrite_in_progress"] or about["aof_rewrite_scheduled"]
            return bool(length <= most and not rewriting)

        await until(is_so, f"the log of {self._node} is trimmed")

    async def rewrite_nothing(self) -> None:
        """Its append-only file grows from now on. A rewrite writes every key that is stored, in a
        process whose time counts when it ends: whoever measures seconds has all of it, or none."""
        await self.redis.config_set("auto-aof-rewrite-percentage", 0)

    async def used_memory(self) -> int:
        """How many bytes its Redis has in use."""
        return int((await self.redis.info("memory"))["used_memory"])

    async def watch_scripts(self) -> None:
        """From now on it is noted how long scripts take."""
        await self.redis.config_set("slowlog-log-slower-than", _SLOW_US)
        await self.redis.config_set("slowlog-max-len", _SLOW_MAX)
        await self.redis.slowlog_reset()

    async def longest_script_ms(self) -> float:
        """How long the longest script took since then; where none took 0.1 ms, that."""
        noted = await self.redis.slowlog_get(_SLOW_MAX)
        took = [one["duration"] for one in noted if one["command"].startswith(b"EVALSHA")]
        return max(took, default=_SLOW_US) / 1000


def foreign_writes(nodes: Sequence[str], each: int = 1) -> list[Write]:
    """So many writes of each of these nodes, each after all that come before it here."""
    writes, clock = [], VectorClock()
    for sequence in range(1, each + 1):
        for node in nodes:
            put = Put(f"of-{node}-{sequence}", VALUE)
            writes.append(Write(Dot(node, sequence), clock, _now_us(), (put,)))
            clock = clock.with_dot(Dot(node, sequence))
    return writes


def waiting_writes(nodes: Sequence[str], count: int, lacking: Dot) -> Iterable[Write]:
    """So many writes, of these nodes in turn, all of which wait for that one."""
    for number in range(count):
        node, sequence = nodes[number % len(nodes)], 1 + number // len(nodes)
        past = VectorClock([lacking, Dot(node, sequence - 1)])
        yield Write(Dot(node, sequence), past, _now_us(), (Put(f"of-{node}-{sequence}", VALUE),))


def key_names(count: int) -> Iterator[str]:
    """Names of so many keys."""
    return (f"key-{number:07}" for number in range(count))


def node_names(count: int) -> list[str]:
    """Names of so many other nodes."""
    return [f"node{number:02}" for number in range(1, count + 1)]


def _pieces(things: Iterable[_Thing]) -> Iterator[list[_Thing]]:
    rest = iter(things)
    while some := list(itertools.islice(rest, _AT_ONCE)):
        yield some


def _now_us() -> int:
    return time.time_ns() // 1000
