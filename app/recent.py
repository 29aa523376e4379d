"""The newest writes of the logs, kept by a worker, so that many who are told the same read it once,
and what the worker has committed itself is not read at all.

Assumes that a dot names one write, for ever (G4): so what was read once, or committed, needs no
second look. Guarantees that what it gives is what the log says, or said; that of those who want the
same at once one reads it; and that it keeps no more than `KEPT_MAX` writes of each actor, nor more
than take 1 MiB (`wire.size_of`), nor than a log may, and none of an actor of which nobody wants to
know.

Does not know who reads, nor in which order.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.wire import size_of
from app.write import Write
from app.write_log import WriteLog

KEPT_MAX: Final = 256
_KEPT_MAX_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class _Kept:
    """The newest writes of one actor, without a gap, and how many bytes they take."""

    most: int
    writes: list[Write] = field(default_factory=list)
    size: int = 0

    def after(self, sequence: int, count: int) -> Sequence[Write]:
        """At most `count` after this one, as far as they are kept."""
        start = sequence + 1 - self.writes[0].dot.sequence if self.writes else 0
        return self.writes[start : start + count] if start >= 0 else []

    def keep(self, writes: Sequence[Write], *, instead: bool) -> None:
        """These are kept, which are in order, as far as they follow what is. If they don't, they
        take the place of that, or are not kept."""
        if self.writes and writes:
            known = self.writes[-1].dot.sequence + 1 - writes[0].dot.sequence
            if known >= 0:
                writes = writes[known:]
            elif instead:
                self.writes, self.size = [], 0
            else:
                return
        writes = writes[-self.most :]
        self.writes += writes
        self.size += sum(map(size_of, writes))
        while len(self.writes) > self.most or (self.writes and self.size > _KEPT_MAX_BYTES):
            self.size -= size_of(self.writes.pop(0))


class RecentWrites:
    """The newest writes of one node, as far as somebody wants to know them."""

    def __init__(self, log: WriteLog, log_max: int = KEPT_MAX) -> None:
        """`log` holds at most `log_max` writes of an actor that somebody lacks."""
        self._log = log
        most = min(log_max, KEPT_MAX)
        self._kept: defaultdict[str, _Kept] = defaultdict(lambda: _Kept(most))
        self._reading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def committed(self, actor: str, writes: Iterable[Write]) -> None:
        """The log of `actor` has these, in order, as of now; others may have been between."""
        if actor in self._kept:  # else they are not even made
            self._kept[actor].keep(list(writes), instead=False)

    async def after(self, actor: str, sequence: int, count: int) -> Sequence[Write]:
        """As `WriteLog.after`; perhaps fewer, if some that follow were not kept."""
        kept = self._kept[actor]
        if kept.writes and sequence + 1 < kept.writes[0].dot.sequence:
            # Further back: that is of no use to those who are told the newest.
            return await self._log.after(actor, sequence, count)
        if found := kept.after(sequence, count):
            return found
        async with self._reading[actor]:
            if found := kept.after(sequence, count):
                return found  # somebody else has read it meanwhile
            writes = await self._log.after(actor, sequence, count)
            kept.keep(writes, instead=True)
            return writes
