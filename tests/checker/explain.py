"""Findings as a few operations and reasons, short enough to be checked by hand.

What it is: `explain`, which returns an `Explanation`; as text it looks like this:

    WriteCOInitRead: a read shows nothing although a put came before it
      1  alice@A put x=1 -> A:1
      2  bob@B get x: 1                shows 1
      3  bob@B put y=2 -> B:1          bob, after 2
      4  carol@C txn y: 2, x: nothing  shows 3
      1 comes before 4, and no delete can be the reason that it is missing.
      Broken: writes follow reads.

What it assumes and guarantees: among all ways in which the operations are linked, one with the
fewest operations is shown. The broken session guarantee is read off it: session order is the link
within a session, reads-from the link between two.

What it does not know: how findings are found.

Where the idea is from: Elle's explanations of cycles (Kingsbury, Alvaro 2020); the session
guarantees of Terry et al. 1994 as shapes of the way from the missing write to the read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.checker import notation
from tests.checker.check import MEANING, Report
from tests.checker.graph import successors, topological
from tests.checker.names import Finding
from tests.checker.order import Order
from tests.checker.ways import Kind, Links, Way, links, search, way_back

_GUARANTEES: dict[tuple[Kind, ...], str] = {
    ("session",): "read your writes",
    ("shows", "session"): "monotonic reads",
    ("session", "shows"): "monotonic writes",
    ("shows", "session", "shows"): "writes follow reads",
}


@dataclass(frozen=True)
class Explanation:
    """A finding in words. `steps` are operations with the reasons for their place."""

    pattern: str
    steps: Sequence[tuple[str, str]]
    why: str
    broken: str | None

    def __str__(self) -> str:
        width = max((len(line) for line, reason in self.steps if reason), default=0)
        lines = [f"{self.pattern}: {MEANING[self.pattern]}"]
        for number, (line, reason) in enumerate(self.steps, start=1):
            lines.append(f"  {number:<2} {line:<{width}}  {reason}".rstrip())
        lines.append(f"  {self.why}")
        if self.broken:
            lines.append(f"  Broken: {self.broken}.")
        return "\n".join(lines)


class Explainer:
    """Explains the findings of one report."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._order = report.order
        self._back = links(report.order)
        self._forth: Links = {kind: successors(edges) for kind, edges in self._back.items()}
        self._rank = {node: place for place, node in enumerate(topological(report.order.before))}

    def explain(self, finding: Finding) -> Explanation:
        """The finding, explained."""
        if finding.cycle:
            return self._cycle(finding)
        if finding.pattern in ("WriteCORead", "VersionComesBack"):
            return self._shown_too_late(finding)
        if finding.other is not None and finding.pattern in (
            "WriteCOInitRead",
            "MissingSibling",
            "LostWrite",
            "DependencyMissing",
        ):
            return self._not_there(finding, finding.other)
        nodes = [finding.at] if finding.other is None else [finding.other, finding.at]
        steps = _Steps(self._order)
        steps.add(nodes)
        if finding.pattern == "Diverged":
            why = "All nodes had caught up, and still these two do not agree."
        else:
            why = f"{finding.note[:1].upper()}{finding.note[1:]}."
        return steps.explanation(finding.pattern, why, None, self._rank)

    def _not_there(self, finding: Finding, missing: int) -> Explanation:
        steps = _Steps(self._order)
        is_lost = finding.pattern == "LostWrite"
        way: Way = ([missing, finding.at], [])
        if not is_lost:
            way = way_back(search(self._back, finding.at), missing)
            steps.link(*way)
        steps.add(way[0])
        shown = [
            writer
            for read, writers in zip(
                self._order.operations[finding.at].reads,
                self._order.names.shown[finding.at],
                strict=False,
            )
            for writer in writers
            if read.key == finding.key and writer is not None
        ]
        for writer in shown:
            steps.add([writer])
            steps.link([writer, finding.at], ["shows"])
        put, reader = steps.numbers(self._rank, missing, finding.at)
        came = f"{put} took effect" if is_lost else f"{put} comes before {reader}"
        if finding.pattern == "DependencyMissing":
            why = f"{came}, and the dependencies of {reader} do not cover it."
        elif shown:
            why = f"{came}, and nothing that {reader} shows has superseded it."
        else:
            why = f"{came}, and no delete can be the reason that it is missing."
        broken = None if is_lost else self._broken(way, finding)
        return steps.explanation(finding.pattern, why, broken, self._rank)

    def _shown_too_late(self, finding: Finding) -> Explanation:
        """Shown is a version that was superseded, or found gone, at a point before the read."""
        assert finding.other is not None, "the version that is shown"
        to_read = search(self._back, finding.at)
        from_version = search(self._forth, finding.other)
        point = min(
            (
                node
                for node in to_read.keys() & from_version.keys()
                if node != finding.other
                and node != finding.at
                and self._ends_version(node, finding)
            ),
            key=lambda node: (to_read[node][0] + from_version[node][0], self._rank.get(node, 0)),
        )
        there, back = way_back(from_version, point), way_back(to_read, point)
        steps = _Steps(self._order)
        steps.link(there[0][::-1], there[1][::-1])
        steps.link(*back)
        steps.add([*there[0][::-1], *back[0]])
        version, end, read = steps.numbers(self._rank, finding.other, point, finding.at)
        if finding.pattern == "WriteCORead":
            why = f"{end} superseded {version} and comes before {read}, which shows it still."
        else:
            why = f"{end} had to know {version} and found it gone; {read}, later, shows it again."
            back = (back[0], ["shows", *back[1]])
        return steps.explanation(finding.pattern, why, self._broken(back, finding), self._rank)

    def _ends_version(self, node: int, finding: Finding) -> bool:
        if node == self._order.end:
            return False
        operation = self._order.operations[node]
        if finding.pattern == "WriteCORead":
            return any(write.key == finding.key for write in operation.writes)
        return any(
            read.key == finding.key and read.complete and finding.other not in shown
            for read, shown in zip(operation.reads, self._order.names.shown[node], strict=False)
        )

    def _cycle(self, finding: Finding) -> Explanation:
        steps = _Steps(self._order)
        conflicts = []
        cycle = finding.cycle
        for before, after in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            kind = self._kind(before, after)
            if kind is not None:
                steps.link([before, after], [kind])
                continue
            read = self._report.patterns.conflicts[before, after]
            way = way_back(search(self._back, read), before)
            steps.link(*way)
            steps.link([after, read], ["shows"])
            steps.add([*way[0], after])
            conflicts.append((read, after, before))
        steps.add(cycle)
        if not conflicts:
            first, last = steps.numbers(self._rank, cycle[0], cycle[-1])
            why = f"Each comes after the one before it, and {first} again after {last}."
            return steps.explanation(finding.pattern, why, None, self._rank)
        parts = []
        for read, winner, loser in sorted(steps.numbers(self._rank, *c) for c in conflicts):
            parts.append(f"{read} has {winner} win over {loser}")
        why = f"{', '.join(parts)}: no order of writes fits."
        return steps.explanation(finding.pattern, why, None, self._rank)

    def _kind(self, before: int, after: int) -> Kind | None:
        return next((kind for kind, edges in self._back.items() if before in edges[after]), None)

    def _broken(self, way: Way, finding: Finding) -> str | None:
        operation = self._order.operations[finding.at]
        if way[1] == ["shows"] and len(operation.reads) > 1:
            return "a snapshot shows all of a transaction, or nothing of it"
        if operation.final or "end" in way[1]:
            return None
        if finding.pattern == "DependencyMissing":
            same = {("session",): "monotonic writes", ("shows", "session"): "writes follow reads"}
            return same.get(tuple(way[1]), "causal order")
        return _GUARANTEES.get(tuple(way[1]), "causal order")


