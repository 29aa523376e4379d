"""What one link costs: `python -m bench.link`, or `make bench-link`.

Two nodes, A and B. A makes many writes while its link to B is shut; then the link opens, and what A
sends and B takes is measured until B has everything: with batches of several sizes, and with a
clock of two nodes and of many.

What it assumes and guarantees: real processes. Each measurement has nodes of its own, and in each
round all are taken, one after the other. The writes of A are planted (bench/planting.py), so that
making them is in no figure; A's log is read from its Redis, whose time is shown, but is in no goal,
for it belongs to what is read, not to the link.

What it does not know: how any of it works.
"""

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from app.config import Config
from app.errors import StartupError
from app.local_nodes import LocalCluster
from app.vector_clock import VectorClock
from bench import command
from bench.command import Tell
from bench.contenders import processes_of
from bench.dependencies import busy_batch, dependency_bytes
from bench.figures import Spread, disturbances
from bench.findings import Finding, Outcome
from bench.options import above, count
from bench.planting import LEASE_MS, Planter, foreign_writes, key_names, node_names, planted
from bench.reading import Meter, Reading
from bench.rounds import own_place
from bench.shown import figure

TOGETHER: Final = ("sender", "receiver", "receiver's Redis")
"""What the goal is about."""
DEFAULT_BATCH: Final[int] = Config.model_fields["batch_max_writes"].default
GOAL_BATCH: Final = 128
_BATCHES: Final = [1, 16, GOAL_BATCH, DEFAULT_BATCH, 1024]
_BATCHES_MAX: Final = 2000
"""What a batch costs by itself shows in so many."""
_BEGIN_POLL_S: Final = 0.002
_POLL_S: Final = 0.01
_DRAIN_MAX_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: so many writes at most in a batch, and so many nodes in the clock."""

    batch: int
    nodes: int

    def writes(self, most: int) -> int:
        """How many writes are sent."""
        return min(most, _BATCHES_MAX * self.batch)


@dataclass(frozen=True, slots=True)
class Drained:
    """What was used, per write, until B had everything, and its longest script."""

    case: Case
    round: int
    reading: Reading
    longest_script_ms: float


Prepare = Callable[[Planter, Planter], Awaitable[None]]
"""Does to A's and B's Redis what is to be done before A writes."""


async def drained(
    where: Path, env: Mapping[str, str], writes: int, keys: int, prepare: Prepare
) -> tuple[Reading, float]:
    """What it took until B had so many writes of A, of so many keys in turn, which both have; and
    the longest script at B, in milliseconds.

    Raises StartupError, ProcessGone.
    """
    env = {"FAULTS": "0", "LEASE_MS": str(LEASE_MS), "LOG_MAX_ENTRIES": str(2 * writes), **env}
    async with (
        LocalCluster(where, nodes=2, env=env) as cluster,
        planted(cluster, "A") as a,
        planted(cluster, "B") as b,
    ):
        await prepare(a, b)
        await a.commit(key_names(keys))
        await _until(b, (await a.clock()).__le__, _POLL_S)
        await a.shut_link("B")
        before = await b.clock()
        await a.commit(itertools.islice(itertools.cycle(key_names(keys)), writes))
        wanted = await a.clock()
        await b.watch_scripts()
        await a.open_link("B")
        begun = await _until(b, lambda clock: clock != before, _BEGIN_POLL_S)
        meter = Meter(_roles(cluster))
        await _until(b, wanted.__le__, _POLL_S)
        reading = meter.read(sum(wanted.values()) - sum(begun.values()))
        return reading, await b.longest_script_ms()


async def _until(b: Planter, holds: Callable[[VectorClock], bool], poll_s: float) -> VectorClock:
    """The first clock of B of which this holds."""
    give_up = time.monotonic() + _DRAIN_MAX_S
    while not holds(clock := await b.clock()):
        if time.monotonic() > give_up:
            raise StartupError(
                f"After {_DRAIN_MAX_S:.0f} s B has {clock}, and not all writes of A."
            )
        await asyncio.sleep(poll_s)
    return clock


def _roles(cluster: LocalCluster) -> dict[str, list[int]]:
    a, b = processes_of(cluster, "A"), processes_of(cluster, "B")
    return {
        "sender": a["worker"],
        "sender's Redis": a["redis"],
        "receiver": b["worker"],
        "receiver's Redis": b["redis"],
        "supervisors": a["supervisor"] + b["supervisor"],
    }


async def measure(options: argparse.Namespace, tell: Tell) -> Outcome:
    """All rounds. Raises StartupError, ProcessGone."""
    drains = []
    for number in range(options.rounds):
        for case in cases(options):
            about = f"batches of {case.batch}, {case.nodes} nodes"
            tell(f"round {number + 1} of {options.rounds}: {about}")

            async def has_heard(a: Planter, b: Planter, nodes: int = case.nodes) -> None:
                for node in (a, b):
                    await node.receive(foreign_writes(node_names(nodes - 2)))

            env = {"BATCH_MAX_WRITES": str(case.batch), "FSYNC": options.fsync}
            with own_place("the link") as where:
                writes = case.writes(options.writes)
                reading, longest_ms = await drained(where, env, writes, options.keys, has_heard)
            drains.append(Drained(case, number, reading, longest_ms))
    return Outcome(
        [table(drains)],
        findings(drains, options),
        disturbances([one.reading for one in drains]),
        {"readings": [_told(one) for one in drains]},
    )


def _told(one: Drained) -> dict[str, Any]:
    return {
        **asdict(one.case),
        "round": one.round,
        "longest_script_ms": one.longest_script_ms,
        **asdict(one.reading),
    }


def cases(options: argparse.Namespace) -> list[Case]:
    """Whatever is measured in a round."""
    return [Case(batch, nodes) for nodes in (2, options.nodes) for batch in options.batches]


def findings(drains: Sequence[Drained], options: argparse.Namespace) -> list[Finding]:
    """What follows for the goals."""

    def of(batch: int, value: Callable[[Drained], float]) -> list[float]:
        return [value(one) for one in drains if one.case == Case(batch, 2)]

    longest = [one.longest_script_ms for one in drains if one.case.batch <= DEFAULT_BATCH]
    return [
        Finding(
            f"link, batches of {DEFAULT_BATCH}: writes a second",
            of(DEFAULT_BATCH, lambda one: one.reading.rate),
            *(50_000, "/s"),
            at_most=False,
            digits=0,
        ),
        Finding(
            f"link, batches of {GOAL_BATCH}: sender, receiver and its Redis, per write",
            of(GOAL_BATCH, lambda one: one.reading.cpu_us(*TOGETHER)),
            *(20, "us"),
        ),
        Finding(
            f"link, batches of {GOAL_BATCH}, {options.nodes} nodes that all write: "
            "dependencies, per write",
            [dependency_share(options.nodes, GOAL_BATCH)],
            *(8, "bytes"),
        ),
        Finding(
            f"link, batches of at most {DEFAULT_BATCH}: the longest script of the receiver",
            # None of them may be longer, in whatever round.
            [max(longest)] if longest else [],
            *(5, "ms"),
        ),
    ]


def dependency_share(nodes: int, batch: int) -> float:
    """Bytes of dependencies per write, in such batches of nodes that all write."""
    return dependency_bytes(busy_batch(nodes, batch)) / batch


def table(drains: Sequence[Drained]) -> Table:
    """What was measured, for people."""
    costs = Table(title="One link, per write of 100 bytes", title_justify="left", box=None)
    columns = (
        *("batch", "nodes", "writes/s", "sender us", "receiver us", "its Redis us"),
        *("together us", "sender's Redis us", "longest script ms", "dependencies, bytes"),
    )
    for name in columns:
        costs.add_column(name, justify="right")
    for case in dict.fromkeys(one.case for one in drains):
        same = [one for one in drains if one.case == case]
        readings = [one.reading for one in same]

        def us(*roles: str, readings: Sequence[Reading] = readings) -> str:
            return figure(Spread.of([one.cpu_us(*roles) for one in readings]), 1)

        costs.add_row(
            str(case.batch),
            str(case.nodes),
            figure(Spread.of([one.rate for one in readings]), 0),
            *(us(role) for role in TOGETHER),
            us(*TOGETHER),
            us("sender's Redis"),
            f"{max(one.longest_script_ms for one in same):.1f}",
            f"{dependency_share(case.nodes, case.batch):.1f}",
        )
    return costs


def main(arguments: Sequence[str] | None = None) -> int:
    """It was measured, shown and written down; the result is the exit code."""
    parser = command.parser("link", "Measure what one link between two nodes costs.", rounds=9)
    parser.add_argument("--writes", type=count, default=20_000, help="that are sent (20000)")
    parser.add_argument("--keys", type=count, default=1000, help="how many different ones (1000)")
    parser.add_argument(
        "--batches",
        type=count,
        nargs="+",
        default=_BATCHES,
        metavar="N",
        help=f"writes in a batch ({' '.join(map(str, _BATCHES))})",
    )
    parser.add_argument(
        "--nodes", type=above(2), default=16, help="in the clock, beside a clock of two (16)"
    )
    return command.run("link", parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
