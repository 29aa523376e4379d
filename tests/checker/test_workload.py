"""The checker on larger histories: silent on a good store, and not on any of the faulty ones."""

from typing import get_args

import pytest

from tests.checker.check import check
from tests.checker.explain import Explainer
from tests.checker.workload import Fault, Level, Workload


@pytest.mark.parametrize("recorded", get_args(Level))
@pytest.mark.parametrize("sticky", [False, True], ids=["roaming", "sticky"])
def test_a_good_store_is_not_blamed(recorded: Level, sticky: bool) -> None:
    for seed in range(8):
        history = Workload(seed, recorded=recorded, sticky=sticky).history(150)
        report = check(history, batch_bits=64)
        assert report.is_good, (seed, report.counts())


@pytest.mark.parametrize("fault", get_args(Fault))
def test_every_fault_is_found(fault: Fault) -> None:
    # Roaming sessions show that contexts are ignored, sticky ones that effects overtake causes.
    sticky = fault == "no dependency check"
    found = 0
    for seed in range(10):
        workload = Workload(seed, fault=fault, recorded="dependencies", sticky=sticky, sessions=3)
        report = check(workload.history(200))
        found += not report.is_good
        for finding in report.findings[:3]:
            assert str(Explainer(report).explain(finding))
    assert found >= 2


def test_a_fault_is_found_by_what_clients_see_alone() -> None:
    reports = [
        check(Workload(seed, fault="context ignored on read", recorded="values").history(200))
        for seed in range(10)
    ]
    assert sum(not report.is_good for report in reports) >= 2


def test_a_seed_replays_exactly() -> None:
    assert Workload(7).history(100) == Workload(7).history(100)


def test_the_work_grows_with_the_operations_and_not_faster() -> None:
    """Counted in joins of one operation's past into another's, while the batches stay as many."""
    few, many = (
        check(Workload(1, sessions=20, keys=10, recorded="values").history(count)).patterns
        for count in (500, 2000)
    )
    assert many.joins <= 4.5 * few.joins


def test_a_batch_costs_one_walk() -> None:
    history = Workload(1, sessions=20, keys=20, with_transactions=False).history(1000)
    one = check(history).patterns
    edges = one.joins
    assert edges <= 4 * len(history)
    twenty = check(history, batch_bits=1).patterns
    assert twenty.joins == 20 * edges
