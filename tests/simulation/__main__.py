"""`python -m tests.simulation`: many seeds in a few processes, or one seed with its story.

What it is: the command line. What it assumes and guarantees: string hashing is fixed, so that a
seed does the same everywhere (the command starts itself again if it is not); it ends 1 if a seed
failed, and says how to see that seed again. What it does not know: what a seed means.
"""

import argparse
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tests.simulation import diagram
from tests.simulation.batch import Failure, run_seeds
from tests.simulation.cluster import Result, simulate
from tests.simulation.plan import PROFILES, plan_for
from tests.simulation.shrink import TRIES_MAX, shrink

_SEEDS_AT_ONCE = 4
_SEEDS_PER_POOL = 1000


def main(arguments: list[str] | None = None) -> int:
    """The command has been carried out; the result is the exit code."""
    options = _parser().parse_args(arguments)
    # So that whoever ends this ends its processes too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if os.environ.get("PYTHONHASHSEED") != "0":
        again = [sys.executable, "-m", "tests.simulation", *(arguments or sys.argv[1:])]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})
    if options.trace is not None:
        sys.stdout.write(simulate(plan_for(options.trace, options.profile)).trace)
        return 0
    if options.seed is not None:
        return _tell(options.seed, options.profile, options.svg, options.shrink)
    return _run_many(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Run whole clusters on virtual time. A seed decides everything.",
        allow_abbrev=False,
    )
    parser.add_argument("--seeds", type=int, default=200, metavar="N", help="how many (200)")
    parser.add_argument("--start", type=int, default=0, metavar="N", help="the first seed (0)")
    parser.add_argument("--profile", choices=PROFILES, help="one kind of trouble; else all in turn")
    parser.add_argument("-j", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    parser.add_argument("--seed", type=int, metavar="N", help="run this one, and tell its story")
    parser.add_argument("--trace", type=int, metavar="N", help="run this one; print every event")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="where to draw a story")
    parser.add_argument(
        "--shrink", type=int, default=TRIES_MAX, metavar="N", help="tries to make a failure small"
    )
    return parser


def _tell(seed: int, profile: str | None, svg: Path | None, tries: int) -> int:
    console = Console(highlight=False, markup=False)
    result = simulate(plan_for(seed, profile))
    if result.violation:
        result = _shrunk(result, tries, console)
    _show(result, svg, console)
    return 1 if result.violation else 0


def _shrunk(result: Result, tries: int, console: Console) -> Result:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("making it smaller", total=tries)
        return shrink(result, tries, lambda: progress.advance(task))


def _show(result: Result, svg: Path | None, console: Console) -> None:
    plan = result.plan
    console.print(f"seed {plan.seed}, {plan.profile}, nodes {' '.join(plan.nodes)}")
    for (source, target), weather in plan.weather.items():
        if weather.delay_ms > 10:
            console.print(f"  {source} => {target} takes {weather.delay_ms:g} ms")
    console.print("\n" + diagram.lines(result.events))
    console.print("\n" + diagram.as_text(plan.nodes, result.events))
    if svg is None and result.violation:
        svg = Path(f"simulation-{plan.seed}.svg")
    if svg is not None:
        svg.write_text(diagram.as_svg(plan.nodes, result.events))
        console.print(f"\ndrawn in {svg}")
    console.print(f"\n{result.violation or 'nothing is wrong'}")


def _run_some(
    seeds: range, options: argparse.Namespace, progress: Progress, task: TaskID
) -> Iterator[Failure]:
    """The seeds have been run in processes of their own: fakeredis does not give back the memory of
    its scripts, and a process that ends does."""
    parts = [
        seeds[first : first + _SEEDS_AT_ONCE] for first in range(0, len(seeds), _SEEDS_AT_ONCE)
    ]
    with _ended_together() as told, ProcessPoolExecutor(options.j, initializer=_apart) as pool:
        try:
            outcomes_of = pool.map(partial(run_seeds, profile=options.profile), parts)
            if told:  # perhaps before there were any
                _end_processes()
            for part, outcomes in zip(parts, outcomes_of, strict=True):
                yield from outcomes.failures
                progress.advance(task, len(part))
        except BrokenProcessPool:
            if not told:
                raise
            _end_processes()  # one may have been begun meanwhile, and was in no list yet


@contextmanager
def _ended_together() -> Iterator[list[int]]:
    """Who ends this process by a signal ends those that it has begun, and is followed when the
    block is left: raised in the middle of what a pool does, a signal would leave it half begun, and
    be waited for for ever."""
    told: list[int] = []
    this = os.getpid()

    def end(number: int, _: object) -> None:
        if os.getpid() != this:  # one that was just begun, and does not go its own way yet
            os._exit(128 + number)
        told.append(number)
        _end_processes()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if told:
        sys.exit(128 + told[0])


def _end_processes() -> None:
    for process in multiprocessing.active_children():
        # One that was just begun may lose any other signal: Python clears those that came first.
        process.kill()


def _apart() -> None:
    """A Ctrl-C, which a terminal gives to every process, is heard by the one that began them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run_many(options: argparse.Namespace) -> int:
    console = Console(highlight=False, markup=False)
    seeds = range(options.start, options.start + options.seeds)
    failures: list[Failure] = []
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("seeds", total=len(seeds))
        for first in range(0, len(seeds), _SEEDS_PER_POOL):
            some = seeds[first : first + _SEEDS_PER_POOL]
            for failure in _run_some(some, options, progress, task):
                failures.append(failure)
                console.print(str(failure))
            if not console.is_terminal:
                console.print(f"{first + len(some)} of {len(seeds)} seeds are done")
    if not failures:
        console.print(f"{len(seeds)} seeds, nothing is wrong")
        return 0
    console.print(f"{len(failures)} of {len(seeds)} seeds failed; the first, made smaller:\n")
    first = failures[0].seed
    result = simulate(plan_for(first, options.profile))
    _show(_shrunk(result, options.shrink, console), options.svg, console)
    profile = f" --profile {options.profile}" if options.profile else ""
    console.print(f"\nagain: python -m tests.simulation --seed {first}{profile}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
