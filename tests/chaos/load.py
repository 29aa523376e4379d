"""The clients of a run: every session of the plan asks, one request after the other, until told.

What it is: `Load`, and `Tally`, the counts of what became of the requests.

What it assumes and guarantees: what is asked follows from the plan alone. How much of it is asked
before the end, and where a session that fails over ends up, does not. Every request is recorded by
the client itself, so nothing is remembered here but counts.

What it does not know: what is broken meanwhile, and what the answers should be.

Where the idea is from: Jepsen's workloads; sticky readers and writers of few keys find a missing
dependency check soonest (tests/simulation/plan.py).
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from client import Lightcone, LightconeError, Session
from tests.chaos.plan import Plan, Request, SessionPlan, requests_of

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

    def total(self) -> int:
        """All requests."""
        return self.reads.total() + self.writes.total()


class Load:
    """All clients of a plan."""

    def __init__(self, plan: Plan, kv: Lightcone, urls: dict[str, str]) -> None:
        self.tally = Tally()
        self._plan = plan
        self._urls = urls
        self._names = {url: node for node, url in urls.items()}
        self._sessions = {
            session: kv.session(
                name=session.name, timeout_s=session.timeout_s, patience_s=PATIENCE_S
            )
            for session in plan.sessions
        }
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Every client has asked until `stop`, and has had its last answer."""
        async with asyncio.TaskGroup() as clients:
            for planned, session in self._sessions.items():
                clients.create_task(self._client(planned, session))

    def stop(self) -> None:
        """No client begins another request."""
        self._stop.set()

    async def _client(self, planned: SessionPlan, session: Session) -> None:
        for request in requests_of(self._plan, planned):
            if await self._stopped_within(request.pause_s):
                return
            await self._ask(session.at(*(self._urls[node] for node in request.nodes)), request)

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    async def _ask(self, session: Session, request: Request) -> None:
        is_write = request.kind in ("put", "delete")
        counts = self.tally.writes if is_write else self.tally.reads
        try:
            match request.kind:
                case "put":
                    written = await session.put(request.key, request.value)
                    self.tally.by_node[self._names[written.node]] += 1
                case "delete":
                    await session.delete(request.key)
                case "get":
                    await session.get(request.key)
                case "siblings":
                    await session.siblings(request.key)
        except LightconeError as error:
            counts[error.outcome] += 1
            self.tally.refusals[error.kind or type(error).__name__] += 1
        else:
            counts["ok"] += 1
