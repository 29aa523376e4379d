"""Deferred writes: accepted and named at once, committed once what their clients have seen is here.

Assumes one Redis of the node's own, and that progress is told of every advance of its clock.
Guarantees that a write that is accepted is kept, durable as Redis is (G3), under a dot that no
other has (G4); that it is committed once (G2), after its context (G1), in the order of acceptance;
and that nothing of it is seen or sent before. No other write waits for it: it has an actor of its
own, the node's *lane* (`A+`).

Committed, it is a local write of that moment, like any other but for its actor. So no other part of
a node knows of deferred writes.

Does not know who asks, nor what becomes of lanes whose incarnation has ended (`former_lanes.py`).

From the dependency queues of COPS (Lloyd et al. 2011), which hold a write back until what its
client has read is there; here with the client's own write.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import Redis

from app import codec, metrics
from app.codec import Deferred
from app.commits import Accepted, Committed, Reused
from app.errors import (
    DeferredFull,
    IdempotencyKeyReused,
    NotReady,
    RedisUnavailable,
    Syncing,
)
from app.identity import NOT_OURS, Identity
from app.incarnation import lane_of
from app.keys import Keys
from app.lane_scripts import Due, Full, LaneScripts
from app.progress import Progress
from app.redis_link import translated
from app.settled import in_a_settled_run
from app.vector_clock import Dot, VectorClock
from app.write import Operation

NOTHING: Final = VectorClock()


class DeferredWrites:
    """The deferred writes of one node, as one worker accepts and commits them."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        scripts: LaneScripts,
        progress: Progress,
        identity: Identity,
        now_us: Callable[[], int],
        *,
        deferred_max: int,
        deferred_max_bytes: int,
        drain_max: int,
        requests_max: int,
    ) -> None:
        """`redis` and `scripts` use connections to runs of Redis that `identity` admits."""
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._scripts = scripts
        self._progress = progress
        self.identity = identity
        self._now_us = now_us
        self._deferred_max = deferred_max
        self._deferred_max_bytes = deferred_max_bytes
        self._drain_max = drain_max
        self._requests_max = requests_max
        self._lacks: VectorClock | None = None
        self._due = asyncio.Event()

    @in_a_settled_run
    async def accept(
        self, operations: Sequence[Operation], context: VectorClock, request: str = ""
    ) -> Accepted | Committed:
        """The write with these operations has a name, and is committed once `context`, which names
        no write that was never made, is covered.

        Of several times that it is asked for with the same `request`, it is done once; it may be
        committed already then. Raises DeferredFull, IdempotencyKeyReused, NotReady, Syncing,
        RedisUnavailable.
        """
        actor = await self.identity.writer()
        lane = lane_of(actor)
        if context[lane]:
            # Somebody was given it: a Redis that does not know it would give it again, and what
            # waits for it in its own lane would wait for ever.
            self.identity.gave(Dot(lane, context[lane]))
        with translated(changes=True):
            accepted = await self._scripts.accept_deferred(
                actor,
                operations,
                context,
                self._now_us(),
                self.identity.given.merge(self._progress.clock)[lane],
                self._deferred_max,
                self._deferred_max_bytes,
                request,
                self._requests_max,
            )
        if accepted is None:
            self.identity.doubt()
            raise RedisUnavailable(NOT_OURS)
        if isinstance(accepted, Full):
            raise DeferredFull(self._deferred_max, self._deferred_max_bytes)
        if isinstance(accepted, Reused):
            raise IdempotencyKeyReused
        if isinstance(accepted, Accepted):
            self.identity.gave(accepted.dot)
            self._due.set()  # what it waits for may have come just before it was accepted
            if not accepted.replayed:
                metrics.DEFERRED.inc()
        return accepted

    async def keep(self) -> None:
        """What this worker knows to wait is committed as soon as it is due, for ever.

        What another one has accepted it knows from the last `commit_due`.
        """
        self._progress.on_advance(self._look)
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                # Whatever keeps it from that now: `commit_due` is called every so often besides.
                with suppress(RedisUnavailable, NotReady, Syncing):
                    await self.commit_due()
        finally:
            self._progress.forget(self._look)

    def _look(self) -> None:
        if self._lacks is not None and self._lacks <= self._progress.clock:
            self._due.set()

    @in_a_settled_run
    async def commit_due(self) -> Due:
        """All that is due is committed. Raises NotReady, Syncing, RedisUnavailable."""
        while True:
            actor = self.identity.actor
            with translated(changes=True):
                due = await self._scripts.commit_deferred(
                    actor, self._now_us(), self._drain_max, self._progress.clock[lane_of(actor)]
                )
            if due is None:
                self.identity.doubt()
                raise RedisUnavailable(NOT_OURS)
            if due.committed:
                metrics.COMMITTED.inc(due.committed)
            self._lacks = due.lacks or None
            self._progress.advance(due.clock)
            if not due.more:
                return due

    @in_a_settled_run
    async def commit_former(self, lane: str, after: int) -> bool:
        """What comes next in the lane of an earlier incarnation, of which no member has more than
        `after`, is committed under a name of this one; False if it cannot be now.

        Raises NotReady, Syncing, RedisUnavailable.
        """
        actor = self.identity.actor
        with translated(changes=True):
            done = await self._scripts.commit_former(
                actor, lane, after, self._now_us(), self._progress.clock[actor]
            )
        if done is None:
            self.identity.doubt()
            raise RedisUnavailable(NOT_OURS)
        is_committed, clock = done
        if is_committed:
            metrics.COMMITTED.inc()
            self._progress.advance(clock)
        return is_committed

    async def given(self) -> VectorClock:
        """The last dot that each lane has given, where something of it waits.

        Raises RedisUnavailable.
        """
        with translated():
            return codec.unpack_clock(await self._redis.hgetall(self._keys.deferred))

    async def counts(self) -> tuple[int, int]:
        """How many wait, and how many bytes their operations have. Raises RedisUnavailable."""
        lanes = await self.given()
        if not lanes:
            return 0, 0
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hget(self._keys.meta, "deferred_bytes")
                for lane in lanes:
                    pipeline.hlen(self._keys.lane(lane))
                size, *counts = await pipeline.execute()
        return sum(counts), int(size or 0)

    async def first(self, limit: int) -> list[Deferred]:
        """At most `limit` of those that wait, by lane, in order. Raises RedisUnavailable."""
        found: list[Deferred] = []
        for lane in sorted(await self.given(), key=lambda one: (-len(one), one)):
            with translated():
                sequences = sorted(map(int, await self._redis.hkeys(self._keys.lane(lane))))
                sequences = sequences[: limit - len(found)]
                if not sequences:
                    continue
                entries: list[Any] = await self._redis.hmget(
                    self._keys.lane(lane), [str(sequence) for sequence in sequences]
                )
            found += [
                codec.unpack_deferred(lane, sequence, entry)
                for sequence, entry in zip(sequences, entries, strict=True)
                if entry is not None  # committed between the two reads
            ]
        return found

    @staticmethod
    def waits_for(dot: Dot, context: VectorClock, clock: VectorClock) -> list[Dot]:
        """What a deferred write waits for at this clock: its context, and the one that was accepted
        before it."""
        before = VectorClock([(dot.actor, dot.sequence - 1)])
        return context.merge(before).beyond(clock).dots()
