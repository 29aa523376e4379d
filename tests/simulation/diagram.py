"""The story of a simulation for a person: as lines, as a space-time diagram in text, and as SVG.

What it is: three functions from events to text. In both diagrams time runs downwards, each node has
a column, `*` is a write where it was made, `<` where it came in, `~` one that waits for its causes.

What it assumes and guarantees: events in the order in which they happened.

What it does not know: what they mean.

Where the idea is from: Lamport's space-time diagrams (1978).
"""

from collections.abc import Sequence
from html import escape
from typing import Final

from tests.simulation.record import Event

_CELL: Final = 20
_COLUMN: Final = 190
_ROW: Final = 22
_STYLE: Final = """
text { font: 12px monospace; fill: #222 } .trouble { fill: #a60 } .wrong { fill: #c00;
font-weight: bold } line { stroke: #bbb } .way { stroke: #47c; stroke-width: 1.4 }
circle { fill: #47c } .in { fill: #fff; stroke: #47c; stroke-width: 2 } .waits { fill: #ddd;
stroke: #888 }
"""


def lines(events: Sequence[Event]) -> str:
    """What clients did and what befell, a line each."""
    return "\n".join(str(event) for event in events if event.kind != "own")


def as_text(nodes: Sequence[str], events: Sequence[Event]) -> str:
    """The diagram for a terminal."""
    rows = [" " * 11 + "".join(f"{node:<{_CELL}}" for node in nodes)]
    for event in events:
        if event.short:
            cells = [event.short if node == event.node else "|" for node in nodes]
            rows.append(f"{event.at:9.4f}  " + "".join(f"{cell:<{_CELL}}" for cell in cells))
        else:
            rows.append(f"{event.at:9.4f}  -- {event.text.strip()}")
    return "\n".join(row.rstrip() for row in rows)


def as_svg(nodes: Sequence[str], events: Sequence[Event]) -> str:
    """The diagram as a picture."""
    x = {node: 120 + _COLUMN * index for index, node in enumerate(nodes)}
    height = _ROW * (len(events) + 3)
    made: dict[str, tuple[int, int]] = {}
    shapes: list[str] = []
    for node, left in x.items():
        shapes.append(f'<text x="{left - 4}" y="{_ROW}">{escape(node)}</text>')
        shapes.append(f'<line x1="{left}" y1="{_ROW + 6}" x2="{left}" y2="{height - _ROW}"/>')
    for index, event in enumerate(events):
        y = _ROW * (index + 2)
        shapes.append(f'<text x="4" y="{y + 4}">{event.at:.4f}</text>')
        left = x.get(event.node, 90)
        if event.kind == "own":
            made[event.dot] = (left, y)
        elif event.kind == "applied" and event.dot in made:
            from_x, from_y = made[event.dot]
            shapes.append(f'<line class="way" x1="{from_x}" y1="{from_y}" x2="{left}" y2="{y}"/>')
        if event.kind in ("own", "applied", "waits"):
            style = {"own": "", "applied": "in", "waits": "waits"}[event.kind]
            shapes.append(f'<circle class="{style}" cx="{left}" cy="{y}" r="5"/>')
        text = event.short or event.text.strip()
        shapes.append(
            f'<text class="{event.kind}" x="{left + 9}" y="{y + 4}">{escape(text)}</text>'
        )
    width = 120 + _COLUMN * max(len(nodes), 4)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        f"<style>{_STYLE}</style>{''.join(shapes)}</svg>\n"
    )
