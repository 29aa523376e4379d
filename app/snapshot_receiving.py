"""Receiving a snapshot: its parts are staged, and merged with what is here once all are there.

Assumes a sender that cuts its snapshot as `snapshot.py` says. Guarantees that the node serves its
own state while parts come in, which may take hours; that it serves nothing while keys are merged,
which nobody far away can delay; and that a merge that was begun is finished, by whichever worker
lives (a lease), so that no state is ever half merged to a reader. Nothing stays of what will not be
whole.

Does not know how parts travel.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from app.board import MERGE, Board
from app.buffer import PendingBuffer
from app.errors import RedisUnavailable, Syncing
from app.identity import NOT_OURS, Identity
from app.keys import Keys
from app.log import get_logger
from app.patience import LONGEST_S
from app.progress import Progress
from app.redis_link import translated
from app.snapshot import Kept, Part
from app.snapshot_scripts import SnapshotScripts
from app.vector_clock import Dot, VectorClock

log = get_logger(__name__)

_PATIENCE_US: Final = 15_000_000
"""A sender that is silent for so long gives way to another, which has twice as long then."""
_SILENCE_MAX_US: Final = int(LONGEST_S * 1_000_000)
"""A sender that is silent for so long is not waited for any more: what is staged takes memory that
nobody may ever need. If it comes back, it begins anew."""
_LOOK_EVERY_S: Final = 1.0
KEYS_AT_ONCE = 128
"""Keys that are merged in one step of Redis."""


@dataclass(frozen=True, slots=True)
class Receiving:
    """A snapshot that is being received: from whom, how many keys of about how many are staged,
    how many are merged, and since when, in microseconds since 1970."""

    snapshot: str
    source: str
    keys: int
    total: int
    merged: int
    is_merging: bool
    begun_us: int


class SnapshotReceiving:
    """What peers send of their state, of one node."""

    def __init__(
        self,
        node: str,
        redis: Redis,
        keys: Keys,
        board: Board,
        buffer: PendingBuffer,
        progress: Progress,
        identity: Identity,
        now_us: Callable[[], int],
        lease_ms: int,
    ) -> None:
        self._node = node
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._scripts = SnapshotScripts(redis, keys)
        self._board = board
        self._buffer = buffer
        self._progress = progress
        self._identity = identity
        self._now_us = now_us
        self._lease_ms = lease_ms
        self._complete = asyncio.Event()

    async def take(self, source: str, part: Part) -> Kept:
        """The part is kept, if it is the next of the snapshot that is being received; which
        snapshot that is, and its last part.

        Raises ForeignBackup, RedisUnavailable.
        """
        with translated(changes=True):
            held = await self._scripts.stage_part(
                self._node, source, part, self._now_us(), _PATIENCE_US
            )
        if isinstance(held, Dot):
            self._identity.witness(VectorClock([held]))
            self._identity.doubt()  # for this worker may have known the write, and not that it went
            raise RedisUnavailable(
                f"it has lost {held}, a write of this node's own, so the node takes another name "
                "first; send the part again"
            )
        if held is None:
            self._identity.doubt()
            raise RedisUnavailable(NOT_OURS)
        if part.cut and held == Kept(part.snapshot, part.name):
            self._complete.set()
        return held

    async def give_up(self, snapshot: str) -> None:
        """That snapshot is not received any more, unless it is being merged.

        Raises RedisUnavailable.
        """
        with translated(changes=True):
            await self._scripts.give_up_snapshot(snapshot)

    async def state(self) -> Receiving | None:
        """The snapshot that is being received, if one is."""
        with translated():
            fields = await self._redis.hgetall(self._keys.snapshot)
        if not fields:
            return None
        return Receiving(
            fields[b"id"].decode(),
            fields[b"source"].decode(),
            int(fields[b"keys"]),
            int(fields[b"total"]),
            int(fields.get(b"merged", 0)),
            b"clock" in fields,
            int(fields[b"begun"]),
        )

    async def keep(self) -> None:
        """What is complete is merged, and what was given up is removed, for ever."""
        while True:
            self._complete.clear()
            # The listener on the board says so, once; or there is the next already.
            with suppress(RedisUnavailable, Syncing):
                await self.tidy()
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._complete.wait()
            except TimeoutError:
                pass

    async def tidy(self) -> None:
        """What is complete is merged, and what was given up is removed, by one worker.

        Raises RedisUnavailable, Syncing.
        """
        with translated():
            merging = await self._redis.hget(self._keys.meta, "merging")
            staging = await self._redis.smembers(self._keys.staging)
        if staging and await self._board.hold_lease(MERGE, self._lease_ms):
            if merging is not None:
                await self._merge(merging.decode())
            await self._give_up_silent()
            await self._remove_given_up(staging)
            await self._board.release_lease(MERGE)

    async def _merge(self, snapshot: str) -> None:
        """The snapshot is merged with what is here: its cut is covered."""
        state = await self.state()
        log.info("merging snapshot", source=state and state.source, keys=state and state.keys)
        async for names in self._scan(self._keys.kv_stem):
            await self._merge_keys(snapshot, names, staged=False)
        async for names in self._scan(self._keys.staged_stem(snapshot)):
            await self._merge_keys(snapshot, names, staged=True)
        with translated(changes=True):
            clock = await self._scripts.finish_merge(snapshot)
        self._progress.advance(clock)
        await self._buffer.sweep()
        log.info("snapshot merged", source=state and state.source, clock=str(clock))

    async def _merge_keys(self, snapshot: str, names: list[str], *, staged: bool) -> None:
        await self._board.hold_lease(MERGE, self._lease_ms)
        for first in range(0, len(names), KEYS_AT_ONCE):
            chunk = names[first : first + KEYS_AT_ONCE]
            with translated(changes=True):
                await self._scripts.merge_keys(snapshot, chunk, staged=staged)

    async def _give_up_silent(self) -> None:
        """No snapshot is received whose sender has been silent for too long."""
        if current := await self.state():
            since_us = self._now_us() - _SILENCE_MAX_US
            with translated(changes=True):
                is_given_up = await self._scripts.give_up_snapshot(current.snapshot, since_us)
            if is_given_up:
                log.warning("snapshot given up", source=current.source, keys=current.keys)

    async def _remove_given_up(self, staging: set[bytes]) -> None:
        """Nothing is staged of a snapshot that nobody goes on with."""
        current = await self.state()
        for name in sorted(name.decode() for name in staging):
            if current is None or current.snapshot != name:
                stem = self._keys.staged_stem(name)
                async for names in self._scan(stem):
                    with translated(changes=True):
                        await self._redis.unlink(*(stem + key for key in names))
                with translated(changes=True):
                    await self._redis.srem(self._keys.staging, name)

    async def _scan(self, stem: str) -> AsyncIterator[list[str]]:
        """The rests of all names that begin with `stem`, some at a time; some perhaps twice."""
        cursor = None
        while cursor != 0:
            with translated():
                cursor, found = await self._redis.scan(
                    cursor or 0, match=f"{stem}*", count=4 * KEYS_AT_ONCE
                )
            if found:
                yield [name.decode().removeprefix(stem) for name in found]
