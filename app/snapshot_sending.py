"""Sending a snapshot to one peer: the parts, one at a time, each made when the one before is there.

Assumes a peer that keeps each part once and in order, and says which was its last. Guarantees that
with the last part the peer has this node's state at the cut, however much was written meanwhile;
and that after a failure it goes on with the part that the peer lacks, in another worker too. A part
that is too large for the peer is made again, smaller, down to one key, of what that holds by then.
It begins anew when this node's Redis was started again, or its log was cut short meanwhile; and
when the last part that the peer has is neither the one that it was known to have nor the one that
it was being sent. Then it is not known what the peer has: it may have merged all of it, lost its
disk, or been put back to an older copy, and what it lacks it would take for absent.

Does not know how parts travel, nor what a peer does with them.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from app.board import Board
from app.errors import LogTrimmed, listing
from app.log import get_logger
from app.snapshot import Kept, Part, Sending
from app.snapshot_reading import SnapshotReader

log = get_logger(__name__)


class SnapshotSending:
    """What a peer is sent of this node's state, one snapshot after the other."""

    def __init__(
        self,
        peer: str,
        node: str,
        reader: SnapshotReader,
        board: Board,
        now_us: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._peer = peer
        self._node = node
        self._reader = reader
        self._board = board
        self._now_us = now_us
        self._rng = rng
        self._at: Sending | None = None
        """Where the peer is, as far as it has said."""
        self._places: dict[str, Sending] = {}
        """Where it may be, by the last part that it has then. None while nothing is under way."""
        self._part: Part | None = None
        """What it is being sent."""
        self._too_large: list[str] = []
        """Which key it has refused last, as was logged."""

    @property
    def is_under_way(self) -> bool:
        """Whether there is a snapshot that the peer may go on with."""
        return bool(self._places)

    async def part(self) -> Part | None:
        """The part that the peer is to be sent now, the same until it has it or has refused it.
        None: not now.

        Raises RedisUnavailable.
        """
        if self._part is None:
            if self._at is None:
                await self._ask()
            else:
                try:
                    await self._make_part(self._at)
                except LogTrimmed as error:
                    await self._begin_anew(str(error))
        return self._part

    async def take(self, kept: Kept) -> bool:
        """The peer has said what it has kept. Whether that is all of the snapshot.

        Raises RedisUnavailable.
        """
        part, place = self._part, self._places.get(kept.last)
        if part is None or kept.snapshot != part.snapshot:
            # It receives another, or has begun anew.
            await self.end()
            return False
        if place is None:
            await self._begin_anew(f"the peer says that it has {kept.last!r} of it last")
            return False
        if part.name and kept.last == part.after:
            return False  # it has not kept it yet
        self._part, self._at = None, replace(place, heard_us=self._now_us())
        if kept.last == part.name:
            self._places = {place.last: place}
            if part.cut:
                log.info("snapshot sent", peer=self._peer, sent=place.sent)
        else:
            # It was asked; or a part that another worker had sent came in between.
            self._reader.go_back(place)
            log.info("sending snapshot", peer=self._peer, sent=place.sent, total=place.total)
        return kept.last == part.name and part.cut is not None

    def refused(self) -> None:
        """The peer does not take what it was sent: it is too large. One key that is too large may
        have many siblings, which are fewer once somebody has written it again."""
        if self._part is not None and self._at is not None:
            keys = [state.key for state in self._part.keys]
            if len(keys) > 1:
                self._reader.read_less()
            elif keys != self._too_large:
                reason = f"too large for it: {listing(keys)}"
                log.warning("snapshot waits", peer=self._peer, reason=reason)
                self._too_large = keys
            del self._places[self._part.name]
            self._part = None
            self._reader.go_back(self._at)

    async def end(self) -> None:
        """No snapshot is under way."""
        if self._places:
            self._at, self._places, self._part = None, {}, None
            await self._board.end_sending(self._peer)

    async def _begin_anew(self, reason: str) -> None:
        log.warning("snapshot begun anew", peer=self._peer, reason=reason)
        await self.end()

    async def _begun(self) -> Sending:
        now_us = self._now_us()
        return await self._reader.begin(f"{self._node}-{now_us:x}-{self._new_name()}", now_us)

    async def _ask(self) -> None:
        """The peer is asked what it has, of the snapshot that was under way, or of a new one."""
        places = await self._board.sendings(self._peer) or (await self._begun(),)
        self._places = {place.last: place for place in places}
        self._part = Part(places[0].snapshot, "", places[-1].last, places[0].total)

    async def _make_part(self, at: Sending) -> None:
        """The part after `at` is there, if it can be read now. Raises LogTrimmed."""
        if found := await self._reader.read(at):
            after, states, cut = found
            name = self._new_name()
            after = replace(after, last=name)
            # Before it is sent: who goes on in another worker has to know it if the peer has it.
            try:
                await self._board.post_sending(self._peer, at, after)
            except BaseException:  # the peer will not have it
                self._reader.go_back(at)
                raise
            self._places[name] = after
            self._part = Part(at.snapshot, name, at.last, at.total, tuple(states), cut)

    def _new_name(self) -> str:
        return f"{self._rng.randrange(16**8):08x}"
