"""Statistics, on samples whose answer is known."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.accounting import Machine
from bench.figures import (
    Spread,
    by_contender,
    fell_behind,
    limited_by_generator,
    noises,
    percentile,
    ratio,
    spread,
)
from bench.samples import Sample
from tests.bench.model_run import answered, sample


def worker_us(one: Sample) -> float:
    return one.cpu_us("worker")


@given(st.lists(st.floats(0, 1e9), min_size=1), st.floats(0.01, 100))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(
    values: list[float], percent: float
) -> None:
    values.sort()
    found = percentile(values, percent)
    enough = len(values) * percent / 100 * (1 - 1e-12)
    assert sum(value <= found for value in values) >= enough
    assert sum(value < found for value in values) <= len(values) * percent / 100


def test_percentiles_of_a_thousand() -> None:
    values = [float(number) for number in range(1, 1001)]
    assert [percentile(values, percent) for percent in (50, 99, 99.9, 100)] == [500, 990, 999, 1000]
    assert percentile([7.0], 99.9) == 7.0


def test_a_spread_of_few_is_the_median_and_both_ends() -> None:
    found = Spread.of([3.0, 1.0, 2.0, 10.0, 2.0])
    assert (found.median, found.low, found.high) == (2.0, 1.0, 10.0)
    assert found.width == pytest.approx(4.5)
    assert Spread.of([0.0]).width == 0


@pytest.mark.parametrize(
    ("count", "passed_over"), [(1, 0), (5, 0), (8, 0), (9, 1), (11, 1), (12, 2), (25, 7), (50, 17)]
)
def test_a_spread_of_many_is_where_the_median_is_sure_to_be(count: int, passed_over: int) -> None:
    # As tables of the sign test have it at 5 %, two-sided (Dixon and Mood 1946).
    found = Spread.of([float(number) for number in range(count)])
    assert (found.low, found.high) == (passed_over, count - 1 - passed_over)


def test_a_median_is_outside_its_spread_once_in_twenty_times_at_most() -> None:
    rng = random.Random(7)
    outside = 0
    for _ in range(2000):
        found = Spread.of([rng.expovariate(math.log(2)) for _ in range(25)])  # of median 1
        outside += not found.low <= 1 <= found.high
    assert 0 < outside < 2000 * 0.06


def test_cpu_time_is_per_request_by_role_and_in_all() -> None:
    one = sample("three", {"worker": 0.1, "redis": 0.02, "peers": 0.08}, came=answered(2000))
    assert one.cpu_us("worker") == pytest.approx(50)
    assert one.cpu_us("worker", "redis") == pytest.approx(60)
    assert one.cpu_us() == pytest.approx(100)
    assert one.cpu_us("nobody") == 0
    assert one.share("worker") == pytest.approx(0.1)


def test_a_ratio_is_taken_within_a_round() -> None:
    # The machine became three times as slow in the second round, for both alike.
    above = [sample("a", {"worker": 0.2}), sample("a", {"worker": 0.6}, round=1)]
    below = [sample("b", {"worker": 0.1}), sample("b", {"worker": 0.3}, round=1)]
    assert spread(above, worker_us).width > 0.9
    found = ratio((above, worker_us), (below, worker_us))
    assert found is not None
    assert found.low == pytest.approx(2) and found.high == pytest.approx(2)


def test_a_round_that_only_one_has_is_in_no_ratio() -> None:
    above = [sample("a", {"worker": 0.2}), sample("a", {"worker": 9.0}, round=1)]
    below = [sample("b", {"worker": 0.1}), sample("b", {"worker": 0.0}, round=2)]
    found = ratio((above, worker_us), (below, worker_us))
    assert found is not None and found.low == found.high == pytest.approx(2)
    assert ratio((above, worker_us), ([], worker_us)) is None


def test_samples_are_told_apart_by_operation_and_load() -> None:
    put, get = sample("a", {}), sample("a", {}, operation="GET")
    half = sample("a", {}, load="half")
    assert by_contender([put, get, half], "PUT", "full") == {"a": [put]}
    assert by_contender([put, get, half], "PUT", "half") == {"a": [half]}


def test_a_quiet_machine_is_not_complained_of() -> None:
    rounds = [sample("bare", {"worker": 0.1}), sample("bare", {"worker": 0.105}, round=1)]
    assert noises(rounds, "bare") == []


def test_a_baseline_that_differs_between_rounds_is_noise() -> None:
    rounds = [sample("bare", {"worker": 0.1}), sample("bare", {"worker": 0.15}, round=1)]
    [said] = noises(rounds, "bare")
    assert "between 100 and 150 us" in said and "PUT" in said
    assert noises(rounds, "somebody else") == []


def test_what_others_use_is_noise_and_what_is_measured_is_not() -> None:
    used = {"worker": 3.0, "redis": 2.0}
    ours = sample("bare", used, machine=Machine(5.2, 0.0, 0.0, 20.0), came=answered(cpu_s=0.2))
    assert ours.others_share == 0 and noises([ours], "bare") == []
    theirs = sample("bare", used, machine=Machine(8.2, 0.0, 0.0, 20.0), came=answered(cpu_s=0.2))
    assert theirs.others_share == pytest.approx(0.15)
    [said] = noises([theirs, ours], "bare")
    assert "1 of 2" in said and "15%" in said


def test_stolen_time_is_noise() -> None:
    stolen = sample("bare", {"worker": 1.0}, machine=Machine(1.0, 0.0, 1.0, 20.0))
    [said] = noises([stolen], "bare")
    assert "steal" in said and "5%" in said


def test_a_generator_that_is_busy_all_the_time_is_told_of() -> None:
    free = sample("a", {}, came=answered(cpu_s=0.5))
    busy = sample("b", {}, came=answered(cpu_s=0.95))
    assert limited_by_generator([free]) == []
    [said] = limited_by_generator([free, busy])
    assert said.startswith("b PUT") and "95%" in said and "lower bound" in said
    assert limited_by_generator([sample("b", {}, load="half", came=answered(cpu_s=0.95))]) == []


def test_peers_that_do_not_keep_up_are_told_of() -> None:
    [said] = fell_behind([sample("three", {}, settled_s=0.9), sample("three", {}, settled_s=0.1)])
    assert said.startswith("three PUT") and "0.9 s" in said
    assert fell_behind([sample("three", {}, settled_s=0.1)]) == []
    assert fell_behind([sample("three", {}, settled_s=0.9, load="half")]) == []
