"""Goals: when they are met, missed, or cannot be told."""

import pytest

from bench.goals import GOALS, Goal, throughput, worker
from bench.samples import Sample
from tests.bench.model_run import answered, full_run, sample

GOAL = Goal("PUT", "full", worker("alone"), worker("bare"), 1.5)
AT_LEAST = Goal("PUT", "full", throughput("three"), throughput("eventual"), 0.95, at_most=False)


def rounds(*ratios: float) -> list[Sample]:
    return [
        one
        for number, ratio in enumerate(ratios)
        for one in (
            sample("bare", {"worker": 0.1}, round=number),
            sample("alone", {"worker": 0.1 * ratio}, round=number),
        )
    ]


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ((1.2, 1.3), "met"),
        ((1.7, 1.8), "missed"),
        ((1.2, 1.3, 1.9), "the rounds do not tell"),
        ((*(1.2,) * 12, 1.7), "met"),
        ((*(1.7,) * 12, 1.2), "missed"),
        ((*(1.2,) * 6, *(1.7,) * 7), "the rounds do not tell"),
        ((), "not measured"),
    ],
)
def test_the_verdict_is_that_of_wherever_the_median_may_be(
    ratios: tuple[float, ...], verdict: str
) -> None:
    assert GOAL.verdict(rounds(*ratios)) == verdict


@pytest.mark.parametrize(("requests", "verdict"), [(960, "met"), (940, "missed")])
def test_a_goal_may_be_a_least_figure(requests: int, verdict: str) -> None:
    samples = [sample("three", {}, came=answered(requests)), sample("eventual", {})]
    assert AT_LEAST.verdict(samples) == verdict


def test_a_goal_says_what_it_is_about() -> None:
    assert str(GOAL) == "PUT: alone, CPU of the worker <= 1.5 x bare"
    assert str(AT_LEAST) == "PUT: three, throughput >= 0.95 x eventual"
    assert len({str(goal) for goal in GOALS}) == len(GOALS)


def test_a_full_run_tells_of_every_goal() -> None:
    told = {goal: verdict for goal, _, _, verdict in full_run().verdicts()}
    assert "not measured" not in told.values()
    assert told["PUT: alone, CPU of the worker <= 1.5 x bare"] == "met"
    assert told["GET: alone, CPU of the worker <= 1.35 x bare"] == "missed"
    assert told["PUT: three, CPU of all its processes <= 0.9 x naive"] == "met"
