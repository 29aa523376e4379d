"""What the node answers about the writes that wait in it, and for what.

Assumes that the board has what peers last said. Guarantees that whoever looks changes nothing.

Does not know when anything will come.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from app import errors, shapes
from app.board import Board
from app.buffer import PendingBuffer
from app.codec import Deferred
from app.config import Config
from app.contract import JSON, Answer, Content, Route
from app.deferred import DeferredWrites
from app.interface import Interface
from app.kv_store import KVStore
from app.members import Members
from app.replies import Reply, json_reply
from app.vector_clock import Dot, VectorClock, node_of

PENDING_SHOWN_MAX: Final = 1000
"""Waiting writes that `GET /pending` lists; the total is always exact."""

PENDING: Final = Route(
    name="pending",
    method="GET",
    path="/pending",
    group="node",
    about="The writes that wait here, those that came too early and those that were deferred, and "
    "exactly which writes each waits for.",
    answers=(
        Answer(
            200,
            f"The first {PENDING_SHOWN_MAX} of either.",
            Content(
                JSON,
                shapes.Pending,
                {
                    "total": 1,
                    "writes": [
                        {
                            **{"dot": "B:1", "dependencies": {"A": 3}, "waiting_for": ["A:3"]},
                            **{"could_come_from": {"A:3": ["A", "B"]}, "waiting_s": 1.255},
                            "keys": ["reply"],
                        }
                    ],
                    "deferred_total": 1,
                    "deferred": [
                        {
                            **{"dot": "C+:1", "context": {"A": 3}, "waiting_for": ["A:3"]},
                            **{"could_come_from": {"A:3": ["A", "B"]}, "waiting_s": 0.52},
                            "keys": ["reply"],
                        }
                    ],
                },
            ),
        ),
    ),
    problems=(errors.RedisUnavailable,),
    head=True,
)


@dataclass(frozen=True, slots=True)
class PendingRoutes:
    """The route by which waiting writes are looked at."""

    config: Config
    members: Members
    store: KVStore
    buffer: PendingBuffer
    deferred: DeferredWrites
    board: Board
    now_us: Callable[[], int]

    def add_to(self, interface: Interface) -> None:
        """This route is served."""
        interface.serve(PENDING, self.pending)

    async def pending(self, request: web.BaseRequest) -> Reply:
        """The writes that wait, and which writes each waits for."""
        clock = await self.store.clock()
        counts = await self.buffer.counts()
        now_us = self.now_us()
        reports = await self.board.peers(self.members.others)
        peers = {peer: report.has for peer, report in reports.items()}
        writes: list[shapes.PendingWrite] = [
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
        deferred, _ = await self.deferred.counts()
        answer: shapes.Pending = {
            "total": sum(counts.values()),
            "writes": writes,
            "deferred_total": deferred,
            "deferred": [
                self._deferred_write(one, clock, peers)
                for one in (await self.deferred.first(PENDING_SHOWN_MAX) if deferred else ())
            ],
        }
        return json_reply(answer)

    def _deferred_write(
        self, one: Deferred, clock: VectorClock, peers: Mapping[str, VectorClock]
    ) -> shapes.DeferredWrite:
        waits = self.deferred.waits_for(one.dot, one.context, clock)
        elsewhere = [dot for dot in waits if node_of(dot.actor) != self.config.node_id]
        return {
            "dot": str(one.dot),
            "context": one.context.to_dict(),
            "waiting_for": [str(dot) for dot in waits],
            "could_come_from": {str(dot): _holders(dot, peers) for dot in elsewhere},
            "waiting_s": round((self.now_us() - one.since_us) / 1e6, 3),
            "keys": [operation.key for operation in one.operations],
        }


def _holders(dot: Dot, peers: Mapping[str, VectorClock]) -> list[str]:
    """The peers that could send the write: who made it, and who has said that it has it."""
    return sorted(
        peer for peer, clock in peers.items() if clock.covers(dot) or peer == node_of(dot.actor)
    )
