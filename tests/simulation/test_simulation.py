"""Hundreds of clusters on virtual time: nothing is wrong in any, and a seed repeats exactly."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from fakeredis import FakeAsyncRedis

from app.context import Contexts
from app.vector_clock import VectorClock
from tests.simulation import diagram
from tests.simulation.batch import Failure, Outcomes, run_seeds
from tests.simulation.cluster import simulate
from tests.simulation.found import FOUND
from tests.simulation.plan import PROFILES, plan_for
from tests.simulation.shrink import shrink

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
SEEDS = 240
PROCESSES = 2
AT_ONCE = 10


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """What came of the first seeds, run in a few processes of their own."""
    together = Outcomes()
    parts = [range(first, first + AT_ONCE) for first in range(0, SEEDS, AT_ONCE)]
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        for part in pool.map(run_seeds, parts):
            together.failures += part.failures
            together.seen += part.seen
    return together


def test_whatever_befalls_a_cluster_it_keeps_its_guarantees(outcomes: Outcomes) -> None:
    assert not outcomes.failures, _how_to_see(outcomes.failures)


def test_the_seeds_are_about_something(outcomes: Outcomes) -> None:
    """A simulation in which nothing happens finds nothing."""
    rare = {what: outcomes.seen[what] for what in _SEEN_AT_LEAST_5_TIMES if outcomes.seen[what] < 5}
    assert not rare, outcomes.seen


_SEEN_AT_LEAST_5_TIMES = (
    *("put", "get", "siblings", "delete", "refused", "applied", "waits"),
    *("accepted",),
    *("cut", "heal", "sever", "kill", "pause", "clock", "lost", "repeated"),
    *("power", "power lost", "disk old", "disk lost", "disk under"),
    *("renamed", "gap", "declared", "narrow"),
    *("expired",),
    *("watch is told", "watch goes on", "watch the state"),
    *("redis slow", "redis full", "redis down", "redis flaky", "redis restart"),
)


@pytest.mark.parametrize(("seed", "profile"), FOUND, ids=str)
def test_what_a_seed_once_found_stays_mended(seed: int, profile: str) -> None:
    outcomes = run_seeds([seed], profile)
    assert not outcomes.failures, _how_to_see(outcomes.failures)


def test_a_seed_repeats_exactly_byte_for_byte_in_any_process() -> None:
    """Whatever the process was begun with, and whatever else it has done before."""

    program = (
        "import json, sys; from tests.simulation.plan import plan_for;"
        "from tests.simulation.cluster import simulate;"
        "print(json.dumps({profile: simulate(plan_for(1000 + number, profile)).trace"
        " for number, profile in enumerate(sys.argv[1:])}))"
    )
    here = os.environ.get("PYTHONHASHSEED")
    told = subprocess.run(
        [sys.executable, "-c", program, *PROFILES],
        cwd=ROOT,
        env={"PYTHONHASHSEED": "1" if here != "1" else "2", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    ).stdout
    elsewhere: dict[str, str] = json.loads(told)
    assert all(trace.count("\n") > 20 for trace in elsewhere.values())
    for number, profile in reversed([*enumerate(PROFILES)]):
        assert simulate(plan_for(1000 + number, profile)).trace == elsewhere[profile]


async def test_a_simulation_leaves_nothing_behind_in_its_process() -> None:
    """What comes after it in the same process must not live on its time, which stands still."""
    with ThreadPoolExecutor(1) as thread:  # for here a loop runs already
        thread.submit(simulate, plan_for(0)).result()
    redis = FakeAsyncRedis()
    await redis.set("key", "value", px=1)
    async with asyncio.timeout(30):
        while await redis.exists("key"):
            await asyncio.sleep(0.002)
    await redis.aclose()


def test_a_plan_without_its_troubles_is_another_story_with_the_same_clients() -> None:
    plan = plan_for(2)
    calm = replace(plan, steps=tuple(step for step in plan.steps if hasattr(step, "session")))
    assert simulate(calm).violation is None


def test_a_story_can_be_told_and_drawn() -> None:
    result = simulate(plan_for(0))
    told = diagram.lines(result.events)
    drawn = diagram.as_text(result.plan.nodes, result.events)
    assert told.count("\n") > 10
    own = Counter(event.dot for event in result.events if event.kind == "own")
    assert own and set(own.values()) == {1}
    assert all(f"* {dot}" in drawn for dot in own)
    picture = diagram.as_svg(result.plan.nodes, result.events)
    assert picture.startswith("<svg ") and picture.count('class="way"') >= len(own)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_whoever_ends_a_long_run_ends_its_processes() -> None:
    command = (sys.executable, "-m", "tests.simulation", "--seeds", "100000", "--profile", "calm")
    run = subprocess.Popen(
        command,
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    while not children.read_text():
        time.sleep(0.05)
    run.terminate()
    assert run.wait() == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        while True:
            os.killpg(run.pid, 0)
            time.sleep(0.05)


_TOLD_BETWEEN_TWO = """
import multiprocessing, os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from tests.simulation import __main__ as command

apart, spawn, waits, first_is_there = (
    command._apart, ProcessPoolExecutor._spawn_process, [], multiprocessing.Event()
)

def apart_when_told():
    if waits:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pause()
    apart()
    first_is_there.set()

def spawn_and_tell(pool):
    spawn(pool)
    if not waits:
        first_is_there.wait()
        time.sleep(0.2)  # it waits for something to do, and nobody else can while it does
        os.kill(os.getpid(), signal.SIGTERM)
        waits.append(True)

command._apart, ProcessPoolExecutor._spawn_process = apart_when_told, spawn_and_tell
sys.exit(command.main(["--seeds", "1000", "--profile", "calm", "-j", "2"]))
"""


def test_a_process_that_was_not_ready_to_be_told_ends_as_well() -> None:
    """One has ended while it waited for something to do, so that no other can wait any more; that
    other has just been begun, and a signal that comes in its first moment is lost: Python clears
    what came before it knows that it is another process."""
    run = subprocess.Popen(
        [sys.executable, "-c", _TOLD_BETWEEN_TWO],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert run.wait(60) == 128 + signal.SIGTERM
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def test_a_failure_is_made_smaller_and_still_fails_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(self: Contexts, header: str) -> VectorClock:
        return VectorClock()

    monkeypatch.setattr(Contexts, "parse", forgetful)
    plans = (plan_for(seed, "calm") for seed in range(100))
    failed = next(result for plan in plans if (result := simulate(plan)).violation)
    small = shrink(failed, tries_max=60)
    assert small.guarantee == failed.guarantee == "G7"
    assert len(small.plan.steps) < len(failed.plan.steps) / 2
    assert small.events[-1].kind == "wrong"
    assert simulate(small.plan).trace == small.trace


def _how_to_see(failures: list[Failure]) -> str:
    listed = "\n".join(map(str, failures[:5]))
    return f"{listed}\nThe story: python -m tests.simulation --seed {failures[0].seed}"
