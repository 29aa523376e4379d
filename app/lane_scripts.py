"""The atomic rules of deferred writes: one Lua script each, one typed method each.

Assumes the scripts' headers say what they do: read those first. Guarantees that Redis is handed
each script's arguments in the order of its header, and that replies come back as values.

Does not know when a write is deferred, nor when it is due.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from app import codec, scripts
from app.commits import Accepted, Committed, Reused
from app.errors import Syncing
from app.incarnation import lane_of
from app.keys import Keys, committing
from app.scripts import source
from app.vector_clock import VectorClock
from app.write import Operation


@dataclass(frozen=True, slots=True)
class Full:
    """Nothing was done: as many deferred writes wait as may."""


@dataclass(frozen=True, slots=True)
class Due:
    """How many deferred writes were committed, whether more can be now, and the clock after it;
    what the next one that waits lacks, and the lanes of earlier incarnations in which some wait."""

    committed: int
    more: bool
    clock: VectorClock
    lacks: VectorClock
    former: tuple[str, ...]


class LaneScripts:
    """The scripts, bound to one Redis and its key names."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._keys = keys
        self._accept_deferred = redis.register_script(source("accept_deferred"))
        self._commit_deferred = redis.register_script(source("commit_deferred"))
        self._commit_former = redis.register_script(source("commit_former"))

    async def accept_deferred(
        self,
        actor: str,
        operations: Sequence[Operation],
        context: VectorClock,
        now_us: int,
        known: int = 0,
        most: int = 2**30,
        most_bytes: int = 2**40,
        request: str = "",
        requests_max: int = 1,
    ) -> Accepted | Committed | Full | Reused | None:
        """Accept a write that is committed once `context` is covered (`lua/accept_deferred.lua`);
        once for each `request`. None: Redis is not the actor's, or no longer knows that its lane
        gave the sequence `known`.

        Raises Syncing.
        """
        keys, lane = self._keys, lane_of(actor)
        reply: list[Any] = await self._accept_deferred(
            keys=[
                keys.clock,
                keys.meta,
                keys.deferred,
                keys.lane(lane),
                keys.requests,
                keys.requests_order,
            ],
            args=[
                actor,
                lane,
                now_us,
                context.entries_text(),
                codec.pack_operations(operations),
                known,
                keys.lane_stem,
                most,
                most_bytes,
                request,
                codec.fingerprint(operations, ()) if request else "",
                requests_max,
            ],
        )
        if not reply:
            return None
        if reply[0] == b"merging":
            raise Syncing
        if reply[0] == b"full":
            return Full()
        if reply[0] == b"reused":
            return Reused()
        return scripts.accepted(reply) if reply[0] == b"accepted" else _committed(reply)

    async def commit_deferred(
        self, actor: str, now_us: int, drain_max: int, known: int = 0
    ) -> Due | None:
        """Commit the deferred writes whose context is covered (`lua/commit_deferred.lua`), at most
        `drain_max`. None: Redis is not the actor's, or no longer has the write `known` of its lane.

        Raises Syncing.
        """
        keys, lane = self._keys, lane_of(actor)
        reply: list[Any] = await self._commit_deferred(
            keys=[
                *committing(keys, lane),
                keys.deferred,
                keys.lane(lane),
                keys.requests,
            ],
            args=[
                actor,
                lane,
                now_us,
                keys.kv_stem,
                keys.lane_stem,
                keys.applied_channel,
                keys.system_channel,
                drain_max,
                known,
            ],
        )
        if not reply:
            return None
        if len(reply) == 1:
            raise Syncing
        committed, more, clock, lacks, former = reply
        return Due(
            int(committed),
            bool(more),
            VectorClock.parse(clock.decode()),
            VectorClock.parse(lacks.decode()),
            tuple(former.decode().split()),
        )

    async def commit_former(
        self, actor: str, lane: str, after: int, now_us: int, known: int
    ) -> tuple[bool, VectorClock] | None:
        """Commit, as `actor`, what comes next in the lane of an earlier incarnation, of which no
        member has more than the sequence `after` (`lua/commit_former.lua`): whether it could be
        now, and the clock then. None: Redis is not the actor's, or no longer has its write `known`.

        Raises Syncing.
        """
        keys = self._keys
        reply: list[Any] = await self._commit_former(
            keys=[
                *committing(keys, actor),
                keys.deferred,
                keys.lane(lane),
                keys.requests,
            ],
            args=[
                actor,
                lane,
                after,
                now_us,
                keys.kv_stem,
                keys.applied_channel,
                keys.system_channel,
                known,
            ],
        )
        if not reply:
            return None
        if len(reply) == 1:
            raise Syncing
        return bool(reply[0]), VectorClock.parse(reply[1].decode())


def _committed(reply: Sequence[Any]) -> Committed:
    """What the script says of a write that was done before."""
    dot, timestamp, clock, replayed = reply[1:]
    done = codec.unpack_dot(dot)
    return Committed(done, int(timestamp), VectorClock.parse(clock.decode()), (), bool(replayed))
