"""How far this node has come, as one worker knows it, and who waits for it to come further.

Assumes that it is told of every clock its worker sees, and that other workers publish theirs.
Guarantees that a waiter wakes as soon as the clock it waits for is covered; no waiter polls.

The cached clock may be behind Redis and is never ahead: clocks only grow, so what it covers is
covered. Does not know what writes hold, nor Redis beyond one hash and one channel.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.vector_clock import Dot, VectorClock

_REMEMBERED_MAX = 10_000
"""Missing dots whose age is remembered; beyond that the oldest are forgotten and seem younger."""


@dataclass(eq=False, slots=True)
class _Waiter:
    needs: VectorClock
    done: asyncio.Future[None]


class Progress:
    """The clock of the node, and the waits for it."""

    def __init__(self, clock: VectorClock = VectorClock()) -> None:  # noqa: B008 (immutable)
        self._clock = clock
        self._waiters: set[_Waiter] = set()
        self._first_missed: dict[Dot, float] = {}
        self._listeners: list[Callable[[], None]] = []

    @property
    def clock(self) -> VectorClock:
        """The newest clock this worker knows of."""
        return self._clock

    def on_advance(self, listener: Callable[[], None]) -> None:
        """From now on `listener` is called after each advance of the clock."""
        self._listeners.append(listener)

    def advance(self, clock: VectorClock) -> None:
        """The node has applied all that `clock` covers; whoever waited for that is awake."""
        if clock <= self._clock:
            return
        self._clock = self._clock.merge(clock)
        for waiter in self._waiters:
            if waiter.needs <= self._clock and not waiter.done.done():
                waiter.done.set_result(None)
        for dot in [dot for dot in self._first_missed if self._clock.covers(dot)]:
            del self._first_missed[dot]
        for listener in self._listeners:
            listener()

    def miss(self, missing: VectorClock) -> None:
        """It is known from now on that `missing` has been written and has not come here."""
        now = asyncio.get_running_loop().time()
        for dot in missing.beyond(self._clock).dots():
            self._first_missed.setdefault(dot, now)
        while len(self._first_missed) > _REMEMBERED_MAX:
            del self._first_missed[next(iter(self._first_missed))]

    def known_for_s(self, dot: Dot) -> float:
        """For how many seconds it has been known that `dot` is missing."""
        now = asyncio.get_running_loop().time()
        return now - self._first_missed.get(dot, now)

    async def reach(
        self,
        context: VectorClock,
        patience_s: float,
        refresh: Callable[[], Awaitable[VectorClock]],
    ) -> VectorClock:
        """Wait until the node has applied `context`, at most `patience_s`; what is missing then.

        `refresh` reads the clock from Redis: once at first, in case another worker is ahead, and
        not again.
        """
        if not context <= self._clock:
            self.advance(await refresh())
        if context <= self._clock:
            return VectorClock()
        self.miss(context)
        waiter = _Waiter(context, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(patience_s):
                await waiter.done
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(waiter)
        return context.beyond(self._clock)
