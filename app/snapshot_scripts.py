"""The atomic rules of snapshots: one Lua script each, one typed method each.

Assumes the scripts' headers say what they do: read those first. Guarantees that Redis is handed
each script's arguments in the order of its header, and that replies come back as values.

Does not know when a snapshot is needed, nor how it travels.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from redis.asyncio import Redis

from app import codec
from app.errors import ForeignBackup, LogTrimmed
from app.keys import Keys
from app.scripts import source
from app.snapshot import Cut, Kept, KeyState, Part
from app.vector_clock import Dot, VectorClock


class SnapshotScripts:
    """The scripts, bound to one Redis and its key names."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._keys = keys
        self._read_states = redis.register_script(source("read_states"))
        self._read_cut = redis.register_script(source("read_cut"))
        self._stage_part = redis.register_script(source("stage_part"))
        self._merge_keys = redis.register_script(source("merge_keys"))
        self._give_up_snapshot = redis.register_script(source("give_up_snapshot"))
        self._finish_merge = redis.register_script(source("finish_merge"))

    async def read_states(
        self, names: Sequence[str], room: int, least: int
    ) -> tuple[int, list[KeyState]]:
        """The states of the first of these keys, as many as take no more than `room` bytes in a
        part, and `least` in any case (`lua/read_states.lua`); before them, what room is left."""
        reply: list[Any] = await self._read_states(
            keys=[self._keys.kv(name) for name in names], args=[room, least]
        )
        room, *held = reply
        return room, [_state(name, flat) for name, flat in zip(names, held, strict=False)]

    async def read_cut(
        self, since: VectorClock, most_writes: int, most_bytes: int
    ) -> tuple[Cut, list[KeyState]] | None:
        """The keys written since that clock, and the cut at which they are so
        (`lua/read_cut.lua`). None: more than `most_writes` writes, or than `most_bytes` in a part,
        unless it is one key; or not now.

        Raises LogTrimmed.
        """
        keys = self._keys
        reply: list[Any] = await self._read_cut(
            keys=[keys.clock, keys.meta, keys.deletes],
            args=[since.entries_text(), keys.kv_stem, keys.log_stem, most_writes, most_bytes],
        )
        if not reply:
            return None
        if len(reply) == 1:
            raise LogTrimmed(since)
        clock, deletes, timestamp, *held = reply
        cut = Cut(
            VectorClock.parse(clock.decode()), VectorClock.parse(deletes.decode()), int(timestamp)
        )
        pairs = zip(held[::2], held[1::2], strict=True)
        return cut, [_state(key.decode(), flat) for key, flat in pairs]

    async def stage_part(
        self, node: str, source: str, part: Part, now_us: int, patience_us: int
    ) -> Kept | Dot | None:
        """Keep a part of a snapshot (`lua/stage_part.lua`). None: Redis is not the node's. A dot:
        a write of the node's own actor that Redis has lost; nothing was changed.

        Raises ForeignBackup.
        """
        keys, cut = self._keys, part.cut
        args: list[str | int | bytes] = [
            node,
            part.snapshot,
            source,
            part.name,
            part.after,
            part.total,
            now_us,
            patience_us,
            "-" if cut is None else cut.clock.entries_text(),
            "" if cut is None else cut.deletes.entries_text(),
            0 if cut is None else cut.timestamp,
            keys.staged_stem(part.snapshot),
            len(part.births),
            *chain.from_iterable(part.births),
        ]
        for state in part.keys:
            fields = codec.pack_key_state(state)
            args += (state.key, len(fields) // 2, *fields)
        reply: list[Any] = await self._stage_part(
            keys=[
                keys.meta,
                keys.snapshot,
                keys.staging,
                keys.clock,
                keys.snapshots_begun,
                keys.births,
            ],
            args=args,
        )
        if not reply:
            return None
        if len(reply) == 1:
            raise ForeignBackup(reply[0].decode(), "whose writes are here")
        if len(reply) == 3:
            return Dot(reply[0].decode(), int(reply[1]))
        return Kept(reply[0].decode(), reply[1].decode())

    async def merge_keys(self, snapshot: str, names: Sequence[str], *, staged: bool) -> bool:
        """Merge those of the keys that are staged, or those that are not (`lua/merge_keys.lua`).
        False: that snapshot is not being merged."""
        keys = self._keys
        reply = await self._merge_keys(
            keys=[
                keys.meta,
                keys.snapshot,
                keys.deletes,
                keys.keys,
                keys.conflicts,
                keys.system,
                keys.expiring,
            ],
            args=[snapshot, keys.kv_stem, keys.staged_stem(snapshot), int(staged), *names],
        )
        return bool(reply)

    async def give_up_snapshot(self, snapshot: str, since_us: int | None = None) -> bool:
        """Stop receiving that snapshot, if it has not come on since then
        (`lua/give_up_snapshot.lua`): whether it was received."""
        keys = self._keys
        reply = await self._give_up_snapshot(
            keys=[keys.meta, keys.snapshot],
            args=[snapshot, "" if since_us is None else since_us],
        )
        return bool(reply)

    async def finish_merge(self, snapshot: str) -> VectorClock:
        """End a merge (`lua/finish_merge.lua`): the clock after it. Empty: that snapshot is not
        being merged."""
        keys = self._keys
        reply: bytes = await self._finish_merge(
            keys=[
                keys.clock,
                keys.meta,
                keys.deletes,
                keys.received,
                keys.snapshot,
                keys.staging,
            ],
            args=[
                snapshot,
                keys.log_stem,
                keys.pending_stem,
                keys.applied_channel,
                keys.system_channel,
            ],
        )
        return VectorClock.parse(reply.decode())


def _state(key: str, flat: Sequence[bytes]) -> KeyState:
    return codec.unpack_key_state(key, dict(zip(flat[::2], flat[1::2], strict=True)))
