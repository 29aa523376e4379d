"""Goals that are about one measurement each: verdicts, what is shown, and what is told."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from bench.accounting import Machine
from bench.figures import disturbances
from bench.findings import Finding, Outcome
from bench.reading import Reading

QUIET = Machine(busy_s=2.0, interrupts_s=0.0, steal_s=0.0, all_s=4.0)
BUSY = Machine(busy_s=3.0, interrupts_s=0.0, steal_s=0.0, all_s=4.0)
NOISES = ("Others used much.",)


def reading(machine: Machine = QUIET) -> Reading:
    return Reading(1000, 2.0, {"worker": 1.0, "redis": 0.5}, machine, harness_s=0.5)


def outcome(*found: Finding, noises: tuple[str, ...] | None = ()) -> Outcome:
    return Outcome([Table("what", title="Costs")], found, noises, {"more": [1, 2]}, ["Mind this."])


def shown(told: Outcome) -> list[str]:
    file = io.StringIO()
    told.show(Console(file=file, width=200))
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def test_a_reading_says_what_each_thing_cost() -> None:
    assert reading().rate == 500
    assert reading().cpu_us("worker") == pytest.approx(1000)
    assert reading().cpu_us("worker", "redis") == pytest.approx(1500)


def test_what_others_use_is_what_neither_the_measured_nor_the_measuring_did() -> None:
    assert reading().others_share == 0
    assert reading(BUSY).others_share == pytest.approx(0.25)
    assert disturbances([reading()]) == []
    [said] = disturbances([reading(BUSY)])
    assert "1 of 1" in said and "25%" in said


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        ((8, 9, 10), "met"),
        ((8, 9, 12), "the rounds do not tell"),
        ((8,), "met"),
        ((11, 12), "missed"),
        ((9, 11, 12), "the rounds do not tell"),
        ((), "not measured"),
    ],
)
def test_the_verdict_is_that_of_wherever_the_median_may_be(
    rounds: tuple[float, ...], said: str
) -> None:
    assert Finding("it", rounds, 10, "us").verdict == said


def test_a_figure_may_be_wanted_to_be_large() -> None:
    finding = Finding("it", [60_000], 50_000, "/s", at_most=False)
    assert str(finding) == "it >= 50,000 /s"
    assert finding.verdict == "met"


def test_goals_are_shown_with_their_rounds_and_with_what_makes_them_doubtful() -> None:
    lines = shown(
        outcome(
            Finding("a write", [11.26, 11, 12], 10, "us"),
            Finding("small", [0.25], 0.5, "MB", digits=2),
            Finding("new", [], 1.1, "x"),
            noises=NOISES,
        )
    )
    assert lines[0] == "Costs"
    assert "a write <= 10 us 11.3 (11.0 to 12.0) missed" in lines
    assert "small <= 0.5 MB 0.25 met" in lines
    assert "new <= 1.1 x - not measured" in lines
    assert "note Mind this." in lines and "noise Others used much." in lines
    assert lines[-1].startswith("So this machine was noisy")


@pytest.mark.parametrize("noises", [(), None])
def test_nobody_is_told_of_noise_that_nothing_says_there_was(
    noises: tuple[str, ...] | None,
) -> None:
    assert not any("nois" in line for line in shown(outcome(noises=noises)))


def test_all_of_it_is_told_to_programs() -> None:
    told = outcome(Finding("it", (9, 8, 10), 10, "us"), noises=None).to_json()
    assert told["goals"] == [
        {"goal": "it <= 10 us", "limit": 10, "unit": "us", "rounds": [9, 8, 10], "verdict": "met"}
    ]
    assert told["noises"] is None and told["notes"] == ["Mind this."]
    assert told["more"] == [1, 2] and told["machine"]
