"""Contenders beside each other, drawn as SVG.

What it is: `bars`, stacked, from zero, with a dot for each round; and `ranges`, points on a
logarithmic axis, each with the reach of its rounds.

What it assumes and guarantees: the drawing has the classes that html_page.css knows. All text in it
is escaped.

What it does not know: what is shown.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from bench.figures import Spread
from tools.axis import ticks

WIDTH: Final = 1120
_LEFT, _RIGHT, _TOP, _BOTTOM = 92, 110, 4, 22
_ROW: Final = 30


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar. `colour` is one of html_page.css: `c0` to `c5`."""

    name: str
    value: float
    colour: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A row: parts one after the other, the whole of each round, and what is written at its end."""

    name: str
    parts: Sequence[Part]
    rounds: Sequence[float]
    text: str


@dataclass(frozen=True, slots=True)
class Point:
    """A point with its reach."""

    name: str
    value: Spread
    colour: str


def bars(rows: Sequence[Bar]) -> str:
    """A row for each bar."""
    longest = max(
        (max(sum(part.value for part in row.parts), *row.rounds, 0.0) for row in rows), default=0.0
    )
    marks = ticks(longest, 6)
    axis = marks[-1] or 1.0

    def x(value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * value / axis

    parts = [*_axis([(x(tick), f"{tick:,g}") for tick in marks], len(rows))]
    for number, row in enumerate(rows):
        top = _TOP + _ROW * number
        parts.append(_label(row.name, top))
        at = 0.0
        for part in row.parts:
            parts.append(
                f'<rect class="bar {part.colour}" x="{x(at):.1f}" y="{top + 6}" '
                f'width="{x(at + part.value) - x(at):.1f}" height="{_ROW - 12}">'
                f"<title>{escape(f'{row.name}, {part.name}: {part.value:,.1f}')}</title></rect>"
            )
            at += part.value
        for value in row.rounds:
            parts.append(
                f'<circle class="dot" cx="{x(value):.1f}" cy="{top + _ROW // 2}" r="2.5">'
                f"<title>{escape(f'{row.name}, one round: {value:,.1f}')}</title></circle>"
            )
        end = max([at, *row.rounds])
        parts.append(f'<text x="{x(end) + 8:.1f}" y="{top + 19}">{escape(row.text)}</text>')
    return _svg(parts, len(rows))


def ranges(rows: Sequence[tuple[str, Sequence[Point]]], unit: str) -> str:
    """A row for each name, with its points. Values are above zero."""
    values = [value for _, points in rows for p in points for value in (p.value.low, p.value.high)]
    marks = _marks(min(values, default=1.0), max(values, default=10.0))
    whole = math.log(marks[-1] / marks[0])

    def x(value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * math.log(value / marks[0]) / whole

    parts = [*_axis([(x(mark), f"{mark:,g} {unit}") for mark in marks], len(rows))]
    for number, (name, points) in enumerate(rows):
        top = _TOP + _ROW * number
        parts.append(_label(name, top))
        middle = top + _ROW // 2
        for point in points:
            said = f"{name}, {point.name}: {point.value.median:,.2f} {unit}"
            reach = f"from {point.value.low:,.2f} to {point.value.high:,.2f}"
            parts.append(
                f'<line class="reach {point.colour}" x1="{x(point.value.low):.1f}" '
                f'x2="{x(point.value.high):.1f}" y1="{middle}" y2="{middle}"/>'
                f'<circle class="point {point.colour}" cx="{x(point.value.median):.1f}" '
                f'cy="{middle}" r="5"><title>{escape(f"{said}, {reach}")}</title></circle>'
            )
    return _svg(parts, len(rows))


def _svg(parts: Sequence[str], rows: int) -> str:
    height = _TOP + _ROW * rows + _BOTTOM
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'


def _axis(marks: Sequence[tuple[float, str]], rows: int) -> Iterator[str]:
    below = _TOP + _ROW * rows
    for at, text in marks:
        yield (
            f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{below + 4}"/>'
            f'<text x="{at:.1f}" y="{below + 16}" text-anchor="middle">{escape(text)}</text>'
        )


def _label(name: str, top: int) -> str:
    return f'<text x="{_LEFT - 8}" y="{top + 19}" text-anchor="end">{escape(name)}</text>'


def _marks(low: float, high: float) -> list[float]:
    """Round numbers from `low`, or just below it, to `high` or just above it; two at least."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    marks = [10.0**power * n for power in powers for n in (1, 2, 5)]
    first = max(mark for mark in marks if mark <= low)
    last = min(mark for mark in marks if mark >= high and mark > first)
    return [mark for mark in marks if first <= mark <= last]
