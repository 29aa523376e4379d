"""The atomic rules: one Lua script each, one typed method each.

Assumes the scripts' headers say what they do: read those first. Guarantees that Redis is handed
each script's arguments in the order of its header, and that replies come back as values.

Does not know why a rule is applied, nor what to do when Redis fails.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from app import codec
from app.incarnation import Remembered, Settled
from app.keys import Keys
from app.vector_clock import Dot, VectorClock
from app.write import Operation, Write

LUA: Final = Path(__file__).parent / "lua"
_INCLUDE: Final = re.compile(r"^--@include (\w+)$", re.MULTILINE)


@cache
def source(name: str) -> str:
    """The text of `lua/NAME.lua` with its includes (`lua/NAME.inc.lua`) put in."""
    text = (LUA / f"{name}.lua").read_text()
    return _INCLUDE.sub(lambda match: (LUA / f"{match[1]}.inc.lua").read_text(), text)


@dataclass(frozen=True, slots=True)
class Committed:
    """A local write that is done: its name, its time, and the clock after it."""

    dot: Dot
    timestamp: int
    clock: VectorClock


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a batch, and where the node stands after it.

    Each write of the batch is in one of the first four counts. `drained` counts writes that had
    waited and were applied; `more` says that others can be. `received` holds, for each actor with
    waiting writes, the highest sequence received without a gap. `missing` names what waiting
    writes wait for.
    """

    applied: int
    duplicate: int
    pending: int
    refused: int
    drained: int
    more: bool
    clock: VectorClock
    received: VectorClock
    missing: VectorClock


class Scripts:
    """The scripts, bound to one Redis and its key names."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._keys = keys
        self._commit_write = redis.register_script(source("commit_write"))
        self._receive_writes = redis.register_script(source("receive_writes"))
        self._claim_node = redis.register_script(source("claim_node"))
        self._settle_actor = redis.register_script(source("settle_actor"))
        self._note_removal = redis.register_script(source("note_removal"))
        self._hold_lease = redis.register_script(source("hold_lease"))
        self._release_lease = redis.register_script(source("release_lease"))

    async def commit_write(
        self, actor: str, operations: Sequence[Operation], now_us: int, known: int = 0
    ) -> Committed | None:
        """Commit a local write (`lua/commit_write.lua`). None: Redis is not the actor's, or no
        longer has its write `known`."""
        keys = self._keys
        reply: list[Any] = await self._commit_write(
            keys=[
                keys.clock,
                keys.meta,
                keys.deletes,
                keys.log(actor),
                keys.system,
                *(keys.kv(operation.key) for operation in operations),
            ],
            args=[
                actor,
                now_us,
                codec.pack_operations(operations),
                keys.applied_channel,
                known,
                keys.system_channel,
            ],
        )
        if not reply:
            return None
        sequence, timestamp, clock = reply
        return Committed(
            Dot(actor, int(sequence)), int(timestamp), VectorClock.parse(clock.decode())
        )

    async def receive_writes(
        self, node: str, writes: Sequence[Write], now_us: int, pending_max: int, drain_max: int
    ) -> Received | Dot | None:
        """Receive a batch (`lua/receive_writes.lua`). None: Redis is not the node's. A dot: a
        write of the node's own actor that Redis has lost; nothing was changed."""
        keys = self._keys
        args: list[str | int | bytes] = [
            node,
            keys.kv_stem,
            keys.log_stem,
            keys.pending_stem,
            keys.applied_channel,
            pending_max,
            drain_max,
            now_us,
            keys.system_channel,
        ]
        for write in writes:
            args += (
                write.dot.actor,
                write.dot.sequence,
                write.timestamp,
                write.dependencies.entries_text(),
                codec.pack_operations(write.operations),
            )
        reply: list[Any] = await self._receive_writes(
            keys=[keys.clock, keys.meta, keys.deletes, keys.received, keys.system], args=args
        )
        if not reply:
            return None
        if len(reply) == 2:
            return Dot(reply[0].decode(), int(reply[1]))
        applied, duplicate, pending, refused, drained, more = map(int, reply[:6])
        clock, received, missing = (VectorClock.parse(text.decode()) for text in reply[6:])
        return Received(
            applied, duplicate, pending, refused, drained, bool(more), clock, received, missing
        )

    async def claim_node(self, node: str, layout: int, birth: str) -> dict[str, str]:
        """Claim an empty Redis for `node` (`lua/claim_node.lua`); its `meta` afterwards.

        Empty if it holds data that is not ours: nothing was changed then.
        """
        keys = self._keys
        reply: list[Any] = await self._claim_node(
            keys=[keys.meta, keys.births],
            args=[node, layout, birth, keys.lease_stem, keys.peer_stem],
        )
        fields = [item.decode() for item in reply]
        return dict(zip(fields[::2], fields[1::2], strict=True))

    async def settle_actor(
        self,
        node: str,
        before: Remembered,
        settled: Settled,
        run: str,
        now_us: int,
        joining: VectorClock = VectorClock(),  # noqa: B008 (immutable)
    ) -> bool:
        """Say who writes in this run of Redis (`lua/settle_actor.lua`). False: look again."""
        reply = await self._settle_actor(
            keys=[self._keys.meta],
            args=[
                node,
                before.actor,
                before.run,
                settled.actor,
                run,
                settled.reason,
                now_us,
                joining.entries_text(),
            ],
        )
        return bool(reply)

    async def note_removal(self, node: str, removed: Dot | None) -> bool:
        """Note that `node` was told of its removal, or that it holds no more
        (`lua/note_removal.lua`). False: Redis is not the node's."""
        reply = await self._note_removal(
            keys=[self._keys.meta], args=[node, str(removed or ""), self._keys.system_channel]
        )
        return bool(reply)

    async def hold_lease(self, peer: str, holder: str, ttl_ms: int) -> bool:
        """Take or keep the lease on sending to `peer`: whether `holder` has it now."""
        reply = await self._hold_lease(keys=[self._keys.lease(peer)], args=[holder, ttl_ms])
        return bool(reply)

    async def release_lease(self, peer: str, holder: str) -> None:
        """Let another worker have the lease at once, if `holder` has it."""
        await self._release_lease(keys=[self._keys.lease(peer)], args=[holder])
