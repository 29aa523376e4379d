"""How far this node has come, as one worker knows it, and who waits for it to come further.

Assumes that it is told of every clock its worker sees, and that other workers publish theirs.
Guarantees that a waiter wakes as soon as the clock it waits for is covered; no waiter polls.

The cached clock may be behind Redis and is never ahead: clocks only grow, so what it covers is
covered. Only where Redis has lost something it begins again (`restart`). Does not know what writes
hold, nor Redis beyond one hash and one channel.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from app.vector_clock import Dot, VectorClock

_MISSED_MAX: Final = 64
"""Missing sequences of one actor whose age is remembered. Beyond that every other one is
forgotten, and what lies between seems younger than it is."""
_ACTORS_MAX: Final = 1024
"""Actors of whom something missing is remembered: who asks may name any number of them. Beyond that
the actor missed for longest is forgotten, and seems younger if it is missed again."""


@dataclass(eq=False, slots=True)
class _Waiter:
    needs: VectorClock
    done: asyncio.Future[None]


class Progress:
    """The clock of the node, and the waits for it."""

    def __init__(self, clock: VectorClock = VectorClock()) -> None:  # noqa: B008 (immutable)
        self._clock = clock
        self._waiters: set[_Waiter] = set()
        # For each actor: sequences that are missing, rising, each with when it was first known.
        self._missed: dict[str, list[tuple[int, float]]] = {}
        self._listeners: list[Callable[[], None]] = []

    @property
    def clock(self) -> VectorClock:
        """The newest clock this worker knows of."""
        return self._clock

    def on_advance(self, listener: Callable[[], None]) -> None:
        """From now on `listener` is called after each advance of the clock."""
        self._listeners.append(listener)

    def forget(self, listener: Callable[[], None]) -> None:
        """From now on `listener` is not called any more."""
        self._listeners.remove(listener)

    def advance(self, clock: VectorClock) -> None:
        """The node has applied all that `clock` covers; whoever waited for that is awake."""
        if clock <= self._clock:
            return
        self._clock = self._clock.merge(clock)
        for waiter in self._waiters:
            if waiter.needs <= self._clock and not waiter.done.done():
                waiter.done.set_result(None)
        for actor, missed in list(self._missed.items()):
            del missed[: bisect_left(missed, (self._clock[actor] + 1, 0.0))]
            if not missed:
                del self._missed[actor]
        for listener in self._listeners:
            listener()

    def learn(self, known: VectorClock, clock: VectorClock) -> bool:
        """Whether Redis, whose clock this is, has what was `known` when it was asked. If so, all
        that it has is known from now on; if not, it has lost something."""
        if known <= clock:
            self.advance(clock)
            return True
        return False

    def restart(self, clock: VectorClock) -> None:
        """Redis has lost what it held beyond `clock`: so much, and no more, is applied."""
        self._clock = clock

    def miss(self, missing: VectorClock) -> None:
        """It is known from now on that `missing` has been written and has not come here."""
        now = asyncio.get_running_loop().time()
        for actor, sequence in missing.beyond(self._clock).items():
            missed = self._missed.setdefault(actor, [])
            if not missed or sequence > missed[-1][0]:
                missed.append((sequence, now))
            if len(missed) > _MISSED_MAX:
                del missed[1::2]
            if len(self._missed) > _ACTORS_MAX:
                del self._missed[next(iter(self._missed))]

    def known_for_s(self, dot: Dot) -> float:
        """For how many seconds it has been known that `dot`, or a later one, is missing."""
        now = asyncio.get_running_loop().time()
        missed = self._missed.get(dot.actor, [])
        later = missed[bisect_left(missed, (dot.sequence, 0.0)) :]
        return now - later[0][1] if later else 0.0

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
