"""How fast much is put in: `python -m bench.bulk`, or `make bench-bulk`.

A node without peers takes transactions of a hundred puts, as much as there can be; and a file of
JSON lines, from the command `python -m client load`.

What it assumes and guarantees: real processes, on one machine: whoever sends takes its part of it,
and is shown beside the node. Each time another node is begun, and all keys are new.

What it does not know: how any of it works.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from rich.table import Table

from app.local_nodes import LocalCluster
from bench import command
from bench.command import Tell
from bench.contenders import VALUE, processes_of
from bench.figures import Spread, disturbances
from bench.findings import Finding, Outcome
from bench.launch import finished
from bench.load import Loads
from bench.options import count
from bench.planting import key_names
from bench.reading import Meter, Reading
from bench.requests import Request, write_requests
from bench.rounds import own_place
from bench.shown import figure

PUTS: Final = 100
"""In a transaction: what a node takes by default, and what the client sends."""
_GOAL: Final = 40_000


Way = Callable[[LocalCluster, Path, argparse.Namespace], Awaitable[float]]
"""Brings the puts to the node; the seconds that it took."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """So many puts came to a node in this way."""

    way: str
    round: int
    reading: Reading


async def by_transactions(cluster: LocalCluster, where: Path, options: argparse.Namespace) -> float:
    """Each request is a transaction."""
    requests = where / "txn.requests"
    write_requests(transactions(options.puts), requests)
    loads = Loads("ours", options.connections)
    done = await loads.once(requests, _port(cluster), -(-options.puts // PUTS))
    return done.seconds


async def by_client(cluster: LocalCluster, where: Path, options: argparse.Namespace) -> float:
    """The command reads a file; its start is counted, too."""
    lines = where / "lines.jsonl"
    with lines.open("w") as file:
        for key in key_names(options.puts):
            file.write(json.dumps({"key": key, "value": VALUE.decode()}) + "\n")
    begun = time.monotonic()
    command = (sys.executable, "-m", "client", "load", str(lines), "--node", cluster.urls["A"])
    await finished("The client", *command)
    return time.monotonic() - begun


WAYS: Final[Mapping[str, Way]] = {
    "POST /txn": by_transactions,
    "python -m client load": by_client,
}


def transactions(puts: int) -> Iterator[Request]:
    """So many puts, each of another key, a hundred in each transaction but for the last."""
    names = key_names(puts)
    while some := list(itertools.islice(names, PUTS)):
        ops = [{"put": key, "value": VALUE.decode()} for key in some]
        body = json.dumps({"ops": ops}).encode()
        yield Request("POST", "/txn", body, {"Content-Type": "application/json"})


async def measure(options: argparse.Namespace, tell: Tell) -> Outcome:
    """All rounds. Raises StartupError, ProcessGone."""
    loaded = []
    for number in range(options.rounds):
        for name, way in WAYS.items():
            tell(f"round {number + 1} of {options.rounds}: {name}")
            env = {"FAULTS": "0", "FSYNC": options.fsync}
            with own_place(name) as where:
                async with LocalCluster(where, nodes=1, env=env) as cluster:
                    meter = Meter(processes_of(cluster, "A"))
                    seconds = await way(cluster, where, options)
                    reading = replace(meter.read(options.puts), seconds=seconds)
            loaded.append(Loaded(name, number, reading))
    return Outcome(
        [table(loaded)],
        findings(loaded),
        disturbances([one.reading for one in loaded]),
        {
            "readings": [
                {"way": one.way, "round": one.round, **asdict(one.reading)} for one in loaded
            ]
        },
    )


def _port(cluster: LocalCluster) -> int:
    return int(cluster.urls["A"].rpartition(":")[2])


def findings(loaded: Sequence[Loaded]) -> list[Finding]:
    """What follows for the goal."""
    return [
        Finding(
            f"bulk, {way}: puts a second",
            _of(loaded, way, _rate),
            *(_GOAL, "/s"),
            at_most=False,
            digits=0,
        )
        for way in WAYS
    ]


def table(loaded: Sequence[Loaded]) -> Table:
    """What was measured, for people."""
    shown = Table(title="Puts of 100 bytes, a hundred at a time", title_justify="left", box=None)
    shown.add_column("")
    for name in ("puts/s", "worker us", "redis us", "who sends us"):
        shown.add_column(name, justify="right")
    for way in dict.fromkeys(one.way for one in loaded):
        shown.add_row(
            way,
            figure(Spread.of(_of(loaded, way, _rate)), 0),
            figure(Spread.of(_of(loaded, way, lambda one: one.cpu_us("worker"))), 1),
            figure(Spread.of(_of(loaded, way, lambda one: one.cpu_us("redis"))), 1),
            figure(Spread.of(_of(loaded, way, lambda one: one.harness_s * 1e6 / one.count)), 1),
        )
    return shown


def _rate(reading: Reading) -> float:
    return reading.rate


def _of(loaded: Sequence[Loaded], way: str, value: Callable[[Reading], float]) -> list[float]:
    return [value(one.reading) for one in loaded if one.way == way]


def main(arguments: Sequence[str] | None = None) -> int:
    """It was measured, shown and written down; the result is the exit code."""
    parser = command.parser("bulk", "Measure how fast many puts are taken.", rounds=3)
    parser.add_argument("--puts", type=count, default=200_000, help="of new keys (200000)")
    parser.add_argument("--connections", type=count, default=16, help="at once (16)")
    return command.run("bulk", parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
