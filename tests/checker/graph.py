"""Graphs as lists of predecessors: an order in which to visit them, and cycles.

What it is: three functions on `Predecessors`.

What it assumes and guarantees: nodes are 0, 1, 2 ... Time and memory grow with nodes and edges,
except for the search of a shortest cycle, which is held to a number of starting points.

What it does not know: what nodes and edges stand for.

Where the idea is from: Kahn 1962 and Tarjan 1972.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

Predecessors = list[list[int]]

#: From so many nodes of a tangle, at most, the shortest way back is looked for.
STARTS_MAX: Final = 200


def unique(nodes: Iterable[int]) -> list[int]:
    """Each node once, in the order of first appearance."""
    return list(dict.fromkeys(nodes))


def successors(before: Predecessors) -> Predecessors:
    """The same edges, seen from where they start."""
    after: Predecessors = [[] for _ in before]
    for node, nodes in enumerate(before):
        for predecessor in nodes:
            after[predecessor].append(node)
    return after


def topological(before: Predecessors) -> list[int]:
    """All nodes, each after its predecessors; nodes on or behind a cycle are left out."""
    after = successors(before)
    missing = [len(nodes) for nodes in before]
    order = [node for node, count in enumerate(missing) if not count]
    for node in order:
        for successor in after[node]:
            missing[successor] -= 1
            if not missing[successor]:
                order.append(successor)
    return order


def cycles(before: Predecessors) -> list[tuple[int, ...]]:
    """One short cycle of each knot of nodes that come before one another.

    A cycle lists each node after one of its predecessors, and the first after the last.
    """
    left = set(range(len(before))).difference(topological(before))
    return [_short_cycle(before, knot) for knot in _knots(before, left)]


def _short_cycle(before: Predecessors, knot: set[int]) -> tuple[int, ...]:
    found: tuple[int, ...] = ()
    for start in sorted(knot)[:STARTS_MAX]:
        cycle = _way_back(before, knot, start)
        if not found or len(cycle) < len(found):
            found = cycle
    return found


def _way_back(before: Predecessors, knot: set[int], start: int) -> tuple[int, ...]:
    """A shortest cycle through `start`, which lies on one."""
    next_of: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for predecessor in before[node]:
            if predecessor == start:
                cycle = [start]
                while node != start:
                    cycle.append(node)
                    node = next_of[node]
                return tuple(cycle)
            if predecessor in knot and predecessor not in next_of:
                next_of[predecessor] = node
                queue.append(predecessor)
    raise AssertionError(f"{start} lies on no cycle")


def _knots(before: Predecessors, nodes: set[int]) -> list[set[int]]:
    """The strongly connected components among `nodes` that hold a cycle."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    knots = []
    for root in sorted(nodes):
        if root in number:
            continue
        work = [(root, iter(before[root]))]
        number[root] = low[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            for other in rest:
                if other not in nodes:
                    continue
                if other not in number:
                    number[other] = low[other] = len(number)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(before[other])))
                    break
                if other in on_stack:
                    low[node] = min(low[node], number[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    knot = set[int]()
                    while not knot or node not in knot:
                        member = stack.pop()
                        on_stack.discard(member)
                        knot.add(member)
                    if len(knot) > 1 or node in before[node]:
                        knots.append(knot)
    return knots
