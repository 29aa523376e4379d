"""Several workers: what follows from samples that a test makes up, and when a node is at rest."""

import asyncio
import sys
from asyncio.subprocess import PIPE

from bench.accounting import used_s
from bench.samples import Sample
from bench.workers import findings, name_of, table, until_still
from tests.bench.model_run import sample
from tests.processes import until


def samples(round: int, one: float, two: float) -> list[Sample]:
    return [
        sample(name_of(1), {"worker": one, "redis": 0.0}, round=round),
        sample(name_of(2), {"worker": two - 0.01, "redis": 0.01}, round=round),
    ]


def test_all_processes_are_compared_with_one_worker_of_the_same_round() -> None:
    rounds = [*samples(0, 0.1, 0.105), *samples(1, 0.2, 0.218)]
    put, get = findings(rounds, [1, 2])
    assert put.goal == "PUT: CPU time with 2 workers, over that with one"
    assert [round(value, 3) for value in put.rounds] == [1.05, 1.09]
    assert put.verdict == "met"
    assert get.verdict == "not measured"


def test_one_worker_is_compared_with_nothing() -> None:
    assert findings(samples(0, 0.1, 0.2), [1]) == []


def test_each_number_of_workers_has_a_line() -> None:
    assert table(samples(0, 0.1, 0.2), "PUT").row_count == 2
    assert table(samples(0, 0.1, 0.2), "GET").row_count == 0


async def test_whoever_is_busy_is_waited_for() -> None:
    code = "import time\nwhile time.process_time() < 1: pass\ninput()"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=PIPE)
    try:
        # A process that the machine has not let run yet would seem to be at rest.
        await until(lambda: used_s([process.pid]) > 0)
        await until_still([process.pid])
        assert used_s([process.pid]) >= 0.9
    finally:
        await process.communicate(b"")
