"""A run on nodes of the model, as evidence: what the final checks are tried on.

What it is: `model_run`, which lets the sessions of a plan ask nodes of `tests/model.py`, and
returns what a real run would have left behind, also when a node is put back to an earlier state;
and `model_result`, what would come of that.

What it assumes and guarantees: the model keeps its promises, so every check must find this evidence
good; and it is rich enough that each check has something to look at. The same plan gives the same
evidence.

What it does not know: processes, faults, and time.
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from app.vector_clock import Dot as AppDot
from app.vector_clock import VectorClock, node_of
from app.write import Delete, Put, Write
from tests.chaos.clients import Request, SessionPlan, ttl_s_of
from tests.chaos.conduct import Firing
from tests.chaos.ends import within
from tests.chaos.evidence import Evidence, Verdict
from tests.chaos.final import verdicts
from tests.chaos.load import Tally
from tests.chaos.logbook import Logbook
from tests.chaos.losses import Loss
from tests.chaos.model_redis import listed_keys, logs_of, trimmed, versions_held
from tests.chaos.plan import Plan, plan_for
from tests.chaos.run import Result
from tests.chaos.timeline import Sample, Timeline
from tests.chaos.watched import Stretch, Told, as_ended
from tests.checker.history import Dot, Operation, Read, Seen
from tests.checker.history import Write as Wrote
from tests.model import Node

_ROUNDS = 12
#: From one request to the next, and from the last one until all has expired that does so soon.
_TICK_US = 40_000
_HOUR_US = 3_600_000_000
#: So that such few writes are trimmed.
_SHORT_LOGS = {"LOG_MIN_ENTRIES": "4", "LOG_MAX_ENTRIES": "8"}


def model_run(seed: int = 1, *, loses: str = "") -> Evidence:
    """The evidence of a good run, in which the disk of this node is another one half-way: what was
    written last is lost, and of what was deferred something was in the copy.
    """
    plan = plan_for(seed, seconds=10)
    plan = replace(plan, settings={**plan.settings, **_SHORT_LOGS})
    asking = _Asking(plan)
    asking.go_on(_ROUNDS // 2)
    if loses:
        asking.lose_disk(loses)
    asking.go_on(_ROUNDS // 2)
    asking.let_time_pass()
    asking.readlogs_of()
    nodes, keys, expiring = asking.nodes, plan.keys(), plan.expiring_keys()
    asking.history += [_final(*place) for place in itertools.product(nodes.values(), keys)]
    asking.expiring += [_final(*place) for place in itertools.product(nodes.values(), expiring)]
    versions = {name: versions_held(node, [*keys, *expiring]) for name, node in nodes.items()}
    ends = {f"{loses}+": asking.ended} if loses else {}
    asking.bound(ends)
    return Evidence(
        plan=plan,
        history=asking.history,
        expiring=asking.expiring,
        keys=keys,
        firings=[Firing(s, 1.0, proof="seen", healing_s=2.0, ended_s=3.0) for s in plan.strikes()],
        settled_s=0.5,
        clocks={name: within(node.clock.to_dict(), ends) for name, node in nodes.items()},
        timestamps={name: node.timestamp for name, node in nodes.items()},
        versions=versions,
        listed={name: listed_keys(held, expiring) for name, held in versions.items()},
        done_as=asking.done_as,
        ends=ends,
        logs={name: trimmed(logs_of(node), plan.log_entries_max) for name, node in nodes.items()},
        logbook=asking.logbook,
        pending={name: [] for name in nodes},
        losses=asking.losses,
        snapshots=dict.fromkeys(nodes, 1),
        stretches=[as_ended(_watched(asking.logbook), ends)],
    )


def _watched(book: Logbook) -> Stretch:
    """What a watcher is told of all that was written, from the beginning."""
    stretch = Stretch("watcher", VectorClock())
    # A write is later than all that it depends on.
    for write in sorted(book.writes.values(), key=lambda write: write.timestamp):
        dot = AppDot.parse(write.dot)
        stretch.clock = stretch.clock.with_dot(dot)
        stretch.told.append(Told(dot, VectorClock(write.dependencies), stretch.clock))
    return stretch


def model_result(*more: Verdict, proof: str = "seen") -> Result:
    """What comes of a good run, with verdicts added and with this proof of every strike."""
    evidence = model_run()
    strikes = evidence.plan.strikes()
    nodes = evidence.plan.nodes
    samples = [
        Sample(
            float(at),
            {"ok": 10 * at},
            {"ok": 5 * at, "unknown": at},
            {node: {"A": at} for node in nodes[: 1 + at % 3]},
            dict.fromkeys(nodes, 0),
            dict.fromkeys(nodes, 5 * at % 20),
        )
        for at in range(20)
    ]
    return Result(
        plan=evidence.plan,
        verdicts=[*verdicts(evidence), *more],
        firings=[Firing(s, i, proof, "", i + 1.0, i + 2.0) for i, s in enumerate(strikes)],
        timeline=Timeline(nodes, samples),
        tally=Tally(),
        took_s=20.0,
        redis=dict.fromkeys(nodes, "7.0.15"),
        history=Path("history.jsonl"),
    )


class _Asking:
    """The sessions take turns, and the first request of each is refused."""

    def __init__(self, plan: Plan) -> None:
        self.nodes = {name: Node(name) for name in plan.nodes}
        self.history: list[Operation] = []
        self.expiring: list[Operation] = []
        self.done_as: dict[str, str] = {}
        #: What each node lacks of what its deferred writes follow.
        self._owed: defaultdict[str, list[Write]] = defaultdict(list)
        #: Up to where the lane goes that was ended.
        self.ended = 0
        self.losses: list[Loss] = []
        self.logbook = Logbook()
        self._requests = {session: plan.requests_of(session) for session in plan.sessions}
        self._names = {session: session.name for session in plan.sessions}
        self._last = {session: session.home for session in plan.sessions}

    @property
    def _now(self) -> int:
        return len(self.history) + len(self.expiring)

    def go_on(self, rounds: int) -> None:
        """Each session has asked so often."""
        for _ in range(rounds):
            for session, requests in self._requests.items():
                request = next(requests)
                home, last = request.nodes[0], self._last[session]
                self._last[session] = home
                self._commit_deferred(self.nodes[last])
                if self._now < len(self._requests):
                    self._note(_refused(session, request))
                elif request.deferred and not self.nodes[last].clock <= self.nodes[home].clock:
                    self._note(self._defer(session, request, self.nodes[last]))
                else:
                    # All that the session can have seen, and no more: so there is concurrency.
                    self.nodes[home].receive(self.nodes[last].applied)
                    self._note(self._ask(session, request))

    def bound(self, ends: Mapping[str, int]) -> None:
        """What clients were told of actors goes no further than the ends of those."""
        for told in (self.history, self.expiring):
            told[:] = [
                replace(op, dependencies=within(op.dependencies, ends)) if op.dependencies else op
                for op in told
            ]

    def spread(self) -> None:
        """All nodes have everything."""
        for node in self.nodes.values():
            self._commit_deferred(node)
        for one, other in itertools.permutations(self.nodes.values(), 2):
            other.receive(one.applied)

    def readlogs_of(self) -> None:
        """What stands in the logs is in the book."""
        for name, node in self.nodes.items():
            self.logbook.note(name, logs_of(node))

    def let_time_pass(self) -> None:
        """All nodes have everything, and what expires soon has expired."""
        self.spread()
        now_us = max(node.timestamp for node in self.nodes.values()) + _HOUR_US
        name, node = next(iter(self.nodes.items()))
        dot = Dot.parse(str(node.write([Delete("nothing")], now_us).dot))
        now, wrote = self._now, (Wrote("nothing", None),)
        self.history.append(
            Operation("passing", name, "delete", (), wrote, dot, start=now, end=now)
        )
        self.spread()
        for node in self.nodes.values():
            node.remove_expired(0)
        for session, name in self._names.items():
            asked = [op for op in self.expiring if op.session == name and op.outcome == "ok"]
            for key in dict.fromkeys(wrote.key for op in asked for wrote in op.writes):
                node, now = self.nodes[session.home], _TICK_US * self._now
                read = _seen(node, key, now)
                self._note(Operation(session.name, session.home, "siblings", (read,)))

    def lose_disk(self, name: str) -> None:
        """What its own sessions did and saw last at the node is lost, and they have begun anew.

        So is one of two writes that were deferred there; the other one was in the copy.
        """
        self.spread()
        node, other = self.nodes[name], next(n for n in self.nodes if n != name)
        held = node.clock[name]
        at_home = [session for session in self._requests if session.home == name]
        for session in at_home * 6:
            request = replace(next(self._requests[session]), nodes=(name,))
            operation = self._ask(session, request)
            # Each has seen the whole clock, which is more than a context would tell.
            newest = Dot(name, node.clock[name])
            self._note(operation, lost=newest if newest.sequence > held else None)
        kept = self._accept(node, "patient", self.nodes[other].clock)
        self._accept(node, "unlucky", node.clock)
        self.readlogs_of()
        before, self.ended = kept.sequence - 1, self.nodes[other].clock[kept.actor]
        self.losses += [
            Loss(name, name, self._now, held, held),
            Loss(name, kept.actor, self._now, before, kept.sequence, kept.sequence),
        ]
        waits = {kept: node.deferred[kept]}
        self.nodes[name] = Node(
            f"{name}~1", applied=list(self.nodes[other].applied), deferred=waits
        )
        done = self.nodes[name].commit_former(kept.actor, _TICK_US * self._now)
        assert done is not None
        self.done_as[str(kept)] = str(done.dot)
        self._learn(str(kept), done)
        self._names |= {session: f"{session.name}-1" for session in at_home}

    def _ask(self, session: SessionPlan, request: Request) -> Operation:
        return _served(session, request, self.nodes[request.nodes[0]], _TICK_US * self._now)

    def _defer(self, session: SessionPlan, request: Request, last: Node) -> Operation:
        """It is accepted, and done later."""
        home = request.nodes[0]
        dot = self.nodes[home].accept(_puts(request), last.clock)
        self._owed[home] += last.applied
        wrote = tuple(Wrote(key, request.value) for key in request.keys)
        return Operation(session.name, home, request.kind, (), wrote, Dot.parse(str(dot)))

    def _commit_deferred(self, node: Node) -> None:
        """What waits at the node has come to follow what is there, and is done."""
        node.receive(self._owed.pop(node_of(node.name), ()))
        for write in node.commit_deferred(_TICK_US * self._now):
            self._learn(str(write.dot), write)

    def _accept(self, node: Node, who: str, context: VectorClock) -> AppDot:
        """A write of somebody is accepted, and waits."""
        dot = node.accept([Put("hot/0", who.encode(), "text/plain")], context)
        name, named = node_of(node.name), Dot.parse(str(dot))
        lost = named if who == "unlucky" else None
        now, wrote = self._now, (Wrote("hot/0", who),)
        self.history.append(
            Operation(who, name, "put", (), wrote, named, lost=lost, start=now, end=now)
        )
        return dot

    def _learn(self, name: str, write: Write) -> None:
        """What was accepted under a name is done, as this write."""
        for told in (self.history, self.expiring):
            for index, op in enumerate(told):
                if str(op.dot) == name:
                    dot = Dot.parse(str(write.dot))
                    told[index] = replace(op, dot=dot, dependencies=write.dependencies.to_dict())

    def _note(self, operation: Operation, lost: Dot | None = None) -> None:
        session = next(s for s in self._names if s.name == operation.session)
        told = self.history if ttl_s_of(session.keys[0]) is None else self.expiring
        name = self._names[session]
        told.append(replace(operation, session=name, start=self._now, end=self._now, lost=lost))


def _served(session: SessionPlan, request: Request, node: Node, now: int) -> Operation:
    name = node_of(node.name)
    if request.kind in ("get", "siblings"):
        read = _seen(node, request.key, now)
        return Operation(session.name, name, request.kind, (read,))
    if request.kind == "delete":
        delete = node.write([Delete(request.key)], now)
        wrote = Wrote(request.key, None)
        dot = Dot.parse(str(delete.dot))
        return Operation(session.name, name, "delete", (), (wrote,), dot)
    reads = tuple(_seen(node, key, now) for key in request.keys) if request.kind == "txn" else ()
    reads = () if request.deferred else reads
    if not request.value:
        return Operation(session.name, name, "txn", reads)
    write = node.write(_puts(request), now)
    return Operation(
        session.name,
        name,
        request.kind,
        reads,
        tuple(Wrote(key, request.value) for key in request.keys),
        Dot.parse(str(write.dot)),
        write.dependencies.to_dict(),
    )


def _refused(session: SessionPlan, request: Request) -> Operation:
    value = request.value or f"{session.name}.refused"
    writes = (Wrote(request.key, value),)
    return Operation(session.name, session.home, "put", (), writes, outcome="not_applied")


def _puts(request: Request) -> list[Put]:
    ttl_us = round(1_000_000 * (ttl_s_of(request.key) or 0))
    return [Put(key, request.value.encode(), "text/plain", ttl_us) for key in request.keys]


def _final(node: Node, key: str) -> Operation:
    name = node_of(node.name)
    read = _seen(node, key, node.timestamp)
    return Operation(f"final-{name}", name, "siblings", (read,), carries=False, final=True)


def _seen(node: Node, key: str, now: int) -> Read:
    versions = node.versions(key, now)
    seen = tuple(Seen(v.value.decode(), Dot.parse(str(v.dot))) for v in versions)
    return Read(key, seen, complete=True)
