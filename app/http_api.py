"""The node's HTTP interface: all routes, and what those answer that are about the node itself.

Assumes the contract of DESIGN.md, section 7. Guarantees that a request that is refused changes
nothing and is told why, what became of it, and what to do (G10).

Does not know Redis, nor how writes travel on. What is asked about keys is in `http_kv.py`.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from app import __version__, checks, codec, errors, metrics
from app.backup import Backups
from app.board import Board
from app.buffer import PendingBuffer
from app.codec import Answer, Batch
from app.config import Config, is_node_id
from app.context import Contexts
from app.errors import listing
from app.faults import HEALTHY, parse_fault
from app.http_backup import BackupRoutes
from app.http_explain import ExplainRoutes
from app.http_kv import KeyRoutes
from app.http_lists import ListRoutes
from app.http_lost import LostRoutes
from app.http_members import MemberRoutes
from app.http_session import Sessions
from app.http_txn import TransactionRoutes
from app.http_write import Writing
from app.identity import Identity
from app.kv_store import KVStore
from app.log import get_logger
from app.losses import Losses
from app.members import Member, Members
from app.peers import SIGNATURE_HEADER, Signer
from app.problems import problems
from app.progress import Progress
from app.replicas import Replicas
from app.snapshot_receiving import SnapshotReceiving
from app.stability import held_back, stable, writes_beyond
from app.vector_clock import Dot, VectorClock, node_of

log = get_logger(__name__)

PENDING_SHOWN_MAX: Final = 1000
"""Waiting writes that `GET /pending` lists; the total is always exact."""
_FAULT_MAX_BYTES: Final = 4096
_STRANGERS_MAX: Final = 1000
"""Nodes that may be known by their births alone: who asks may name any number of them."""
_NO_URL: Final = "no URL of it is known here: POST /members, or add it to PEERS"


@dataclass(frozen=True, slots=True)
class Api:
    """The parts of a node that requests are about, and a handler for each route."""

    config: Config
    identity: Identity
    members: Members
    store: KVStore
    buffer: PendingBuffer
    receiving: SnapshotReceiving
    backups: Backups
    progress: Progress
    board: Board
    replicas: Replicas
    losses: Losses
    contexts: Contexts
    signer: Signer
    now_us: Callable[[], int]
    fault_changed: Callable[[str], None]

    def application(self) -> web.Application:
        """An aiohttp application with all routes."""
        app = web.Application(middlewares=[metrics.measured, problems])
        sessions = Sessions(
            self.contexts, self.progress, self.store, self.buffer, self.losses, self.members
        )
        writing = Writing(self.config, self.store, sessions, self.replicas)
        KeyRoutes(self.config, self.store, sessions, writing).add_to(app.router)
        TransactionRoutes(self.config, self.store, sessions, writing).add_to(app.router)
        ExplainRoutes(self.store, sessions).add_to(app.router)
        ListRoutes(self.store, sessions).add_to(app.router)
        LostRoutes(self.store, self.buffer, self.losses, sessions).add_to(app.router)
        BackupRoutes(self.backups, sessions).add_to(app.router)
        MemberRoutes(self.members, self.store, self.board, sessions).add_to(app.router)
        app.router.add_post("/replicate", self.replicate)
        app.router.add_get("/status", self.status)
        app.router.add_get("/pending", self.pending)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        if self.config.faults:
            app.router.add_put("/faults/{peer}", self.put_fault)
            app.router.add_delete("/faults/{peer}", self.delete_fault)
        return app

    # --- nodes -----------------------------------------------------------------------------------

    async def replicate(self, request: web.Request) -> web.Response:
        """Each write of the batch is applied, waits, was known, or is refused; see the counts."""
        limit = self.config.replicate_max_bytes
        body = await checks.body(request, limit, "batch", "REPLICATE_MAX_BYTES")
        self.signer.check(body, request.headers.get(SIGNATURE_HEADER))
        batch = codec.decode_batch(body)
        await self._check_sender(batch)
        actors = {write.dot.actor for write in batch.writes}
        actors.update(*(write.dependencies for write in batch.writes))
        clocks = self.progress.clock, batch.clock
        if strangers := sorted(a for a in actors if not self.members.may_have_written(a, *clocks)):
            raise errors.UnknownActor(
                f"The batch holds writes of, or writes that depend on, {listing(strangers)}, and "
                "neither this node nor the sender's clock knows such a node. Nothing of it was "
                "applied. Add it with POST /members, or to PEERS here."
            )
        self.identity.witness(batch.clock)
        self.progress.miss(batch.clock)
        received = await asyncio.shield(self.buffer.receive(batch.writes))
        kept = None
        if batch.part is not None:
            kept = await asyncio.shield(self.receiving.take(batch.sender, batch.part))
        first_birth = ""
        if batch.birth:
            first_birth = await self.board.first_birth(batch.sender, batch.birth)
        sender = self.members.known(batch.sender)
        answer = codec.encode_answer(
            Answer(
                self.config.node_id,
                received.clock,
                received.clock.merge(received.received),
                received.missing,
                received.applied,
                received.duplicate,
                received.pending,
                received.refused,
                self.now_us(),
                first_birth,
                self.members.urls if batch.birth else {},
                None if sender is None else sender.removed,
                kept,
            )
        )
        return web.Response(
            body=answer, content_type=codec.CONTENT_TYPE, headers=self.signer.headers(answer)
        )

    async def _check_sender(self, batch: Batch) -> None:
        me, sender, receiver = self.config.node_id, batch.sender, batch.receiver
        if sender == me:
            log.error("same node id", reason=f"another node, or a loop, also has NODE_ID={me}")
            raise errors.SameNodeId(
                f"The sender says that it is {me}, and so is this node. Nothing was applied. Every "
                "node has a NODE_ID of its own; and PEERS must not lead back to the node itself."
            )
        if self.members.known(sender) is None and not await self._may_ask(batch):
            raise errors.UnknownPeer(
                f"This node knows no member {sender!r}. Nothing was applied. Add it with "
                "POST /members, or to PEERS here."
            )
        if receiver != me:
            raise errors.Misdirected(
                f"The batch is for {receiver!r}, and this is {me}. Nothing was applied. Correct "
                f"PEERS at {sender}."
            )

    async def _may_ask(self, batch: Batch) -> bool:
        """Whether the batch is a stranger's question only, who is to be added yet.

        What it is told keeps it from giving names again that it gave before; and it is remembered,
        so that it can be told.
        """
        if not (batch.birth and is_node_id(batch.sender)) or batch.writes:
            return False
        return await self.board.births() < _STRANGERS_MAX

    # --- looking in ------------------------------------------------------------------------------

    async def status(self, request: web.Request) -> web.Response:
        """Where this node stands, and how far it sees each peer."""
        checks.known_parameters(request)
        clock = await self.store.clock()
        life = await self.store.life()
        waiting = await self.buffer.counts()
        return web.json_response(
            {
                "node": self.config.node_id,
                "actor": life.actor or None,
                "incarnation": {"since": life.since_us, "reason": life.reason}
                if life.reason
                else None,
                "version": __version__,
                "clock": clock.to_dict(),
                "timestamp": life.timestamp,
                "pending": {"total": sum(waiting.values()), "by_actor": waiting},
                "log": await self._log(clock),
                "snapshot": await self._snapshot(),
                "peers": await self._peers(clock),
                "removed": [member.node for member in self.members.all if member.removed],
                "limits": {
                    name: value
                    for name, value in self.config.model_dump().items()
                    if name.endswith(("_max", "_max_bytes", "_max_writes", "_max_operations"))
                },
            }
        )

    async def _log(self, mine: VectorClock) -> dict[str, Any]:
        """How long the logs are, and which peer holds them back most."""
        sizes = await self.store.log_sizes(mine)
        clocks = await self._clocks()
        return {
            "entries": sum(size.entries for size in sizes.values()),
            "bytes": sum(size.bytes for size in sizes.values()),
            "stable": stable(mine, clocks.values()).to_dict(),
            "held_back_by": [
                {"peer": held.member, "writes": held.writes} for held in held_back(mine, clocks)
            ],
        }

    async def _clocks(self) -> dict[str, VectorClock]:
        """What each other member had applied when it was last heard."""
        reports = await self.board.peers(self.members.others)
        return {peer: report.clock for peer, report in reports.items()}

    async def _snapshot(self) -> dict[str, Any] | None:
        """How far the snapshot is that this node receives."""
        state = await self.receiving.state()
        if state is None:
            return None
        return {
            "from": state.source,
            "phase": "merging" if state.is_merging else "receiving",
            "received_keys": state.keys,
            "merged_keys": state.merged,
            "total_keys": state.total,
            "since_s": round((self.now_us() - state.begun_us) / 1e6, 3),
        }

    async def _peers(self, mine: VectorClock) -> dict[str, Any]:
        others = self.members.others
        return {peer: await self._peer(member, mine) for peer, member in others.items()}

    async def _peer(self, member: Member, mine: VectorClock) -> dict[str, Any]:
        peer = member.node
        report = await self.board.peer(peer)
        lacking = mine.beyond(report.clock)
        now_us = self.now_us()
        oldest_us = now_us
        for actor in lacking:
            with suppress(errors.LogTrimmed):
                for write in await self.store.log_after(actor, report.clock[actor], 1):
                    oldest_us = min(oldest_us, write.timestamp)
        sending = await self.board.sending(peer)
        heard = report.last_contact_us
        fault = await self.board.fault(peer) if self.config.faults else HEALTHY
        return {
            "url": member.url or None,
            "reachable": not report.error,
            "error": report.error or None if member.url else _NO_URL,
            "clock": report.clock.to_dict() if heard else None,
            "lag_writes": writes_beyond(mine, report.clock),
            "lag_s": round((now_us - oldest_us) / 1e6, 3),
            "skew_ms": report.skew_us / 1000 if heard else None,
            "last_contact_s": round((now_us - heard) / 1e6, 3) if heard else None,
            "snapshot": sending
            and {
                "sent_keys": sending.sent,
                "total_keys": sending.total,
                "since_s": round((now_us - sending.begun_us) / 1e6, 3),
            },
            "faults": None if fault == HEALTHY else fault.to_dict(),
        }

    async def metrics(self, request: web.Request) -> web.Response:
        """What has happened at all workers of this node, and where it stands, for Prometheus."""
        checks.known_parameters(request)
        try:
            clock = await self.store.clock()
            life = await self.store.life()
            standing = metrics.Standing(
                life.actor,
                life.since_us,
                clock,
                await self.buffer.counts(),
                await self._peers(clock),
            )
        except errors.RedisUnavailable:
            standing = None
        text = metrics.exposition(self.config.node_id, __version__, standing)
        return web.Response(body=text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def pending(self, request: web.Request) -> web.Response:
        """The writes that wait, and which writes each waits for."""
        checks.known_parameters(request)
        counts = await self.buffer.counts()
        now_us = self.now_us()
        peers = await self._clocks()
        writes = [
            {
                "dot": str(blocked.waiting.write.dot),
                "dependencies": blocked.waiting.write.dependencies.to_dict(),
                "waiting_for": [str(dot) for dot in blocked.waiting_for],
                "could_come_from": {str(dot): _holders(dot, peers) for dot in blocked.waiting_for},
                "waiting_s": round((now_us - blocked.waiting.since_us) / 1e6, 3),
                "keys": [operation.key for operation in blocked.waiting.write.operations],
            }
            for blocked in await self.buffer.blocked(PENDING_SHOWN_MAX)
        ]
        return web.json_response({"total": sum(counts.values()), "writes": writes})

    async def healthz(self, _request: web.Request) -> web.Response:
        """This worker runs."""
        return web.json_response({"status": "alive"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """This node can serve: its Redis answers, and holds its state."""
        await self.store.check()
        self.members.check()
        await self._check_joined()
        return web.json_response({"status": "ready"})

    async def _check_joined(self) -> None:
        """A node that began with nothing has what its peers had, but for what no member that it
        reaches can give it. Raises Joining."""
        lacking = (await self.store.joining()).beyond(self.progress.clock)
        if not lacking:
            return
        reports = await self.board.peers(self.members.others)
        reached = [report.clock for report in reports.values() if not report.error]
        mine = self.progress.clock
        lacking = VectorClock(
            (actor, sequence)
            for actor, sequence in lacking.items()
            if not reached or any(clock[actor] > mine[actor] for clock in reached)
        )
        if lacking:
            raise errors.Joining(sum(s - mine[a] for a, s in lacking.items()))

    # --- faults ----------------------------------------------------------------------------------

    async def put_fault(self, request: web.Request) -> web.Response:
        """The link to the peer has this fault, from the next batch on."""
        peer = self._linked_peer(request)
        fault = parse_fault(await checks.body(request, _FAULT_MAX_BYTES, "fault", None))
        await self.board.set_fault(peer, fault)
        self.fault_changed(peer)
        return web.json_response(fault.to_dict())

    async def delete_fault(self, request: web.Request) -> web.Response:
        """The link to the peer is healthy, and what was delayed on it is on its way."""
        peer = self._linked_peer(request)
        await self.board.set_fault(peer, HEALTHY)
        self.fault_changed(peer)
        return web.Response(status=204)

    def _linked_peer(self, request: web.Request) -> str:
        peer = request.match_info["peer"]
        if peer == self.config.node_id or self.members.known(peer) is None:
            raise errors.UnknownPeer(
                f"This node has no peer {peer!r}: it has {listing(sorted(self.members.others))}. "
                "No link was changed."
            )
        return peer


def _holders(dot: Dot, peers: Mapping[str, VectorClock]) -> list[str]:
    """The peers that could send the write: who made it, and who has said that it has it."""
    return sorted(
        peer for peer, clock in peers.items() if clock.covers(dot) or peer == node_of(dot.actor)
    )
