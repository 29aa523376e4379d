"""All checks of one history, and what they say.

What it is: `check`, which returns a `Report`; and `check_all`, for histories in which something is
lost with a disk.

What it assumes and guarantees: a history that `history.py` accepts. A report without findings means
that clients could not tell this store from one that keeps its promises, as far as `patterns.py`
looks. When the causal order itself has a cycle, that is told and the patterns are not looked for:
nothing can be said of a past that lies in its own future.

What it does not know: how findings are explained.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.checker.graph import cycles
from tests.checker.history import Operation
from tests.checker.names import Finding, Names
from tests.checker.order import Order
from tests.checker.patterns import BATCH_BITS, Patterns, find_patterns

#: What each pattern means, in one line, for a reader who has not seen it before.
MEANING = {
    "ThinAirRead": "a read shows what nobody wrote",
    "RefusedWriteSeen": "a write that was refused as not applied took effect",
    "DotNamesTwoWrites": "a dot names one write, for ever",
    "OneWriteTwoDots": "a write is applied once, under one dot",
    "SiblingTwice": "a read shows one version twice",
    "SiblingsOfOneActor": "an actor has at most one sibling, as its writes supersede one another",
    "FollowsLost": "a session that had seen what is lost for good was served without it",
    "CyclicCO": "the causal order has a cycle: an effect comes before its cause",
    "WriteCOInitRead": "a read shows nothing although a put came before it",
    "WriteCORead": "a read shows a version that was superseded before it",
    "MissingSibling": "a read does not show a version that came before it and is not superseded",
    "VersionComesBack": "a version is shown again after it was found gone",
    "CyclicCF": "no order of writes agrees with every winner shown",
    "DependencyMissing": "a write does not depend on what its session had seen",
    "LostWrite": "at the end, a version is neither there nor superseded",
    "Diverged": "at the end, nodes show different versions",
}


@dataclass
class Report:
    """What was found in a history."""

    order: Order
    findings: list[Finding]
    patterns: Patterns = field(default_factory=Patterns)

    @property
    def is_good(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def counts(self) -> dict[str, int]:
        """How many findings there are of each pattern, in the order of `MEANING`."""
        counts = Counter(finding.pattern for finding in self.findings)
        return {pattern: counts[pattern] for pattern in MEANING if counts[pattern]}


def check_all(operations: Sequence[Operation], *, use_dots: bool = True) -> list[Report]:
    """The reports on a history; two, if something in it is lost with a disk. Raises BadHistory.

    What is lost has been, and causal order held for it; but what is left at the end does not come
    after it. So there are two histories: all that was before the end, and all that has lasted.
    """
    lasting = [operation for operation in operations if operation.lost is None]
    if len(lasting) == len(operations):
        return [check(operations, use_dots=use_dots)]
    before = [operation for operation in operations if not operation.final]
    return [check(part, use_dots=use_dots) for part in (before, lasting)]


def check(
    operations: Sequence[Operation], *, use_dots: bool = True, batch_bits: int = BATCH_BITS
) -> Report:
    """The report on a history. Raises BadHistory.

    Without `use_dots`, only session order and reads-from count, as for a store without dots.
    """
    names = Names(operations)
    order = Order(operations, names, use_dots)
    findings = [*names.findings, *_divergence(order), *_after_loss(order)]
    knots = cycles(order.before)
    if knots:
        findings += (Finding("CyclicCO", cycle[0], cycle=cycle) for cycle in knots)
        return Report(order, findings)
    patterns = find_patterns(order, batch_bits)
    return Report(order, findings + patterns.findings, patterns)


def _after_loss(order: Order) -> Iterator[Finding]:
    """Whoever has seen what is lost is served by nobody who has not."""
    for index, operation in enumerate(order.operations):
        if operation.outcome != "ok" or operation.lost is not None:
            continue
        for other in order.before[index]:
            if other < order.end and (lost := order.operations[other].lost):
                note = f"who had seen {lost}, which is lost, was served without it"
                yield Finding("FollowsLost", index, other=other, note=note)


def _divergence(order: Order) -> Iterator[Finding]:
    """Final reads of one key have the same winner and the same siblings, whichever node answers."""
    reads: dict[str, list[tuple[int, bool, list[int | None]]]] = defaultdict(list)
    for index, operation in enumerate(order.operations):
        if operation.final:
            for read, shown in zip(operation.reads, order.names.shown[index], strict=False):
                reads[read.key].append((index, read.complete, shown))
    for key, members in reads.items():
        # Whatever names all siblings comes first, so that the others are held against it.
        members.sort(key=lambda member: not member[1])
        first, first_complete, first_shown = members[0]
        for index, complete, shown in members[1:]:
            if None in shown or None in first_shown:
                continue
            if complete and first_complete:
                same = shown[:1] == first_shown[:1] and set(shown) == set(first_shown)
            else:
                same = shown[:1] == first_shown[:1]
            if not same:
                yield Finding("Diverged", index, key, first)
