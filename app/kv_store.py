"""The node's state in Redis: values, clock and log, and the one way to change them locally.

Assumes one Redis of the node's own (`identity.py` sees to it). Guarantees that a write is durable
as Redis is before `commit` returns (G3), that each dot is given once (G4), and that reads show what
was applied, all of it or nothing.

Does not know who asks, nor that other nodes exist. What peers send comes in by `buffer.py`.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from redis.asyncio import Redis

from app import codec
from app.errors import InvariantError, RedisUnavailable
from app.identity import NOT_OURS, Identity
from app.keys import Keys
from app.progress import Progress
from app.redis_link import translated
from app.scripts import Committed, Scripts
from app.vector_clock import VectorClock
from app.write import Operation, Version, Write, winner_first

NOTHING: Final = VectorClock()
"""The context of who has seen nothing."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a key held at one instant.

    `versions` are the siblings, winner first; none if the key is absent. `context` is what a
    reader has seen by reading this, and so must find again wherever it reads next (G7).
    """

    versions: tuple[Version, ...]
    context: VectorClock


@dataclass(frozen=True, slots=True)
class Life:
    """Who writes at a node: empty while that is not settled; and the timestamp of its newest write.

    `since_us` is when this incarnation began, and `reason` why; 0 and empty for the first life.
    """

    actor: str
    timestamp: int
    since_us: int
    reason: str


def _in_a_settled_run(
    method: Callable[Concatenate["KVStore", P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["KVStore", P], Coroutine[Any, Any, T]]:
    """The method is tried once more if it was refused because of a doubt that is settled since.

    So that Redis was started again, say, is not noticed by those who come a moment later.
    """

    @wraps(method)
    async def tried(self: "KVStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        doubts = self._identity.doubts
        try:
            return await method(self, *args, **kwargs)
        except RedisUnavailable as error:
            if error.outcome != "not_applied" or self._identity.doubts == doubts:
                raise
            if not await self._identity.settles():
                raise
        return await method(self, *args, **kwargs)

    return tried


class KVStore:
    """Values, clock and log of one node."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        scripts: Scripts,
        progress: Progress,
        identity: Identity,
        now_us: Callable[[], int],
    ) -> None:
        """`redis` and `scripts` use connections to runs of Redis that `identity` admits."""
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._scripts = scripts
        self._progress = progress
        self._identity = identity
        self._now_us = now_us

    @_in_a_settled_run
    async def commit(
        self, operations: Sequence[Operation], context: VectorClock = NOTHING
    ) -> Committed:
        """The write with these operations is applied here, after `context`, which was applied here
        before, and is on its way to the peers.

        Raises NotReady, RedisUnavailable.
        """
        actor = await self._identity.writer()
        self._still_covers(context)
        with translated(changes=True):
            committed = await self._scripts.commit_write(
                actor, operations, self._now_us(), self._progress.clock[actor]
            )
        if committed is None:
            self._identity.doubt()
            raise RedisUnavailable(NOT_OURS)
        self._progress.advance(committed.clock)
        return committed

    @_in_a_settled_run
    async def read(self, key: str, context: VectorClock = NOTHING) -> Reading:
        """The siblings of `key`, from a state that covers `context`, which was applied here
        before; and what their reader has seen.

        Raises RedisUnavailable.
        """
        self._still_covers(context)
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
            self._identity.doubt()
            raise RedisUnavailable(NOT_OURS)
        versions = tuple(winner_first(codec.unpack_versions(fields)))
        if not versions:
            return Reading((), clock)
        context = codec.unpack_deletes(fields)
        for version in versions:
            context = context.with_dot(version.dot)
        return Reading(versions, context)

    def _still_covers(self, context: VectorClock) -> None:
        """What was applied here has not been lost meanwhile (G7). Raises RedisUnavailable."""
        if not context <= self._progress.clock:
            raise RedisUnavailable(NOT_OURS)

    @_in_a_settled_run
    async def clock(self) -> VectorClock:
        """What is applied here.

        Raises RedisUnavailable.
        """
        with translated():
            return codec.unpack_clock(await self._redis.hgetall(self._keys.clock))

    @_in_a_settled_run
    async def check(self) -> None:
        """Redis answers, and holds this node's state.

        Raises NotReady, RedisUnavailable.
        """
        with translated():
            actor = await self._redis.hget(self._keys.meta, "actor")
        if actor != self._identity.actor.encode():
            self._identity.doubt()
            raise RedisUnavailable(NOT_OURS)

    @_in_a_settled_run
    async def joining(self) -> VectorClock:
        """What peers had when this node began with nothing; empty if it did not, or they had none.

        Raises RedisUnavailable.
        """
        with translated():
            entries = await self._redis.hget(self._keys.meta, "joining")
        return VectorClock.parse((entries or b"").decode())

    @_in_a_settled_run
    async def life(self) -> Life:
        """Who writes here, and since when.

        Raises RedisUnavailable.
        """
        with translated():
            actor, timestamp, since_us, reason = await self._redis.hmget(
                self._keys.meta, "actor", "timestamp", "since", "reason"
            )
        return Life(
            (actor or b"").decode(),
            int(timestamp or 0),
            int(since_us or 0),
            (reason or b"").decode(),
        )

    @_in_a_settled_run
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
