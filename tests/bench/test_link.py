"""What one link costs: what is counted, and what follows from what was measured."""

import argparse
from dataclasses import replace

import pytest

from app.vector_clock import Dot, VectorClock
from app.wire import Batch, encode_batch
from app.write import Put, Write, write_problem
from bench.dependencies import busy_batch, dependency_bytes
from bench.link import DEFAULT_BATCH, GOAL_BATCH, Case, Drained, cases, findings
from tests.bench.test_findings import reading

OPTIONS = argparse.Namespace(batches=[GOAL_BATCH, DEFAULT_BATCH, 1024], nodes=16, writes=50_000)


def batch_of(*dependencies: VectorClock) -> Batch:
    writes = [
        Write(Dot("A", number), past, 1, (Put("k", b"v"),))
        for number, past in enumerate(dependencies, 1)
    ]
    return Batch("A", "B", VectorClock(), tuple(writes))


def test_a_write_that_follows_the_one_before_says_so_in_a_byte() -> None:
    batch = batch_of(VectorClock(), VectorClock({"A": 1}), VectorClock({"A": 2}))
    assert dependency_bytes(batch) == 3


def test_each_entry_that_changed_is_counted_with_its_name() -> None:
    batch = batch_of(VectorClock(), VectorClock({"A": 1, "B": 7}))
    # A map, and in it a text of one letter and a small number: two bytes and one.
    assert dependency_bytes(batch) == 1 + (1 + 3)
    assert len(encode_batch(batch)) - len(encode_batch(batch_of(VectorClock()))) > 3


def test_a_busy_batch_is_one_that_a_node_could_have_made() -> None:
    batch = busy_batch(16, 128)
    first, last = batch.writes[0], batch.writes[-1]
    assert len(batch.writes) == 128 and not any(map(write_problem, batch.writes))
    assert len(last.dependencies) == 16
    for before, write in zip(batch.writes, batch.writes[1:], strict=False):
        assert write.dot == replace_sequence(before.dot)
        assert before.dependencies.with_dot(before.dot) <= write.dependencies
    came = last.dependencies.beyond(first.dependencies)
    assert set(came) == set(last.dependencies), "each of the others has been heard from meanwhile"
    assert all(
        came[node] - first.dependencies[node] == 128 for node in came if node != first.dot.actor
    )


def replace_sequence(dot: Dot) -> Dot:
    return Dot(dot.actor, dot.sequence + 1)


def test_what_more_nodes_say_is_shared_by_the_writes_of_a_batch() -> None:
    shares = [dependency_bytes(busy_batch(16, size)) / size for size in (1, 16, 128)]
    assert shares == sorted(shares, reverse=True)
    assert dependency_bytes(busy_batch(16, 128)) > dependency_bytes(busy_batch(3, 128))


def drained(batch: int, *, nodes: int = 2, round: int = 0, longest_ms: float = 1.0) -> Drained:
    used = {"sender": 0.01, "receiver": 0.004, "receiver's Redis": 0.003, "sender's Redis": 9.0}
    return Drained(Case(batch, nodes), round, replace(reading(), cpu_s=used), longest_ms)


def test_every_size_is_measured_with_a_small_clock_and_with_a_large_one() -> None:
    assert {(one.batch, one.nodes) for one in cases(OPTIONS)} == {
        (size, nodes) for size in OPTIONS.batches for nodes in (2, 16)
    }
    assert Case(1, 2).writes(50_000) < Case(128, 2).writes(50_000) == 50_000


def test_each_goal_is_about_its_own_batches() -> None:
    found = findings(
        [
            drained(GOAL_BATCH, longest_ms=2.0),
            drained(GOAL_BATCH, nodes=16, longest_ms=3.0),
            drained(DEFAULT_BATCH, longest_ms=4.0),
            drained(1024, longest_ms=50.0),
        ],
        OPTIONS,
    )
    rate, together, dependencies, longest = (one.rounds for one in found)
    assert rate == [500]
    assert together == pytest.approx([17]), "not the sender's Redis"
    assert dependencies == [dependency_bytes(busy_batch(16, GOAL_BATCH)) / GOAL_BATCH]
    assert longest == [4.0], "of no batch beyond the default"


def test_one_long_script_in_any_round_counts() -> None:
    found = findings(
        [drained(GOAL_BATCH, round=number, longest_ms=ms) for number, ms in enumerate((1, 9, 1))],
        OPTIONS,
    )
    assert found[-1].verdict == "missed"
    assert found[0].verdict == "not measured", "of the default size"
