"""Watchers of a run: what they are told while it goes on, and whether it is what was written.

What it is: `Watching`, a client that watches all nodes in turn; `Stretch`, what it was told from
one beginning on; and the check of that.

What it assumes and guarantees: it goes on where it was, at whichever node answers. It begins anew,
with the state, only when it must: what it had been told is lost with a disk, or it was away for
longer than the logs go back. What it was told before that counts all the same.

What it does not know: what is broken meanwhile.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.context import Contexts
from app.vector_clock import Dot, VectorClock
from app.write import SYSTEM
from client import Lightcone, LightconeError, Lost, Session, TooFarBack
from client.watching import NOW, Change, Cut
from tests.chaos.ends import within
from tests.chaos.logbook import Logbook
from tests.chaos.losses import Losses

NOTHING: Mapping[str, int] = {}
_PATIENCE_S = 0.5
_TIMEOUT_S = 5.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Told:
    """One write, as a watcher was told it, and all that had been told then."""

    dot: Dot
    dependencies: VectorClock
    clock: VectorClock


@dataclass
class Stretch:
    """What a watcher was told after `begun`, up to `clock`; whether that ended by a loss."""

    watcher: str
    begun: VectorClock
    told: list[Told] = field(default_factory=list)
    clock: VectorClock = VectorClock()  # noqa: RUF009 (immutable)
    is_lost: bool = False


class Watching:
    """A client that watches."""

    def __init__(
        self, name: str, kv: Lightcone, contexts: Contexts, losses: Losses, *, since: str = ""
    ) -> None:
        self.name = name
        self.stretches: list[Stretch] = []
        self._kv = kv
        self._contexts = contexts
        self._losses = losses
        self._since = since
        self._place = ""
        losses.seen.append(lambda: self._place)

    async def run(self) -> None:
        """It has been told whatever happened, for ever."""
        session = self._begin()
        while True:
            is_lost, is_late = True, False
            try:
                await self._watch(session)
            except LightconeError as error:
                is_lost = isinstance(error, Lost) or self._losses.explain(error)
                is_late = isinstance(error, TooFarBack)
            if is_lost and self.stretches:
                self.stretches[-1].is_lost = True
            if is_lost or is_late:
                self._place = self._since = ""
                session = self._begin()
            await asyncio.sleep(_POLL_S)

    def _begin(self) -> Session:
        return self._kv.session(name=self.name, timeout_s=_TIMEOUT_S, patience_s=_PATIENCE_S)

    async def _watch(self, session: Session) -> None:
        """It has been told what happened, until it has been told something that is lost.

        A node does not mind that: what a watcher was told need not be there to go on.
        """
        async for told in session.watch(since=self._place or self._since):
            match told:
                case Cut():
                    clock = VectorClock(told.clock)
                    if not self._place:
                        self.stretches.append(Stretch(self.name, clock, clock=clock))
                    self._go_on(told.context)
                case Change():
                    clock = self._contexts.parse(told.context)
                    dependencies = VectorClock(told.dependencies)
                    self.stretches[-1].told.append(Told(Dot.parse(told.dot), dependencies, clock))
                    self._go_on(told.context)
            if self._losses.are_in(self._place):
                return

    def _go_on(self, context: str) -> None:
        self._place = context
        self.stretches[-1].clock = self._contexts.parse(context)

    async def is_told(self, clock: VectorClock, within_s: float) -> bool:
        """Whether it has been told, or is before so long, all that `clock` covers."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while not (self.stretches and clock <= self.stretches[-1].clock):
            if loop.time() > until:
                return False
            await asyncio.sleep(_POLL_S)
        return True


def problems(stretches: Sequence[Stretch], book: Logbook, ends: Mapping[str, int]) -> Iterator[str]:
    """Where a watcher was told a write twice, too early or not at all, or never came to `ends`."""
    last: dict[str, Stretch] = {}
    for stretch in stretches:
        last[stretch.watcher] = stretch
        who, before = stretch.watcher, stretch.begun
        for told in stretch.told:
            if before.covers(told.dot):
                yield f"{who} was told {told.dot} again"
            for dot in _between(before, told.dependencies):
                if not _is_hidden(dot, book):
                    yield f"{who} was told {told.dot} before {dot}, which it depends on"
            if not before.with_dot(told.dot) <= told.clock:
                yield f"{who}: the id of {told.dot} does not cover what had been told"
            before = told.clock
        if not stretch.is_lost:
            yield from _not_as_written(stretch, book)
    for who, stretch in last.items():
        if not VectorClock(ends) <= stretch.clock:
            yield f"{who} was never told {VectorClock(ends).beyond(stretch.clock)}"


def _not_as_written(stretch: Stretch, book: Logbook) -> Iterator[str]:
    told = {one.dot for one in stretch.told}
    for dot in _between(stretch.begun, stretch.clock):
        if dot not in told and not _is_hidden(dot, book):
            yield f"{stretch.watcher} was not told {dot}"
    for dot in told:
        if str(dot) not in book.writes:
            yield f"{stretch.watcher} was told {dot}, and no log had it"


def _between(before: VectorClock, after: VectorClock) -> Iterator[Dot]:
    """The writes that `after` covers and `before` does not."""
    for actor, last in after.items():
        for sequence in range(before[actor] + 1, last + 1):
            yield Dot(actor, sequence)


def _is_hidden(dot: Dot, book: Logbook) -> bool:
    """Whether the write is the system's own, which watchers are not told."""
    write = book.writes.get(str(dot))
    return write is not None and all(one.key.startswith(SYSTEM) for one in write.operations)


def as_ended(
    stretch: Stretch, ends: Mapping[str, int], lasting: Mapping[str, int] = NOTHING
) -> Stretch:
    """The stretch, now that it is known how all ended.

    Each actor whose end was declared goes so far. What has lasted of other actors may tell that it
    ended by a loss, though the watcher began anew for another reason before that was known.
    """

    def cut(clock: VectorClock) -> VectorClock:
        return VectorClock(within(clock.to_dict(), ends))

    told = [Told(one.dot, cut(one.dependencies), cut(one.clock)) for one in stretch.told]
    begun, clock = cut(stretch.begun), cut(stretch.clock)
    is_lost = stretch.is_lost or any(clock[actor] > last for actor, last in lasting.items())
    return replace(stretch, begun=begun, told=told, clock=clock, is_lost=is_lost)


async def all_told(watching: Sequence[Watching], clock: VectorClock, within_s: float) -> None:
    """All of them have been told that, or had the time: what is missing is judged later."""
    await asyncio.gather(*(one.is_told(clock, within_s) for one in watching))


def watchers_of(kv: Lightcone, contexts: Contexts, losses: Losses) -> list[Watching]:
    """One that begins with the state, and one with what happens next."""
    return [
        Watching("watcher-all", kv, contexts, losses),
        Watching("watcher-now", kv, contexts, losses, since=NOW),
    ]
