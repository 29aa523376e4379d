"""A run on nodes of the model, as evidence: what the final checks are tried on.

What it is: `model_run`, which lets the sessions of a plan ask nodes of `tests/model.py`, and
returns what a real run would have left behind, also when a node loses its disk; and `model_result`,
what would come of that.

What it assumes and guarantees: the model keeps its promises, so every check must find this evidence
good; and it is rich enough that each check has something to look at. The same plan gives the same
evidence.

What it does not know: processes, faults, and time.
"""

import itertools
from dataclasses import replace
from pathlib import Path

from app.codec import pack_operations
from app.vector_clock import Dot as AppDot
from app.vector_clock import VectorClock, node_of
from app.write import Delete, Put, Write
from tests.chaos.conduct import Firing
from tests.chaos.evidence import Evidence, Verdict
from tests.chaos.final import verdicts
from tests.chaos.load import Tally
from tests.chaos.logbook import Logbook
from tests.chaos.losses import Loss
from tests.chaos.plan import Plan, Request, SessionPlan, plan_for, requests_of
from tests.chaos.run import Result
from tests.chaos.timeline import Sample, Timeline
from tests.chaos.watched import Stretch, Told
from tests.checker.history import Dot, Operation, Read, Seen
from tests.checker.history import Write as Wrote
from tests.contents import Contents
from tests.model import Node

_ROUNDS = 12
#: So that such few writes are trimmed.
_SHORT_LOGS = {"LOG_MIN_ENTRIES": "4", "LOG_MAX_ENTRIES": "8"}


def model_run(seed: int = 1, *, loses: str = "") -> Evidence:
    """The evidence of a good run, in which the disk of this node is lost half-way."""
    plan = plan_for(seed, seconds=10)
    plan = replace(plan, settings={**plan.settings, **_SHORT_LOGS})
    asking = _Asking(plan)
    asking.go_on(_ROUNDS // 2)
    if loses:
        asking.lose_disk(loses)
    asking.go_on(_ROUNDS // 2)
    asking.spread()
    asking.read_logs()
    nodes, history = asking.nodes, asking.history
    keys = plan.keys()
    history += [
        Operation(f"final-{name}", name, "siblings", (_seen(node, key),), carries=False, final=True)
        for name, node in nodes.items()
        for key in keys
    ]
    return Evidence(
        plan=plan,
        history=history,
        keys=keys,
        firings=[Firing(s, 1.0, proof="seen", healing_s=2.0, ended_s=3.0) for s in plan.strikes()],
        settled_s=0.5,
        clocks={name: node.clock.to_dict() for name, node in nodes.items()},
        versions={name: _versions(node, keys) for name, node in nodes.items()},
        logs={name: _trimmed(_logs(node), plan.log_entries_max) for name, node in nodes.items()},
        logbook=asking.logbook,
        pending={name: [] for name in nodes},
        losses=asking.losses,
        snapshots=dict.fromkeys(nodes, 1),
        stretches=[_watched(asking.logbook)],
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
        self.losses: list[Loss] = []
        self.logbook = Logbook()
        self._requests = {session: requests_of(plan, session) for session in plan.sessions}
        self._names = {session: session.name for session in plan.sessions}
        self._last = {session: session.home for session in plan.sessions}

    @property
    def _now(self) -> int:
        return len(self.history)

    def go_on(self, rounds: int) -> None:
        """Each session has asked so often."""
        for _ in range(rounds):
            for session, requests in self._requests.items():
                request = next(requests)
                home = request.nodes[0]
                # All that the session can have seen, and no more: so there is concurrency.
                self.nodes[home].receive(self.nodes[self._last[session]].applied)
                self._last[session] = home
                is_first = self._now < len(self._requests)
                self._note(_refused(session, request) if is_first else self._ask(session, request))

    def spread(self) -> None:
        """All nodes have everything."""
        for one, other in itertools.permutations(self.nodes.values(), 2):
            other.receive(one.applied)

    def read_logs(self) -> None:
        """What stands in the logs is in the book."""
        for name, node in self.nodes.items():
            self.logbook.note(name, _logs(node))

    def lose_disk(self, name: str) -> None:
        """What its own sessions did and saw last at the node is lost, and they have begun anew."""
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
        self.read_logs()
        self.losses.append(Loss(name, name, self._now, held, held))
        self.nodes[name] = Node(f"{name}~1", applied=list(self.nodes[other].applied))
        self._names |= {session: f"{session.name}-1" for session in at_home}

    def _ask(self, session: SessionPlan, request: Request) -> Operation:
        return _served(session, request, self.nodes[request.nodes[0]], self._now)

    def _note(self, operation: Operation, lost: Dot | None = None) -> None:
        name = self._names[next(s for s in self._names if s.name == operation.session)]
        self.history.append(
            replace(operation, session=name, start=self._now, end=self._now, lost=lost)
        )


def _served(session: SessionPlan, request: Request, node: Node, now: int) -> Operation:
    name = node_of(node.name)
    if request.kind in ("get", "siblings"):
        read = _seen(node, request.key)
        return Operation(session.name, name, request.kind, (read,))
    if request.kind == "delete":
        delete = node.write([Delete(request.key)], now)
        wrote = Wrote(request.key, None)
        dot = Dot.parse(str(delete.dot))
        return Operation(session.name, name, "delete", (), (wrote,), dot)
    reads = tuple(_seen(node, key) for key in request.keys) if request.kind == "txn" else ()
    if not request.value:
        return Operation(session.name, name, "txn", reads)
    write = node.write([Put(k, request.value.encode(), "text/plain") for k in request.keys], now)
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


def _seen(node: Node, key: str) -> Read:
    versions = node.versions(key)
    seen = tuple(Seen(v.value.decode(), Dot.parse(str(v.dot))) for v in versions)
    return Read(key, seen, complete=True)


# --- as Redis holds it -------------------------------------------------------------------------


def _versions(node: Node, keys: list[str]) -> Contents:
    return {
        f"kv:{key}": {
            str(v.dot).encode(): f"{v.timestamp} {v.content_type}\n".encode() + v.value
            for v in versions
        }
        for key in keys
        if (versions := node.versions(key))
    }


def _logs(node: Node) -> Contents:
    logs: Contents = {}
    for write in sorted(node.applied, key=lambda write: write.dot.sequence):
        logs.setdefault(f"log:{write.dot.actor}", []).append(log_entry(write))
    return logs


def _trimmed(logs: Contents, most: int) -> Contents:
    return {key: log[-most:] for key, log in logs.items()}


def log_entry(write: Write) -> tuple[bytes, dict[bytes, bytes]]:
    """The entry of a log that holds the write."""
    return f"{write.dot.sequence}-0".encode(), {
        b"timestamp": str(write.timestamp).encode(),
        b"dependencies": clock_text(write.dependencies).encode(),
        b"operations": pack_operations(write.operations),
    }


def clock_text(clock: VectorClock) -> str:
    """The clock as Redis holds it."""
    return " ".join(f"{actor}:{sequence}" for actor, sequence in clock.to_dict().items())
