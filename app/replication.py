"""Getting writes to the peers: what a peer's clock lacks, in causal order, at least once.

Assumes the log, which holds every write applied here, and a receiver that sorts out repeats.
Guarantees that every write reaches every reachable peer eventually. While a batch is under way the
next one gathers, so batches grow with load by themselves; on a long link it follows before the
answer (`under_way.py`). An empty batch is the heartbeat. Order is the receiver's business;
sending in causal order spares it work. Where the log does not go back to what the peer lacks, a
snapshot is sent instead.

One worker of a node sends to a given peer, by a lease. If it dies another takes over; an overlap
only repeats, and repeats are harmless (G2).

Does not know how a batch travels (`peers.py`), nor which writes a peer is to be sent (`relay.py`).
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from heapq import merge
from typing import Final

from msgspec import structs

from app.board import Board, PeerReport
from app.bounded_read import read_about
from app.config import Config
from app.errors import InvariantError, LogTrimmed, PeerError, PeerTakesLess, RedisUnavailable
from app.faults import HEALTHY, Fault, FaultyLink
from app.identity import Identity
from app.kv_store import KVStore
from app.log import get_logger
from app.members import Members
from app.peers import Exchange
from app.progress import Progress
from app.relay import PeerView
from app.snapshot import Kept, Part
from app.snapshot_sending import SnapshotSending
from app.under_way import UnderWay
from app.vector_clock import VectorClock, node_of
from app.wire import ENTRIES_MAX, Answer, Batch, size_of
from app.write import Write

log = get_logger(__name__)

_POST_EVERY_S: Final = 0.25
"""A link says what it knows no more often than this, unless the peer comes or goes, or somebody
waits to hear."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a link works with; one for all links of a worker."""

    config: Config
    store: KVStore
    board: Board
    progress: Progress
    identity: Identity
    members: Members
    exchange: Exchange
    snapshot_for: Callable[[str], SnapshotSending]
    now_us: Callable[[], int]
    rng: random.Random


