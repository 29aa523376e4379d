"""Visibility lag: what follows from markers that a test makes up."""

import asyncio

import pytest

from bench.lag import NotVisible, first_failure
from bench.markers import Case, Marker, cases_of, findings, lags_ms, notes, table

EVEN, FAR, STOPPED = Case(0.0, 0.0), Case(0.0, 150.0), Case(0.0, None)
CASES = [EVEN, Case(50.0, 50.0), FAR, STOPPED]


def markers(case: Case, node: str, *lags: float, round: int = 0) -> list[Marker]:
    return [Marker(case, round, node, lag, 1.0) for lag in lags]


def test_the_cases_are_each_delay_and_then_a_slow_third_node_with_the_least() -> None:
    names = [case.name for case in cases_of([0.0, 50.0, 150.0])]
    assert names == ["0 ms", "50 ms", "150 ms", "0 ms, C at 150 ms", "0 ms, C stopped"]
    assert [case.name for case in cases_of([20.0])] == ["20 ms", "20 ms, C stopped"]


def test_nothing_is_read_at_a_node_that_is_stopped() -> None:
    assert EVEN.readers == FAR.readers == ("B", "C")
    assert STOPPED.readers == ("B",)


def test_delays_are_those_from_where_it_is_written() -> None:
    assert [FAR.delay_ms(node) for node in FAR.readers] == [0.0, 150.0]


def test_percentiles_are_of_the_lags() -> None:
    seen = markers(EVEN, "B", *(float(n) for n in range(100, 0, -1)))
    assert [lags_ms(seen, percent) for percent in (50, 99, 100)] == [50.0, 99.0, 100.0]


def test_the_goals_are_about_the_slower_node_and_without_the_delay() -> None:
    case = Case(50.0, 50.0)
    seen = [
        *markers(case, "B", 52.0, 52.0, 60.0),
        *markers(case, "C", 51.0, 54.0, 69.0),
        *markers(case, "B", 53.0, round=1),
        *markers(case, "C", 52.0, round=1),
    ]
    p50, p99 = findings(seen, [case])
    assert (p50.rounds, p50.limit) == ((4.0, 3.0), 3.0)
    assert (p99.rounds, p99.limit) == ((19.0, 3.0), 20.0)


def test_what_a_slow_third_node_adds_is_told_round_by_round() -> None:
    seen = [
        *markers(EVEN, "B", 10.0),
        *markers(EVEN, "B", 20.0, round=1),
        *markers(EVEN, "C", 10.0),
        *markers(EVEN, "C", 20.0, round=1),
        *markers(FAR, "B", 10.5),
        *markers(FAR, "B", 20.5, round=1),
        *markers(FAR, "C", 500.0),
        *markers(FAR, "C", 500.0, round=1),
        *markers(STOPPED, "B", 19.0),
        *markers(STOPPED, "B", 29.0, round=1),
    ]
    of = {one.goal: one for one in findings(seen, [EVEN, FAR, STOPPED])}
    assert len(of) == 6
    far = of["0 ms, C at 150 ms: what that adds to p50 at B"]
    assert (far.rounds, far.verdict) == ((0.5, 0.5), "met")
    stopped = of["0 ms, C stopped: what that adds to p99 at B"]
    assert (stopped.rounds, stopped.verdict) == ((9.0, 9.0), "missed")


async def test_what_failed_first_is_what_is_raised() -> None:
    async def fails() -> None:
        raise NotVisible("nothing there")

    with pytest.raises(NotVisible, match="nothing there"), first_failure():
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(asyncio.sleep(1000))


def test_a_load_that_was_less_than_meant_is_told_of() -> None:
    fine = {"case": "0 ms", "round": 0, "requests": 950, "seconds": 1.0, "errors": 0}
    assert notes([fine], 1000.0) == []
    [slow] = notes([fine | {"requests": 500, "round": 1}], 1000.0)
    assert slow.startswith("round 2, 0 ms: 0 requests of the load failed, and 500 a second")
    assert notes([fine | {"errors": 1}], 1000.0)


def test_every_case_has_a_line_for_each_of_its_readers() -> None:
    seen = [one for case in CASES for node in case.readers for one in markers(case, node, 1.0)]
    assert table(seen, 100.0).row_count == 7
