"""How costs grow: `python -m bench.growth`, or `make bench-growth`.

What a write costs where there is much of something, over what it costs where there is little: nodes
in the clock, writes that wait, keys that are stored. And how much memory a key takes, over what a
plain string takes in Redis.

What it assumes and guarantees: real processes. Both sides of a ratio are measured in each round,
one right after the other, so that what disturbs the machine for longer disturbs them alike. What
there is much of was planted (bench/planting.py). Nodes that take local writes all run at the same
time, and all but one are idle; where a link is measured, each side has nodes of its own, so these
rounds are longer and fewer.

What it does not know: why anything grows.
"""

import argparse
import itertools
import random
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from app.config import Config
from app.local_nodes import LocalCluster
from app.vector_clock import Dot
from bench import command
from bench.command import Tell
from bench.contenders import VALUE, own_redis, processes_of, under_kv
from bench.figures import Spread, disturbances
from bench.findings import Finding, Outcome
from bench.link import drained
from bench.load import Loads
from bench.options import above, count, positive
from bench.planting import (
    Planter,
    connected,
    foreign_writes,
    key_names,
    node_names,
    planted,
    waiting_writes,
)
from bench.reading import Meter, Reading
from bench.requests import write_requests
from bench.rounds import own_place
from bench.shown import figure

FEW_NODES: Final = 3
FEW_KEYS: Final = 1000
_WAITING_NODES: Final = 10
"""Whose writes wait: a script looks at the first one of each."""
_LACKING: Final = Dot("lacking", 1)
_ASKED_KEYS: Final = 20_000
"""Keys that are written in turn, at random of all that are stored."""
_KEPT_LOG: Final[int] = Config.model_fields["log_min_entries"].default
_PIPELINED: Final = 1000
LOCAL: Final = ("worker", "redis")
RECEIVED: Final = ("receiver", "receiver's Redis")


@dataclass(frozen=True, slots=True)
class Measured:
    """One side of a ratio in one round."""

    what: str
    much: bool
    round: int
    reading: Reading
    roles: tuple[str, ...]

    @property
    def cpu_us(self) -> float:
        """What a write cost."""
        return self.reading.cpu_us(*self.roles)


@dataclass(frozen=True, slots=True)
class Growth:
    """All that was measured."""

    measured: Sequence[Measured]
    key_bytes: float
    """Of Redis' memory at a node, for one key more."""
    plain_key_bytes: float
    """The same for a string in a plain Redis."""


@dataclass(frozen=True, slots=True)
class Site:
    """A node without peers, what it is asked, and its Redis."""

    cluster: LocalCluster
    planter: Planter
    requests: Path


@asynccontextmanager
async def site(where: Path, name: str, fsync: str, keys: int, nodes: int) -> AsyncIterator[Site]:
    """It holds so many keys, and has heard of so many nodes, itself included."""
    env = {"FAULTS": "0", "FSYNC": fsync}
    async with (
        LocalCluster(where / name, nodes=1, env=env) as cluster,
        planted(cluster, "A") as planter,
    ):
        await planter.receive(foreign_writes(node_names(nodes - 1)))
        await planter.commit(key_names(keys))
        await planter.rewrite_nothing()
        await planter.until_trimmed(_KEPT_LOG)
        requests = where / f"{name}.requests"
        chosen = random.Random(0).choices(range(keys), k=_ASKED_KEYS)
        names = list(key_names(keys))
        write_requests((under_kv("PUT", names[number]) for number in chosen), requests)
        yield Site(cluster, planter, requests)


async def measure(options: argparse.Namespace, tell: Tell) -> Outcome:
    """All rounds. Raises StartupError, ProcessGone."""
    with own_place("the nodes") as where:
        tell(f"{options.keys:,} keys are stored")
        async with AsyncExitStack() as stack:

            async def begun(name: str, keys: int, nodes: int) -> Site:
                return await stack.enter_async_context(
                    site(where, name, options.fsync, keys, nodes)
                )

            little = await begun("little", FEW_KEYS, FEW_NODES)
            nodes = await begun("nodes", FEW_KEYS, options.nodes)
            keys = await begun("keys", options.keys, FEW_NODES)
            used = [await one.planter.used_memory() for one in (little, keys)]
            key_bytes = (used[1] - used[0]) / (options.keys - FEW_KEYS)
            plain_bytes = await _plain_key_bytes(where, options.fsync, options.keys)
            found: list[Measured] = []
            for number in range(options.rounds):
                tell(f"round {number + 1} of {options.rounds}: local writes")
                for what, much in (("nodes", nodes), ("keys", keys)):
                    for side in (little, much):
                        reading = await _local_writes(side, options)
                        found.append(Measured(what, side is much, number, reading, LOCAL))
    for number in range(options.link_rounds):
        for waiting in (0, options.waiting):
            tell(f"round {number + 1} of {options.link_rounds}: {waiting:,} writes wait")
            found.append(
                Measured(
                    "waiting",
                    waiting > 0,
                    number,
                    await _received_writes(waiting, options),
                    RECEIVED,
                )
            )
    growth = Growth(found, key_bytes, plain_bytes)
    return Outcome(
        list(tables(growth)),
        findings(growth, options),
        disturbances([one.reading for one in found]),
        {
            "key_bytes": key_bytes,
            "plain_key_bytes": plain_bytes,
            "readings": [
                {"what": one.what, "much": one.much, "round": one.round, **asdict(one.reading)}
                for one in found
            ],
        },
    )


