"""The newest writes of the logs, kept by a worker, so that many who are told the same read it once.

Assumes that a dot names one write, for ever (G4): so what was read once needs no second look.
Guarantees that what it gives is what the log says, or said; that of those who want the same at once
one reads it; and that it keeps 64 writes of each actor at most, and as few as hold 1 MiB.

Does not know who reads, nor in which order.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from app.write import Put, Write
from app.write_log import WriteLog

_KEPT_MAX: Final = 64
_KEPT_MAX_BYTES: Final = 1024 * 1024


class RecentWrites:
    """The newest writes of one node, as far as somebody has read them."""

    def __init__(self, log: WriteLog) -> None:
        self._log = log
        self._kept: defaultdict[str, list[Write]] = defaultdict(list)
        self._reading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def after(self, actor: str, sequence: int, count: int) -> Sequence[Write]:
        """As `WriteLog.after`."""
        if self._is_further_back(actor, sequence):
            return await self._log.after(actor, sequence, count)
        if found := self._found(actor, sequence, count):
            return found
        async with self._reading[actor]:
            if found := self._found(actor, sequence, count):
                return found  # somebody else has read it meanwhile
            writes = await self._log.after(actor, sequence, count)
            self._keep(actor, writes)
            return writes

    def _is_further_back(self, actor: str, sequence: int) -> bool:
        """Whether what comes next was of no use to those who are told the newest."""
        kept = self._kept[actor]
        return bool(kept) and sequence + 1 < kept[0].dot.sequence

    def _found(self, actor: str, sequence: int, count: int) -> Sequence[Write]:
        kept = self._kept[actor]
        start = sequence + 1 - kept[0].dot.sequence if kept else 0
        return kept[start : start + count] if start >= 0 else []

    def _keep(self, actor: str, writes: Sequence[Write]) -> None:
        kept = self._kept[actor]
        if kept and writes and kept[-1].dot.sequence + 1 != writes[0].dot.sequence:
            kept = []
        kept = [*kept, *writes][-_KEPT_MAX:]
        while kept and sum(map(_size, kept)) > _KEPT_MAX_BYTES:
            kept = kept[1:]
        self._kept[actor] = kept


def _size(write: Write) -> int:
    return sum(len(o.value) for o in write.operations if isinstance(o, Put))
