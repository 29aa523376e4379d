"""A run as tables, for a terminal.

What it assumes and guarantees: nothing is shown that is not in the result. What it does not know:
how it came about.
"""

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.figures import Spread
from bench.results import LOADS, OPERATIONS, ROLES, Result, Row
from bench.samples import LoadName, Operation

STYLE: Final = {"met": "green", "missed": "red"}
NOISY: Final = (
    "So this machine was noisy: what a figure is by itself says little. Ratios are taken in each "
    "round, and ± says how sure they are."
)


def show(result: Result, console: Console) -> None:
    """The console shows the tables, the goals, and what is to be known before they are believed."""
    for operation in OPERATIONS:
        for load in LOADS:
            if rows := result.rows(operation, load):
                console.print(_figures(operation, load, rows))
    console.print(_goals(result))
    for note in result.notes:
        console.print(f"note   {note}")
    for noise in result.noises:
        console.print(f"noise  {noise}", style="yellow")
    if result.noises:
        console.print(NOISY, style="yellow")


def _figures(operation: Operation, load: LoadName, rows: list[Row]) -> Table:
    how = "as much as there can be" if load == "full" else "half of that"
    table = Table(title=f"{operation}, {how}", title_justify="left", box=None)
    found = list(columns(load, rows))
    for name, _ in found:
        table.add_column(name, justify="right" if name else "left")
    for line in zip(*(cells for _, cells in found), strict=True):
        table.add_row(*line)
    return table


def columns(load: LoadName, rows: list[Row]) -> Iterator[tuple[str, list[str]]]:
    """What is told of each contender: the name of a figure, and the figures."""
    yield "", [row.contender for row in rows]
    yield "requests/s", [figure(row.throughput, 0) for row in rows]
    for role in ROLES:
        yield f"{role} us", [figure(row.cpu_us.get(role), 0) for row in rows]
    yield "all us", [figure(row.all_us, 0) for row in rows]
    if load == "full":
        yield "worker / bare", [figure(row.over_bare, 2) for row in rows]
        yield "all / naive", [figure(row.over_naive, 2) for row in rows]
    yield "p50 ms", [figure(row.p50_ms, 2) for row in rows]
    yield "p99 ms", [figure(row.p99_ms, 2) for row in rows]
    yield "p99.9 ms", [figure(row.p999_ms, 2) for row in rows]
    yield "worker", [f"{row.worker_share.median:.0%}" for row in rows]
    yield "settled s", [figure(row.settled_s, 2) for row in rows]
    yield "load", [f"{row.generator_share.median:.0%}" for row in rows]


def _goals(result: Result) -> Table:
    table = Table("goal", "ratio", "verdict", title="Goals", title_justify="left", box=None)
    for goal, found, _, verdict in result.verdicts():
        table.add_row(goal, figure(found, 2), verdict, style=STYLE.get(verdict, ""))
    return table


def figure(spread: Spread | None, digits: int) -> str:
    """The median, and after it by how many of a hundred it may be off (`Spread`)."""
    if spread is None:
        return "-"
    around = max(spread.high - spread.median, spread.median - spread.low)
    part = f" ±{around / spread.median:.0%}" if spread.median and around else ""
    return f"{spread.median:,.{digits}f}{part}"
