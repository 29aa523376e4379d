"""The clients of a run: every session of the plan asks, one request after the other, until told.

What it is: `Load`, and `Tally`, the counts of what became of the requests.

What it assumes and guarantees: what is asked follows from the plan alone. How much of it is asked
before the end, and where a session that fails over ends up, does not. Every request is recorded by
the client itself, so nothing is remembered here but counts. A session that no node can serve ever
again, for it has seen what is lost with a disk, is begun anew: when it is refused, or as soon as
the loss is known; who still asks on is known to `Losses.seen`.

What it does not know: what is broken meanwhile, and what the answers should be.

Where the idea is from: Jepsen's workloads; sticky readers and writers of few keys find a missing
dependency check soonest (tests/simulation/plan.py).
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from client import Lightcone, LightconeError, Session
from client.answers import Transacted, Written
from tests.chaos.clients import Request, SessionPlan, ttl_s_of
from tests.chaos.losses import Losses
from tests.chaos.plan import Plan

PATIENCE_S = 0.5


@dataclass
class Tally:
    """How many requests ended how, so far: `ok`, `not_applied` or `unknown`."""

    reads: Counter[str] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    #: By the kind of problem, or the error where no node named one.
    refusals: Counter[str] = field(default_factory=Counter)
    #: Writes acknowledged, by node.
    by_node: Counter[str] = field(default_factory=Counter)
    #: Sessions that had seen what is lost.
    begun_anew: int = 0
    #: Writes that were accepted, and are done later.
    deferred: int = 0

    def total(self) -> int:
        """All requests."""
        return self.reads.total() + self.writes.total()


class Load:
    """All clients of a plan."""

    def __init__(self, plan: Plan, kv: Lightcone, urls: dict[str, str], losses: Losses) -> None:
        self.tally = Tally()
        self._kv = kv
        self._losses = losses
        self._plan = plan
        self._urls = urls
        self._names = {url: node for node, url in urls.items()}
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Every client has asked until `stop`, and has had its last answer."""
        async with asyncio.TaskGroup() as clients:
            for planned in self._plan.sessions:
                clients.create_task(self._client(planned))

    def stop(self) -> None:
        """No client begins another request."""
        self._stop.set()

    async def _client(self, planned: SessionPlan) -> None:
        session = self._begin(planned)

        def seen() -> str:
            return session.context

        self._losses.seen.append(seen)
        for request in self._plan.requests_of(planned):
            if await self._stopped_within(request.pause_s):
                break
            if self._losses.are_in(session.context) or not await self._ask(session, request):
                self.tally.begun_anew += 1
                session = self._begin(planned)
        self._losses.seen.remove(seen)

    def _begin(self, planned: SessionPlan) -> Session:
        return self._kv.session(
            name=planned.name, timeout_s=planned.timeout_s, patience_s=PATIENCE_S
        )

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    async def _ask(self, session: Session, request: Request) -> bool:
        """The request was made. Whether the session can go on: not if what it has seen is lost."""
        session = session.at(*(self._urls[node] for node in request.nodes))
        is_write = request.kind == "delete" or bool(request.value)
        counts = self.tally.writes if is_write else self.tally.reads
        try:
            match request.kind:
                case "put":
                    written = await session.put(
                        request.key,
                        request.value,
                        ttl_s=ttl_s_of(request.key),
                        deferred=request.deferred,
                    )
                    self._count(written)
                case "delete":
                    await session.delete(request.key)
                case "get":
                    await session.get(request.key)
                case "siblings":
                    await session.siblings(request.key)
                case "txn":
                    async with session.txn(deferred=request.deferred) as txn:
                        for key in request.keys:
                            if not request.deferred:
                                txn.get(key)
                            if is_write:
                                txn.put(key, request.value)
                    if is_write:
                        self._count(txn.result)
        except LightconeError as error:
            counts[error.outcome] += 1
            self.tally.refusals[error.kind or type(error).__name__] += 1
            return not self._losses.explain(error)
        counts["ok"] += 1
        return True

    def _count(self, done: Written | Transacted) -> None:
        self.tally.by_node[self._names[done.node]] += 1
        self.tally.deferred += done.deferred
