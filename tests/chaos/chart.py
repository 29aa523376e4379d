"""Curves and bands over one axis of time, drawn as SVG.

What it is: `curves`, a panel of lines, and `rows`, a panel of bars. Both show the same bands behind
what they show, and have the same width, so that panels can be read one below the other.

What it assumes and guarantees: the drawing has the classes that html_page.css knows. All text in
it is escaped. A gap in the data is a gap in the line.

What it does not know: what is shown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tests.chaos.timeline import Points
from tools.axis import ticks

WIDTH = 1120
_LEFT, _RIGHT, _TOP, _BOTTOM = 92, 12, 8, 22
_ROW = 17
#: Between marks on the axis of time.
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)


@dataclass(frozen=True, slots=True)
class Series:
    """One line. `colour` is one of html_page.css: `c0` to `c5`, or `bad`."""

    name: str
    points: Points
    colour: str
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """A span of time: in the row `row`, of the kind `kind`, with a text for the pointer."""

    begin_s: float
    end_s: float
    kind: str
    row: str
    text: str
    as_planned: bool = True


def curves(series: Sequence[Series], bands: Sequence[Band], end_s: float, height: int) -> str:
    """A panel of lines over the bands."""
    top = max((v for s in series for _, v in s.points if v is not None), default=0.0)
    marks = ticks(top, 4)
    highest = max(marks[-1], top) or 1.0
    below = height - _BOTTOM

    def y(value: float) -> float:
        return below - (below - _TOP) * value / highest

    parts = [*_behind(bands, end_s, height)]
    for tick in marks:
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick):.1f}" '
            f'y2="{y(tick):.1f}"/><text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" '
            f'text-anchor="end">{_number(tick)}</text>'
        )
    for one in series:
        for run in _runs(one.points):
            line = " ".join(f"{_x(at, end_s):.1f},{y(value):.1f}" for at, value in run)
            if one.filled:
                first, last = _x(run[0][0], end_s), _x(run[-1][0], end_s)
                parts.append(
                    f'<polygon class="area {one.colour}" '
                    f'points="{first:.1f},{below} {line} {last:.1f},{below}"/>'
                )
            parts.append(f'<polyline class="curve {one.colour}" points="{line}"/>')
    return _panel(parts, height)


def rows(names: Sequence[str], bands: Sequence[Band], end_s: float) -> str:
    """A panel of bars, a row for each name."""
    height = _TOP + _ROW * len(names) + _BOTTOM
    parts = [*_behind((), end_s, height)]
    for number, name in enumerate(names):
        top = _TOP + _ROW * number
        parts.append(
            f'<text x="{_LEFT - 6}" y="{top + 12}" text-anchor="end">{escape(name)}</text>'
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{top + _ROW}" '
            f'y2="{top + _ROW}"/>'
        )
        for band in bands:
            if band.row == name:
                left = _x(band.begin_s, end_s)
                width = max(2.0, _x(band.end_s, end_s) - left)
                failed = "" if band.as_planned else " failed"
                parts.append(
                    f'<rect class="bar {band.kind}{failed}" x="{left:.1f}" y="{top + 3}" rx="2" '
                    f'width="{width:.1f}" height="{_ROW - 5}"><title>{escape(band.text)}</title>'
                    "</rect>"
                )
    return _panel(parts, height)


def _panel(parts: Sequence[str], height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'


def _behind(bands: Sequence[Band], end_s: float, height: int) -> Iterator[str]:
    """The bands, and the axis of time."""
    below = height - _BOTTOM
    for band in bands:
        left = _x(band.begin_s, end_s)
        width = max(1.0, _x(band.end_s, end_s) - left)
        yield (
            f'<rect class="band {band.kind}" x="{left:.1f}" y="{_TOP}" width="{width:.1f}" '
            f'height="{below - _TOP}"><title>{escape(band.text)}</title></rect>'
        )
    step_s = next((step for step in _STEPS_S if step * 12 >= end_s), _STEPS_S[-1])
    for tick in range(0, int(end_s) + 1, step_s):
        yield (
            f'<line class="grid" x1="{_x(tick, end_s):.1f}" x2="{_x(tick, end_s):.1f}" '
            f'y1="{_TOP}" y2="{below + 4}"/><text x="{_x(tick, end_s):.1f}" '
            f'y="{height - 6}" text-anchor="middle">{tick // 60}:{tick % 60:02}</text>'
        )


def _x(at_s: float, end_s: float) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * min(1.0, at_s / (end_s or 1.0))


def _runs(points: Points) -> Iterator[list[tuple[float, float]]]:
    """The parts of a line between its gaps."""
    run: list[tuple[float, float]] = []
    for at, value in points:
        if value is not None:
            run.append((at, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _number(value: float) -> str:
    return f"{value:g}" if value < 10_000 else f"{value / 1000:g}k"
