"""What the node answers about itself: where it stands, for people and for Prometheus.

Assumes that the board has what peers last said. Guarantees that whoever looks changes nothing.

Does not know what follows from it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from app import __version__, errors, metrics, shapes
from app.board import Board, PeerReport
from app.buffer import PendingBuffer
from app.config import Config
from app.contract import JSON, Answer, Content, Route
from app.deferred import DeferredWrites
from app.faults import HEALTHY
from app.interface import Interface
from app.kv_store import KVStore
from app.members import Member, Members
from app.replies import Reply, json_reply
from app.snapshot_receiving import SnapshotReceiving
from app.stability import held_back, stable, writes_beyond
from app.vector_clock import VectorClock
from app.write import Write

_NO_URL: Final = "no URL of it is known here: POST /members, or add it to PEERS"

STATUS: Final = Route(
    name="status",
    method="GET",
    path="/status",
    group="node",
    about="Where this node stands, and how far it sees each peer.",
    answers=(
        Answer(
            200,
            "The status.",
            Content(
                JSON,
                shapes.Status,
                {
                    **{"node": "A", "actor": "A", "incarnation": None, "version": __version__},
                    **{"clock": {"A": 3, "B": 1}, "timestamp": 1795379720493924},
                    "pending": {"total": 1, "by_actor": {"C": 1}},
                    "deferred": {
                        **{"total": 1, "bytes": 38, "next": "A+:1", "waiting_for": ["C:2"]},
                        "since_s": 0.52,
                    },
                    "log": {
                        **{"entries": 4, "bytes": 2210, "stable": {"A": 2}},
                        "held_back_by": [{"peer": "B", "writes": 2, "since_s": 1.25}],
                    },
                    "snapshot": None,
                    "peers": {
                        "B": {
                            **{"url": "http://127.0.0.1:8002", "reachable": True, "error": None},
                            **{"clock": {"A": 2}, "lag_writes": 2, "lag_s": 1.49, "skew_ms": 2.173},
                            **{"last_contact_s": 0.09, "snapshot": None, "faults": None},
                        }
                    },
                    "removed": [],
                    "limits": {"value_max_bytes": 1048576, "txn_max_operations": 100},
                },
            ),
        ),
    ),
    problems=(errors.RedisUnavailable,),
    head=True,
)
METRICS: Final = Route(
    name="metrics",
    method="GET",
    path="/metrics",
    group="node",
    about="What has happened at all workers of this node, and where it stands, for Prometheus.",
    answers=(Answer(200, "Prometheus' text format.", Content("text/plain")),),
    head=True,
)


def limits(config: Config) -> dict[str, int]:
    """The settings that limit sizes and counts."""
    ends = ("_max", "_max_bytes", "_max_entries", "_max_writes", "_max_operations")
    return {name: value for name, value in config.model_dump().items() if name.endswith(ends)}


@dataclass(frozen=True, slots=True)
class StatusRoutes:
    """The routes by which a node is looked over."""

    config: Config
    members: Members
    store: KVStore
    buffer: PendingBuffer
    deferred: DeferredWrites
    receiving: SnapshotReceiving
    board: Board
    now_us: Callable[[], int]

    def add_to(self, interface: Interface) -> None:
        """These routes are served."""
        interface.serve(STATUS, self.status)
        interface.serve(METRICS, self.metrics)

    async def status(self, request: web.BaseRequest) -> Reply:
        """Where this node stands, and how far it sees each peer."""
        clock = await self.store.clock()
        life = await self.store.life()
        waiting = await self.buffer.counts()
        reports = await self.board.peers(self.members.others)
        peers = await self._peers(clock, reports)
        answer: shapes.Status = {
            "node": self.config.node_id,
            "actor": life.actor or None,
            "incarnation": {"since": life.since_us, "reason": life.reason} if life.reason else None,
            "version": __version__,
            "clock": clock.to_dict(),
            "timestamp": life.timestamp,
            "pending": {"total": sum(waiting.values()), "by_actor": waiting},
            "deferred": await self._deferred(clock),
            "log": await self._log(clock, reports, peers),
            "snapshot": await self._snapshot(),
            "peers": peers,
            "removed": [member.node for member in self.members.all if member.removed],
            "limits": limits(self.config),
        }
        return json_reply(answer)

    async def _deferred(self, clock: VectorClock) -> shapes.DeferredCount:
        """How many deferred writes wait, and what for."""
        total, size = await self.deferred.counts()
        if not total or not (found := await self.deferred.first(1)):
            return {"total": 0, "bytes": 0, "next": None, "waiting_for": [], "since_s": None}
        (first,) = found
        waits = self.deferred.waits_for(first.dot, first.context, clock)
        return {
            "total": total,
            "bytes": size,
            "next": str(first.dot),
            "waiting_for": [str(dot) for dot in waits],
            "since_s": round((self.now_us() - first.since_us) / 1e6, 3),
        }

    async def _log(
        self,
        mine: VectorClock,
        reports: Mapping[str, PeerReport],
        peers: Mapping[str, shapes.PeerStatus],
    ) -> shapes.LogStatus:
        """How long the logs are, and which of the peers holds them back most."""
        sizes = await self.store.log.sizes(mine)
        clocks = {peer: reports[peer].has for peer in peers}
        return {
            "entries": sum(size.entries for size in sizes.values()),
            "bytes": sum(size.bytes for size in sizes.values()),
            "stable": stable(mine, clocks.values()).to_dict(),
            "held_back_by": [
                {
                    "peer": held.member,
                    "writes": held.writes,
                    "since_s": peers[held.member]["lag_s"],
                }
                for held in held_back(mine, clocks)
            ],
        }

    async def _lag_s(self, mine: VectorClock, clock: VectorClock) -> float:
        """How old the oldest write is that a node with this clock lacks; of those that no log has
        any more, at least as old as the oldest that there is."""
        now_us = oldest_us = self.now_us()
        for actor in mine.beyond(clock):
            for write in await self._first_after(actor, clock[actor]):
                oldest_us = min(oldest_us, write.timestamp)
        return round((now_us - oldest_us) / 1e6, 3)

    async def _first_after(self, actor: str, sequence: int) -> Sequence[Write]:
        """The first write of the actor after this one that its log has, if it has any."""
        try:
            return await self.store.log.after(actor, sequence, 1)
        except errors.LogTrimmed:
            pass
        with suppress(errors.LogTrimmed):  # again, meanwhile
            if first := await self.store.log.begin(actor):
                return await self.store.log.after(actor, first - 1, 1)
        return ()

    async def _snapshot(self) -> shapes.SnapshotStatus | None:
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

    async def _peers(
        self, mine: VectorClock, reports: Mapping[str, PeerReport]
    ) -> dict[str, shapes.PeerStatus]:
        known = ((self.members.known(peer), report) for peer, report in reports.items())
        return {m.node: await self._peer(m, report, mine) for m, report in known if m}

    async def _peer(
        self, member: Member, report: PeerReport, mine: VectorClock
    ) -> shapes.PeerStatus:
        peer = member.node
        now_us = self.now_us()
        sending = await self.board.sending(peer)
        heard = report.last_contact_us
        fault = await self.board.fault(peer) if self.config.faults else HEALTHY
        return {
            "url": member.url or None,
            "reachable": not report.error,
            "error": report.error or None if member.url else _NO_URL,
            "clock": report.clock.to_dict() if heard else None,
            "lag_writes": writes_beyond(mine, report.has),
            "lag_s": await self._lag_s(mine, report.has),
            "skew_ms": report.skew_us / 1000 if heard else None,
            "last_contact_s": round((now_us - heard) / 1e6, 3) if heard else None,
            "snapshot": None
            if sending is None
            else {
                "sent_keys": sending.sent,
                "total_keys": sending.total,
                "since_s": round((now_us - sending.begun_us) / 1e6, 3),
            },
            "faults": None if fault == HEALTHY else fault.to_dict(),
        }

    async def metrics(self, request: web.BaseRequest) -> Reply:
        """What has happened at all workers of this node, and where it stands, for Prometheus."""
        try:
            clock = await self.store.clock()
            life = await self.store.life()
            deferred, _ = await self.deferred.counts()
            standing = metrics.Standing(
                life.actor,
                life.since_us,
                clock,
                await self.buffer.counts(),
                deferred,
                await self._peers(clock, await self.board.peers(self.members.others)),
            )
        except errors.RedisUnavailable:
            standing = None
        text = metrics.exposition(self.config.node_id, __version__, standing)
        return Reply(text, headers={"Content-Type": metrics.CONTENT_TYPE})
