"""The log of a node in Redis: every write applied here, per actor, but for what was trimmed.

Assumes that the scripts which apply writes log them in the same step. Guarantees that what is read
of an actor is without a gap, or that it is said that the log does not go back so far.

Does not know who reads it, nor what may be trimmed (`trimming.py`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from app import codec
from app.errors import LogTrimmed
from app.identity import Identity
from app.keys import Keys, end_key
from app.redis_link import translated
from app.settled import in_a_settled_run
from app.vector_clock import SEQUENCE_MAX, Dot
from app.write import Write

_TRIMMED_AT_ONCE: Final = 10_000


@dataclass(frozen=True, slots=True)
class LogSize:
    """How many writes a log holds, and about how many bytes of Redis' memory."""

    entries: int
    bytes: int


class WriteLog:
    """The writes that were applied at one node."""

    def __init__(self, redis: Redis, keys: Keys, identity: Identity) -> None:
        """`redis` uses connections to runs of Redis that `identity` admits."""
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self.identity = identity

    @in_a_settled_run
    async def after(self, actor: str, sequence: int, count: int) -> list[Write]:
        """The writes of `actor` after `sequence`, in order, at most `count`; the first of them is
        covered by the clock here. None, if all that follows was declared lost.

        Raises RedisUnavailable; LogTrimmed if the log does not go back that far.
        """
        with translated():
            entries: list[Any] = await self._redis.xrange(
                self._keys.log(actor), min=f"{sequence + 1}-0", count=count
            )
        writes = codec.unpack_log_entries(actor, entries)
        if not writes and sequence >= await self.end(actor, SEQUENCE_MAX):
            return []
        if not writes or writes[0].dot.sequence != sequence + 1:
            raise LogTrimmed(Dot(actor, sequence + 1))
        return writes

    async def begin(self, actor: str) -> int | None:
        """The first sequence in the log of `actor`; None if there is none in it.

        Raises RedisUnavailable.
        """
        with translated():
            entries: list[Any] = await self._redis.xrange(self._keys.log(actor), count=1)
        return int(entries[0][0].partition(b"-")[0]) if entries else None

    async def end(self, actor: str, sequence: int) -> int:
        """Up to where the log of `actor` goes, which has this entry in the clock.

        Twin of `log_end` in lua/ends.inc.lua. Raises RedisUnavailable.
        """
        if sequence < SEQUENCE_MAX:
            return sequence
        with translated():
            fields = await self._redis.hgetall(self._keys.kv(end_key(actor)))
        values = [version.value for version in codec.unpack_versions(fields)]
        ends = [int(value) for value in values if value.isdigit()]
        return min(ends, default=SEQUENCE_MAX)

    async def sizes(self, actors: Iterable[str]) -> dict[str, LogSize]:
        """How large the logs of these actors are.

        Raises RedisUnavailable.
        """
        actors = list(actors)
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for actor in actors:
                    pipeline.xlen(self._keys.log(actor))
                    pipeline.memory_usage(self._keys.log(actor))
                sizes: list[Any] = await pipeline.execute()
        found = zip(actors, sizes[::2], sizes[1::2], strict=True)
        return {actor: LogSize(entries, size or 0) for actor, entries, size in found}

    async def trim(self, actor: str, through: int, first: int) -> None:
        """The log of `actor`, which begins at `first`, goes on after `through`.

        In steps, so that Redis is not busy for long. Raises RedisUnavailable.
        """
        while first <= through:
            first = min(first + _TRIMMED_AT_ONCE, through + 1)
            with translated(changes=True):
                await self._redis.xtrim(
                    self._keys.log(actor), minid=f"{first}-0", approximate=False
                )

    @in_a_settled_run
    async def before(self, actor: str, sequence: int, count: int) -> list[Write]:
        """The writes of `actor` before `sequence` that are in the log here, newest first, at most
        `count`.

        Raises RedisUnavailable.
        """
        with translated():
            entries: list[Any] = await self._redis.xrevrange(
                self._keys.log(actor), max=f"({sequence}-0", count=count
            )
        return codec.unpack_log_entries(actor, reversed(entries))[::-1]
