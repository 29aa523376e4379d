"""What came of a run, as one page for people.

What it is: `write_report`, which writes a page of HTML that needs nothing but itself.

What it assumes and guarantees: nothing is shown that is not in the result.

What it does not know: how it came about.
"""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Final

from bench.chart import Bar, Part, Point, bars, ranges
from bench.contenders import CONTENDERS
from bench.results import LOADS, OPERATIONS, Result, Row
from bench.samples import Operation
from bench.shown import columns, figure
from tools import html_page

_COLOURS: Final = {"worker": "c0", "redis": "c1", "peers": "c3", "supervisor": "c5"}
_HOW: Final = {"full": "as much as there can be", "half": "half of that, at a steady rate"}


def write_report(result: Result, path: Path) -> None:
    """The report is in the file. Raises OSError."""
    noisy = bool(result.noises)
    about = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    page = html_page.page(
        "What a request costs",
        about,
        "a noisy machine" if noisy else "a quiet machine",
        not noisy,
        (
            _warnings(result),
            _goals(result),
            *(_operation(result, operation) for operation in OPERATIONS),
            _contenders(result),
            html_page.heading("Settings"),
            html_page.settings(result.settings.items()),
        ),
    )
    path.write_text(page, encoding="utf-8")


def _warnings(result: Result) -> str:
    said = [html_page.verdict("noise", False) + f" {escape(noise)}" for noise in result.noises]
    said += [escape(note) for note in result.notes]
    return "".join(f"<p>{one}</p>" for one in said)


def _goals(result: Result) -> str:
    lines = [
        (
            html_page.name(goal),
            html_page.number(figure(found, 2)),
            html_page.verdict(verdict, verdict == "met")
            if verdict in ("met", "missed")
            else escape(verdict),
        )
        for goal, found, _, verdict in result.verdicts()
    ]
    about = (
        "Ratios are taken in each round, and then their median. ± says by how much it may be off: "
        "with a certainty of 95 % it is no more than that."
    )
    return html_page.heading("Goals", about) + html_page.table(("goal", "ratio", "verdict"), lines)


def _operation(result: Result, operation: Operation) -> str:
    full, half = result.rows(operation, "full"), result.rows(operation, "half")
    if not full:
        return ""
    samples = [one for one in result.samples if one.operation == operation and one.load == "full"]
    cpu = [
        Bar(
            row.contender,
            [
                Part(role, row.cpu_us[role].median, colour)
                for role, colour in _COLOURS.items()
                if role in row.cpu_us
            ],
            [one.cpu_us() for one in samples if one.contender == row.contender],
            figure(row.all_us, 0),
        )
        for row in full
    ]
    throughput = [
        Bar(
            row.contender,
            [Part("requests a second", row.throughput.median, "c2")],
            [one.throughput for one in samples if one.contender == row.contender],
            figure(row.throughput, 0),
        )
        for row in full
    ]
    points = (("p50", "c2"), ("p99", "c1"), ("p99.9", "bad"))
    parts = [
        html_page.heading(
            f"{operation}: CPU time",
            "Microseconds per request, under as much load as there can be, by process. Each dot is "
            "a round.",
        ),
        _keys(_COLOURS.items()),
        bars(cpu),
        html_page.heading(f"{operation}: throughput", "Requests a second."),
        bars(throughput),
        html_page.heading(
            f"{operation}: how long a request takes",
            "Under half of that load, sent at a steady rate, from when it was due. The pale lines "
            "are where the median of the rounds is sure to be.",
        ),
        _keys(points),
        ranges([(row.contender, _points(row)) for row in half], "ms"),
    ]
    for load in LOADS:
        found = list(columns(load, result.rows(operation, load)))
        lines = zip(*(cells for _, cells in found), strict=True)
        cells = [
            (html_page.name(first), *map(html_page.number, others)) for first, *others in lines
        ]
        parts.append(
            f"<details><summary>All figures: {operation}, {_HOW[load]}</summary>"
            + html_page.table([name for name, _ in found], cells)
            + "</details>"
        )
    return "".join(parts)


def _points(row: Row) -> list[Point]:
    return [
        Point("p50", row.p50_ms, "c2"),
        Point("p99", row.p99_ms, "c1"),
        Point("p99.9", row.p999_ms, "bad"),
    ]


def _keys(colours: Iterable[tuple[str, str]]) -> str:
    return f'<p class="keys">{html_page.key(colours)}</p>'


def _contenders(result: Result) -> str:
    measured = dict.fromkeys(sample.contender for sample in result.samples)
    lines = [(html_page.name(name), escape(CONTENDERS[name].about)) for name in measured]
    return html_page.heading("Who was measured") + html_page.table(("", "what it is"), lines)
