"""Asking together for what many want at the same time.

Assumes that to ask for many things at once costs little more than to ask for one, and that it makes
no difference in which order two who want something at the same time get it. Guarantees that nobody
waits for others to come: who comes while nothing is being asked is asked for at once, with all who
came in the same turn of the event loop; who comes meanwhile is asked for next. So batches grow by
themselves with what there is to do. Where more waits than is asked for at once, a second batch does
not wait for the first. Whoever gives up waiting takes nothing from the others; and whoever has
waited for longer than `patience_s` is not asked for any more.

Does not know what is asked for.

The idea is group commit (DeWitt et al. 1984), without its timer.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

Wish = TypeVar("Wish")
Result = TypeVar("Result")

_AT_ONCE: Final = 2
"""Batches that are asked for at once, if they are full: while one is looked at over there, the next
is made here."""


class Gathering(Generic[Wish, Result]):
    """Wishes that are asked for together: `ask` gives a result for each.

    They weigh at most `most` together. One that weighs more is asked for alone. Whose turn does not
    come within `patience_s` is told what `too_late` says.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[Wish]], Awaitable[Sequence[Result]]],
        most: int,
        patience_s: float,
        too_late: Callable[[], Exception],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ask = ask
        self._most = most
        self._patience_s = patience_s
        self._too_late = too_late
        self._waiting: deque[tuple[Wish, int, float, asyncio.Future[Result]]] = deque()
        self._weight = 0
        """Of all that wait."""
        self._asking: set[asyncio.Task[None] | None] = set()

    def wish(self, wish: Wish, weight: int = 1) -> asyncio.Future[Result]:
        """The result for this wish, or what `ask` raised, once it is there."""
        loop = self._loop
        result: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((wish, weight, loop.time() + self._patience_s, result))
        self._weight += weight
        if not self._asking or (len(self._asking) < _AT_ONCE and self._weight >= self._most):
            self._asking.add(loop.create_task(self._ask_for_all()))
        return result

    async def _ask_for_all(self) -> None:
        try:
            # What is not enough for a batch waits for the one that is asked for elsewhere.
            while self._waiting and (len(self._asking) == 1 or self._weight >= self._most):
                if batch := self._next():
                    await self._ask_for(batch)
        finally:
            self._asking.discard(asyncio.current_task())

    def _next(self) -> list[tuple[Wish, asyncio.Future[Result]]]:
        batch: list[tuple[Wish, asyncio.Future[Result]]] = []
        room, now = self._most, self._loop.time()
        while self._waiting:
            wish, weight, until, result = self._waiting[0]
            if not result.done():  # else nobody waits for it any more
                if until < now:
                    result.set_exception(self._too_late())
                else:
                    room -= weight
                    if room < 0 and batch:
                        break
                    batch.append((wish, result))
            self._weight -= weight
            self._waiting.popleft()
        return batch

    async def _ask_for(self, batch: list[tuple[Wish, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._ask([wish for wish, _ in batch])
        except Exception as error:  # whatever it is, it is for those who wait to deal with
            for _, waiter in batch:
                if not waiter.done():
                    waiter.set_exception(error)
        except BaseException:  # this task is ended: nobody may wait for it for ever
            waiting = (result for _, _, _, result in self._waiting)
            for waiter in (*(result for _, result in batch), *waiting):
                waiter.cancel()
            self._waiting.clear()
            self._weight = 0
            raise
        else:
            for (_, waiter), result in zip(batch, results, strict=True):
                if not waiter.done():
                    waiter.set_result(result)
