"""What the workers of a node tell each other, through their Redis.

Six notices: who sends to which peer (a lease), what is known of each peer, how far the snapshot for
it has come, the birth of its first Redis, the fault on each link, and how far the node itself has
come (a channel).

Assumes nothing of the workers: any may die at any time, and but for the births no notice is needed
for a guarantee. Guarantees that at most one live worker holds a lease for the time of it; a lost
notice of progress is made up for within a second.

Does not know what any of it is used for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import msgspec
from redis.asyncio import Redis

from app import codec
from app.errors import RedisUnavailable
from app.faults import HEALTHY, Fault, fault_text, parse_fault
from app.keys import Keys
from app.log import get_logger
from app.progress import Progress
from app.redis_link import translated
from app.scripts import Scripts
from app.snapshot import Sending
from app.standing import UNHEARD, Heard, Standing
from app.vector_clock import NOTHING, VectorClock

log = get_logger(__name__)

TRIM, MERGE, SETTINGS = "~trim", "~merge", "~settings"
"""Leases of work that is about no peer. No node can be called so."""

_REFRESH_S = 1.0
"""A worker that hears nothing of the clock for so long reads it itself: a channel may lose a
message, and one that is alone is sent none (`lua/workers.inc.lua`)."""
_FOLLOWING = "next_"
"""What the names of the fields begin with that say where one part more leads."""


class PeerReport(msgspec.Struct, frozen=True):
    """What the link to a peer knows of it. Times are microseconds since 1970, 0 for never.

    `error` is empty while the peer is reachable. `skew_us` is by how much its wall clock is ahead.
    `received` is what it holds of each actor without a gap, applied (`clock`) or waiting.
    `hearsay` is the newest that other peers have told of it while it was not reachable.
    """

    clock: VectorClock = NOTHING
    error: str = "no exchange with it yet"
    last_contact_us: int = 0
    skew_us: int = 0
    received: VectorClock = NOTHING
    hearsay: Heard = UNHEARD

    @property
    def has(self) -> VectorClock:
        """What the peer has applied, as far as this node knows: hearsay counts only while the peer
        cannot be asked, for it may be of a time before a loss."""
        return self.clock.merge(self.hearsay.standing.clock) if self.error else self.clock

    @property
    def heard(self) -> Heard:
        """What it last said to this node."""
        return Heard(Standing(self.clock, self.received), self.last_contact_us)

    def newest(self, now_us: int) -> Heard:
        """What it last said, be it to another."""
        return min(self.heard, self.hearsay, key=lambda heard: heard.age_us(now_us))


class Board:
    """The notices of one node, as one worker posts and reads them."""

    def __init__(self, redis: Redis, keys: Keys, scripts: Scripts, worker: str) -> None:
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._scripts = scripts
        self._worker = worker
        self._awaited_until = 0.0

    async def hold_lease(self, work: str, ttl_ms: int) -> bool:
        """Whether this worker is the one that sends to the peer of this name, or does this work,
        for `ttl_ms` from now."""
        with translated():
            return await self._scripts.hold_lease(work, self._worker, ttl_ms)

    async def release_lease(self, work: str) -> None:
        """Another worker may send to that peer, or do that work, at once."""
        with translated():
            await self._scripts.release_lease(work, self._worker)

    async def post_peer(self, peer: str, report: PeerReport) -> None:
        """Every worker can say this of `peer`."""
        clock = report.clock.entries_text()
        fields = {
            "clock": clock,
            "error": report.error,
            "last_contact_us": report.last_contact_us,
            "skew_us": report.skew_us,
            "received": report.received.entries_text(),
        }
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hset(self._keys.peer(peer), mapping=fields)
                pipeline.publish(self._keys.peers_channel, f"{peer} {clock}")
                await pipeline.execute()

    async def post_hearsay(self, told: Mapping[str, Heard]) -> None:
        """Every worker can say where these peers stood, by what another one told."""
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for peer, heard in told.items():
                    fields = {
                        "hearsay_clock": heard.standing.clock.entries_text(),
                        "hearsay_received": heard.standing.received.entries_text(),
                        "hearsay_us": heard.at_us,
                    }
                    pipeline.hset(self._keys.peer(peer), mapping=fields)
                await pipeline.execute()

    async def await_peers(self, for_s: float) -> None:
        """For so long, all workers know that somebody waits for news of the peers."""
        self._await(for_s)
        with translated():
            await self._redis.publish(self._keys.awaited_channel, f"{for_s:.3f}")

    @property
    def peers_are_awaited(self) -> bool:
        """Whether somebody waits for news of the peers, so that it is to be posted at once."""
        return asyncio.get_running_loop().time() < self._awaited_until

    def _await(self, for_s: float) -> None:
        until = asyncio.get_running_loop().time() + for_s
        self._awaited_until = max(self._awaited_until, until)

    async def peer(self, peer: str) -> PeerReport:
        """What was last posted of `peer`."""
        return (await self.peers([peer]))[peer]

    async def peers(self, peers: Iterable[str]) -> dict[str, PeerReport]:
        """What was last posted of each of them."""
        names = list(peers)
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for peer in names:
                    pipeline.hgetall(self._keys.peer(peer))
                posted = await pipeline.execute()
        return dict(zip(names, map(_report, posted), strict=True))

    async def births(self) -> int:
        """Of how many nodes, itself perhaps among them, this one knows the first birth."""
        with translated():
            count: int = await self._redis.hlen(self._keys.births)
        return count

    async def post_sending(
        self, peer: str, sending: Sending, following: Sending | None = None
    ) -> None:
        """Every worker can go on with the snapshot for `peer` from there; or from `following`, if
        the peer has got the part that leads there."""
        following = following or sending
        fields = _sending_fields(sending) | {
            f"{_FOLLOWING}{name}": value for name, value in _sending_fields(following).items()
        }
        with translated(changes=True):
            await self._redis.hset(self._keys.sending(peer), mapping=fields)

    async def end_sending(self, peer: str) -> None:
        """No snapshot for `peer` is under way."""
        with translated(changes=True):
            await self._redis.delete(self._keys.sending(peer))

    async def sending(self, peer: str) -> Sending | None:
        """The snapshot for `peer` that is under way, up to what the peer is known to have."""
        return next(iter(await self.sendings(peer)), None)

    async def sendings(self, peer: str) -> tuple[Sending, ...]:
        """From where the snapshot for `peer` can be gone on with: where the peer was known to be,
        and where it is if it has got one part more. Nothing if none is under way."""
        with translated():
            fields = await self._redis.hgetall(self._keys.sending(peer))
        if not fields:
            return ()
        text = {name.decode(): value.decode() for name, value in fields.items()}
        following = {
            name.removeprefix(_FOLLOWING): value
            for name, value in text.items()
            if name.startswith(_FOLLOWING)
        }
        return _sending(text), _sending(following)

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
        heard: Callable[[str, VectorClock], None],
        system_changed: Callable[[], Awaitable[None]],
        doubt: Callable[[], None],
    ) -> None:
        """Tell `progress` of every advance, `fault_changed` of every changed link, `heard` of what
        peers say, and `system_changed` that keys of the system were, or may have been, written; for
        ever. There is a `doubt` where Redis holds less than this worker knew."""
        keys, loop = self._keys, asyncio.get_running_loop()
        said = ""
        while True:
            try:
                with translated():
                    async with self._redis.pubsub() as channel:
                        await channel.subscribe(
                            keys.applied_channel,
                            keys.faults_channel,
                            keys.peers_channel,
                            keys.awaited_channel,
                            keys.system_channel,
                        )
                        await self._refresh(progress, doubt)
                        await system_changed()
                        if said:
                            log.info("redis available")
                            said = ""
                        refresh_at = loop.time() + _REFRESH_S
                        while True:
                            patience_s = max(0.0, refresh_at - loop.time())
                            message = await channel.get_message(timeout=patience_s)
                            if message is None:
                                await self._refresh(progress, doubt)
                                await system_changed()
                                refresh_at = loop.time() + _REFRESH_S
                            elif message["type"] == "message":
                                text = message["data"].decode()
                                match message["channel"].decode():
                                    case keys.applied_channel:
                                        progress.advance(VectorClock.parse(text))
                                        refresh_at = loop.time() + _REFRESH_S
                                    case keys.faults_channel:
                                        fault_changed(text)
                                    case keys.awaited_channel:
                                        self._await(float(text))
                                    case keys.system_channel:
                                        await system_changed()
                                    case _:
                                        peer, _, clock = text.partition(" ")
                                        heard(peer, VectorClock.parse(clock))
            except RedisUnavailable as error:
                if error.cause != said:
                    said = error.cause
                    log.warning("redis unavailable", cause=said)
                await asyncio.sleep(_REFRESH_S / 4)

    async def _refresh(self, progress: Progress, doubt: Callable[[], None]) -> None:
        known = progress.clock
        clock = codec.unpack_clock(await self._redis.hgetall(self._keys.clock))
        if not progress.learn(known, clock):
            doubt()


def _report(fields: Mapping[bytes, bytes]) -> PeerReport:
    hearsay = UNHEARD
    if b"hearsay_us" in fields:
        standing = Standing(
            VectorClock.parse(fields[b"hearsay_clock"].decode()),
            VectorClock.parse(fields[b"hearsay_received"].decode()),
        )
        hearsay = Heard(standing, int(fields[b"hearsay_us"]))
    if b"clock" not in fields:
        return PeerReport(hearsay=hearsay)
    return PeerReport(
        VectorClock.parse(fields[b"clock"].decode()),
        fields[b"error"].decode(),
        int(fields[b"last_contact_us"]),
        int(fields[b"skew_us"]),
        VectorClock.parse(fields[b"received"].decode()),
        hearsay,
    )


def _sending_fields(sending: Sending) -> dict[str, str | int]:
    fields = {**asdict(sending), "since": sending.since.entries_text()}
    fields["scanning"] = int(sending.scanning)
    return fields


def _sending(text: Mapping[str, str]) -> Sending:
    return Sending(
        text["snapshot"],
        text["run"],
        int(text["cursor"]),
        text["scanning"] == "1",
        VectorClock.parse(text["since"]),
        text["last"],
        int(text["sent"]),
        int(text["total"]),
        int(text["begun_us"]),
        int(text["heard_us"]),
    )
