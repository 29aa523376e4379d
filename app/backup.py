"""Backups of a node's state, and putting them back.

A backup is a snapshot (`snapshot.py`) that goes to a file instead of a peer. Putting it back is
receiving that snapshot: so it merges by dots, takes nothing from what was written since, and brings
back nothing that a node here knows to be deleted.

Assumes the stream is what it seems until its end shows otherwise, and that nobody writes at another
member while a backup of another cluster is merged. Guarantees that nothing is changed by a backup
that is not whole, or whose dots name other writes in this cluster; and that, once its last part may
be staged, nobody is told that nothing was changed.

Does not know HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from redis.asyncio import Redis

from app.backup_file import Header, Reader, Writer
from app.board import Board
from app.errors import BadBackup, Busy, ForeignBackup, RedisUnavailable
from app.identity import Identity, Peers, answered
from app.incarnation import is_later
from app.keys import Keys
from app.redis_link import translated
from app.snapshot import BACKUP, Kept, Part
from app.snapshot_reading import SnapshotReader
from app.snapshot_receiving import SnapshotReceiving
from app.vector_clock import VectorClock, node_of

_LEASE_MS: Final = 60_000
_SOURCE: Final = "~restore"
"""Who a snapshot comes from that comes from a file. No node can be called so."""
_ASK_AGAIN_S: Final = 0.2
_TRIES: Final = 20
_ONE_AT_A_TIME: Final = "Another backup of this node is being made. Try again when it is done."
_OUSTED: Final = "Another snapshot took the place of this backup. Nothing was changed."


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back: how many keys the backup had, and the clock that it was cut at."""

    keys: int
    cut: VectorClock


@dataclass(frozen=True, slots=True)
class _Staged:
    """A backup of which all is staged but the last part: what it says of itself, that part, the
    clock that it was cut at, and how many keys it has."""

    header: Header
    last: Part
    cut: VectorClock
    keys: int


