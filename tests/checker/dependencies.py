"""Whether the recorded dependencies of writes cover what came before them.

What it is: `missing_dependencies`, the stronger check where logs or answers tell dependencies.

What it assumes and guarantees: the order has no cycle. Only session order and reads-from count
here, as dots and dependencies themselves are what is in question.

What it does not know: keys and values.

Where the idea is from: a node serves a request only when it has applied all that the request's
session has seen; so a write's dependencies must cover it (G1, G7).
"""

from collections.abc import Iterator, Mapping

from tests.checker.history import Dot
from tests.checker.names import Finding
from tests.checker.order import Order


def missing_dependencies(order: Order, walk: list[int]) -> Iterator[Finding]:
    """A finding for each actor of which a write's dependencies lack something."""
    if not any(map(order.tells_dependencies, range(order.end))):
        return
    dot_of = order.names.dot_of
    clocks: dict[int, Mapping[str, int]] = {}
    for index in walk:
        nodes = order.session[index] + order.reads_from[index]
        clock = dict(clocks[nodes[0]]) if nodes else {}
        for node in nodes[1:]:
            for actor, sequence in clocks[node].items():
                if sequence > clock.get(actor, 0):
                    clock[actor] = sequence
        if index != order.end and order.tells_dependencies(index):
            dependencies = order.operations[index].dependencies or {}
            for actor, sequence in clock.items():
                if sequence > dependencies.get(actor, 0):
                    other = order.names.by_dot[Dot(actor, sequence)]
                    yield Finding("DependencyMissing", index, other=other)
        if index in dot_of:
            dot = dot_of[index]
            clock[dot.actor] = max(dot.sequence, clock.get(dot.actor, 0))
        clocks[index] = clock
