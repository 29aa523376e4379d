"""The promises by definition: whether any run of a good store could have shown a small history.

What it is: `is_possible`, the specification that the checker is tested against.

What it assumes and guarantees: it tries every way in which the writes may depend on one another,
and everything that each request's node may have applied, so it is exact, and slow. Of a run it
asks:

- A node applies a write only after the writes it depends on; a write depends on all that its node
  had applied; a write and the reads of its own transaction are of one moment.
- What comes before a request, by session or by what it shows, is applied where it is served.
- A read shows those puts among the applied ones that no applied write of the key depends on.
- A version that a request found superseded stays so for all that comes after the request.
- Some order of all writes agrees with the dependencies, and each winner is last among the shown.
- At the end all nodes have applied the same writes, everything that took effect among them.

What it does not know: bad patterns, bit sets, nearest predecessors.

Where the idea is from: Burckhardt, "Principles of Eventual Consistency" (2014): visibility and
arbitration, for the specification of multi-value registers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from tests.checker.history import Operation, Read

#: Per operation, the operations whose writes are applied at its node just before it, as bits.
Applied = tuple[int, ...]


def is_possible(operations: Sequence[Operation], *, use_dots: bool = True) -> bool:
    """Whether a store that keeps its promises could have shown this history."""
    try:
        history = _History(operations, use_dots)
    except _Impossible:
        return False
    return any(_agree(history, depends) for depends in _dependencies(history))


class _Impossible(Exception):
    """A read shows what nobody wrote, or the causal order has a cycle."""


@dataclass
class _History:
    """What is sure before anything is tried."""

    operations: Sequence[Operation]
    use_dots: bool

    def __post_init__(self) -> None:
        everybody = range(len(self.operations))
        self.writers = [i for i in everybody if self[i].writes and self[i].outcome != "not_applied"]
        self.readers = [i for i in everybody if self[i].reads and self[i].outcome == "ok"]
        self.writer_bits = sum(1 << i for i in self.writers)
        self.shows = {
            (i, read.key): [self._writer(read.key, seen.value) for seen in read.seen]
            for i in self.readers
            for read in self[i].reads
        }
        seen = {writer for shown in self.shows.values() for writer in shown}
        self.happened = sum(1 << i for i in self.writers if self[i].outcome == "ok" or i in seen)
        self.before = self._order()

    def __getitem__(self, index: int) -> Operation:
        return self.operations[index]

    def took_part(self, index: int) -> bool:
        """Whether an operation saw or may have changed anything."""
        operation = self[index]
        return operation.outcome == "ok" or (
            operation.outcome == "unknown" and bool(operation.writes)
        )

    def writes(self, index: int, key: str) -> bool:
        return any(write.key == key for write in self[index].writes)

    def puts(self, index: int, key: str) -> bool:
        return any(w.key == key and w.value is not None for w in self[index].writes)

    def _writer(self, key: str, value: str | None) -> int:
        for i in self.writers:
            if any((write.key, write.value) == (key, value) for write in self[i].writes):
                return i
        raise _Impossible

    def _order(self) -> list[int]:
        everybody = range(len(self.operations))
        pairs = {(w, i) for (i, _), shown in self.shows.items() for w in shown}
        pairs |= {
            (i, j)
            for i in everybody
            for j in everybody
            if i < j
            and self[i].session == self[j].session
            and self[i].carries
            and self[j].carries
            and self[i].outcome == "ok"
        }
        if self.use_dots:
            pairs |= {(i, j) for i in self.writers for j in self.writers if self._dots_say(i, j)}
        before = [sum({1 << i for i, k in pairs if k == j}) for j in everybody]
        for _ in everybody:
            for j in everybody:
                for i in bits(before[j]):
                    before[j] |= before[i]
        if any(before[j] >> j & 1 for j in everybody):
            raise _Impossible
        return before

    def _dots_say(self, i: int, j: int) -> bool:
        """Whether dots and dependencies say that write `i` comes before write `j`."""
        first, second = self[i].dot, self[j].dot
        if i == j or not first or not second:
            return False
        if first.actor == second.actor and first.sequence < second.sequence:
            return True
        return self.covers(j, i)

    def covers(self, index: int, writer: int) -> bool:
        """Whether the recorded dependencies of an operation cover a write."""
        dot = self[writer].dot
        dependencies = self[index].dependencies or {}
        return dot is not None and dot.sequence <= dependencies.get(dot.actor, 0)


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


@cache
def _transitive_orders(size: int) -> list[tuple[int, ...]]:
    """All strict partial orders of so many things: for each, the set of those before it."""
    choices = [
        [mask for mask in range(1 << size) if not mask >> thing & 1] for thing in range(size)
    ]
    return [
        before
        for before in product(*choices)
        if all(
            before[other] & ~before[thing] == 0 and not before[other] >> thing & 1
            for thing in range(size)
            for other in bits(before[thing])
        )
    ]


def _dependencies(history: _History) -> Iterator[dict[int, int]]:
    """Every way in which the writes may depend on one another."""
    writers = history.writers
    for order in _transitive_orders(len(writers)):
        depends = {
            writer: sum(1 << writers[place] for place in bits(order[number]))
            for number, writer in enumerate(writers)
        }
        if all(_may_depend(history, writer, mask) for writer, mask in depends.items()):
            yield depends


def _may_depend(history: _History, writer: int, mask: int) -> bool:
    if history.before[writer] & history.writer_bits & ~mask:
        return False
    if not history.use_dots or history[writer].dependencies is None:
        return True
    return all(
        bool(mask >> other & 1) == history.covers(writer, other)
        for other in history.writers
        if other != writer and history[other].dot
    )


def _agree(history: _History, depends: dict[int, int]) -> bool:
    """Whether all requests can have been served by nodes that had applied something fitting."""
    choices = [list(_fitting(history, depends, index)) for index in range(len(history.operations))]
    if not all(choices):
        return False
    return any(
        _ends_well(history, applied)
        and _stays_superseded(history, depends, applied)
        and _has_arbitration(history, depends, applied)
        for applied in product(*choices)
    )


def _fitting(history: _History, depends: dict[int, int], index: int) -> Iterator[int]:
    """What a node may have applied when it served this operation."""
    operation = history[index]
    if not history.took_part(index):
        yield 0
        return
    if index in depends:
        masks: Sequence[int] = [depends[index]]
    else:
        needed = history.before[index] & history.writer_bits
        if operation.final:
            needed |= history.happened
        masks = [
            mask
            for mask in range(history.writer_bits + 1)
            if mask & ~history.writer_bits == 0
            and needed & ~mask == 0
            and all(depends[writer] & ~mask == 0 for writer in bits(mask))
        ]
    for mask in masks:
        if operation.outcome != "ok" or all(
            _shows(history, depends, index, read, mask) for read in operation.reads
        ):
            yield mask


def _versions(history: _History, depends: dict[int, int], key: str, applied: int) -> set[int]:
    about = [writer for writer in bits(applied) if history.writes(writer, key)]
    return {
        writer
        for writer in about
        if history.puts(writer, key) and not any(depends[other] >> writer & 1 for other in about)
    }


def _shows(
    history: _History, depends: dict[int, int], index: int, read: Read, applied: int
) -> bool:
    shown = history.shows[index, read.key]
    versions = _versions(history, depends, read.key, applied)
    if read.complete:
        return len(shown) == len(set(shown)) and set(shown) == versions
    return set(shown) <= versions


def _ends_well(history: _History, applied: Applied) -> bool:
    finals = {mask for i, mask in enumerate(applied) if history[i].final and i in history.readers}
    everywhere = [
        mask
        for i, mask in enumerate(applied)
        if history[i].outcome == "ok" or history.happened >> i & 1
    ]
    return len(finals) < 2 and all(mask & ~final == 0 for final in finals for mask in everywhere)


def _stays_superseded(history: _History, depends: dict[int, int], applied: Applied) -> bool:
    keys = {write.key for writer in history.writers for write in history[writer].writes}
    for later, before in enumerate(history.before):
        if not history.took_part(later):
            continue
        for earlier in bits(before):
            if not history[earlier].reads:
                continue
            for key in keys:
                about = [w for w in bits(applied[earlier]) if history.writes(w, key)]
                for version in about:
                    over = [other for other in about if depends[other] >> version & 1]
                    if over and not any(applied[later] >> other & 1 for other in over):
                        return False
    return True


def _has_arbitration(history: _History, depends: dict[int, int], applied: Applied) -> bool:
    after = dict(depends)
    for index in history.readers:
        for read in history[index].reads:
            if shown := history.shows[index, read.key]:
                versions = _versions(history, depends, read.key, applied[index])
                after[shown[0]] |= sum(1 << v for v in versions if v != shown[0])
    left = set(after)
    while free := [writer for writer in left if not any(after[writer] >> w & 1 for w in left)]:
        left.difference_update(free)
    return not left
