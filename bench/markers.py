"""When markers were seen at other nodes, and what that says.

What it is: `Case`, how long the links took; `Marker`, a write as it was seen at one node; and what
many of these say of the goals.

What it assumes and guarantees: no clock, no network. What is said of a goal is said round by round;
no marker is left out.

What it does not know: how markers came to where they were seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.table import Table

from bench.figures import Spread, percentile
from bench.findings import Finding
from bench.shown import figure

OVER_LINK_P50_MS: Final = 3.0
OVER_LINK_P99_MS: Final = 20.0
THIRD_ADDS_P50_MS: Final = 1.0
"""What a slow third node may add, for on one machine nothing is nothing."""
THIRD_ADDS_P99_MS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Case:
    """How long the links take, one way, in milliseconds: `c_ms` to C, `b_ms` between the others."""

    b_ms: float
    c_ms: float | None
    """None: C is stopped."""

    @property
    def name(self) -> str:
        """What is different in it."""
        if self.c_ms is None:
            return f"{self.b_ms:g} ms, C stopped"
        if self.c_ms != self.b_ms:
            return f"{self.b_ms:g} ms, C at {self.c_ms:g} ms"
        return f"{self.b_ms:g} ms"

    @property
    def is_even(self) -> bool:
        """Whether all links take the same time."""
        return self.b_ms == self.c_ms

    @property
    def readers(self) -> tuple[str, ...]:
        """Where markers are read."""
        return ("B",) if self.c_ms is None else ("B", "C")

    def delay_ms(self, node: str) -> float:
        """From A to this node."""
        return self.b_ms if node == "B" else self.c_ms or 0.0


@dataclass(frozen=True, slots=True)
class Marker:
    """One marker, as it was seen at one node. All since it was sent."""

    case: Case
    round: int
    node: str
    lag_ms: float
    put_ms: float
    """When A had answered."""


def cases_of(delays_ms: Sequence[float]) -> list[Case]:
    """Each of these delays on all links; then, with the least, a C that is as far away as can be,
    and one that is stopped."""
    least, most = min(delays_ms), max(delays_ms)
    slow = [] if least == most else [Case(least, most)]
    return [*(Case(delay, delay) for delay in delays_ms), *slow, Case(least, None)]


def by_round(markers: Sequence[Marker], case: Case, node: str) -> list[list[Marker]]:
    """The markers of this case at this node, round by round."""
    found: dict[int, list[Marker]] = {}
    for marker in markers:
        if (marker.case, marker.node) == (case, node):
            found.setdefault(marker.round, []).append(marker)
    return [found[number] for number in sorted(found)]


def lags_ms(markers: Sequence[Marker], percent: float) -> float:
    """The lag that so many of a hundred of these do not exceed."""
    return percentile(sorted(marker.lag_ms for marker in markers), percent)


def findings(markers: Sequence[Marker], cases: Sequence[Case]) -> list[Finding]:
    """The goals: over the delay of the link, at the node where it is more; and what a slow C adds
    at B."""
    found = []
    for case in cases:
        if not case.is_even:
            continue
        for percent, limit in ((50, OVER_LINK_P50_MS), (99, OVER_LINK_P99_MS)):
            nodes = [
                [
                    lags_ms(one, percent) - case.delay_ms(node)
                    for one in by_round(markers, case, node)
                ]
                for node in case.readers
            ]
            rounds = tuple(max(pair) for pair in zip(*nodes, strict=True))
            goal = f"{case.name}: p{percent} beyond the delay of the link"
            found.append(Finding(goal, rounds, limit, "ms", digits=2))
    for case in cases:
        if case.is_even:
            continue
        alike = next(one for one in cases if one.is_even and one.b_ms == case.b_ms)
        for percent, limit in ((50, THIRD_ADDS_P50_MS), (99, THIRD_ADDS_P99_MS)):
            slow, even = (
                [lags_ms(one, percent) for one in by_round(markers, which, "B")]
                for which in (case, alike)
            )
            rounds = tuple(a - b for a, b in zip(slow, even, strict=True))
            goal = f"{case.name}: what that adds to p{percent} at B"
            found.append(Finding(goal, rounds, limit, "ms", digits=2))
    return found


def notes(loads: Sequence[dict[str, Any]], rate: float) -> list[str]:
    """The cases whose load was not what it was to be."""
    return [
        f"round {load['round'] + 1}, {load['case']}: {load['errors']} requests of the load failed, "
        f"and {load['requests'] / load['seconds']:.0f} a second were answered, not {rate:.0f}."
        for load in loads
        if load["errors"] or load["requests"] / load["seconds"] < 0.9 * rate
    ]


def table(markers: Sequence[Marker], rate: float) -> Table:
    """All cases, for people."""
    shown = Table(
        title=f"Until a write is visible, with {rate:.0f} puts a second",
        title_justify="left",
        box=None,
    )
    for name in ("links", "at", "markers", "p50 ms", "p99 ms", "most ms", "put p50", "put p99"):
        shown.add_column(name, justify="left" if name in ("links", "at") else "right")
    for case, node in dict.fromkeys((marker.case, marker.node) for marker in markers):
        rounds = by_round(markers, case, node)
        puts = [sorted(marker.put_ms for marker in one) for one in rounds]
        shown.add_row(
            case.name,
            node,
            str(sum(map(len, rounds))),
            *(
                figure(Spread.of([lags_ms(one, percent) for one in rounds]), 1)
                for percent in (50, 99, 100)
            ),
            *(
                figure(Spread.of([percentile(put, percent) for put in puts]), 1)
                for percent in (50, 99)
            ),
        )
    return shown
