"""What the workers of a node tell each other, through their Redis.

Five notices: who sends to which peer (a lease), what is known of each peer, the birth of its first
Redis, the fault on each link, and how far the node has come (a channel).

Assumes nothing of the workers: any may die at any time, and but for the births no notice is needed
for a guarantee. Guarantees that at most one live worker holds a lease for the time of it; a lost
notice of progress is made up for within a second.

Does not know what any of it is used for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from redis.asyncio import Redis

from app import codec
from app.errors import RedisUnavailable
from app.faults import HEALTHY, Fault, fault_text, parse_fault
from app.keys import Keys
from app.log import get_logger
from app.progress import Progress
from app.redis_link import translated
from app.scripts import Scripts
from app.vector_clock import VectorClock

log = get_logger(__name__)

_REFRESH_S = 1.0
"""A worker that hears nothing for so long reads the clock itself: a channel may lose a message."""


@dataclass(frozen=True, slots=True)
class PeerReport:
    """What the link to a peer knows of it. Times are microseconds since 1970, 0 for never.

    `error` is empty while the peer is reachable. `skew_us` is by how much its wall clock is ahead.
    """

    clock: VectorClock = field(default_factory=VectorClock)
    error: str = "no exchange with it yet"
    last_contact_us: int = 0
    skew_us: int = 0


class Board:
    """The notices of one node, as one worker posts and reads them."""

    def __init__(self, redis: Redis, keys: Keys, scripts: Scripts, worker: str) -> None:
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._scripts = scripts
        self._worker = worker

    async def hold_lease(self, peer: str, ttl_ms: int) -> bool:
        """Whether this worker is the one that sends to `peer`, for `ttl_ms` from now."""
        with translated():
            return await self._scripts.hold_lease(peer, self._worker, ttl_ms)

    async def release_lease(self, peer: str) -> None:
        """Another worker may send to `peer` at once."""
        with translated():
            await self._scripts.release_lease(peer, self._worker)

    async def post_peer(self, peer: str, report: PeerReport) -> None:
        """Every worker can say this of `peer`."""
        fields = {**asdict(report), "clock": report.clock.entries_text()}
        with translated():
            await self._redis.hset(self._keys.peer(peer), mapping=fields)

    async def peer(self, peer: str) -> PeerReport:
        """What was last posted of `peer`."""
        with translated():
            fields = await self._redis.hgetall(self._keys.peer(peer))
        if not fields:
            return PeerReport()
        return PeerReport(
            VectorClock.parse(fields[b"clock"].decode()),
            fields[b"error"].decode(),
            int(fields[b"last_contact_us"]),
            int(fields[b"skew_us"]),
        )

    async def births(self) -> int:
        """Of how many nodes' first births this one has heard."""
        with translated():
            count: int = await self._redis.hlen(self._keys.births)
        return count

    async def first_birth(self, node: str, birth: str) -> str:
        """The birth of the first Redis of that node of which this one heard: this, if none before.

        It is remembered once this returns, for ever: whatever the node loses, it was there.
        """
        births = self._keys.births
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hsetnx(births, node, birth)
                pipeline.hget(births, node)
                _, first = await pipeline.execute()
        text: str = first.decode()
        return text

    async def set_fault(self, peer: str, fault: Fault) -> None:
        """The link to `peer` has this fault, on every worker, until it is set again."""
        with translated():
            if fault == HEALTHY:
                await self._redis.hdel(self._keys.faults, peer)
            else:
                await self._redis.hset(self._keys.faults, peer, fault_text(fault))
            await self._redis.publish(self._keys.faults_channel, peer)

    async def fault(self, peer: str) -> Fault:
        """The fault on the link to `peer`."""
        with translated():
            text = await self._redis.hget(self._keys.faults, peer)
        return HEALTHY if text is None else parse_fault(text)

    async def listen(
        self,
        progress: Progress,
        fault_changed: Callable[[str], None],
        system_changed: Callable[[], Awaitable[None]],
    ) -> None:
        """Tell `progress` of every advance, `fault_changed` of every changed link, and
        `system_changed` that keys of the system were, or may have been, written; for ever."""
        keys = self._keys
        while True:
            try:
                with translated():
                    async with self._redis.pubsub() as channel:
                        await channel.subscribe(
                            keys.applied_channel, keys.faults_channel, keys.system_channel
                        )
                        await self._refresh(progress)
                        await system_changed()
                        while True:
                            message = await channel.get_message(timeout=_REFRESH_S)
                            if message is None:
                                await self._refresh(progress)
                                await system_changed()
                            elif message["type"] == "message":
                                text = message["data"].decode()
                                match message["channel"].decode():
                                    case keys.applied_channel:
                                        progress.advance(VectorClock.parse(text))
                                    case keys.faults_channel:
                                        fault_changed(text)
                                    case keys.system_channel:
                                        await system_changed()
            except RedisUnavailable as error:
                log.warning("redis unavailable", cause=error.cause)
                await asyncio.sleep(_REFRESH_S / 4)

    async def _refresh(self, progress: Progress) -> None:
        progress.advance(codec.unpack_clock(await self._redis.hgetall(self._keys.clock)))
