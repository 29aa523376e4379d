"""Goals that are about one measurement each, and what was found: shown, and told to programs.

What it is: `Finding`, a goal with its figure in each round, and `Outcome`, all that came of a run.

What it assumes and guarantees: verdicts are as in `goals.py`: on a noisy machine, and where nothing
says how noisy it was, a goal is met or missed only if every round says the same. On a quiet one the
median tells.

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
from bench.shown import STYLE


@dataclass(frozen=True, slots=True)
class Finding:
    """A figure that is to be at most, or at least, so much."""

    goal: str
    rounds: Sequence[float]
    """What it was in each of them."""
    limit: float
    unit: str
    at_most: bool = True
    exact: bool = False
    """Whether it is the same on any machine."""
    digits: int = 1

    def __str__(self) -> str:
        return f"{self.goal} {'<=' if self.at_most else '>='} {self.limit:,g} {self.unit}"

    @property
    def found(self) -> Spread | None:
        """What the rounds say together; None if there was none."""
        return Spread.of(self.rounds) if self.rounds else None

    @property
    def text(self) -> str:
        """The median, and between which values the rounds are."""
        if (found := self.found) is None:
            return "-"
        median, low, high = (
            f"{value:,.{self.digits}f}" for value in (found.median, found.low, found.high)
        )
        return median if low == high else f"{median} ({low} to {high})"

    def verdict(self, *, noisy: bool) -> Verdict:
        """Whether it is."""
        noisy = noisy and not self.exact
        return verdict(self.found, self.limit, at_most=self.at_most, noisy=noisy)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that came of a run."""

    tables: Sequence[Table]
    findings: Sequence[Finding]
    noises: Sequence[str] | None
    """Why the machine was too noisy to tell; None if nothing says whether it was."""
    figures: Mapping[str, Any]
    """All that was measured, as JSON."""
    notes: Sequence[str] = ()
    """What else is to be known before a figure is believed."""

    def verdict(self, finding: Finding) -> Verdict:
        """Whether that goal is met."""
        return finding.verdict(noisy=self.noises is None or bool(self.noises))

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
                    "verdict": self.verdict(one),
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
            console.print("This machine was too noisy for its figures to be believed.")

    def _goals(self) -> Table:
        goals = Table("goal", "figure", "verdict", title="Goals", title_justify="left", box=None)
        goals.columns[1].justify = "right"
        for one in self.findings:
            said = self.verdict(one)
            goals.add_row(str(one), one.text, said, style=STYLE.get(said, ""))
        return goals
