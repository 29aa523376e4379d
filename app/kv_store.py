"""The node's state in Redis: values and clock, and the one way to change them locally.

Assumes one Redis of the node's own (`identity.py` sees to it). Guarantees that a write is durable
as Redis is before `commit` returns (G3), that each dot is given once (G4), and that reads show what
was applied, all of it or nothing.

Does not know who asks, nor that other nodes exist. What peers send comes in by `buffer.py`; what
was written is in the log (`write_log.py`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec import Struct
from redis.asyncio import Redis

from app import codec, metrics
from app.commits import (
    Accepted,
    Commit,
    Committed,
    Failed,
    Moved,
    Outcome,
    Reused,
    TooMuch,
    Uncovered,
)
from app.conditions import Condition
from app.errors import (
    Held,
    IdempotencyKeyReused,
    NotLost,
    PreconditionFailed,
    RedisUnavailable,
    Syncing,
    TooLarge,
)
from app.gathering import Gathering, Result, Wish
from app.identity import NOT_OURS, Identity
from app.keys import Keys
from app.progress import Progress
from app.recent import KEPT_MAX, RecentWrites
from app.redis_link import translated
from app.scripts import Scripts
from app.settled import in_a_settled_run
from app.vector_clock import NOTHING, Dot, VectorClock
from app.write import Operation, Version, Write, winner_first
from app.write_log import WriteLog

_COMMITS_MAX_BYTES: Final = 128 * 1024
"""What the writes weigh that are committed in one step, so that Redis is free again within a few
milliseconds. One that weighs more is committed alone."""
_READS_MAX: Final = 64
"""Keys that are read at once for as many readers: each may hold siblings of VALUE_MAX_BYTES."""


class Reading(Struct, frozen=True):
    """What a key held at one instant.

    `versions` are the siblings, winner first; none if the key is absent. `context` is what a
    reader has seen by reading this, and so must find again wherever it reads next (G7).
    """

    versions: tuple[Version, ...]
    context: VectorClock


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of keys, in order, and of each the dots that were asked for; the clock of the node at
    that instant, which vouches for what is absent; and after which key the next page begins, empty
    if there is none. A page may have few keys, or none, because others have expired just now."""

    keys: dict[str, tuple[Dot, ...]]
    clock: VectorClock
    cursor: str


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


def _too_late() -> RedisUnavailable:
    return RedisUnavailable("it took too long for those who asked before", outcome="not_applied")