class Link:
    """This node's sending to one peer."""

    def __init__(self, peer: str, url: str, tools: Tools) -> None:
        config = tools.config
        self._peer = peer
        self._url = url
        self._config = config
        self._store = tools.store
        self._board = tools.board
        self._progress = tools.progress
        self._identity = tools.identity
        self._members = tools.members
        self._exchange = tools.exchange
        self._now_us = tools.now_us
        self._rng = tools.rng
        self._faulty = FaultyLink(tools.rng)
        # Spread, so that of several nodes that could relay one begins and the others see it.
        self._relay_after_s = config.relay_after_ms / 1000 * tools.rng.uniform(1, 1.5)
        self._view = PeerView(config.node_id, self._relay_after_s)
        self._under_way = UnderWay(
            config.batch_max_writes, config.batch_max_bytes, config.peer_timeout_ms / 1000
        )
        self._snapshot = tools.snapshot_for(peer)
        self._needs_snapshot = False
        self._next_part_at = float("-inf")
        self._report = PeerReport()
        self._posted_at = float("-inf")
        self._ask_hearsay_at = float("-inf")
        self._wake = asyncio.Event()

    def moved(self, url: str) -> None:
        """The peer is reached at `url` from now on."""
        self._url = url

    def fault_changed(self) -> None:
        """The fault on this link is another one now."""
        self._faulty.changed()
        self._wake.set()

    async def ask(self, birth: str) -> Answer:
        """Where the peer stands, now and over this link, and of which birth it heard first.

        Raises PeerError, RedisUnavailable.
        """
        batch = Batch(self._config.node_id, self._peer, self._progress.clock, (), birth)
        return await self._faulty.carry(batch, await self._fault(), self._send)

    async def run(self) -> None:
        """Send to the peer whenever this worker holds the lease, for ever."""
        lease_s = self._config.lease_ms / 1000
        self._progress.on_advance(self._wake.set)
        try:
            while True:
                try:
                    await self._take_turn(lease_s)
                except RedisUnavailable as error:
                    log.warning("redis unavailable", peer=self._peer, cause=error.cause)
                    await asyncio.sleep(self._config.retry_max_ms / 1000)
        finally:
            self._progress.forget(self._wake.set)
            await self._release()

    async def _take_turn(self, lease_s: float) -> None:
        """Send, if this worker gets the lease, until it is lost; if not, it is time to try again.

        Raises RedisUnavailable.
        """
        try:
            if await self._board.hold_lease(self._peer, self._config.lease_ms):
                try:
                    await self._send_under_lease(lease_s)
                finally:
                    self._under_way.drop()
            else:
                await asyncio.sleep(lease_s / 3)
        except InvariantError as error:
            log.critical("replication stopped", peer=self._peer, reason=str(error))
            await self._post(error=str(error))
            await asyncio.sleep(lease_s)

    async def _send_under_lease(self, lease_s: float) -> None:
        """Send, until the lease is lost."""
        loop = asyncio.get_running_loop()
        # Another worker may have sent for hours: begin by asking where the peer stands.
        self._view = PeerView(self._config.node_id, self._relay_after_s)
        self._needs_snapshot = False
        renew_at = loop.time() + lease_s / 3
        heartbeat_at = loop.time()
        failures = 0
        while True:
            if loop.time() >= renew_at:
                if not await self._board.hold_lease(self._peer, self._config.lease_ms):
                    return
                renew_at = loop.time() + lease_s / 3
            self._wake.clear()
            fault = await self._fault()
            if not self._under_way:
                mine = self._progress.clock
                self._view.notice(mine, loop.time())
                writes = await self._gather(mine, relay=not fault.no_relay)
                part = await self._next_part()
                if not writes and part is None and loop.time() < heartbeat_at:
                    ask_at = self._view.ask_at()
                    wait_until = min(heartbeat_at, renew_at, ask_at or heartbeat_at)
                    if wait_until > loop.time():
                        await self._woken_or(wait_until)
                        if ask_at is None or loop.time() < ask_at:
                            continue
                self._begin(mine, writes, fault, part)
            try:
                batch, answer = await self._answered(fault, lease_s)
            except PeerError as error:
                self._under_way.drop()
                if isinstance(error, PeerTakesLess):
                    self._snapshot.refused()
                failures += 1
                await self._post(error=str(error))
                self._view.lost_contact()
                await asyncio.sleep(self._backoff_s(failures))
                heartbeat_at = loop.time()
            else:
                failures = 0
                heartbeat_at = loop.time() + self._config.heartbeat_ms / 1000
                await self._take(answer, batch)
                if batch.part is not None:
                    await self._take_kept(answer.kept or Kept())

    def _begin(
        self, mine: VectorClock, writes: list[Write], fault: Fault, part: Part | None = None
    ) -> None:
        """A batch is under way."""
        now = asyncio.get_running_loop().time()
        batch = Batch(
            self._config.node_id,
            self._peer,
            mine,
            tuple(writes),
            part=part,
            asks_hearsay=now >= self._ask_hearsay_at or self._members.in_question,
        )
        if batch.asks_hearsay:
            self._ask_hearsay_at = now + self._config.trim_ms / 1000
        answer = asyncio.create_task(self._faulty.carry(batch, fault, self._send))
        answer.add_done_callback(lambda _: self._wake.set())
        self._under_way.begin(batch, answer, now)

    async def _answered(self, fault: Fault, lease_s: float) -> tuple[Batch, Answer]:
        """The batch that left first and the answer to it, under a lease that is kept for as long as
        that takes. What is new follows it meanwhile. Raises PeerError, RedisUnavailable."""
        loop = asyncio.get_running_loop()
        renew_at = loop.time() + lease_s / 3
        answer = self._under_way.oldest.answer
        while not answer.done():
            if loop.time() >= renew_at:
                renew_at = loop.time() + lease_s / 3
                # If it was lost, or cannot be kept, the exchange goes on: at worst it is repeated.
                with suppress(RedisUnavailable):
                    await self._board.hold_lease(self._peer, self._config.lease_ms)
            # What a fault holds back is one batch.
            waits = self._under_way.is_full or fault != HEALTHY
            until = renew_at if waits else min(renew_at, self._under_way.next_at)
            if until > loop.time():
                await asyncio.wait([answer], timeout=until - loop.time())
                continue
            self._wake.clear()
            mine = self._progress.clock
            if writes := await self._gather(mine, relay=not fault.no_relay):
                self._begin(mine, writes, fault)
            elif not answer.done():
                await self._woken_or(renew_at)
        return self._under_way.end_oldest(loop.time())

    async def _send(self, batch: Batch) -> Answer:
        sent_us = self._now_us()
        answer = await self._exchange(self._url, batch)
        middle_us = (sent_us + self._now_us()) // 2
        self._report = structs.replace(self._report, skew_us=answer.now_us - middle_us)
        return answer

    async def _take(self, answer: Answer, batch: Batch) -> None:
        """Learn from the answer to `batch`."""
        self._identity.witness(answer.clock.merge(answer.received))
        asked = batch.asks_hearsay
        await self._members.hear(answer.node, answer.removed, answer.clock, was_asked=asked)
        now = asyncio.get_running_loop().time()
        actors = {write.dot.actor for write in batch.writes}
        relayed = {actor for actor in actors if node_of(actor) != self._config.node_id}
        if answer.duplicate:
            self._view.found_duplicates(relayed, now)
        self._view.learn(answer.clock, answer.received, self._progress.clock, now)
        self._report = structs.replace(
            self._report,
            clock=answer.clock,
            received=answer.received,
            last_contact_us=self._now_us(),
        )
        await self._post(error="")
        if batch.asks_hearsay:
            await self._note_hearsay(answer)
        if answer.refused:
            # The peer's buffer is full of writes that wait for others: our log keeps them for it.
            log.warning("peer is full", peer=self._peer, refused=answer.refused)
            await asyncio.sleep(self._backoff_s(3))

    async def _note_hearsay(self, answer: Answer) -> None:
        """What the peer has heard of members that this node cannot reach is on the board, where it
        is newer: or nothing would be stable, nor known to be lost, for want of them."""
        reports = await self._board.peers(self._members.others.keys() & answer.hearsay.keys())
        now_us, skew_us = self._now_us(), self._report.skew_us
        told = {}
        for member, report in reports.items():
            if report.error:
                heard = answer.hearsay[member]
                heard = replace(heard, at_us=heard.at_us - skew_us)
                if heard.age_us(now_us) <= report.hearsay.age_us(now_us):
                    told[member] = heard
        if told:
            await self._board.post_hearsay(told)

    async def _take_kept(self, kept: Kept) -> None:
        """Learn how far the snapshot is."""
        if await self._snapshot.take(kept):
            # What it has once that is merged, it says when it is asked again.
            await self._snapshot.end()
            self._view = PeerView(self._config.node_id, self._relay_after_s)
            self._needs_snapshot = False
        elif not self._snapshot.is_under_way:
            # It receives another's, or has merged or lost ours: perhaps it needs none any more.
            heartbeat_s = self._config.heartbeat_ms / 1000
            self._next_part_at = asyncio.get_running_loop().time() + heartbeat_s
            self._needs_snapshot = False

    async def _next_part(self) -> Part | None:
        """The part of a snapshot that the peer is to be sent now, if it needs one."""
        if not self._needs_snapshot or self._under_way.only_asks:
            return None
        if asyncio.get_running_loop().time() < self._next_part_at:
            return None
        return await self._snapshot.part()

    async def _gather(self, mine: VectorClock, *, relay: bool) -> list[Write]:
        """What the peer is to be sent now, in causal order, as much as one batch holds.

        Nothing, if it needs a snapshot first: it could not apply it.
        """
        if self._needs_snapshot:
            return []
        try:
            logs = []
            for actor, last in self._view.lacks(mine, relay=relay).items():
                end = await self._store.log.end(actor, last)
                start = max(self._view.received[actor], self._under_way.sent[actor])
                logs.append(await self._read_log(actor, start, end))
        except LogTrimmed:
            # A peer that was away may have got that from others: then it is asked first.
            self._needs_snapshot = self._view.is_fresh
            return []
        # A write's timestamp is greater than that of any write in its past.
        in_order = merge(*logs, key=lambda write: (write.timestamp, write.dot.actor))
        return self._under_way.fitting(in_order, ENTRIES_MAX)

    async def _read_log(self, actor: str, after: int, last: int) -> list[Write]:
        """The writes of `actor` after `after` and up to `last`, as much as one batch holds."""

        async def read(start: int, count: int) -> Sequence[Write]:
            return await self._store.recent.after(actor, after + start, count)

        writes, size = self._under_way.room
        return await read_about(size, min(writes, last - after), read, size_of)

    async def _fault(self) -> Fault:
        return await self._board.fault(self._peer) if self._config.faults else HEALTHY

    async def _woken_or(self, deadline: float) -> None:
        """Return at `deadline`, or sooner when there may be something to send."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _backoff_s(self, failures: int) -> float:
        """How long to pause: doubled each time, capped, and between a half and the whole of it, so
        that nodes that failed together do not come back together."""
        longest_ms = min(self._config.retry_min_ms << min(failures, 20), self._config.retry_max_ms)
        return longest_ms / 1000 * self._rng.uniform(0.5, 1)

    async def _post(self, *, error: str) -> None:
        """Say what is known of the peer, where that is news."""
        before, now = self._report, asyncio.get_running_loop().time()
        self._report = structs.replace(before, error=error)
        came_or_went = bool(error) != bool(before.error)
        if came_or_went:
            if error:
                log.warning("peer unreachable", peer=self._peer, reason=error)
            else:
                log.info("peer reached", peer=self._peer)
        if came_or_went or self._board.peers_are_awaited or now - self._posted_at >= _POST_EVERY_S:
            self._posted_at = now
            await self._board.post_peer(self._peer, self._report)

    async def _release(self) -> None:
        with suppress(RedisUnavailable):  # then it runs out by itself
            await self._board.release_lease(self._peer)
