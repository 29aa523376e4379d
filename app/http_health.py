"""What the node answers to who asks whether it runs, and whether it can serve.

Assumes that the board has what peers last said. Guarantees that a node which is not ready says why.

Does not know who asks: a load balancer, as a rule.
"""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from app import errors, shapes
from app.board import Board
from app.contract import JSON, Answer, Content, Route
from app.interface import Interface
from app.kv_store import KVStore
from app.members import Members
from app.progress import Progress
from app.replies import Reply, json_reply
from app.snapshot_receiving import SnapshotReceiving
from app.stability import writes_beyond
from app.vector_clock import VectorClock

HEALTHZ: Final = Route(
    name="healthz",
    method="GET",
    path="/healthz",
    group="node",
    about="This worker runs. Redis is not asked.",
    answers=(Answer(200, "It does.", Content(JSON, shapes.Alive, {"status": "alive"})),),
    head=True,
)
READYZ: Final = Route(
    name="readyz",
    method="GET",
    path="/readyz",
    group="node",
    about="This node can serve: its Redis answers, and holds its state.",
    answers=(Answer(200, "It can.", Content(JSON, shapes.Ready, {"status": "ready"})),),
    problems=(
        *(errors.RedisUnavailable, errors.NotReady, errors.Syncing),
        *(errors.Joining, errors.NodeRemoved),
    ),
    head=True,
)


@dataclass(frozen=True, slots=True)
class HealthRoutes:
    """The routes of who watches over a node."""

    members: Members
    store: KVStore
    receiving: SnapshotReceiving
    progress: Progress
    board: Board

    def add_to(self, interface: Interface) -> None:
        """These routes are served."""
        interface.serve(HEALTHZ, self.healthz)
        interface.serve(READYZ, self.readyz)

    async def healthz(self, _request: web.BaseRequest) -> Reply:
        """This worker runs."""
        answer: shapes.Alive = {"status": "alive"}
        return json_reply(answer)

    async def readyz(self, _request: web.BaseRequest) -> Reply:
        """This node can serve: its Redis answers, and holds its state."""
        try:
            await self.store.check()
        except errors.Syncing:
            state = await self.receiving.state()
            raise errors.Syncing((state.merged, state.keys) if state else None) from None
        self.members.check()
        await self._check_joined()
        answer: shapes.Ready = {"status": "ready"}
        return json_reply(answer)

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
            raise errors.Joining(writes_beyond(lacking, mine))