async def _local_writes(side: Site, options: argparse.Namespace) -> Reading:
    """Clients write at the node, each in a session, so that contexts are sent and answered."""
    loads = Loads("ours", options.connections, sessions=True)
    port = int(side.cluster.urls["A"].rpartition(":")[2])
    await loads.saturate(side.requests, port, options.warm_up)
    meter = Meter(processes_of(side.cluster, "A"))
    answered = await loads.saturate(side.requests, port, options.seconds)
    return meter.read(answered.requests)


async def _received_writes(waiting: int, options: argparse.Namespace) -> Reading:
    """A peer sends writes to a node at which so many others wait for one that never comes."""

    async def wait(_: Planter, b: Planter) -> None:
        await b.receive(waiting_writes(node_names(_WAITING_NODES), waiting, _LACKING))

    env = {"FSYNC": options.fsync, "PENDING_MAX": str(2 * waiting or 1)}
    with own_place("the link") as where:
        reading, _ = await drained(where, env, options.writes, FEW_KEYS, wait)
    return reading


async def _plain_key_bytes(where: Path, fsync: str, keys: int) -> float:
    """What a key takes in a Redis that holds strings alone."""
    used = []
    async with own_redis(where / "plain", fsync) as redis, connected(redis.url) as plain:
        names = key_names(keys)
        for many in (FEW_KEYS, keys - FEW_KEYS):
            async with plain.pipeline(transaction=False) as pipeline:
                for name in itertools.islice(names, many):
                    pipeline.set(name, VALUE)
                    if len(pipeline) == _PIPELINED:
                        await pipeline.execute()
                await pipeline.execute()
            used.append(int((await plain.info("memory"))["used_memory"]))
    return (used[1] - used[0]) / (keys - FEW_KEYS)


def ratios(measured: Sequence[Measured], what: str) -> list[float]:
    """What a write costs where there is much, over where there is little, in each round."""
    much, little = (
        {one.round: one.cpu_us for one in measured if (one.what, one.much) == (what, is_much)}
        for is_much in (True, False)
    )
    return [much[number] / little[number] for number in much if little.get(number)]


def findings(growth: Growth, options: argparse.Namespace) -> list[Finding]:
    """What follows for the goals."""
    goals = (
        ("nodes", 1.3, f"a local write with {options.nodes} nodes, over that with {FEW_NODES}"),
        ("waiting", 1.2, f"a received write with {options.waiting:,} waiting, over that with none"),
        ("keys", 1.1, f"a local write with {options.keys:,} keys, over that with {FEW_KEYS:,}"),
    )
    memory = [growth.key_bytes / growth.plain_key_bytes]
    return [
        *(
            Finding(goal, ratios(growth.measured, what), limit, "x", digits=2)
            for what, limit, goal in goals
        ),
        Finding("memory of a key, over that of a string", memory, 1.6, "x", digits=2),
    ]


def tables(growth: Growth) -> Iterator[Table]:
    """What was measured, for people."""
    costs = Table(title="CPU time of a write", title_justify="left", box=None)
    costs.add_column("of what there is much or little")
    for name in ("little us", "much us", "ratio"):
        costs.add_column(name, justify="right")
    for what in dict.fromkeys(one.what for one in growth.measured):
        sides = [
            Spread.of(
                [one.cpu_us for one in growth.measured if (one.what, one.much) == (what, much)]
            )
            for much in (False, True)
        ]
        about = {"nodes": "nodes in the clock", "waiting": "writes that wait", "keys": "keys"}[what]
        shown = [figure(side, 1) for side in sides]
        over = ratios(growth.measured, what)
        costs.add_row(about, *shown, figure(Spread.of(over) if over else None, 2))
    yield costs
    memory = Table(title="Memory of a key, with its value of 100 bytes", box=None)
    memory.title_justify = "left"
    memory.add_column("a node's, bytes", justify="right")
    memory.add_column("a string's, bytes", justify="right")
    memory.add_row(f"{growth.key_bytes:.0f}", f"{growth.plain_key_bytes:.0f}")
    yield memory


def main(arguments: Sequence[str] | None = None) -> int:
    """It was measured, shown and written down; the result is the exit code."""
    parser = command.parser("growth", "Measure how the cost of a write grows.", rounds=25)
    parser.add_argument("--nodes", type=above(FEW_NODES), default=16, help="in the clock (16)")
    parser.add_argument(
        "--keys", type=above(FEW_KEYS), default=1_000_000, help="that are stored (1000000)"
    )
    parser.add_argument("--link-rounds", type=count, default=9, help="where a link is measured (9)")
    parser.add_argument("--waiting", type=count, default=100_000, help="writes (100000)")
    parser.add_argument("--writes", type=count, default=50_000, help="over a link (50000)")
    parser.add_argument(
        "--seconds", type=positive, default=1.0, help="of local writes, each time (1)"
    )
    parser.add_argument("--warm-up", type=positive, default=0.2, help="seconds before them (0.2)")
    parser.add_argument("--connections", type=count, default=64, help="at once (64)")
    return command.run("growth", parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
