"""The pending buffer: takes writes from peers, holds those that came too early.

Assumes nothing of the network: late, repeated, reordered and lost are all normal. Guarantees that
what leaves it is applied in causal order (G1) and once (G2), and that it holds at most
`pending_max` writes: one more is refused, and stays in its sender's log (G9).

Does not know who sent a write, nor who will ask for it. The rule itself is
`lua/receive_writes.lua`; this module feeds it and shows what waits.

From Birman, Schiper and Stephenson (1991), with the queue per origin of AntidoteDB's dependency
buffer: only heads of queues can become deliverable.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis

from app import codec, metrics
from app.codec import Waiting
from app.errors import RedisUnavailable
from app.identity import NOT_OURS, Identity
from app.keys import Keys
from app.log import get_logger
from app.progress import Progress
from app.redis_link import translated
from app.scripts import Received, Scripts
from app.vector_clock import Dot, VectorClock
from app.write import Write

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Blocked:
    """A waiting write, and the dots it waits for: what it depends on and is not applied here."""

    waiting: Waiting
    waiting_for: tuple[Dot, ...]


class PendingBuffer:
    """What peers sent and is not applied yet, of one node."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        scripts: Scripts,
        progress: Progress,
        node: str,
        identity: Identity,
        now_us: Callable[[], int],
        *,
        pending_max: int,
        drain_max: int,
    ) -> None:
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._scripts = scripts
        self._progress = progress
        self._node = node
        self._identity = identity
        self._now_us = now_us
        self._pending_max = pending_max
        self._drain_max = drain_max

    async def receive(self, writes: Sequence[Write]) -> Received:
        """Each of `writes` is applied, waits, was known already, or is refused; all that became
        deliverable by it is applied too. Redis does other things in between.

        Raises RedisUnavailable: then any part of this may have happened, and the same batch may
        come again.
        """
        first, *others = pieces(writes, self._drain_max)
        received = await self._receive_piece(first)
        for piece in others:
            received = _and_then(received, await self._receive_piece(piece))
        _count(received)
        return received

    async def sweep(self) -> Received:
        """What is deliverable is applied, whoever left it behind."""
        return await self.receive(())

    async def counts(self) -> dict[str, int]:
        """How many writes of each actor wait."""
        with translated():
            actors = [a.decode() for a in await self._redis.hkeys(self._keys.received)]
            async with self._redis.pipeline(transaction=False) as pipeline:
                for actor in actors:
                    pipeline.hlen(self._keys.pending(actor))
                counts = await pipeline.execute()
        return {actor: count for actor, count in zip(actors, counts, strict=True) if count}

    async def newest(self, actors: Iterable[str]) -> VectorClock:
        """The last write of each of these actors that waits, whatever is missing before it."""
        with translated():
            waiting = {a: await self._redis.hkeys(self._keys.pending(a)) for a in actors}
        return VectorClock(
            (actor, max(map(int, sequences))) for actor, sequences in waiting.items() if sequences
        )

    async def blocked(self, limit: int) -> list[Blocked]:
        """At most `limit` writes that wait, the next of each actor, and what each waits for."""
        with translated():
            clock = codec.unpack_clock(await self._redis.hgetall(self._keys.clock))
            actors = sorted(a.decode() for a in await self._redis.hkeys(self._keys.received))
            share = max(1, limit // max(1, len(actors)))
            found: list[Blocked] = []
            for actor in actors[:limit]:
                sequences = sorted(map(int, await self._redis.hkeys(self._keys.pending(actor))))
                sequences = sequences[:share]
                if not sequences:
                    continue
                entries: list[Any] = await self._redis.hmget(
                    self._keys.pending(actor), [str(sequence) for sequence in sequences]
                )
                for sequence, entry in zip(sequences, entries, strict=True):
                    if entry is not None:  # applied between the two reads
                        waiting = codec.unpack_waiting(actor, sequence, entry)
                        found.append(Blocked(waiting, _waits_for(waiting.write, clock)))
        return found

    async def missing_for(self, wanted: VectorClock) -> VectorClock:
        """What has to come before the writes up to `wanted` that wait here can be applied.

        Empty where none of them waits here. What does not wait here is not in the answer.
        """
        with translated():
            clock = codec.unpack_clock(await self._redis.hgetall(self._keys.clock))
            needed, known = VectorClock(), VectorClock()
            while unknown := wanted.beyond(known).beyond(clock):
                known = known.merge(wanted)
                for actor in unknown:
                    first = clock[actor] + 1
                    entry = await self._redis.hget(self._keys.pending(actor), first)
                    if entry is None:
                        needed = needed.with_dot(Dot(actor, first))
                    else:
                        write = codec.unpack_waiting(actor, first, entry).write
                        wanted = wanted.merge(write.dependencies.beyond(clock))
            return needed

    async def _receive_piece(self, writes: Sequence[Write]) -> Received:
        """As `receive`: it is as if they had come alone."""
        received = await self._receive(writes)
        while received.more:
            received = _and_then(received, await self._receive(()))
        return received

    async def _receive(self, writes: Sequence[Write]) -> Received:
        with translated(changes=True):
            received = await self._scripts.receive_writes(
                self._node, writes, self._now_us(), self._pending_max, self._drain_max
            )
        if isinstance(received, Dot):
            self._identity.witness(VectorClock([received]))
            self._identity.doubt()  # for this worker may have known the write, and not that it went
            raise RedisUnavailable(
                f"it has lost {received}, a write of this node's own, so the node takes another "
                "name first; send it again"
            )
        if received is None:
            self._identity.doubt()
            raise RedisUnavailable(NOT_OURS)
        self._progress.advance(received.clock)
        self._progress.miss(received.missing)
        if received.survivors:
            log.error(
                "declared lost, and here",
                writes=str(received.survivors),
                reason="this node has writes that nobody else will have; empty its Redis",
            )
        return received


def pieces(writes: Sequence[Write], most: int) -> list[list[Write]]:
    """The writes in order, at least one piece; each of them has at most so many operations, or is
    one write."""
    found: list[list[Write]] = [[]]
    size = 0
    for write in writes:
        if found[-1] and size + len(write.operations) > most:
            found.append([])
            size = 0
        found[-1].append(write)
        size += len(write.operations)
    return found


def _and_then(before: Received, after: Received) -> Received:
    """What became of all writes, and where the node stands after the last."""
    return replace(
        after,
        applied=before.applied + after.applied,
        duplicate=before.duplicate + after.duplicate,
        pending=before.pending + after.pending,
        refused=before.refused + after.refused,
        drained=before.drained + after.drained,
    )


def _count(received: Received) -> None:
    for counter, writes in (
        (metrics.APPLIED, received.applied + received.drained),
        (metrics.DUPLICATE, received.duplicate),
        (metrics.PENDING, received.pending),
        (metrics.REFUSED, received.refused),
    ):
        if writes:
            counter.inc(writes)


def _waits_for(write: Write, clock: VectorClock) -> tuple[Dot, ...]:
    return tuple(write.dependencies.beyond(clock).dots())
