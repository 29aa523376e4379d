"""The node's state in Redis: values, clock and log, and the one way to change them locally.

Assumes one Redis of the node's own (`identity.py` sees to it). Guarantees that a write is durable
as Redis is before `commit` returns (G3), that each dot is given once (G4), and that reads show what
was applied, all of it or nothing.

Does not know who asks, nor that other nodes exist. What peers send comes in by `buffer.py`.
"""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from redis.asyncio import Redis

from app import codec, metrics
from app.conditions import Condition
from app.errors import (
    Held,
    IdempotencyKeyReused,
    LogTrimmed,
    NotLost,
    PreconditionFailed,
    RedisUnavailable,
    Syncing,
    TooLarge,
)
from app.identity import NOT_OURS, Identity
from app.keys import Keys, end_key
from app.progress import Progress
from app.redis_link import translated
from app.scripts import Committed, Failed, Moved, Reused, Scripts, TooMuch
from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock
from app.write import Operation, Version, Write, winner_first

NOTHING: Final = VectorClock()
"""The context of who has seen nothing."""
_TRIMMED_AT_ONCE: Final = 10_000

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
class Listing:
    """A page of keys, in order, and of each the dots that were asked for; whether more follow; and
    the clock of the node at that instant, which vouches for what is absent."""

    keys: dict[str, tuple[Dot, ...]]
    clock: VectorClock
    more: bool


def _bounds(prefix: str, after: str) -> tuple[bytes, bytes]:
    """The bounds of the keys that begin with `prefix` and come after `after`, for ZRANGEBYLEX."""
    # No UTF-8 holds the byte 255, so that what begins with the prefix ends before it.
    first = f"({after}" if after and after >= prefix else f"[{prefix}"
    return first.encode(), b"(" + prefix.encode() + b"\xff"


def _too_much(most: int) -> TooLarge:
    return TooLarge(
        f"What the transaction reads is more than this node gives in one answer: {most} bytes "
        "(TXN_MAX_BYTES). Nothing was done. Read fewer keys at a time."
    )


def reading(fields: Mapping[bytes, bytes], clock: VectorClock) -> Reading:
    """What a reader of a key is shown that has these fields, at a node with this clock."""
    versions = tuple(winner_first(codec.unpack_versions(fields)))
    if not versions:
        return Reading((), clock)  # absence may be a delete's work
    context = codec.unpack_deletes(fields)
    for version in versions:
        context = context.with_dot(version.dot)
    return Reading(versions, context)


@dataclass(frozen=True, slots=True)
class Life:
    """Who writes at a node: empty while that is not settled; and the timestamp of its newest write.

    `since_us` is when this incarnation began, and `reason` why; 0 and empty for the first life.
    """

    actor: str
    timestamp: int
    since_us: int
    reason: str