class _Steps:
    """Operations to show, and why each stands after others."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.nodes: list[int] = []
        self._links: dict[int, list[tuple[int, Kind]]] = {}

    def add(self, nodes: Iterable[int]) -> None:
        self.nodes = list(dict.fromkeys([*self.nodes, *nodes]))

    def link(self, nodes: Sequence[int], kinds: Sequence[Kind]) -> None:
        """Each node comes before the next, by the kind between them."""
        for before, after, kind in zip(nodes, nodes[1:], kinds, strict=False):
            links = self._links.setdefault(after, [])
            if (before, kind) not in links:
                links.append((before, kind))

    def numbers(self, rank: dict[int, int], *nodes: int) -> list[int]:
        """The numbers under which nodes are shown."""
        shown = self._sorted(rank)
        return [shown.index(node) + 1 for node in nodes]

    def explanation(
        self, pattern: str, why: str, broken: str | None, rank: dict[int, int]
    ) -> Explanation:
        shown = self._sorted(rank)
        number = {node: place for place, node in enumerate(shown, start=1)}
        steps = []
        for node in shown:
            links = sorted(
                (number[n], kind) for n, kind in self._links.get(node, []) if n in number
            )
            reasons = [_reason(self._order, node, before, kind) for before, kind in links]
            steps.append((self._line(node), "; ".join(reasons)))
        return Explanation(pattern, steps, why, broken)

    def _sorted(self, rank: dict[int, int]) -> list[int]:
        # Nodes of a cycle have no rank; they keep the order in which they came.
        return sorted(self.nodes, key=lambda node: rank.get(node, len(rank)))

    def _line(self, node: int) -> str:
        if node == self._order.end:
            return "(all nodes healed and caught up)"
        return notation.line(self._order.operations[node])


def _reason(order: Order, node: int, before: int, kind: Kind) -> str:
    if kind == "session":
        return f"{order.operations[node].session}, after {before}"
    if kind == "shows":
        return f"shows {before}"
    if kind == "dots":
        return f"its dot or its dependencies cover {before}"
    return f"after {before}"
