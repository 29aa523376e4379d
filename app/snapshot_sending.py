"""Sending a snapshot to one peer: the parts, one at a time, each made when the one before is there.

Assumes a peer that keeps each part once and in order, and says which was its last. Guarantees that
with the last part the peer has this node's state at the cut, however much was written meanwhile;
and that after a failure it goes on with the part that the peer lacks, in another worker too. It
begins anew when this node's Redis was started again, or its log was cut short meanwhile; and when
the last part that the peer has is neither the one that it was known to have nor the one that it was
being sent. Then it is not known what the peer has: it may have merged all of it, lost its disk, or
been put back to an older copy, and what it lacks it would take for absent.

Does not know how parts travel, nor what a peer does with them.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from app.board import Board
from app.errors import LogTrimmed
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
        self._places: tuple[Sending, ...] = ()
        """Where the peer may be, while it has not said."""
        self._part: Part | None = None
        self._after_part: Sending | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether there is a snapshot that the peer may go on with."""
        return self._at is not None

    async def part(self) -> Part | None:
        """The part that the peer is to be sent now, the same until it has it. None: not now.

        Raises RedisUnavailable.
        """
        if self._part is None:
            if self._at is None:
                # What the peer has of it, if anything, it will say.
                self._places = await self._board.sendings(self._peer) or (await self._begun(),)
                self._at = self._places[0]
                return Part(self._at.snapshot, "", self._places[-1].last, self._at.total)
            try:
                await self._make_part(self._at)
            except LogTrimmed as error:
                await self._begin_anew(str(error))
        return self._part

    async def take(self, kept: Kept) -> bool:
        """The peer has said what it has kept. Whether that is all of the snapshot.

        Raises RedisUnavailable.
        """
        at, part = self._at, self._part
        if at is None or kept.snapshot != at.snapshot:
            # It receives another, or has begun anew.
            await self.end()
            return False
        if part is None:  # it was asked
            place = next((place for place in self._places if place.last == kept.last), None)
            if place is None:
                await self._begin_anew(f"the peer has {kept.last!r} of it last")
            else:
                self._reader.go_back(place)
                self._at, self._places = place, (place,)
                log.info("sending snapshot", peer=self._peer, sent=place.sent, total=place.total)
            return False
        assert self._after_part is not None
        if kept.last == part.name:
            self._at = replace(self._after_part, heard_us=self._now_us())
            self._part = None
            if part.cut:
                log.info("snapshot sent", peer=self._peer, sent=self._at.sent)
                return True
        elif kept.last != part.after:
            await self._begin_anew(f"the peer has {kept.last!r} of it last, not {part.after!r}")
        return False

    async def end(self) -> None:
        """No snapshot is under way."""
        if self._at is not None:
            self._at, self._part = None, None
            await self._board.end_sending(self._peer)

    async def _begin_anew(self, reason: str) -> None:
        log.warning("snapshot begun anew", peer=self._peer, reason=reason)
        await self.end()

    async def _begun(self) -> Sending:
        now_us = self._now_us()
        return await self._reader.begin(f"{self._node}-{now_us:x}-{self._new_name()}", now_us)

    async def _make_part(self, at: Sending) -> None:
        """The part after `at` is there, if it can be read now. Raises LogTrimmed."""
        if found := await self._reader.read(at):
            after, states, cut = found
            name = self._new_name()
            after = replace(after, last=name)
            # Before it is sent: who goes on in another worker has to know it if the peer has it.
            await self._board.post_sending(self._peer, at, after)
            self._part = Part(at.snapshot, name, at.last, at.total, tuple(states), cut)
            self._after_part = after

    def _new_name(self) -> str:
        return f"{self._rng.randrange(16**8):08x}"
