"""The node's state in Redis: values, clock and log, and the one way to change them locally.

Assumes one Redis of the node's own (`claim` sees to it). Guarantees that a write is durable as
Redis is before `commit` returns (G3), that each dot is given once (G4), and that reads show what
was applied, all of it or nothing.

Does not know who asks, nor that other nodes exist. What peers send comes in by `buffer.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from app import codec
from app.errors import InvariantError, RedisUnavailable, StartupError
from app.keys import LAYOUT, Keys
from app.progress import Progress
from app.redis_link import translated
from app.scripts import Committed, Scripts
from app.vector_clock import VectorClock
from app.write import Operation, Version, Write, winner_first

NOT_OURS: Final = (
    "it no longer holds what this node has applied (was it emptied, put back from a copy, or "
    "another one put in its place?); restart the node when the right Redis is back"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a key held at one instant.

    `versions` are the siblings, winner first; none if the key is absent. `context` is what a
    reader has seen by reading this, and so must find again wherever it reads next (G7).
    """

    versions: tuple[Version, ...]
    context: VectorClock


class KVStore:
    """Values, clock and log of one node."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        scripts: Scripts,
        progress: Progress,
        actor: str,
        now_us: Callable[[], int],
    ) -> None:
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._scripts = scripts
        self._progress = progress
        self._now_us = now_us
        self.actor = actor

    async def commit(self, operations: Sequence[Operation]) -> Committed:
        """The write with these operations is applied here, and on its way to the peers.

        Raises RedisUnavailable.
        """
        with translated(changes=True):
            committed = await self._scripts.commit_write(
                self.actor, operations, self._now_us(), self._progress.clock[self.actor]
            )
        if committed is None:
            raise RedisUnavailable(NOT_OURS)
        self._progress.advance(committed.clock)
        return committed

    async def read(self, key: str) -> Reading:
        """The siblings of `key`, and what their reader has seen.

        Raises RedisUnavailable.
        """
        known = self._progress.clock
        # In this order on one connection, so that the clock is never older than an absence that
        # it has to vouch for: absence may be a delete's work.
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hgetall(self._keys.kv(key))
                pipeline.hgetall(self._keys.clock)
                fields, entries = await pipeline.execute()
        clock = codec.unpack_clock(entries)
        if not known <= clock:
            raise RedisUnavailable(NOT_OURS)
        versions = tuple(winner_first(codec.unpack_versions(fields)))
        if not versions:
            return Reading((), clock)
        context = codec.unpack_deletes(fields)
        for version in versions:
            context = context.with_dot(version.dot)
        return Reading(versions, context)

    async def clock(self) -> VectorClock:
        """What is applied here.

        Raises RedisUnavailable.
        """
        with translated():
            return codec.unpack_clock(await self._redis.hgetall(self._keys.clock))

    async def check(self) -> None:
        """Redis answers, and holds this node's state.

        Raises RedisUnavailable.
        """
        with translated():
            actor = await self._redis.hget(self._keys.meta, "actor")
        if actor != self.actor.encode():
            raise RedisUnavailable(NOT_OURS)

    async def timestamp(self) -> int:
        """The timestamp of the newest write applied here; 0 before the first."""
        with translated():
            return int(await self._redis.hget(self._keys.meta, "timestamp") or 0)

    async def log_after(self, actor: str, sequence: int, count: int) -> list[Write]:
        """The writes of `actor` after `sequence` that are applied here, in order, at most `count`.

        Raises RedisUnavailable; InvariantError if the log does not go back that far.
        """
        with translated():
            entries: list[Any] = await self._redis.xrange(
                self._keys.log(actor), min=f"{sequence + 1}-0", count=count
            )
        writes = [codec.unpack_log_entry(actor, id_, fields) for id_, fields in entries]
        if writes and writes[0].dot.sequence != sequence + 1:
            raise InvariantError(
                f"log:{actor} goes on at {writes[0].dot}, and {actor}:{sequence + 1} is asked for: "
                "entries were removed that a peer still lacks (G8)"
            )
        return writes


async def claim(scripts: Scripts, node: str) -> str:
    """This Redis is `node`'s, from now on or since before; the actor that it writes as.

    Raises StartupError if it is another node's, or holds something else.
    """
    with translated():
        meta = await scripts.claim_node(node, actor=node, layout=LAYOUT)
    if not meta:
        raise StartupError(
            "REDIS_URL: this Redis database holds data that is not Lightcone's. "
            "Give the node a database of its own."
        )
    if meta.get("node") != node:
        raise StartupError(
            f"REDIS_URL: this Redis belongs to node {meta.get('node')}, and NODE_ID is {node}. "
            "Every node has a Redis of its own."
        )
    if meta.get("layout") != str(LAYOUT):
        raise StartupError(
            f"REDIS_URL: the data is of layout {meta.get('layout')}, and this release reads "
            f"layout {LAYOUT}. Run the release that wrote it."
        )
    return meta["actor"]
