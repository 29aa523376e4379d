"""Goals that are about one measurement each, and what was found: shown, and told to programs.

What it is: `Finding`, a goal with its figure in each round, and `Outcome`, all that came of a run.

What it assumes and guarantees: verdicts are as in `goals.py`: a goal is met or missed where the
median of the rounds is sure to be.

What it does not know: how anything was measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.accounting import described
from bench.figures import Spread
from bench.goals import Verdict, verdict
from bench.shown import NOISY, STYLE


@dataclass(frozen=True, slots=True)
class Finding:
    """A figure that is to be at most, or at least, so much."""

    goal: str
    rounds: Sequence[float]
    """What it was in each of them."""
    limit: float
    unit: str
    at_most: bool = True
    digits: int = 1

    def __str__(self) -> str:
        return f"{self.goal} {'<=' if self.at_most else '>='} {self.limit:,g} {self.unit}"

    @property
    def found(self) -> Spread | None:
        """What the rounds say together; None if there was none."""
        return Spread.of(self.rounds) if self.rounds else None

    @property
    def text(self) -> str:
        """The median, and between which values it is sure to be."""
        if (found := self.found) is None:
            return "-"
        median, low, high = (
            f"{value:,.{self.digits}f}" for value in (found.median, found.low, found.high)
        )
        return median if low == high else f"{median} ({low} to {high})"

    @property
    def verdict(self) -> Verdict:
        """Whether it is."""
        return verdict(self.found, self.limit, at_most=self.at_most)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that came of a run."""

    tables: Sequence[Table]
    findings: Sequence[Finding]
    noises: Sequence[str] | None
    """What says that the machine was noisy; None if nothing says whether it was."""
    figures: Mapping[str, Any]
    """All that was measured, as JSON."""
    notes: Sequence[str] = ()
    """What else is to be known before a figure is believed."""

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "machine": described(),
            "noises": None if self.noises is None else list(self.noises),
            "notes": list(self.notes),
            "goals": [
                {
                    "goal": str(one),
                    "limit": one.limit,
                    "unit": one.unit,
                    "rounds": list(one.rounds),
                    "verdict": one.verdict,
                }
                for one in self.findings
            ],
            **self.figures,
        }

    def show(self, console: Console) -> None:
        """The console shows the tables, each goal with its figure, and what makes them doubtful."""
        for table in self.tables:
            console.print(table)
        if self.findings:
            console.print(self._goals())
        for note in self.notes:
            console.print(f"note   {note}")
        for noise in self.noises or ():
            console.print(f"noise  {noise}", style="yellow")
        if self.noises:
            console.print(NOISY)

    def _goals(self) -> Table:
        goals = Table("goal", "figure", "verdict", title="Goals", title_justify="left", box=None)
        goals.columns[1].justify = "right"
        for one in self.findings:
            goals.add_row(str(one), one.text, one.verdict, style=STYLE.get(one.verdict, ""))
        return goals
