"""Histories of a small simulated store, as large as wanted: good ones, and ones with a known fault.

What it is: `Workload`, which runs random clients against simulated nodes and records what they see.

What it assumes and guarantees: with no fault the store keeps every promise, so the checker must be
silent; a fault breaks one, now and then, as a mistake in real code would. A seed replays exactly.

What it does not know: networks and time. A write reaches a node when chance, or a session's
context, asks for it.

Where the idea is from: the mutation tests of TigerBeetle's and FoundationDB's simulators.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from tests.checker.history import Dot, Kind, Operation, Outcome, Read, Seen, Write

Fault = Literal[
    "no dependency check",
    "context ignored on read",
    "context ignored on write",
    "siblings dropped",
    "arrival order picks the winner",
    "deletes forgotten",
    "acknowledged write lost",
    "transaction in two steps",
]
Level = Literal["values", "dots", "dependencies"]

FAULT_RATE: Final = 0.2


@dataclass(frozen=True)
class _Stored:
    dot: Dot
    dependencies: dict[str, int]
    timestamp: int
    writes: tuple[Write, ...]


@dataclass(frozen=True)
class _Version:
    value: str
    timestamp: int
    arrival: int


@dataclass
class _Node:
    name: str
    clock: dict[str, int] = field(default_factory=dict)
    timestamp: int = 0
    applied: int = 0
    versions: dict[str, dict[Dot, _Version]] = field(default_factory=lambda: defaultdict(dict))
    #: Deletes that a version which outlived them was concurrent with.
    deletes: dict[str, set[Dot]] = field(default_factory=lambda: defaultdict(set))

    def covers(self, dot: Dot) -> bool:
        return self.clock.get(dot.actor, 0) >= dot.sequence


@dataclass
class Workload:
    """Random sessions at a few nodes. `recorded` says how much of a write the history tells."""

    seed: int
    fault: Fault | None = None
    recorded: Level = "dots"
    nodes: int = 3
    sessions: int = 5
    keys: int = 4
    #: How willingly writes travel by themselves: this many, on average, per operation.
    spread: float = 1.0
    with_deletes: bool = True
    with_transactions: bool = True
    with_unknown: bool = True
    without_context: float = 0.1
    #: Each session stays at one node, and what the first node writes is slow to reach the last:
    #: the one workload in which effects overtake their causes often.
    sticky: bool = False

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._nodes = {name: _Node(name) for name in "ABCDEFGHI"[: self.nodes]}
        self._logs: dict[str, list[_Stored]] = {name: [] for name in self._nodes}
        self._contexts: dict[str, dict[str, int]] = defaultdict(dict)
        self._values = 0
        self._key_names = [f"k{number}" for number in range(self.keys)]

    def history(self, operations: int) -> list[Operation]:
        """So many operations, and then a final read of every key at every node."""
        history = [self._step() for _ in range(operations)]
        for node in self._nodes.values():
            for actor, log in self._logs.items():
                self._bring(node, {actor: len(log)})
        for node in self._nodes.values():
            for key in self._key_names:
                read = self._read(node, key, {}, complete=True)
                final = Operation(
                    "check", node.name, "siblings", (read,), carries=False, final=True
                )
                history.append(final)
        return history

    def _breaks(self, fault: Fault) -> bool:
        return self.fault == fault and self._random.random() < FAULT_RATE

    # --- clients -------------------------------------------------------------------------------

    def _step(self) -> Operation:
        chance = self._random
        self._travel()
        number = chance.randrange(self.sessions)
        session, names = f"s{number}", list(self._nodes)
        node = self._nodes[names[number % self.nodes] if self.sticky else chance.choice(names)]
        carries = chance.random() >= self.without_context
        context = self._contexts[session] if carries else {}
        dice = chance.random()
        is_read = dice < 0.5
        if not self._breaks("context ignored on read" if is_read else "context ignored on write"):
            self._bring(node, context)
        key = chance.choice(self._key_names)
        if is_read:
            complete = chance.random() < 0.5
            kind: Kind = "siblings" if complete else "get"
            read = self._read(node, key, context, complete=complete)
            return Operation(session, node.name, kind, (read,), carries=carries)
        if dice < 0.65 and self.with_transactions:
            return self._transaction(session, node, context, carries)
        is_delete = self.with_deletes and dice < 0.75
        value = None if is_delete else self._value()
        write = Write(key, value)
        kind = "delete" if is_delete else "put"
        return self._write(session, node, kind, (write,), context, carries)

    def _transaction(
        self, session: str, node: _Node, context: dict[str, int], carries: bool
    ) -> Operation:
        keys = self._random.sample(self._key_names, min(2, self.keys))
        if self._random.random() < 0.5:
            reads = tuple(self._read(node, key, context, complete=True) for key in keys)
            return Operation(session, node.name, "txn", reads, carries=carries)
        writes = tuple(Write(key, self._value()) for key in keys)
        return self._write(session, node, "txn", writes, context, carries)

    def _value(self) -> str:
        self._values += 1
        return str(self._values)

    def _write(
        self,
        session: str,
        node: _Node,
        kind: Kind,
        writes: tuple[Write, ...],
        context: dict[str, int],
        carries: bool,
    ) -> Operation:
        fate = self._random.random() if self.with_unknown else 1.0
        outcome: Outcome = "not_applied" if fate < 0.03 else "unknown" if fate < 0.09 else "ok"
        stored = self._commit(node, writes) if fate >= 0.06 else None
        if stored is None or outcome != "ok":
            return Operation(session, node.name, kind, (), writes, outcome=outcome, carries=carries)
        context[stored.dot.actor] = max(stored.dot.sequence, context.get(stored.dot.actor, 0))
        return Operation(
            session,
            node.name,
            kind,
            (),
            writes,
            dot=stored.dot if self.recorded != "values" else None,
            dependencies=stored.dependencies if self.recorded == "dependencies" else None,
            carries=carries,
        )

    def _read(self, node: _Node, key: str, context: dict[str, int], *, complete: bool) -> Read:
        versions = node.versions[key]
        by_arrival = self.fault == "arrival order picks the winner"
        dots = sorted(
            versions,
            key=lambda dot: (
                versions[dot].arrival if by_arrival else versions[dot].timestamp,
                dot.actor,
            ),
            reverse=True,
        )
        seen_dots: Iterable[Dot] = [*dots, *node.deletes[key]]
        if not dots:
            seen_dots = [Dot(actor, sequence) for actor, sequence in node.clock.items()]
        for dot in seen_dots:
            context[dot.actor] = max(dot.sequence, context.get(dot.actor, 0))
        tells_dots = self.recorded != "values"
        seen = tuple(Seen(versions[dot].value, dot if tells_dots else None) for dot in dots)
        return Read(key, seen if complete else seen[:1], complete or not seen)

    # --- nodes ---------------------------------------------------------------------------------

    def _commit(self, node: _Node, writes: tuple[Write, ...]) -> _Stored:
        sequence = node.clock.get(node.name, 0) + 1
        skewed = self._random.randrange(1000)
        stored = _Stored(
            Dot(node.name, sequence),
            dict(node.clock),
            max(skewed, node.timestamp + 1),
            writes,
        )
        self._logs[node.name].append(stored)
        self._apply(node, stored)
        return stored

    def _travel(self) -> None:
        """Some writes reach some nodes, as chance and their dependencies will have it."""
        while self._random.random() < self.spread / (1 + self.spread):
            node = self._nodes[self._random.choice(list(self._nodes))]
            actor = self._random.choice(list(self._logs))
            names = list(self._nodes)
            is_slow = self.sticky and (actor, node.name) == (names[0], names[-1])
            if is_slow and self._random.random() < 0.9:
                continue
            upto = node.clock.get(actor, 0) + 1
            if upto <= len(self._logs[actor]):
                stored = self._logs[actor][upto - 1]
                if self._is_deliverable(node, stored) or self._breaks("no dependency check"):
                    self._apply(node, stored)

    def _is_deliverable(self, node: _Node, stored: _Stored) -> bool:
        return all(
            sequence <= node.clock.get(actor, 0) for actor, sequence in stored.dependencies.items()
        )

    def _bring(self, node: _Node, clock: dict[str, int]) -> None:
        """The node has applied what the clock covers, in causal order."""
        wanted = dict(clock)
        while lacking := list(self._next_wanted(node, wanted)):
            for stored in lacking:
                if self._is_deliverable(node, stored):
                    self._apply(node, stored)
                else:
                    for actor, sequence in stored.dependencies.items():
                        wanted[actor] = max(sequence, wanted.get(actor, 0))

    def _next_wanted(self, node: _Node, wanted: dict[str, int]) -> Iterator[_Stored]:
        for actor, sequence in wanted.items():
            if node.clock.get(actor, 0) < sequence:
                yield self._logs[actor][node.clock.get(actor, 0)]

    def _apply(self, node: _Node, stored: _Stored) -> None:
        node.clock[stored.dot.actor] = stored.dot.sequence
        node.timestamp = max(node.timestamp, stored.timestamp)
        node.applied += 1
        is_remote = stored.dot.actor != node.name
        if is_remote and self._breaks("acknowledged write lost"):
            return
        for number, write in enumerate(stored.writes):
            if number and is_remote and self._breaks("transaction in two steps"):
                return
            self._apply_one(node, stored, write)

    def _apply_one(self, node: _Node, stored: _Stored, write: Write) -> None:
        if (
            write.value is None
            and stored.dot.actor != node.name
            and self._breaks("deletes forgotten")
        ):
            return

        def is_covered(dot: Dot) -> bool:
            return dot.sequence <= stored.dependencies.get(dot.actor, 0)

        versions = node.versions[write.key]
        if self._breaks("siblings dropped"):
            versions.clear()
        kept = {dot: version for dot, version in versions.items() if not is_covered(dot)}
        deletes = {dot for dot in node.deletes[write.key] if not is_covered(dot)}
        if write.value is None:
            deletes.add(stored.dot)
        else:
            kept[stored.dot] = _Version(write.value, stored.timestamp, node.applied)
        node.versions[write.key] = kept
        node.deletes[write.key] = deletes
