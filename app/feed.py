"""The writes of a node, one after the other, in causal order.

Assumes the logs, which hold every write applied here, and clocks that this node covers. Guarantees
that a write is told only after all that it depends on, and once: the rule by which a node applies
what it receives (DESIGN.md, section 3), for a reader. So whoever was told some writes by one node
can be told the rest by another, though the two do not have them in the same order. At most 16
writes of each actor are held.

Does not know who is told, nor how.
"""

from collections import deque
from typing import Final

from app.errors import InvariantError
from app.keys import ended_actor
from app.recent import RecentWrites
from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock
from app.write import Put, Write
from app.write_log import WriteLog

_AT_ONCE: Final = 16


class Feed:
    """What comes after `at`: the clock of all that has been told."""

    def __init__(self, log: WriteLog, recent: RecentWrites, at: VectorClock) -> None:
        self.at = at
        self._log = log
        self._recent = recent
        self._read: dict[str, deque[Write]] = {}

    async def next(self, clock: VectorClock) -> Write | None:
        """The next write that `clock` covers, which has been told now; None if all have been.

        Raises RedisUnavailable, and LogTrimmed if the logs do not hold it any more.
        """
        await self.look(clock)
        heads = [writes[0] for writes in self._read.values() if writes]
        if not heads:
            return None
        deliverable = [write for write in heads if write.dependencies <= self.at]
        if not deliverable:
            raise InvariantError(
                f"G1: after {self.at} the logs hold {heads[0].dot} and not all that it depends on"
            )
        write = min(deliverable, key=lambda write: (write.timestamp, write.dot.actor))
        self._read[write.dot.actor].popleft()
        self.at = _after(write, self.at)
        return write

    async def look(self, clock: VectorClock) -> None:
        """Of each actor the next write that `clock` covers has been read.

        Raises as `next` does.
        """
        for actor, last in clock.beyond(self.at).items():
            if not self._read.get(actor):
                told, end = self.at[actor], await self._log.end(actor, last)
                if told < end:  # else its end is declared, and that has not been told yet
                    count = min(_AT_ONCE, end - told)
                    self._read[actor] = deque(await self._recent.after(actor, told, count))


def _after(write: Write, at: VectorClock) -> VectorClock:
    """The clock of what has been told once `write` is: it may close an actor (lua/ends.inc.lua)."""
    at = at.with_dot(write.dot)
    for operation in write.operations:
        ended = ended_actor(operation.key)
        if ended and isinstance(operation, Put) and operation.value.isdigit():
            at = at.with_dot(Dot(ended, SEQUENCE_MAX))
    return at
