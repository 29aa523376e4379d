"""Reading a node's state as a snapshot, a part at a time, while the node goes on serving.

Assumes that somebody keeps the `Sending` that it returns, and begins anew where it says that it
must. Guarantees that what was read up to the cut, where a later reading of a key replaces an
earlier one, is this node's state at the cut; and that what is read at a time has no more than
`part_max_bytes` in a part, or than was said since to be too much, unless it is a single key.

Keys are found by SCAN, and read as they are. What was written since is read from the logs, and
those keys once more: now and then while there is more to scan, so that the logs need not go back
far, and after it until little is left. Then the rest and the clock are read in one step.

Does not know who it is for.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from redis.asyncio import Redis

from app import codec
from app.bounded_read import read_about
from app.errors import LogTrimmed
from app.keys import Keys
from app.kv_store import KVStore
from app.redis_link import translated
from app.snapshot import Cut, KeyState, Sending
from app.snapshot_scripts import SnapshotScripts
from app.vector_clock import VectorClock
from app.wire import size_of
from app.write import Write

_SCAN_COUNT: Final = 256
_CUT_WRITES_MAX: Final = 128
"""Writes that are read with the cut, in one step of Redis."""
_DELTA_WRITES_MAX: Final = 512
_READ_AT_ONCE: Final = 32
"""Keys that are read in one go, which keeps Redis and this worker from everybody else: well below a
millisecond, if they are small."""


class SnapshotReader:
    """Reads the state of one node, for one purpose at a time."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        store: KVStore,
        part_max_bytes: int,
        prefix: str = "",
    ) -> None:
        """Keys that do not begin with `prefix` are read only if they are written meanwhile."""
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._scripts = SnapshotScripts(redis, keys)
        self._store = store
        self._part_max_bytes = self._room = part_max_bytes
        self._prefix = prefix
        self._left: list[str] = []  # of what was scanned last, what has not been read
        self._next_cursor = 0
        self._written: list[str] = []  # of the writes that were looked at last, the same
        self._next_since = VectorClock()

    async def begin(self, name: str, now_us: int) -> Sending:
        """Nothing is read yet, of the snapshot that is to have this name.

        Raises RedisUnavailable.
        """
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hget(self._keys.meta, "run")
                pipeline.hgetall(self._keys.clock)
                pipeline.dbsize()
                run, entries, total = await pipeline.execute()
        clock = codec.unpack_clock(entries)
        at = Sending(name, (run or b"").decode(), 0, True, clock, "", 0, total, now_us, now_us)
        self._room = self._part_max_bytes
        self.go_back(at)
        return at

    def read_less(self) -> None:
        """From now on, up to the end of this snapshot, half as much is read at a time."""
        self._room = max(1, self._room // 2)

    def go_back(self, at: Sending) -> None:
        """What was read after `at` is read again."""
        self._left, self._next_cursor = [], at.cursor
        self._written, self._next_since = [], at.since

    async def read(self, at: Sending) -> tuple[Sending, list[KeyState], Cut | None] | None:
        """What comes after `at`, and where that ends; with the last of it the cut. None: not now,
        for the node merges a snapshot itself.

        Raises LogTrimmed if it must begin anew, and RedisUnavailable.
        """
        with translated():
            merging, run = await self._redis.hmget(self._keys.meta, "merging", "run")
        if merging is not None:
            return None
        if run is None or run.decode() != at.run:
            raise LogTrimmed(at.since)  # a cursor is worth nothing in another run of Redis
        states: list[KeyState] = []
        if at.scanning and not await self._is_far_behind(at.since):
            at, states = await self._scanned(at)
        elif at.scanning:
            at, states = await self._written_since(at)
        if states or at.scanning:
            return replace(at, sent=at.sent + len(states)), states, None
        with translated():
            found = await self._scripts.read_cut(at.since, _CUT_WRITES_MAX, self._room)
        if found:
            cut, states = found
            return replace(at, sent=at.sent + len(states)), states, cut
        at, states = await self._written_since(at)
        return replace(at, sent=at.sent + len(states)), states, None

    async def _scanned(self, at: Sending) -> tuple[Sending, list[KeyState]]:
        """Some keys that were not sent yet, as they are; none at the end."""
        stem = self._keys.kv_stem
        while not self._left:
            if not at.scanning:
                return at, []
            with translated():
                self._next_cursor, found = await self._redis.scan(
                    at.cursor, match=f"{_escaped(stem + self._prefix)}*", count=_SCAN_COUNT
                )
            self._left = [name.decode().removeprefix(stem) for name in found]
            if not self._left:
                at = replace(at, cursor=self._next_cursor, scanning=self._next_cursor != 0)
        states = await self._read(self._left)
        self._left = self._left[len(states) :]
        if not self._left:
            at = replace(at, cursor=self._next_cursor, scanning=self._next_cursor != 0)
        return at, states

    async def _is_far_behind(self, since: VectorClock) -> bool:
        """Whether so much was written after that clock that the logs might soon lack some of it."""
        ahead = (await self._store.clock()).beyond(since).items()
        ends = {actor: await self._store.log.end(actor, sequence) for actor, sequence in ahead}
        return sum(max(0, end - since[a]) for a, end in ends.items()) > _DELTA_WRITES_MAX

    async def _written_since(self, at: Sending) -> tuple[Sending, list[KeyState]]:
        """Some keys of the next writes, as they are now; and up to where all of them were read."""
        if not self._written:
            self._written, self._next_since = await self._next_writes(at.since)
        states = await self._read(self._written)
        self._written = self._written[len(states) :]
        return at if self._written else replace(at, since=self._next_since), states

    async def _next_writes(self, since: VectorClock) -> tuple[list[str], VectorClock]:
        """The keys of the next writes after that clock, each once, and the clock after them. They
        are about as many as keep the log of one part."""
        names: dict[str, None] = {}
        after, most, room = since, _DELTA_WRITES_MAX, self._room
        for actor, last in (await self._store.clock()).beyond(since).items():
            end = await self._store.log.end(actor, last)
            writes = await self._read_log(actor, since[actor], min(most, end - since[actor]), room)
            for write in writes:
                names.update((operation.key, None) for operation in write.operations)
                after = after.with_dot(write.dot)
            most, room = most - len(writes), room - sum(map(size_of, writes))
        return list(names), after

    async def _read_log(self, actor: str, after: int, most: int, max_bytes: int) -> list[Write]:
        """The writes of `actor` after `after`, at most `most`, until they have `max_bytes`."""

        async def read(start: int, count: int) -> Sequence[Write]:
            return await self._store.log.after(actor, after + start, count)

        return await read_about(max_bytes, most, read, size_of)

    async def _read(self, names: Sequence[str]) -> list[KeyState]:
        """The state of the first of these keys, as many as one part holds, and at least one."""
        states: list[KeyState] = []
        room = self._room
        for start in range(0, len(names), _READ_AT_ONCE):
            chunk = names[start : start + _READ_AT_ONCE]
            with translated():
                room, more = await self._scripts.read_states(chunk, room, least=0 if states else 1)
            states += more
            if len(more) < len(chunk):
                break
        return states


def _escaped(text: str) -> str:
    """A pattern of Redis that matches just `text`."""
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in text)
