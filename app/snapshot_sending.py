"""Sending a snapshot to one peer: the parts, one at a time, each made when the one before is there.

Assumes a peer that keeps each part once and in order, and says which was its last. Guarantees that
with the last part the peer has this node's state at the cut, however much was written meanwhile;
that no more than about one part is held in memory; and that after a failure it goes on with the
part that the peer lacks, in another worker too. Only when this node's Redis was started again, or
its log was cut short meanwhile, it begins anew.

Keys are found by SCAN, and read as they are. Then what was written since is read from the logs, and
those keys once more; when little is left, the rest and the clock are read in one step.

Does not know how parts travel, nor what a peer does with them.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from redis.asyncio import Redis

from app import codec
from app.board import Board
from app.errors import LogTrimmed
from app.keys import Keys
from app.kv_store import KVStore
from app.log import get_logger
from app.redis_link import translated
from app.scripts import Scripts
from app.snapshot import Kept, KeyState, Part, Sending
from app.vector_clock import VectorClock

log = get_logger(__name__)

_SCAN_COUNT: Final = 256
_FIRST_READ: Final = 8
"""Keys read at first. They may all be of the largest size; the next read is as large as the sizes
seen so far allow."""
_CUT_WRITES_MAX: Final = 128
"""Writes that are read with the cut, in one step of Redis."""
_DELTA_WRITES_MAX: Final = 512


class SnapshotSending:
    """What a peer is sent of this node's state, one snapshot after the other."""

    def __init__(
        self,
        peer: str,
        node: str,
        redis: Redis,
        keys: Keys,
        scripts: Scripts,
        store: KVStore,
        board: Board,
        now_us: Callable[[], int],
        rng: random.Random,
        part_max_bytes: int,
    ) -> None:
        self._peer = peer
        self._node = node
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._scripts = scripts
        self._store = store
        self._board = board
        self._now_us = now_us
        self._rng = rng
        self._part_max_bytes = part_max_bytes
        self._at: Sending | None = None
        self._left: list[str] = []  # of what was scanned last, what has not been sent
        self._next_cursor = 0
        self._part: Part | None = None
        self._after_part: Sending | None = None
        self._key_bytes = 0

    async def part(self) -> Part | None:
        """The part that the peer is to be sent now, the same until it has it. None: not now.

        Raises RedisUnavailable.
        """
        if self._part is None:
            if self._at is None:
                # What the peer has of it, if anything, it will say.
                self._at = await self._resumed() or await self._begun()
                return Part(self._at.snapshot, "", "", self._at.total)
            try:
                self._part = await self._made(self._at)
            except LogTrimmed:
                log.warning("snapshot begun anew", peer=self._peer, reason="the log was cut short")
                await self.end()
        return self._part

    async def take(self, held: Kept) -> bool:
        """The peer has said what it holds. Whether it has all of the snapshot now.

        Raises RedisUnavailable.
        """
        at, part = self._at, self._part
        if at is None or held.snapshot != at.snapshot:
            # It receives another, or has begun anew.
            await self.end()
            return False
        if part is None:  # it was asked
            if held.last != at.last:
                self._left, self._next_cursor = [], at.cursor
            else:
                log.info("sending snapshot", peer=self._peer, sent=at.sent, total=at.total)
            self._at = replace(at, last=held.last)
            return False
        if held.last == part.name:
            assert self._after_part is not None
            self._at = replace(self._after_part, heard_us=self._now_us())
            self._part = None
            await self._board.post_sending(self._peer, self._at)
            if part.cut:
                log.info("snapshot sent", peer=self._peer, sent=self._at.sent)
                return True
        elif held.last != part.after:
            # A part that another worker had sent came in between. Ours is as good after that.
            self._part = replace(part, name=self._new_name(), after=held.last)
            assert self._after_part is not None
            self._after_part = replace(self._after_part, last=self._part.name)
        return False

    async def end(self) -> None:
        """No snapshot is under way."""
        if self._at is not None:
            self._at, self._part, self._left = None, None, []
            await self._board.end_sending(self._peer)

    # --- where it stands -------------------------------------------------------------------------

    async def _begun(self) -> Sending:
        run, clock, total = await self._look()
        now_us = self._now_us()
        name = f"{self._node}-{now_us:x}-{self._new_name()}"
        self._left, self._next_cursor = [], 0
        return Sending(name, run, 0, True, clock, "", 0, total, now_us, now_us)

    async def _resumed(self) -> Sending | None:
        at = await self._board.sending(self._peer)
        if at is None:
            return None
        run, _, _ = await self._look()
        self._left, self._next_cursor = [], at.cursor
        return at if at.run == run else None

    async def _look(self) -> tuple[str, VectorClock, int]:
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hget(self._keys.meta, "run")
                pipeline.hgetall(self._keys.clock)
                pipeline.dbsize()
                run, entries, size = await pipeline.execute()
        return (run or b"").decode(), codec.unpack_clock(entries), size

    def _new_name(self) -> str:
        return f"{self._rng.randrange(16**8):08x}"

    # --- parts -----------------------------------------------------------------------------------

    async def _made(self, at: Sending) -> Part | None:
        """The next part, as far as `at` goes. Raises LogTrimmed."""
        with translated():
            merging, run = await self._redis.hmget(self._keys.meta, "merging", "run")
        if merging is not None:
            return None
        if run is None or run.decode() != at.run:
            log.warning("snapshot begun anew", peer=self._peer, reason="redis was started again")
            await self.end()
            return None
        cut = None
        if at.scanning:
            at, states = await self._scanned(at)
        else:
            states = []
        if not states and not at.scanning:
            most = self._writes_at_once(_CUT_WRITES_MAX)
            if found := await self._scripts.read_cut(at.since, most):
                cut, states = found
            else:
                at, states = await self._written_since(at)
        name = self._new_name()
        part = Part(at.snapshot, name, at.last, at.total, tuple(states), cut)
        self._after_part = replace(at, last=name, sent=at.sent + len(states))
        return part

    async def _scanned(self, at: Sending) -> tuple[Sending, list[KeyState]]:
        """Some keys that were not sent yet, as they are; none at the end."""
        stem = self._keys.kv_stem
        while not self._left:
            if not at.scanning:
                return at, []
            with translated():
                self._next_cursor, found = await self._redis.scan(
                    at.cursor, match=f"{_escaped(stem)}*", count=_SCAN_COUNT
                )
            self._left = [name.decode().removeprefix(stem) for name in found]
            if not self._left:
                at = replace(at, cursor=self._next_cursor, scanning=self._next_cursor != 0)
        states = await self._read(self._left)
        self._left = self._left[len(states) :]
        if not self._left:
            at = replace(at, cursor=self._next_cursor, scanning=self._next_cursor != 0)
        return at, states

    async def _written_since(self, at: Sending) -> tuple[Sending, list[KeyState]]:
        """The keys of the next writes that were not read, and up to where that is."""
        clock = await self._store.clock()
        names: dict[str, None] = {}
        since, room = at.since, self._writes_at_once(_DELTA_WRITES_MAX)
        for actor in clock.beyond(since):
            for write in await self._store.log_after(actor, since[actor], room):
                names.update((operation.key, None) for operation in write.operations)
                since = since.with_dot(write.dot)
                room -= 1
            if room <= 0:
                break
        states: list[KeyState] = []
        while len(states) < len(names):
            states += await self._read(list(names)[len(states) :])
        return replace(at, since=since), states

    async def _read(self, names: list[str]) -> list[KeyState]:
        """The state of the first of these keys, as many as one part holds, and at least one."""
        states: list[KeyState] = []
        size, count = 0, _FIRST_READ
        while len(states) < len(names) and size < self._part_max_bytes:
            chunk = names[len(states) : len(states) + count]
            with translated():
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for name in chunk:
                        pipeline.hgetall(self._keys.kv(name))
                    held = await pipeline.execute()
            read = [codec.unpack_key_state(n, h) for n, h in zip(chunk, held, strict=True)]
            states += read
            size += sum(map(_size, read))
            self._key_bytes = max(1, size // len(states))
            count = 1 + (self._part_max_bytes - size) // self._key_bytes
        return states

    def _writes_at_once(self, most: int) -> int:
        """How many writes to read, at most `most`, so that their keys make about one part."""
        return max(1, min(most, self._part_max_bytes // max(1, self._key_bytes)))


def _size(state: KeyState) -> int:
    """About how many bytes `state` takes in a part."""
    return 64 + len(state.key) + sum(64 + len(version.value) for version in state.versions)


def _escaped(text: str) -> str:
    """A pattern of Redis that matches just `text`."""
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in text)