@dataclass(frozen=True, slots=True)
class LogSize:
    """How many writes a log holds, and about how many bytes of Redis' memory."""

    entries: int
    bytes: int


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
        requests_max: int = 1000,
    ) -> None:
        """`redis` and `scripts` use connections to runs of Redis that `identity` admits."""
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._scripts = scripts
        self._progress = progress
        self._identity = identity
        self._now_us = now_us
        self._requests_max = requests_max

    @_in_a_settled_run
    async def commit(
        self,
        operations: Sequence[Operation],
        context: VectorClock = NOTHING,
        conditions: Sequence[Condition] = (),
        reads: Sequence[str] = (),
        most: int = 2**30,
        request: str = "",
    ) -> Committed:
        """The write with these operations is applied here, after `context`, which was applied here
        before, and is on its way to the peers. At that instant all `conditions` held.

        The keys `reads` are read as they were just before it, `most` bytes in all. Of several
        times that it is asked for with the same `request`, it is done once.
        Raises PreconditionFailed, TooLarge, IdempotencyKeyReused, NotReady, Syncing,
        RedisUnavailable.
        """
        actor = await self._identity.writer()
        self._still_covers(context)
        with translated(changes=True):
            committed = await self._scripts.commit_write(
                actor,
                operations,
                self._now_us(),
                self._progress.clock[actor],
                conditions,
                reads,
                most,
                request,
                self._requests_max,
            )
        if committed is None:
            self._identity.doubt()
            raise RedisUnavailable(NOT_OURS)
        if isinstance(committed, Failed):
            raise PreconditionFailed(committed.held)
        if isinstance(committed, TooMuch):
            raise _too_much(most)
        if isinstance(committed, Moved):
            raise NotLost("more of that actor has come here just now; look again")
        if isinstance(committed, Reused):
            raise IdempotencyKeyReused(
                "This Idempotency-Key came before, with a request for something else. Nothing was "
                "done. Give every request a key of its own, and the same only to repeat it."
            )
        self._progress.advance(committed.clock)
        metrics.COMMITTED.inc()
        return committed

    @_in_a_settled_run
    async def read(self, key: str, context: VectorClock = NOTHING) -> Reading:
        """The siblings of `key`, from a state that covers `context`, which was applied here
        before; and what their reader has seen.

        Raises Syncing, RedisUnavailable.
        """
        readings, _ = await self._read([key], context, None)
        return readings[key]

    @_in_a_settled_run
    async def snapshot(
        self,
        keys: Sequence[str],
        context: VectorClock,
        conditions: Sequence[Condition],
        most: int,
    ) -> tuple[dict[str, Reading], VectorClock]:
        """What `keys`, which are those of the `conditions` too, held at one instant at which all of
        these held, `most` bytes in all; from a state that covers `context`, which was applied here
        before; and the clock at that instant.

        Raises PreconditionFailed, TooLarge, RedisUnavailable.
        """
        readings, clock = await self._read(keys, context, most)
        dots = {key: tuple(v.dot for v in one.versions) for key, one in readings.items()}
        if failed := [one.key for one in conditions if not one.holds(dots[one.key])]:
            raise PreconditionFailed(
                [Held(key, dots[key], readings[key].context) for key in failed]
            )
        return readings, clock

    async def _read(
        self, keys: Sequence[str], context: VectorClock, most: int | None
    ) -> tuple[dict[str, Reading], VectorClock]:
        # At one instant: the clock vouches for an absence, which may be a delete's work, and no
        # merge may pass between what is read.
        self._still_covers(context)
        known = self._progress.clock
        with translated():
            found = await self._scripts.read_keys(keys, most)
        if isinstance(found, TooMuch):
            assert most is not None
            raise _too_much(most)
        fields, clock = found
        self._holds(known, clock)
        return {key: reading(held, clock) for key, held in zip(keys, fields, strict=True)}, clock

    @_in_a_settled_run
    async def list_keys(
        self, prefix: str, after: str, limit: int, context: VectorClock = NOTHING
    ) -> Listing:
        """At most `limit` keys that begin with `prefix` and come after `after`, in the order of
        their bytes, from a state that covers `context`, which was applied here before.

        Raises RedisUnavailable.
        """
        self._still_covers(context)
        known = self._progress.clock
        with translated():
            keys, clock = await self._scripts.list_keys(*_bounds(prefix, after), limit + 1)
        self._holds(known, clock)
        return Listing(dict.fromkeys(keys[:limit], ()), clock, len(keys) > limit)

    @_in_a_settled_run
    async def list_conflicts(
        self, prefix: str, after: str, limit: int, context: VectorClock = NOTHING
    ) -> Listing:
        """The same of those keys that have siblings, with the dots of these.

        Raises RedisUnavailable.
        """
        self._still_covers(context)
        known = self._progress.clock
        with translated():
            found, clock = await self._scripts.list_conflicts(*_bounds(prefix, after), limit + 1)
        self._holds(known, clock)
        return Listing(dict(found[:limit]), clock, len(found) > limit)

    def _holds(self, known: VectorClock, clock: VectorClock) -> None:
        """Redis, whose clock this is, has what was known to be there. Raises RedisUnavailable."""
        if not known <= clock:
            self._identity.doubt()
            raise RedisUnavailable(NOT_OURS)

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

        Raises NotReady, Syncing, RedisUnavailable.
        """
        with translated():
            actor, merging = await self._redis.hmget(self._keys.meta, "actor", "merging")
        if actor != self._identity.actor.encode():
            self._identity.doubt()
            raise RedisUnavailable(NOT_OURS)
        if merging is not None:
            raise Syncing

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
        """The writes of `actor` after `sequence`, in order, at most `count`; the first of them is
        covered by the clock here. None, if all that follows was declared lost.

        Raises RedisUnavailable; LogTrimmed if the log does not go back that far.
        """
        with translated():
            entries: list[Any] = await self._redis.xrange(
                self._keys.log(actor), min=f"{sequence + 1}-0", count=count
            )
        writes = [codec.unpack_log_entry(actor, id_, fields) for id_, fields in entries]
        if not writes and sequence >= await self.log_end(actor, SEQUENCE_MAX):
            return []
        if not writes or writes[0].dot.sequence != sequence + 1:
            raise LogTrimmed(Dot(actor, sequence + 1))
        return writes

    async def log_begin(self, actor: str) -> int | None:
        """The first sequence in the log of `actor`; None if there is none in it.

        Raises RedisUnavailable.
        """
        with translated():
            entries: list[Any] = await self._redis.xrange(self._keys.log(actor), count=1)
        return int(entries[0][0].partition(b"-")[0]) if entries else None

    async def log_end(self, actor: str, sequence: int) -> int:
        """Up to where the log of `actor` goes, which has this entry in the clock.

        Twin of `log_end` in lua/ends.inc.lua. Raises RedisUnavailable.
        """
        if sequence < SEQUENCE_MAX:
            return sequence
        with translated():
            fields = await self._redis.hgetall(self._keys.kv(end_key(actor)))
        values = [version.value for version in codec.unpack_versions(fields)]
        ends = [int(value) for value in values if value.isdigit()]
        return min(ends, default=SEQUENCE_MAX)

    async def log_sizes(self, actors: Iterable[str]) -> dict[str, LogSize]:
        """How large the logs of these actors are.

        Raises RedisUnavailable.
        """
        actors = list(actors)
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for actor in actors:
                    pipeline.xlen(self._keys.log(actor))
                    pipeline.memory_usage(self._keys.log(actor))
                sizes: list[Any] = await pipeline.execute()
        found = zip(actors, sizes[::2], sizes[1::2], strict=True)
        return {actor: LogSize(entries, size or 0) for actor, entries, size in found}

    async def trim_log(self, actor: str, through: int, first: int) -> None:
        """The log of `actor`, which begins at `first`, goes on after `through`.

        In steps, so that Redis is not busy for long. Raises RedisUnavailable.
        """
        while first <= through:
            first = min(first + _TRIMMED_AT_ONCE, through + 1)
            with translated(changes=True):
                await self._redis.xtrim(
                    self._keys.log(actor), minid=f"{first}-0", approximate=False
                )

    @_in_a_settled_run
    async def log_before(self, actor: str, sequence: int, count: int) -> list[Write]:
        """The writes of `actor` before `sequence` that are in the log here, newest first, at most
        `count`.

        Raises RedisUnavailable.
        """
        with translated():
            entries: list[Any] = await self._redis.xrevrange(
                self._keys.log(actor), max=f"({sequence}-0", count=count
            )
        return [codec.unpack_log_entry(actor, id_, fields) for id_, fields in entries]
