"""The exchanges with one peer that are under way: what is new need not wait for an answer.

On a long link a write that came just after a batch had left would wait until that is answered,
there and back, before its own way there. So more batches follow before the answer, at intervals.

Assumes a receiver that sorts out what comes in another order, or twice. Guarantees that answers are
taken in the order in which their batches left; that no more is under way than so many full batches
hold (G9); and no more than was answered within a second, or one batch, so that what leaves is not
long in line before a narrow link or a slow peer. An answer that lacks what its batch held ends
this, until all have been answered: then the peer refused something, or lost it, or had it in
another order, and is sent it again.

A batch that was not answered in time may be too large for a narrow link: the next holds half as
much at most, down to one write, and then to none, which asks whether the peer is there at all. It
grows again with what is answered: to the double, where that took less than half of the time, else
by a little. A batch that the peer refuses for its size is halved as well.

Does not know how a batch travels, nor what is to be sent. From the sliding windows of TCP, its slow
start and congestion avoidance (Jacobson 1988), and the delivery rate of BBR (Cardwell et al. 2016).
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from app.errors import PeerTakesLess, PeerTooSlow
from app.vector_clock import VectorClock
from app.wire import Answer, Batch, size_of
from app.write import Write

_LONG_S: Final = 0.01
"""Where no answer comes sooner than that the link is long. On a short one the next batch gathers
until the answer comes, however busy the peer is: more batches would make it busier."""
_LATELY: Final = 8
"""So many exchanges say how long the link is."""
_EVERY_S: Final = 0.005
"""Batches follow each other no sooner than that: a batch costs both ends something by itself."""
_MOST: Final = 64
"""Exchanges under way to one peer: a batch every 5 ms on a link of 320 ms there and back."""
_FULL: Final = 16
"""So many full batches are as much as may be under way: more a second than a Redis takes in, on
links of up to 300 ms there and back."""
_RATE_S: Final = 1.0
"""What was answered within it, or a quarter of the time for an answer, is as much as may be under
way, if it is more than one batch."""


@dataclass(frozen=True, slots=True)
class Amount:
    """So many writes, and about so many bytes."""

    writes: int = 0
    size: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.writes + other.writes, self.size + other.size)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.writes - other.writes, self.size - other.size)

    def most(self, other: "Amount") -> "Amount":
        """The greater one of each."""
        return Amount(max(self.writes, other.writes), max(self.size, other.size))

    def least(self, other: "Amount") -> "Amount":
        """The lesser one of each."""
        return Amount(min(self.writes, other.writes), min(self.size, other.size))

    def half(self) -> "Amount":
        """Half of each, rounded down."""
        return Amount(self.writes // 2, self.size // 2)


_NONE: Final = Amount()
_LEAST: Final = Amount(1, 1)
"""One write, whatever its size."""
_LITTLE: Final = Amount(1, 16 * 1024)
"""By so much a batch may grow with each answer, however long that took."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A batch that has left, and the answer to it."""

    batch: Batch
    answer: asyncio.Task[Answer]
    began: float
    amount: Amount
    reaches: VectorClock
    """The last writes in the batch."""


