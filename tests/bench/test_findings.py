"""Goals that are about one measurement each: verdicts, what is shown, and what is written down."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from bench.accounting import Machine
from bench.figures import Spread
from bench.findings import Finding, Findings
from bench.reading import Reading

QUIET = Machine(busy_s=2.0, interrupts_s=0.0, steal_s=0.0, all_s=4.0)
BUSY = Machine(busy_s=3.0, interrupts_s=0.0, steal_s=0.0, all_s=4.0)


def reading(machine: Machine = QUIET) -> Reading:
    return Reading(1000, 2.0, {"worker": 1.0, "redis": 0.5}, machine, harness_s=0.5)


def findings(*found: Finding, machine: Machine = QUIET) -> Findings:
    return Findings("it", {"rounds": 1}, [({"round": 0}, reading(machine))], found)


def test_a_reading_says_what_each_thing_cost() -> None:
    assert reading().rate == 500
    assert reading().cpu_us("worker") == pytest.approx(1000)
    assert reading().cpu_us("worker", "redis") == pytest.approx(1500)


def test_what_others_use_is_what_neither_the_measured_nor_the_measuring_did() -> None:
    assert reading().others_share == 0
    assert reading(BUSY).others_share == pytest.approx(0.25)
    assert findings().noises == []
    [said] = findings(machine=BUSY).noises
    assert "1 of 1" in said and "25%" in said


@pytest.mark.parametrize(
    ("found", "machine", "exact", "said"),
    [
        (Spread(9, 8, 10), QUIET, False, "met"),
        (Spread(9, 8, 12), BUSY, False, "too noisy to tell"),
        (Spread(9, 8, 10), BUSY, False, "met"),
        (Spread(9, 8, 12), BUSY, True, "met"),
        (Spread(11, 9, 12), QUIET, False, "missed"),
        (None, QUIET, False, "not measured"),
    ],
)
def test_the_verdict_is_that_of_the_rounds(
    found: Spread | None, machine: Machine, exact: bool, said: str
) -> None:
    told = findings(Finding("it", found, 10, "us", exact=exact), machine=machine).to_json()
    assert told["goals"][0]["verdict"] == said


def test_a_figure_may_be_wanted_to_be_large() -> None:
    finding = Finding("it", Spread(60_000, 60_000, 60_000), 50_000, "/s", at_most=False)
    assert str(finding) == "it >= 50,000 /s"
    assert finding.verdict(noisy=True) == "met"


def test_goals_are_shown_with_their_figures_and_with_what_makes_them_doubtful() -> None:
    shown = io.StringIO()
    missed = Finding("a write", Spread(11.26, 11, 12), 10, "us")
    findings(missed, machine=BUSY).show(Console(file=shown, width=200))
    assert "a write <= 10 us" in shown.getvalue()
    assert "11.3" in shown.getvalue() and "missed" in shown.getvalue()
    assert "too noisy" in shown.getvalue()


def test_all_of_it_is_written_down(tmp_path: Path) -> None:
    path = findings(Finding("it", Spread(9, 8, 10), 10, "us")).write(tmp_path / "new")
    told = json.loads(path.read_text())
    assert path.name == "it.json"
    assert told["settings"] == {"rounds": 1}
    assert told["goals"][0]["figure"] == {"median": 9, "low": 8, "high": 10}
    assert told["readings"][0]["round"] == 0
    assert told["readings"][0]["cpu_s"] == {"worker": 1.0, "redis": 0.5}
