"""Goals that are about one measurement each, and what was found: shown, and written down.

What it is: `Finding`, a goal with its figure, and `Findings`, all of a run.

What it assumes and guarantees: verdicts are as in `goals.py`: on a noisy machine a goal is met or
missed only if every round says the same. What is written has all readings.

What it does not know: how anything was measured.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.accounting import described
from bench.figures import Spread, disturbances
from bench.goals import Verdict, verdict
from bench.reading import Reading
from bench.shown import STYLE, figure


@dataclass(frozen=True, slots=True)
class Finding:
    """The figure is to be at most, or at least, so much."""

    goal: str
    found: Spread | None
    limit: float
    unit: str
    at_most: bool = True
    exact: bool = False
    """Whether it is the same on any machine."""
    digits: int = 1

    def __str__(self) -> str:
        return f"{self.goal} {'<=' if self.at_most else '>='} {self.limit:,g} {self.unit}"

    def verdict(self, *, noisy: bool) -> Verdict:
        """Whether it is."""
        noisy = noisy and not self.exact
        return verdict(self.found, self.limit, at_most=self.at_most, noisy=noisy)


@dataclass(frozen=True, slots=True)
class Findings:
    """All that came of a run."""

    name: str
    settings: Mapping[str, Any]
    readings: Sequence[tuple[Mapping[str, Any], Reading]]
    """Each with what was measured."""
    findings: Sequence[Finding]

    @property
    def noises(self) -> list[str]:
        """Why the machine was too noisy to tell; empty if it was not."""
        return disturbances([reading for _, reading in self.readings])

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        noisy = bool(self.noises)
        return {
            "settings": dict(self.settings),
            "machine": described(),
            "noises": self.noises,
            "goals": [
                {
                    "goal": str(one),
                    "figure": None if one.found is None else asdict(one.found),
                    "limit": one.limit,
                    "verdict": one.verdict(noisy=noisy),
                }
                for one in self.findings
            ],
            "readings": [{**about, **asdict(reading)} for about, reading in self.readings],
        }

    def show(self, console: Console) -> None:
        """The console shows each goal with its figure, and what is to be known beforehand."""
        noises = self.noises
        table = Table("goal", "figure", "verdict", title="Goals", title_justify="left", box=None)
        table.columns[1].justify = "right"
        for one in self.findings:
            said = one.verdict(noisy=bool(noises))
            table.add_row(str(one), figure(one.found, one.digits), said, style=STYLE.get(said, ""))
        console.print(table)
        for noise in noises:
            console.print(f"noise  {noise}", style="yellow")
        if noises:
            console.print("This machine was too noisy for its figures to be believed.")

    def write(self, directory: Path) -> Path:
        """They are in a file there. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.name}.json"
        path.write_text(json.dumps(self.to_json(), indent=1))
        return path