def reading(fields: Mapping[bytes, bytes], clock: VectorClock, now_us: int) -> Reading:
    """What a reader of a key is shown that has these fields, at a node with this clock, when the
    hybrid logical clock there shows `now_us`."""
    held = codec.unpack_versions(fields)
    if len(fields) == len(held) == 1 and held[0].is_there(now_us):  # as most keys are
        return Reading((held[0],), NOTHING.with_dot(held[0].dot))
    versions = tuple(winner_first([version for version in held if version.is_there(now_us)]))
    if not versions:
        return Reading((), clock)  # absence may be a delete's work
    context = codec.unpack_deletes(fields)
    for version in held:  # one that has expired stands for its own delete
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
        timeout_s: float = 30.0,
        log_max_entries: int = KEPT_MAX,
    ) -> None:
        """`redis` and `scripts` use connections to runs of Redis that `identity` admits.

        Redis may take `timeout_s` until a request is sent, and then for the answer.
        """
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._scripts = scripts
        self._progress = progress
        self.identity = identity
        self._now_us = now_us
        self._requests_max = requests_max
        self._commits = Gathering(self._commit_together, _COMMITS_MAX_BYTES, timeout_s, _too_late)
        self._reads = Gathering(self._read_together, _READS_MAX, timeout_s, _too_late)
        self.log = WriteLog(redis, keys, identity)
        """Its log."""
        self.recent = RecentWrites(self.log, log_max_entries)
        """The end of it."""

    async def commit(
        self,
        operations: Sequence[Operation],
        context: VectorClock = NOTHING,
        conditions: Sequence[Condition] = (),
        reads: Sequence[str] = (),
        most: int = 2**30,
        request: str = "",
    ) -> Committed | Accepted:
        """The write with these operations is applied here, after `context`, which was applied here
        before, and is on its way to the peers. At that instant all `conditions` held.

        The keys `reads` are read as they were just before it, `most` bytes in all. Of several
        times that it is asked for with the same `request`, it is done once; it may have been
        deferred then, and still wait.
        Raises PreconditionFailed, TooLarge, IdempotencyKeyReused, NotReady, Syncing,
        RedisUnavailable.
        """
        commit = Commit(operations, conditions, reads, most, request)
        if self.identity.is_in_doubt:  # each waits for that, and not one batch after the other
            await self.identity.writer()
        outcome = await self._asked(self._commits, (context, commit), commit.weight)
        match outcome:
            case Committed() | Accepted():
                return outcome
            case Failed():
                raise PreconditionFailed(outcome.held)
            case TooMuch():
                raise _too_much(most)
            case Moved():
                raise NotLost("more of that actor has come here just now; look again")
            case Reused():
                raise IdempotencyKeyReused
            case Uncovered():
                raise RedisUnavailable(NOT_OURS)

    @in_a_settled_run
    def _asked(
        self, gathering: Gathering[Wish, Result], wish: Wish, weight: int = 1
    ) -> Awaitable[Result]:
        return gathering.wish(wish, weight)

    async def _commit_together(
        self, asked: Sequence[tuple[VectorClock, Commit]]
    ) -> Sequence[Outcome]:
        """The writes are committed, each after the context beside it, if that is here.

        Raises NotReady, Syncing, RedisUnavailable; then none of them is, as far as is known.
        """
        actor, known = self.identity.actor, self._progress.clock
        held = [one for one in asked if one[0] <= known]
        seen = NOTHING
        for context, _ in held:
            if context is not NOTHING:
                seen = seen.merge(context)
        with translated(changes=True):
            outcomes = await self._scripts.commit_writes(
                actor,
                [commit for _, commit in held],
                self._now_us(),
                known[actor],
                self._requests_max,
                seen,
            )
        if outcomes is None:
            self.identity.doubt()
            raise RedisUnavailable(NOT_OURS)
        writes = [
            (done, commit)
            for (_, commit), done in zip(held, outcomes, strict=True)
            if isinstance(done, Committed) and not done.replayed
        ]
        if writes:
            # Before those wake who are to be told.
            self.recent.committed(
                actor,
                (
                    Write(done.dot, done.dependencies, done.timestamp, tuple(commit.operations))
                    for done, commit in writes
                ),
            )
            self._progress.advance(writes[-1][0].clock)
            metrics.COMMITTED.inc(len(writes))
        if len(held) == len(asked):
            return outcomes
        of_those = iter(outcomes)
        return [next(of_those) if context <= known else Uncovered() for context, _ in asked]

    async def read(self, key: str, context: VectorClock = NOTHING) -> Reading:
        """The siblings of `key`, from a state that covers `context`, which was applied here
        before; and what their reader has seen.

        Raises Syncing, RedisUnavailable.
        """
        found = await self._asked(self._reads, (context, key))
        if found is None:
            raise RedisUnavailable(NOT_OURS)
        return found

    async def _read_together(
        self, asked: Sequence[tuple[VectorClock, str]]
    ) -> list[Reading | None]:
        """What the keys hold; None for who has seen what is not here any more."""
        known = self._progress.clock
        readings, _ = await self._read(list({key: None for _, key in asked}), NOTHING, None)
        return [readings[key] if context <= known else None for context, key in asked]

    @in_a_settled_run
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
            found = await self._scripts.read_keys(keys, most, self._now_us())
        if isinstance(found, TooMuch):
            assert most is not None
            raise _too_much(most)
        fields, clock, now_us = found
        self._learn(known, clock)
        held = zip(keys, fields, strict=True)
        return {key: reading(one, clock, now_us) for key, one in held}, clock

    @in_a_settled_run
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
            keys, cursor, clock = await self._scripts.list_keys(
                *_bounds(prefix, after), limit, self._now_us()
            )
        self._learn(known, clock)
        return Listing(dict.fromkeys(keys, ()), clock, cursor)

    @in_a_settled_run
    async def list_conflicts(
        self, prefix: str, after: str, limit: int, context: VectorClock = NOTHING
    ) -> Listing:
        """The same of those keys that have siblings, with the dots of these.

        Raises RedisUnavailable.
        """
        self._still_covers(context)
        known = self._progress.clock
        with translated():
            found, cursor, clock = await self._scripts.list_conflicts(
                *_bounds(prefix, after), limit, self._now_us()
            )
        self._learn(known, clock)
        return Listing(found, clock, cursor)

    def _learn(self, known: VectorClock, clock: VectorClock) -> None:
        """Redis, whose clock this is, has what was known to be there; and all that it has is known
        from now on, for somebody is shown it. Raises RedisUnavailable."""
        if not self._progress.learn(known, clock):
            self.identity.doubt()
            raise RedisUnavailable(NOT_OURS)

    def _still_covers(self, context: VectorClock) -> None:
        """What was applied here has not been lost meanwhile (G7). Raises RedisUnavailable."""
        if not context <= self._progress.clock:
            raise RedisUnavailable(NOT_OURS)

    @in_a_settled_run
    async def clock(self) -> VectorClock:
        """What is applied here.

        Raises RedisUnavailable.
        """
        with translated():
            return codec.unpack_clock(await self._redis.hgetall(self._keys.clock))

    @in_a_settled_run
    async def now_us(self) -> int:
        """What the hybrid logical clock shows, microseconds since 1970: no less than the wall
        clock here, nor than any write that is applied.

        Raises RedisUnavailable.
        """
        with translated():
            timestamp = await self._redis.hget(self._keys.meta, "timestamp")
        return max(self._now_us(), int(timestamp or 0))

    @in_a_settled_run
    async def check(self) -> None:
        """Redis answers, and holds this node's state.

        Raises NotReady, Syncing, RedisUnavailable.
        """
        with translated():
            actor, merging = await self._redis.hmget(self._keys.meta, "actor", "merging")
        if actor != self.identity.actor.encode():
            self.identity.doubt()
            raise RedisUnavailable(NOT_OURS)
        if merging is not None:
            raise Syncing

    @in_a_settled_run
    async def joining(self) -> VectorClock:
        """What peers had when this node began with nothing; empty if it did not, or they had none.

        Raises RedisUnavailable.
        """
        with translated():
            entries = await self._redis.hget(self._keys.meta, "joining")
        return VectorClock.parse((entries or b"").decode())

    @in_a_settled_run
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
