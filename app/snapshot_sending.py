"""Sending a snapshot to one peer: the parts, one at a time, each made when the one before is there.

Assumes a peer that keeps each part once and in order, and says which was its last. Guarantees that
with the last part the peer has this node's state at the cut, however much was written meanwhile;
and that after a failure it goes on with the part that the peer lacks, in another worker too. Only
when this node's Redis was started again, or its log was cut short meanwhile, it begins anew.

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
        self._part: Part | None = None
        self._after_part: Sending | None = None

    async def part(self) -> Part | None:
        """The part that the peer is to be sent now, the same until it has it. None: not now.

        Raises RedisUnavailable.
        """
        if self._part is None:
            if self._at is None:
                # What the peer has of it, if anything, it will say.
                self._at = await self._resumed() or await self._begun()
                return Part(self._at.snapshot, "", "", self._at.total)
            try:
                await self._make_part(self._at)
            except LogTrimmed as error:
                log.warning("snapshot begun anew", peer=self._peer, reason=str(error))
                await self.end()
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
            if kept.last != at.last:
                self._reader.go_back(at)
            else:
                log.info("sending snapshot", peer=self._peer, sent=at.sent, total=at.total)
            self._at = replace(at, last=kept.last)
            return False
        assert self._after_part is not None
        if kept.last == part.name:
            self._at = replace(self._after_part, heard_us=self._now_us())
            self._part = None
            await self._board.post_sending(self._peer, self._at)
            if part.cut:
                log.info("snapshot sent", peer=self._peer, sent=self._at.sent)
                return True
        elif kept.last != part.after:
            # A part that another worker had sent came in between. Ours is as good after that.
            self._part = replace(part, name=self._new_name(), after=kept.last)
            self._after_part = replace(self._after_part, last=self._part.name)
        return False

    async def end(self) -> None:
        """No snapshot is under way."""
        if self._at is not None:
            self._at, self._part = None, None
            await self._board.end_sending(self._peer)

    async def _begun(self) -> Sending:
        now_us = self._now_us()
        return await self._reader.begin(f"{self._node}-{now_us:x}-{self._new_name()}", now_us)

    async def _resumed(self) -> Sending | None:
        at = await self._board.sending(self._peer)
        if at is not None:
            self._reader.go_back(at)
        return at

    async def _make_part(self, at: Sending) -> None:
        """The part after `at` is there, if it can be read now. Raises LogTrimmed."""
        if found := await self._reader.read(at):
            after, states, cut = found
            name = self._new_name()
            self._part = Part(at.snapshot, name, at.last, at.total, tuple(states), cut)
            self._after_part = replace(after, last=name)

    def _new_name(self) -> str:
        return f"{self._rng.randrange(16**8):08x}"
