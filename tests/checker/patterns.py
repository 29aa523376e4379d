"""Which versions a read had to show, and which it must not: the bad patterns.

What it is: `find_patterns`. Reads are held against what comes before them:

- WriteCORead: a version is shown although a write of its key came after it and before the read.
- WriteCOInitRead: nothing is shown although a put came before, and no delete can be the reason.
- MissingSibling: versions are shown, but not one that came before, and none of those shown, and no
  delete, can have superseded it.
- VersionComesBack: a version is shown although an earlier read had found it gone.
- LostWrite: a final read misses a version in one of the two ways above.
- CyclicCF: no order of all writes agrees with the causal order and with every winner shown.
- DependencyMissing: the recorded dependencies of a write lack what came before it.

What it assumes and guarantees: the order has no cycle. A write may supersede another unless the
other comes after it; where its dependencies are recorded, exactly if they cover the other. So
nothing here blames a store that keeps its promises. Not found, because it would take guessing:
what follows only from several reads at once about which of two deletes, or of two puts of unknown
dependencies, superseded which.

What it does not know: sessions and dots. They are in the order.

The cost: each batch of keys is one walk through the graph that hands on, along every edge, four
sets of that batch's writes as bit sets: those that came before, the superseded, those seen gone,
and those that lost to another winner. For n operations with e edges and w writes that is
e * w / 64 machine words times four, in at most e * (w / BATCH_BITS + 1) steps of Python. Sets are
dropped after their last use, so memory follows the number of sessions, not of operations.

Where the idea is from: Bouajjani et al. (2017), sections 4 and 5, with the last write of a register
replaced by the siblings that a write supersedes.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

from tests.checker.batches import Batch, batches
from tests.checker.dependencies import missing_dependencies
from tests.checker.graph import cycles, topological
from tests.checker.history import Read
from tests.checker.names import Finding
from tests.checker.order import Order

#: A batch is closed when its keys have so many writes. Wider sets cost memory, narrower ones time.
BATCH_BITS: Final = 16384
#: So many missing versions, and deletes of each, are looked at for one read. What lies beyond
#: counts as explained: a hole is found by some read, and none of them takes long.
VERSIONS_TRIED_MAX: Final = 8
DELETES_TRIED_MAX: Final = 32


class Past(NamedTuple):
    """Sets of writes, as bits, at a point of the causal order."""

    before: int = 0
    superseded: int = 0
    gone: int = 0
    lost: int = 0


@dataclass
class Patterns:
    """What was found, and what it took."""

    findings: list[Finding] = field(default_factory=list)
    #: (loser, winner) -> the read that shows the winner while the loser came before.
    conflicts: dict[tuple[int, int], int] = field(default_factory=dict)
    #: How often one operation's sets were joined into another's, and how many words that was.
    joins: int = 0
    words: int = 0


def find_patterns(order: Order, batch_bits: int = BATCH_BITS) -> Patterns:
    """All patterns of an order that has no cycle."""
    found = Patterns()
    walk = topological(order.before)
    found.findings += missing_dependencies(order, walk)
    for batch in batches(order, batch_bits):
        _Walk(order, batch, found).go(walk)
    arbitration = [list(nodes) for nodes in order.before]
    for loser, winner in found.conflicts:
        arbitration[winner].append(loser)
    for cycle in cycles(arbitration):
        found.findings.append(Finding("CyclicCF", cycle[0], cycle=cycle))
    return found


class _Walk:
    """One walk through the order for one batch of keys."""

    def __init__(self, order: Order, batch: Batch, found: Patterns) -> None:
        self._order = order
        self._batch = batch
        self._found = found
        self._readers = {
            index
            for index, operation in enumerate(order.operations)
            if operation.outcome == "ok"
            and any(read.key in batch.all_of for read in operation.reads)
        }
        #: Puts met so far.
        self._puts = 0
        #: Those of them that no delete can have superseded.
        self._undeletable = 0
        #: Those of them with a known dot.
        self._named = 0
        #: Deletes of the same key that come before a put, and those that come after a read.
        self._deletes_before: dict[int, int] = {}
        self._deletes_after: dict[int, int] = {}

    def go(self, walk: list[int]) -> None:
        if any(self._batch.deletes_of.values()):
            self._look_ahead(walk)
        before = self._order.before
        uses = [0] * len(before)
        for nodes in before:
            for node in nodes:
                uses[node] += 1
        touched = {index for index, _ in self._batch.bit_of} | self._readers
        pasts: dict[int, Past] = {}
        nothing = Past()
        joins = 0
        for index in walk:
            nodes = before[index]
            joins += len(nodes)
            past = pasts[nodes[0]] if nodes else nothing
            if len(nodes) > 1:
                seen, superseded, gone, lost = past
                for node in nodes[1:]:
                    other = pasts[node]
                    # Neighbours often know the very same.
                    if other is not past:
                        seen |= other.before
                        superseded |= other.superseded
                        gone |= other.gone
                        lost |= other.lost
                past = Past(seen, superseded, gone, lost)
            if index in touched:
                past = self._visit(index, past)
            if uses[index]:
                pasts[index] = past
            for node in nodes:
                uses[node] -= 1
                if not uses[node]:
                    del pasts[node]
        self._found.joins += joins
        self._found.words += joins * (self._batch.bits // 64 + 1)

    def _look_ahead(self, walk: list[int]) -> None:
        """Learns which deletes come after each operation."""
        batch = self._batch
        own: dict[int, int] = defaultdict(int)
        for (index, key), bit in batch.bit_of.items():
            own[index] |= bit & batch.deletes_of[key]
        later: dict[int, int] = {}
        for index in reversed(walk):
            deletes = later.pop(index, 0)
            if index in self._readers and any(
                read.complete for read in self._order.operations[index].reads
            ):
                self._deletes_after[index] = deletes
            deletes |= own.get(index, 0)
            if deletes:
                for node in self._order.before[index]:
                    later[node] = later.get(node, 0) | deletes

    def _visit(self, index: int, past: Past) -> Past:
        """Checks what an operation reads; returns the past of what follows it."""
        order, batch = self._order, self._batch
        operation = order.operations[index]
        start = past
        for read, shown in zip(operation.reads, order.names.shown[index], strict=False):
            if read.key in batch.all_of:
                # All reads of one operation are of one moment: none is the past of another.
                met = self._read(index, read, shown, start)
                past = Past(
                    past.before, past.superseded, past.gone | met.gone, past.lost | met.lost
                )
        for write in operation.writes:
            bit = batch.bit_of.get((index, write.key))
            if bit is None:
                continue
            earlier = past.before & batch.all_of[write.key]
            lost = past.lost
            if write.value is not None:
                lost |= earlier
                self._meet_put(index, write.key, bit, past.before)
            past = Past(past.before | bit, past.superseded | earlier, past.gone, lost)
        return past

    def _meet_put(self, index: int, key: str, bit: int, before: int) -> None:
        self._puts |= bit
        dot = self._order.names.dot_of.get(index)
        if dot:
            self._named |= bit
        if self._batch.deletes_of[key]:
            self._deletes_before[bit] = before & self._batch.deletes_of[key]
        covered = self._batch.covered[key]
        is_covered = covered.get(dot.actor, 0) >= dot.sequence if dot else None in covered
        if not is_covered and not self._batch.vague_deletes[key] & ~before:
            self._undeletable |= bit

    def _read(self, index: int, read: Read, shown: list[int | None], past: Past) -> Past:
        order, batch = self._order, self._batch
        known = [writer for writer in shown if writer is not None]
        shown_bits = 0
        for writer in known:
            bit = batch.bit_of[writer, read.key]
            shown_bits |= bit
            if past.superseded & bit:
                self._find("WriteCORead", index, read, writer)
            elif past.gone & bit:
                self._find("VersionComesBack", index, read, writer)
        versions = past.before & self._puts & batch.all_of[read.key]
        gone = past.gone
        if read.complete and len(known) == len(shown):
            hidden = versions & ~shown_bits
            gone |= hidden
            unexplained = hidden & ~past.superseded & ~past.gone
            if not shown:
                self._missing("WriteCOInitRead", index, read, unexplained)
            elif all(map(order.tells_dependencies, known)):
                self._missing("MissingSibling", index, read, unexplained & self._named)
        lost = past.lost
        if shown and shown[0] is not None:
            winner = shown[0]
            winner_bit = batch.bit_of[winner, read.key]
            if past.superseded & winner_bit:
                # Found already, and all that it should have lost to would be found again.
                return Past(past.before, past.superseded, gone, lost)
            # A deleted version may have been greater than the winner that survived it.
            losers = (versions & self._undeletable | shown_bits) & ~lost & ~winner_bit
            for loser in self._writers(losers):
                self._found.conflicts.setdefault((loser, winner), index)
            if winner_bit & self._undeletable:
                lost |= losers
        return Past(past.before, past.superseded, gone, lost)

    def _missing(self, pattern: str, index: int, read: Read, missing: int) -> None:
        sure = missing & self._undeletable
        tried = islice(_bits(sure or missing), VERSIONS_TRIED_MAX)
        for bit in tried:
            if sure or not self._may_be_deleted(index, read.key, bit):
                is_final = self._order.operations[index].final
                [writer] = self._writers(bit)
                self._find("LostWrite" if is_final else pattern, index, read, writer)
                return

    def _may_be_deleted(self, index: int, key: str, bit: int) -> bool:
        """Whether a read may have seen the effect of a delete that superseded a put."""
        batch, order = self._batch, self._order
        deletes = batch.deletes_of[key] & ~self._deletes_after.get(index, 0)
        # A delete that the put comes after is no reason either, whatever it depends on.
        deletes &= ~self._deletes_before.get(bit, 0)
        if deletes & batch.vague_deletes[key]:
            return True
        [writer] = self._writers(bit)
        dot = order.names.dot_of.get(writer)
        for tried, delete in enumerate(self._writers(deletes)):
            dependencies = order.operations[delete].dependencies or {}
            if (
                tried == DELETES_TRIED_MAX
                or dot is None
                or dependencies.get(dot.actor, 0) >= dot.sequence
            ):
                return True
        return False

    def _find(self, pattern: str, index: int, read: Read, writer: int) -> None:
        self._found.findings.append(Finding(pattern, index, read.key, writer))

    def _writers(self, bits: int) -> Iterator[int]:
        return (self._batch.writer_of[bit.bit_length() - 1] for bit in _bits(bits))


def _bits(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest
        bits ^= lowest
