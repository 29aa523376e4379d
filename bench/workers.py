"""What a request costs at a node with several workers: `python -m bench.workers`, or
`make bench-workers`.

Three nodes, with 1, 2 and 4 workers, measured as `make bench` measures its contenders.

What it assumes and guarantees: CPU time is that of all workers, of Redis and of the supervisor. It
is compared within a round. Nothing is measured before every worker has started.

What it does not know: how workers share their work.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.table import Table

from app.local_nodes import LocalCluster
from bench import command
from bench.accounting import used_s
from bench.command import Tell
from bench.contenders import Contender, Running, cluster_of, under_kv
from bench.figures import by_contender, noises, ratio, spread
from bench.findings import Finding, Outcome
from bench.goals import everything
from bench.launch import until
from bench.load import Loads, default_tool
from bench.options import count, positive
from bench.results import OPERATIONS
from bench.rounds import Plan, measure
from bench.samples import Operation, Sample
from bench.shown import figure

OVER_ONE: Final = 1.1
"""CPU time per request with several workers, over that with one."""
_STILL_S: Final = 0.5
_STILL_USES_S: Final = 0.03
"""A node with nothing to do uses less in that time; a Python that starts uses all there is."""


def name_of(workers: int) -> str:
    """What a node with so many workers is called."""
    return "1 worker" if workers == 1 else f"{workers} workers"


def with_workers(workers: int, times: int = 1) -> Contender:
    """A node with so many workers, which is asked on so many times the connections."""

    @asynccontextmanager
    async def start(directory: Path, fsync: str) -> AsyncIterator[Running]:
        starting = cluster_of(LocalCluster, 1, directory, fsync, WORKERS=str(workers))
        async with starting as running:
            await until_still(running.processes["worker"])
            yield running

    # The node is ready as soon as one worker is: the others may be starting still.
    starts: Callable[[Path, str], AbstractAsyncContextManager[Running]] = start
    about = f"this node, {name_of(workers)}"
    return Contender(name_of(workers), about, starts, under_kv, times=times)


async def until_still(pids: Iterable[int]) -> None:
    """All of these processes have come to rest."""
    pids = list(pids)

    async def are_still() -> bool:
        before = used_s(pids)
        await asyncio.sleep(_STILL_S)
        return used_s(pids) - before < _STILL_USES_S

    await until(are_still, "all workers have started")


async def compare(options: argparse.Namespace, tell: Tell) -> Outcome:
    """All rounds. Raises StartupError, ProcessGone."""
    counts = sorted({1, *options.workers})
    contenders = [with_workers(workers, workers if options.each else 1) for workers in counts]
    plan = Plan(
        contenders,
        OPERATIONS,
        Loads("ours" if not options.seconds.is_integer() else default_tool(), options.connections),
        options.rounds,
        options.seconds,
        options.warm_up,
        options.keys,
        options.fsync,
        options.minutes,
    )

    def told(what: str, done: int) -> None:
        if not done:
            tell(what)

    samples = await measure(plan, told)
    return Outcome(
        [table(samples, operation) for operation in OPERATIONS],
        findings(samples, counts),
        noises(samples, name_of(1)),
        {
            "connections": {one.name: options.connections * one.times for one in contenders},
            "samples": [asdict(sample) for sample in samples],
        },
    )


def findings(samples: Sequence[Sample], counts: Sequence[int]) -> list[Finding]:
    """The goals, one for each operation and number of workers."""
    found = []
    for operation in OPERATIONS:
        full = by_contender(samples, operation, "full")
        one = {sample.round: sample.cpu_us() for sample in full.get(name_of(1), ())}
        for workers in counts:
            if workers == 1:
                continue
            rounds = [
                sample.cpu_us() / one[sample.round]
                for sample in full.get(name_of(workers), ())
                if one.get(sample.round)
            ]
            goal = f"{operation}: CPU time with {name_of(workers)}, over that with one"
            found.append(Finding(goal, rounds, OVER_ONE, "x", digits=2))
    return found


def table(samples: Sequence[Sample], operation: Operation) -> Table:
    """What the rounds say of one operation at full load, for people."""
    names = ("", "requests/s", "worker us", "redis us", "all us", "over one", "workers busy")
    shown = Table(title=f"{operation} at full load", title_justify="left", box=None)
    for name in names:
        shown.add_column(name, justify="right" if name else "left")
    full = by_contender(samples, operation, "full")
    all_us = everything("").figure
    for name, found in full.items():
        over = ratio((found, all_us), (full.get(name_of(1), ()), all_us))
        shown.add_row(
            name,
            figure(spread(found, lambda sample: sample.throughput), 0),
            figure(spread(found, lambda sample: sample.cpu_us("worker")), 0),
            figure(spread(found, lambda sample: sample.cpu_us("redis")), 0),
            figure(spread(found, all_us), 0),
            figure(over, 2),
            f"{spread(found, lambda sample: sample.share('worker')).median:.2f} cores",
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """It was measured, shown and written down; the result is the exit code."""
    about = "Measure what a request costs with several workers."
    parser = command.parser("workers", about, rounds=25)
    parser.add_argument(
        "--workers", type=count, nargs="+", default=[2, 4], metavar="N", help="beside one (2 4)"
    )
    parser.add_argument("--seconds", type=positive, default=1.0, help="of each measurement (1)")
    parser.add_argument(
        "--warm-up", type=positive, default=2.0, help="seconds before the first (2)"
    )
    parser.add_argument("--connections", type=count, default=64, help="at once (64)")
    parser.add_argument(
        "--each", action="store_true", help="so many connections for each worker, not for all"
    )
    parser.add_argument("--keys", type=count, default=1000, help="how many different ones (1000)")
    parser.add_argument(
        "--minutes", type=positive, default=60.0, help="after so many no round is begun (60)"
    )
    return command.run("workers", parser, compare, arguments)


if __name__ == "__main__":
    sys.exit(main())