class Backups:
    """The backups of one node."""

    def __init__(
        self,
        node: str,
        redis: Redis,
        keys: Keys,
        board: Board,
        identity: Identity,
        asks: Peers,
        receiving: SnapshotReceiving,
        reader: Callable[[], SnapshotReader],
        clock: Callable[[], Awaitable[VectorClock]],
        now_us: Callable[[], int],
        part_max_bytes: int,
    ) -> None:
        self._node = node
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._board = board
        self._identity = identity
        self._asks = asks
        self._receiving = receiving
        self._reader = reader
        self._clock = clock
        self._now_us = now_us
        self._part_max_bytes = part_max_bytes
        self._is_streaming = False

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The bytes of a backup of this node's state, at a clock that is reached at the end.

        Raises Busy if another backup is being made, or was begun while this one was not read for
        long; RedisUnavailable, and LogTrimmed if so much was written meanwhile that it cannot be
        finished.
        """
        if self._is_streaming:
            raise Busy(_ONE_AT_A_TIME)
        self._is_streaming = True
        try:
            await self._keep_place()
            reader, writer = self._reader(), Writer()
            at = await reader.begin(f"{self._node}-{self._now_us():x}", self._now_us())
            births = await self._births()
            yield writer.header(Header(self._node, self._now_us(), at.total, births))
            cut = None
            while cut is None:
                if (found := await reader.read(at)) is None:
                    await asyncio.sleep(_ASK_AGAIN_S)
                    continue
                at, states, cut = found
                at = replace(at, heard_us=self._now_us())
                await self._keep_place()
                await self._board.post_sending(BACKUP, at)  # so that the log is kept for it
                yield writer.part(Part(at.snapshot, "", "", at.total, tuple(states), cut))
            yield writer.end()
        finally:
            self._is_streaming = False
            with suppress(RedisUnavailable, Busy):  # it runs out; or it is another worker's
                await self._keep_place()
                await self._board.end_sending(BACKUP)
                await self._board.release_lease(BACKUP)

    async def _keep_place(self) -> None:
        """No other worker makes a backup for some time. Raises Busy, RedisUnavailable."""
        if not await self._board.hold_lease(BACKUP, _LEASE_MS):
            raise Busy(_ONE_AT_A_TIME)

    async def restore(self, stream: AsyncIterator[bytes]) -> Restored:
        """What the backup holds is merged with what is here, and is on its way to the peers.

        Raises BadBackup, ForeignBackup, Busy: then nothing was changed; and RedisUnavailable, which
        says whether that is so.
        """
        # A name of its own, for the same backup may be put back twice.
        name = f"{self._node}-{self._now_us():x}-restore"
        try:
            staged = await self._stage(name, stream)
            # What was written since it began counts as well.
            await self._check_members(staged.header)
            await self._complete(staged.last)
        except BaseException:  # also a client that goes away: nothing of it may stay behind
            with suppress(RedisUnavailable):  # after a while it gives way all the same
                await self._receiving.give_up(name)
            raise
        await self._merged(name, staged.cut)
        return Restored(staged.keys, staged.cut)

    async def _stage(self, name: str, stream: AsyncIterator[bytes]) -> _Staged:
        """All that comes is staged but the last part: with that it could not be given up any more.

        Raises BadBackup, ForeignBackup, Busy, RedisUnavailable.
        """
        file = Reader(self._part_max_bytes)
        before, keys, count = "", 0, 0
        is_begun, last = False, None
        async for data in stream:
            parts = file.feed(data)
            if file.header is not None and not is_begun:
                await self._begin(name, file.header)
                await self._check_members(file.header)
                is_begun = True
            for part in parts:
                count += 1
                part = replace(part, snapshot=name, name=f"p{count}", after=before)
                before, keys = part.name, keys + len(part.keys)
                if part.cut is None:
                    await self._keep(part)
                elif file.header is not None:
                    with_births = replace(part, births=_births_in(file.header))
                    last = _Staged(file.header, with_births, part.cut.clock, keys)
        if last is None:
            raise BadBackup("The backup ends too early.")
        return last

    async def _begin(self, name: str, header: Header) -> None:
        asks = Part(name, "", "", header.total, births=_births_in(header))
        kept = await self._receiving.take(_SOURCE, asks)
        if kept != Kept(name, ""):
            raise Busy(
                "This node is receiving another snapshot; GET /status says which, and how far it "
                "has come. Nothing was changed. Try again when it is done."
            )

    async def _keep(self, part: Part) -> None:
        if await self._receiving.take(_SOURCE, part) != Kept(part.snapshot, part.name):
            raise Busy(_OUSTED)

    async def _complete(self, last: Part) -> None:
        """The last part is staged, and all is being merged; or may be, for an answer was lost.

        Raises ForeignBackup, Busy: then it is not; and RedisUnavailable, which says whether it may
        be.
        """
        may_be_staged = False
        for tries_left in reversed(range(_TRIES)):
            try:
                kept = await self._receiving.take(_SOURCE, last)
            except RedisUnavailable as error:
                may_be_staged = may_be_staged or error.outcome == "unknown"
                if not tries_left:
                    if may_be_staged:
                        raise _left_open(error) from error
                    raise
                # The last part may show that this node has lost writes: it takes another name.
                await self._identity.settles()
                await asyncio.sleep(_ASK_AGAIN_S)
            else:
                # What was staged by a try whose answer was lost may be merged, and here no more.
                if kept != Kept(last.snapshot, last.name) and not may_be_staged:
                    raise Busy(_OUSTED)
                return

    async def _merged(self, name: str, cut: VectorClock) -> None:
        """The snapshot of this name is merged, and its cut covered.

        Raises RedisUnavailable, which leaves open whether it is, or will be.
        """
        try:
            # Not by the cut: a node that has the backup's writes covers that from the start.
            while (
                (now := await self._receiving.state()) and now.is_merging and now.snapshot == name
            ):
                await asyncio.sleep(_ASK_AGAIN_S)
            # In this order: it ends to be merged in the step in which the clock covers it.
            if not cut <= await self._clock():
                raise RedisUnavailable("it no longer holds the last of the backup")
        except RedisUnavailable as error:
            raise _left_open(error) from error

    async def _check_members(self, header: Header) -> None:
        """If the backup is of another cluster, no other member has written what may have the dots
        of writes in it, as they say now. Raises ForeignBackup, RedisUnavailable.

        What is here is looked at with the last part, in one step.
        """
        known = await self._births()
        others = [node for node, birth in header.births.items() if known.get(node) != birth]
        strangers = [node for node in others if node in known]
        # A node in its first Redis has all that it wrote in its first life.
        in_doubt = [node for node in others if node != self._node or node not in known]
        if not strangers or not in_doubt:
            return
        asks = self._asks({})
        answers = await asyncio.gather(*(answered(ask, "") for ask in asks.values()))
        for member, answer in zip(asks, answers, strict=True):
            if answer is None:
                whose = f"whose writes {member} may have, which does not answer"
                raise ForeignBackup(strangers[0], whose)
            held = answer.clock.merge(answer.received)
            # What this node was called after its first life was called so by nobody else.
            written = {node_of(actor) for actor in held if not is_later(actor, self._node)}
            if clash := [node for node in in_doubt if node in written]:
                raise ForeignBackup(clash[0], f"whose writes {member} has")

    async def _births(self) -> dict[str, str]:
        """Of which node the first Redis was which, as far as it is known here."""
        with translated():
            births = await self._redis.hgetall(self._keys.births)
        return {node.decode(): birth.decode() for node, birth in births.items()}


def _births_in(header: Header) -> tuple[tuple[str, str], ...]:
    return tuple(header.births.items())


def _left_open(error: RedisUnavailable) -> RedisUnavailable:
    cause = error.cause.removesuffix(".")
    return RedisUnavailable(
        f"{cause}. The backup may have been complete before that; to put it back again does no "
        "harm",
        outcome="unknown",
    )