class UnderWay:
    """What is under way to one peer, oldest first. Times are those of the event loop."""

    def __init__(self, max_writes: int, max_bytes: int, timeout_s: float) -> None:
        """Nothing is. A batch holds at most so many writes, and so many bytes, passed by one
        write. An answer has so much time."""
        self._full = Amount(max_writes, max_bytes)
        self._limit = self._full
        """What a batch may hold just now."""
        self._timeout_s = timeout_s
        self._rate_s = min(_RATE_S, timeout_s / 4)
        self._exchanges: deque[Exchange] = deque()
        self._ends = False
        self._took_s: deque[float] = deque(maxlen=_LATELY)
        self._held = _NONE
        """By all exchanges together."""
        self._lately: deque[tuple[float, Amount]] = deque()
        """What was answered lately, and when."""
        self._answered = _NONE
        """All of that."""
        self.sent = VectorClock()
        """The last writes that are under way, or were since nothing was."""

    def __bool__(self) -> bool:
        return bool(self._exchanges)

    @property
    def oldest(self) -> Exchange:
        """The exchange that began first."""
        return self._exchanges[0]

    @property
    def room(self) -> tuple[int, int]:
        """How many writes the next batch may hold, and how many bytes."""
        limit, answered, held = self._limit, self._answered, self._held
        return (
            _room(limit.writes, answered.writes, held.writes),
            _room(limit.size, answered.size, held.size),
        )

    @property
    def only_asks(self) -> bool:
        """Whether the next batch holds nothing, since the peer may not be there."""
        return self._limit.writes == 0

    @property
    def is_full(self) -> bool:
        """Whether no batch may follow before another answer has come."""
        if not self._exchanges:
            return False
        quickest_s = min(self._took_s, default=-1.0)
        alone = self._ends or quickest_s < _LONG_S or self.oldest.batch.part is not None
        return alone or len(self._exchanges) >= _MOST or min(self.room) <= 0

    @property
    def next_at(self) -> float:
        """When the next batch may leave, if it may before another answer has come."""
        return self._exchanges[-1].began + _EVERY_S

    def fitting(self, writes: Iterable[Write], max_entries: int) -> list[Write]:
        """The first of `writes` that there is room for, with no more entries than that in their
        dependencies."""
        max_writes, max_bytes = self.room
        batch: list[Write] = []
        size = entries = 0
        for write in writes:
            entries += len(write.dependencies)
            if len(batch) >= max_writes or size >= max_bytes or entries > max_entries:
                break
            batch.append(write)
            size += size_of(write)
        return batch

    def begin(self, batch: Batch, answer: asyncio.Task[Answer], now: float) -> None:
        """The batch has left."""
        # Of each actor its writes are in order.
        reaches = VectorClock({write.dot.actor: write.dot.sequence for write in batch.writes})
        self.sent = self.sent.merge(reaches)
        amount = Amount(len(batch.writes), sum(map(size_of, batch.writes)))
        self._exchanges.append(Exchange(batch, answer, now, amount, reaches))
        self._held += amount

    def end_oldest(self, now: float) -> tuple[Batch, Answer]:
        """The oldest batch, and its answer, which has come. Raises what the exchange raised."""
        exchange = self._exchanges.popleft()
        self._held -= exchange.amount
        try:
            answer = exchange.answer.result()
        except PeerTooSlow:
            if exchange.batch.writes or exchange.batch.part is not None:
                self._limit = self._limit.least(exchange.amount).half()
            raise
        except PeerTakesLess:
            if exchange.batch.writes:
                self._limit = self._limit.least(exchange.amount).half().most(_LEAST)
            raise
        took_s = now - exchange.began
        self._took_s.append(took_s)
        self._count_answered(exchange.amount, now)
        self._grow(exchange.amount, took_s)
        self._ends = self._ends or not exchange.reaches <= answer.received
        if not self._exchanges:
            self._begin_anew()
        return exchange.batch, answer

    def drop(self) -> None:
        """Nothing is under way, as far as is known here. It may arrive all the same."""
        for exchange in self._exchanges:
            exchange.answer.cancel()
            exchange.answer.add_done_callback(_looked_at)
        self._exchanges.clear()
        self._held = _NONE
        # Who comes back shows anew how much it takes.
        self._lately.clear()
        self._answered = _NONE
        self._begin_anew()

    def _grow(self, answered: Amount, took_s: float) -> None:
        """A batch may hold more than was answered in that time."""
        if self._limit == self._full:
            return
        # Twice as much takes no more than twice as long.
        more = answered if took_s < self._timeout_s / 2 else _NONE
        self._limit = self._limit.most(answered + more + _LITTLE).least(self._full)

    def _count_answered(self, amount: Amount, now: float) -> None:
        self._lately.append((now, amount))
        self._answered += amount
        while self._lately[0][0] <= now - self._rate_s:
            self._answered -= self._lately.popleft()[1]

    def _begin_anew(self) -> None:
        self._ends = False
        self.sent = VectorClock()


def _room(limit: int, answered: int, held: int) -> int:
    """How much the next batch may hold, of which each may hold `limit`."""
    return min(limit, max(limit, min(answered, _FULL * limit)) - held)


def _looked_at(answer: asyncio.Task[Answer]) -> None:
    """So that the loop does not complain of an error that nobody has seen."""
    if not answer.cancelled():
        answer.exception()
