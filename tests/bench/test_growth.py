"""How costs grow, and how fast much is put in: what follows from what was measured."""

import argparse
import json
from dataclasses import replace

import pytest

from bench import bulk, growth
from bench.bulk import Loaded, transactions
from bench.growth import LOCAL, Growth, Measured, ratios
from tests.bench.test_findings import reading

OPTIONS = argparse.Namespace(nodes=16, keys=1_000_000, waiting=100_000)


def measured(what: str, us: float, *, much: bool, round: int = 0) -> Measured:
    used = {"worker": us / 2000, "redis": us / 2000, "supervisor": 5.0}
    return Measured(what, much, round, replace(reading(), cpu_s=used), LOCAL)


def test_a_write_costs_what_its_processes_used_and_no_others() -> None:
    assert measured("nodes", 200, much=False).cpu_us == pytest.approx(200)


def test_a_ratio_is_taken_in_each_round() -> None:
    found = ratios(
        [
            measured("nodes", 100, much=False),
            measured("nodes", 110, much=True),
            measured("nodes", 400, much=False, round=1),
            measured("nodes", 520, much=True, round=1),
            measured("keys", 9000, much=True),
        ],
        "nodes",
    )
    assert found == pytest.approx([1.1, 1.3])
    assert ratios([measured("nodes", 100, much=True)], "nodes") == []


def test_each_goal_of_growth_is_about_its_own_ratio() -> None:
    sides = [
        measured(what, us, much=much)
        for what, more in (("nodes", 1.25), ("waiting", 1.25), ("keys", 1.25))
        for much, us in ((False, 100.0), (True, 100 * more))
    ]
    found = growth.findings(Growth(sides, key_bytes=150, plain_key_bytes=100), OPTIONS)
    assert [one.verdict for one in found] == [
        *("met", "missed", "missed"),
        "met",
    ]
    assert found[-1].rounds == [1.5]


def test_every_put_is_in_one_transaction() -> None:
    bodies = [json.loads(request.body)["ops"] for request in transactions(250)]
    assert [len(ops) for ops in bodies] == [100, 100, 50]
    assert len({op["put"] for ops in bodies for op in ops}) == 250
    assert {len(op["value"]) for ops in bodies for op in ops} == {100}


def test_each_way_of_putting_much_in_has_its_own_verdict() -> None:
    fast, slow = (replace(reading(), count=count, seconds=1.0) for count in (50_000, 30_000))
    loaded = [Loaded("POST /txn", 0, fast), Loaded("python -m client load", 0, slow)]
    assert [one.verdict for one in bulk.findings(loaded)] == ["met", "missed"]
