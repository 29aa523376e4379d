"""The causal order of a history, as far as clients and dots tell it.

What it is: `Order`, a graph over operations. One operation comes before another because the same
session made it earlier and carried its context (*session order*), because the other shows what it
wrote (*reads from*), or because dots and dependencies say so (*dots*: a node numbers its writes in
causal order, and the dependencies of a write are all that its node had applied). After everything
stands one more point, the *end*; final reads come after it.

What it assumes and guarantees: one operation comes before another here only if it did so in every
store that keeps its promises.

What it does not know: which versions a read had to show. `patterns.py` knows.

Where the idea is from: session order and reads-from as in Bouajjani et al. (2017), section 3.
"""

import bisect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.checker.graph import Predecessors, unique
from tests.checker.history import Dot, Operation
from tests.checker.names import Names


@dataclass
class Order:
    """Who comes before whom. Operations are numbered as in `operations`; the last is the end.

    Each list holds the nearest predecessors only: the rest follows from theirs.
    """

    operations: Sequence[Operation]
    names: Names
    use_dots: bool = True

    def __post_init__(self) -> None:
        self.end = len(self.operations)
        everybody = range(self.end + 1)
        self.session: Predecessors = [[] for _ in everybody]
        self.dots: Predecessors = [[] for _ in everybody]
        self.to_end: Predecessors = [[] for _ in everybody]
        self.reads_from: Predecessors = [*map(self.names.shown_by, range(self.end)), []]
        self._link_sessions()
        if self.use_dots:
            self._link_dots()
        self._link_end()
        self.before: Predecessors = [
            unique(s + r + d + e)
            for s, r, d, e in zip(
                self.session, self.reads_from, self.dots, self.to_end, strict=True
            )
        ]

    def tells_dependencies(self, index: int) -> bool:
        """Whether it is known on which writes this one depends, and on which it does not."""
        return self.use_dots and self.operations[index].dependencies is not None

    def _link_sessions(self) -> None:
        sessions: dict[str, list[int]] = defaultdict(list)
        for index, operation in enumerate(self.operations):
            # A read that failed has seen nothing, and a write that was refused has not been.
            if operation.carries and (
                operation.outcome == "ok" or (operation.outcome == "unknown" and operation.writes)
            ):
                sessions[operation.session].append(index)
        for members in sessions.values():
            self._link_session(members)

    def _link_session(self, members: list[int]) -> None:
        times = [(self.operations[i].start, self.operations[i].end) for i in members]
        spans = {
            index: (place, place) if start is None or end is None else (start, end)
            for place, (index, (start, end)) in enumerate(zip(members, times, strict=True))
        }
        if any(None in pair for pair in times):
            spans = {index: (place, place) for place, index in enumerate(members)}
        # What follows an operation of unknown outcome need not come after it.
        done = [index for index in members if self.operations[index].outcome == "ok"]
        done.sort(key=lambda index: spans[index][1])
        ends = [spans[index][1] for index in done]
        latest_start: list[int] = []
        for index in done:
            start = spans[index][0]
            latest_start.append(max(start, latest_start[-1]) if latest_start else start)
        for index in members:
            count = bisect.bisect_left(ends, spans[index][0])
            if count:
                # Whatever had ended when one of these started comes before that one already.
                first = bisect.bisect_left(ends, latest_start[count - 1])
                self.session[index] = done[first:count]

    def _link_dots(self) -> None:
        writers: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for index, dot in self.names.dot_of.items():
            writers[dot.actor].append((dot.sequence, index))
        for known in writers.values():
            known.sort()
            for (_, earlier), (_, later) in pairwise(known):
                self.dots[later].append(earlier)
        for index, operation in enumerate(self.operations):
            if operation.outcome == "not_applied":
                continue
            for actor, sequence in self._news(index, operation).items():
                known = writers[actor]
                place = bisect.bisect_right(known, (sequence, self.end))
                if place:
                    self.dots[index].append(known[place - 1][1])

    def _news(self, index: int, operation: Operation) -> Mapping[str, int]:
        """The dependencies of a write beyond those of the last one of its actor."""
        dependencies = operation.dependencies or {}
        dot = self.names.dot_of.get(index)
        if dot is None or dot.sequence == 1:
            return dependencies
        last = self.names.by_dot.get(Dot(dot.actor, dot.sequence - 1))
        known = {} if last is None else self.operations[last].dependencies or {}
        return {a: s for a, s in dependencies.items() if a != dot.actor and s > known.get(a, 0)}

    def _link_end(self) -> None:
        followed = {
            node
            for edges in (self.session, self.reads_from, self.dots)
            for index, nodes in enumerate(edges)
            if index == self.end or not self.operations[index].final
            for node in nodes
        }
        for index, operation in enumerate(self.operations):
            if operation.final:
                self.to_end[index] = [self.end]
            elif index not in followed and self.names.happened(index):
                self.to_end[self.end].append(index)
