"""What a watcher is told: the state of the keys here, if it wants that, and then every write.

Assumes a watcher that takes one event after the other; who is slow holds nothing up but itself.
Guarantees that writes are told in causal order, each once, from whatever clock on and at whichever
node the watcher goes on; and a write as a whole. The state is one at a `Cut`: what is told of keys
before it may be older, and is told again if it is.

A write that was merged from a snapshot is in no log, so nobody can be told it as a write: who was
not told it before is told that the logs do not go back (docs/adr/0018).

Does not know HTTP, nor what of a write the watcher wants to see.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

from app.errors import Gap, LogTrimmed, RedisUnavailable, Stopping
from app.feed import Feed
from app.identity import NOT_OURS
from app.kv_store import KVStore
from app.members import Members
from app.progress import Progress
from app.snapshot import KeyState
from app.snapshot_reading import SnapshotReader
from app.vector_clock import VectorClock
from app.write import SYSTEM, Write

_LOOK_EVERY_S: Final = 1.0
"""How often one who is told nothing is looked at: whether it is there still, and is to hear that
this node is."""


@dataclass(frozen=True, slots=True)
class Begin:
    """What was told of keys until now, if anything, is void: the state comes from its beginning."""


@dataclass(frozen=True, slots=True)
class Cut:
    """All that `at` covers has been told, and nothing else."""

    at: VectorClock


@dataclass(frozen=True, slots=True)
class Told:
    """The write has been told, and with it all that `at` covers."""

    write: Write
    at: VectorClock


@dataclass(frozen=True, slots=True)
class Quiet:
    """There is nothing to tell now: all that `at` covers has been told; None before a cut."""

    at: VectorClock | None


Event = Begin | KeyState | Cut | Told | Quiet


class OutOfLog(Exception):
    """The logs lack writes after `at`, which are `missed`; from `go_on` on they have them."""

    def __init__(self, at: VectorClock, missed: list[Gap], go_on: VectorClock) -> None:
        super().__init__(f"the logs do not go back to {at}")
        self.missed = missed
        self.go_on = go_on


class Watching:
    """Tells watchers of one node, in one worker."""

    def __init__(
        self,
        store: KVStore,
        progress: Progress,
        members: Members,
        reader: Callable[[str], SnapshotReader],
        now_us: Callable[[], int],
    ) -> None:
        """`reader` makes a reader of the keys that begin with what it is given."""
        self._store = store
        self._progress = progress
        self._members = members
        self._reader = reader
        self._now_us = now_us
        self._wakes: set[asyncio.Event] = set()
        self._is_stopping = False

    def stop(self) -> None:
        """All who are told something now are told that it ends, and so is who comes later."""
        self._is_stopping = True
        for wake in self._wakes:
            wake.set()

    async def events(self, prefix: str, since: VectorClock | None) -> AsyncGenerator[Event, None]:
        """What happens after `since`, of which this node may lack some; without it, first the state
        of the keys that begin with `prefix`.

        Raises OutOfLog; Stopping, NodeRemoved, RedisUnavailable: then another node, or this one
        later, can go on; and LogTrimmed while it tells the state, which then has to begin anew.
        """
        self._may_go_on(self._progress.clock)
        wake = asyncio.Event()
        self._wakes.add(wake)
        self._progress.on_advance(wake.set)
        try:
            if since is None:
                yield Begin()
                cut = VectorClock()
                async for found in self._state(prefix):
                    if isinstance(found, Cut):
                        cut = found.at
                    else:
                        yield found
                since = cut
            feed, known = Feed(self._store.log, self._store.recent, since), self._progress.clock
            try:
                await feed.look(known)
                yield Cut(feed.at)
                while True:
                    wake.clear()
                    known = self._may_go_on(known)
                    while write := await feed.next(known):
                        yield Told(write, feed.at)
                        known = self._may_go_on(known)
                    await _woken(wake)
                    yield Quiet(feed.at)
            except LogTrimmed:
                raise await self._out_of_log(feed.at) from None
        finally:
            self._wakes.discard(wake)
            self._progress.forget(wake.set)

    async def _state(self, prefix: str) -> AsyncGenerator[KeyState | Quiet | Cut, None]:
        reader = self._reader(prefix)
        at = await reader.begin("", self._now_us())
        cut, known = None, self._progress.clock
        while cut is None:
            yield Quiet(None)
            known = self._may_go_on(known)
            if (found := await reader.read(at)) is None:
                await asyncio.sleep(_LOOK_EVERY_S)  # a merge, which the logs may not outlive
                continue
            at, states, cut = found
            if cut is not None:
                # Before all else: what Redis loses from now on is not to count as applied again.
                self._progress.advance(cut.clock)
            known = self._may_go_on(known)
            now_us = await self._store.now_us()
            for state in states:
                if state.key.startswith(prefix) and not state.key.startswith(SYSTEM):
                    yield state.shown_at(now_us)
                    known = self._may_go_on(known)
        self._may_go_on(known)
        yield Cut(cut.clock)

    def _may_go_on(self, known: VectorClock) -> VectorClock:
        """The clock here, which has not gone back behind the one that was `known` before.

        Raises Stopping, NodeRemoved, RedisUnavailable.
        """
        if self._is_stopping:
            raise Stopping
        self._members.check()
        if not known <= self._progress.clock:
            raise RedisUnavailable(NOT_OURS)  # some of what was told comes back, or is lost
        return self._progress.clock

    async def _out_of_log(self, at: VectorClock) -> OutOfLog:
        missed, go_on = [], at
        clock = await self._store.clock()
        for actor, last in clock.beyond(at).items():
            end = await self._store.log.end(actor, last)
            first = await self._store.log.begin(actor)
            through = end if first is None else first - 1
            if at[actor] < through:
                missed.append(Gap(actor, at[actor], through))
                go_on = go_on.merge(VectorClock({actor: through}))
        return OutOfLog(at, missed, go_on)


async def _woken(wake: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_LOOK_EVERY_S):
            await wake.wait()
    except TimeoutError:
        pass
