"""`python -m tests.chaos`: real nodes, real load, real faults, and a report.

What it is: the command line, and how a run is shown while it goes on: a bar that moves in a
terminal, plain lines elsewhere.

What it assumes and guarantees: it ends with 0 when everything was as it must be, 1 when something
was not, 2 when there could be no run. The report and the history are always left, and the data
and logs of the nodes when something was wrong; it says where.

What it does not know: what is done to the nodes.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from app.errors import StartupError
from tests.chaos.load import Tally
from tests.chaos.nodes import lacking
from tests.chaos.plan import NEMESES, NODES_MAX, TOPOLOGIES, Plan, Strike, plan_for
from tests.chaos.report import write_report
from tests.chaos.run import Result, run

EXIT_GOOD, EXIT_FOUND, EXIT_NO_RUN = 0, 1, 2
_LINE_EVERY_S = 10.0


class Screen:
    """Shows a run: with a bar if this is a terminal."""

    def __init__(self, console: Console, strikes: int) -> None:
        self._console = console
        self._began = time.monotonic()
        self._strikes = strikes
        self._struck = 0
        self._next_line_s = _LINE_EVERY_S
        self.progress = Progress(
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar = self.progress.add_task("starting the nodes", total=strikes)

    def tell(self, line: str) -> None:
        """Something has happened."""
        if line.startswith(("healed", "FAILED")):
            self._struck += 1
        self._console.print(f"{time.monotonic() - self._began:7.1f} s  {line}")

    def show(self, tally: Tally, under_way: Sequence[Strike]) -> None:
        """So far it has come to this."""
        reads, writes = tally.reads, tally.writes
        line = (
            f"{reads['ok']} reads and {writes['ok']} writes served, "
            f"{reads['not_applied'] + writes['not_applied']} refused, {writes['unknown']} in doubt"
            f"; {self._struck} of {self._strikes} strikes done"
        )
        if self._console.is_terminal:
            broken = f"; now {', '.join(map(str, under_way))}" if under_way else ""
            self.progress.update(self._bar, completed=self._struck, description=line + broken)
        elif time.monotonic() - self._began > self._next_line_s:
            self._next_line_s += _LINE_EVERY_S
            self.tell(line)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command has been carried out; the result is the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    without = lacking() | _unwanted(options.only)
    plan = plan_for(
        options.seed,
        nodes=options.nodes,
        seconds=60 * options.minutes,
        topology=options.topology,
        without=without,
    )
    for nemesis, reason in lacking().items():
        console.print(f"left out: {nemesis}, because {reason}")
    directory = options.out / f"{options.seed}-{options.nodes}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    console.print(
        f"seed {plan.seed}, nodes {' '.join(plan.nodes)}, {plan.topology}, "
        f"{len(plan.sessions)} sessions, {len(plan.strikes())} strikes"
    )
    # As with Ctrl-C: so that whatever was started is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    screen = Screen(console, len(plan.strikes()))
    try:
        with screen.progress:
            result = asyncio.run(run(plan, directory, screen))
    except (StartupError, OSError) as error:
        print(f"There was no run: {error}", file=sys.stderr)
        return EXIT_NO_RUN
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return EXIT_FOUND
    return conclude(result, directory, _command(plan, options), console)


def conclude(result: Result, directory: Path, command: str, console: Console) -> int:
    """The report is written and the verdicts are told; the result is the exit code."""
    report = directory / "report.html"
    write_report(result, report)
    console.print()
    for verdict in result.verdicts:
        console.print(str(verdict))
    console.print(f"\nThe report is {report}, the history is {result.history}")
    if not result.is_good:
        console.print(f"The data and the logs of the nodes are left in {directory / 'nodes'}")
        console.print(f"The same plan again: {command}")
        return EXIT_FOUND
    shutil.rmtree(directory / "nodes")
    console.print("Everything is as it must be.")
    return EXIT_GOOD


def _command(plan: Plan, options: argparse.Namespace) -> str:
    topology = f" --topology {options.topology}" if options.topology else ""
    only = f" --only {' '.join(options.only)}" if options.only else ""
    return (
        f"python -m tests.chaos --seed {plan.seed} --nodes {len(plan.nodes)} "
        f"--minutes {options.minutes:g}{topology}{only}"
    )


def _unwanted(only: Sequence[str]) -> dict[str, str]:
    return {nemesis: "not asked for" for nemesis in NEMESES if only and nemesis not in only}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Harm real nodes under load, heal them, and check that nothing is lost.",
        allow_abbrev=False,
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="about how long (1)")
    parser.add_argument(
        "--nodes", type=int, default=3, choices=range(3, NODES_MAX + 1), help="how many (3)"
    )
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**6), help="decides the plan; else any"
    )
    parser.add_argument("--topology", choices=TOPOLOGIES, help="of the network; else by the seed")
    parser.add_argument(
        "--only", nargs="+", choices=NEMESES, default=(), metavar="NEMESIS", help="else all of them"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("data/chaos"), help="where results go (data/chaos)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
