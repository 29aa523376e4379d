"""What stood in the nodes' logs while the run lasted, for the nodes trim them.

What it is: `Logbook`, every write that was seen in some log, by its dot; and `LogReader`, which
reads what is new in the logs of one node, again and again.

What it assumes and guarantees: an entry stays in the log of the node that wrote it for longer than
two readings are apart (`LOG_MIN_ENTRIES` of the plan), and who takes a disk away reads its logs
once more before that, so that every write which lasts is in the book. The same dot with other
content, in whichever log and at whatever time, is a conflict and stays one. A Redis that does not
answer is asked again the next time; it is only read, and nobody waits for that.

What it does not know: which writes there should be. That the book has no gaps is checked at the end
(final.py).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tests.contents import Contents, LoggedWrite, sequence_of, writes_of

PERIOD_S = 0.3
#: A Redis that is stopped is silent. A busy machine may be, too.
_PATIENCE_S = 3.0

Fields = Mapping[bytes, bytes]


class Logbook:
    """Every write that was seen in a log."""

    def __init__(self) -> None:
        #: By dot, as a log holds it.
        self.entries: dict[str, Fields] = {}
        self._first_seen_at: dict[str, str] = {}
        #: How often a write was seen that had been seen in another node's log.
        self.compared = 0
        self._conflicts: dict[str, None] = {}

    @property
    def conflicts(self) -> list[str]:
        """The dots under which logs had different writes, each with where that was seen."""
        return list(self._conflicts)

    def note(self, node: str, logs: Contents) -> None:
        """This stood in the logs of the node."""
        self.__dict__.pop("writes", None)
        for key, log in logs.items():
            actor = key.partition(":")[2]
            for entry_id, fields in log:
                dot = f"{actor}:{sequence_of(entry_id)}"
                known = self.entries.setdefault(dot, fields)
                first = self._first_seen_at.setdefault(dot, node)
                self.compared += node != first
                if fields != known:
                    what = f"{dot} is another write in the log of {node} than in that of {first}"
                    self._conflicts[what] = None

    def has(self, key: str, entry: tuple[bytes, Fields]) -> bool:
        """Whether this entry of the log under `key` is as it was first seen."""
        dot = f"{key.partition(':')[2]}:{sequence_of(entry[0])}"
        return self.entries.get(dot) == entry[1]

    @cached_property
    def writes(self) -> Mapping[str, LoggedWrite]:
        """All writes, by dot."""
        logs: Contents = {}
        for dot, fields in self.entries.items():
            actor, _, sequence = dot.rpartition(":")
            logs.setdefault(f"log:{actor}", []).append((f"{sequence}-0".encode(), fields))
        return {write.dot: write for write in writes_of(logs)}


class LogReader:
    """Reads the logs of one node into the book."""

    def __init__(self, book: Logbook, node: str, socket: Path) -> None:
        self._book = book
        self._node = node
        self._socket = socket
        self._run = ""
        #: Per log the last entry that was read in this run of Redis.
        self._last: dict[str, str] = {}

    async def keep(self) -> None:
        """What is new is in the book every `PERIOD_S`, for ever."""
        while True:
            with contextlib.suppress(RedisError, OSError):
                await self.read_on()
            await asyncio.sleep(PERIOD_S)

    async def read_on(self) -> None:
        """What is new is in the book every `PERIOD_S`, until that fails: RedisError, OSError.

        Over one connection: to make one takes longer than to read.
        """
        async with self._connected() as redis:
            while True:
                await self._read(redis)
                await asyncio.sleep(PERIOD_S)

    async def read(self) -> None:
        """What is new is in the book. Raises RedisError, OSError."""
        async with self._connected() as redis:
            await self._read(redis)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[Redis]:
        connection = Redis(
            unix_socket_path=str(self._socket),
            single_connection_client=True,
            retry=Retry(NoBackoff(), 0),
            # Its own timeout is one with asyncio.wait_for, which until Python 3.12 forgets a
            # cancellation that comes just when it is done (python/cpython#86296).
            socket_timeout=None,
        )
        async with contextlib.aclosing(connection) as redis:
            yield redis

    async def _read(self, redis: Redis) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            async with redis.pipeline() as pipeline:
                pipeline.info("server")
                pipeline.hkeys("clock")
                about, actors = await pipeline.execute()
                if about["run_id"] != self._run:
                    # It may hold other data, and so other writes under the names that were read.
                    self._run, self._last = about["run_id"], {}
                keys = [f"log:{actor.decode()}" for actor in actors]
                for key in keys:
                    pipeline.xrange(key, min=f"({last}" if (last := self._last.get(key)) else "-")
                new = dict(zip(keys, await pipeline.execute(), strict=True))
        self._book.note(self._node, new)
        self._last |= {key: entries[-1][0].decode() for key, entries in new.items() if entries}
