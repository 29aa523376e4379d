"""The ways by which one operation comes before another.

What it is: `links`, the kinds of links; `search`, what can be reached from an operation; and
`way_back`, one shortest way.

What it assumes and guarantees: any number of links within one session, or by dots, count as one, as
a person would count them.

What it does not know: why somebody asks.
"""

from typing import Literal

from tests.checker.graph import Predecessors
from tests.checker.order import Order

Kind = Literal["shows", "session", "dots", "end"]
#: Leading away from a node, per kind of link.
Links = dict[Kind, Predecessors]
#: The operations on a way, and the kinds of the links between them.
Way = tuple[list[int], list[Kind]]


def links(order: Order) -> Links:
    """The nearest predecessors of each operation, by kind."""
    # Of ways equally short, those by sessions are named: people know what sessions promise.
    return {
        "session": order.session,
        "shows": order.reads_from,
        "dots": order.dots,
        "end": order.to_end,
    }


def search(links: Links, start: int) -> dict[int, tuple[int, int, Kind]]:
    """Every node that can be reached, with its distance, the node it is reached from, and how.

    Any number of links within one session, or by dots, count as one.
    """
    found: dict[int, tuple[int, int, Kind]] = {start: (0, start, "end")}
    closed: set[tuple[Kind, int]] = set()
    queue = [start]
    for node in queue:
        distance = found[node][0] + 1
        for kind, edges in links.items():
            stack = [node]
            while stack:
                for other in edges[stack.pop()]:
                    if other not in found:
                        found[other] = (distance, node, kind)
                        queue.append(other)
                    if kind in ("session", "dots") and (kind, other) not in closed:
                        closed.add((kind, other))
                        stack.append(other)
    return found


def way_back(found: dict[int, tuple[int, int, Kind]], node: int) -> Way:
    """From a node that was found to where the search started."""
    nodes, kinds = [node], list[Kind]()
    while found[node][0]:
        _, node, kind = found[node]
        nodes.append(node)
        kinds.append(kind)
    return nodes, kinds
