"""When a write is visible elsewhere: `python -m bench.lag`, or `make bench-lag`.

Three nodes, whose links take as long as is said. A takes puts, a part of what it can; now
and then one more, a marker, is put there, and read at B and at C with the context that the put gave
back and `?wait=`, which answers at the first moment at which the marker is visible there.

What it assumes and guarantees: real processes, one machine, one monotonic clock. The lag begins
when the put is *sent* and ends when the answer to the read has come, so that it holds both requests
as well: it is never less than it is. Markers begin at times of their own, however long those before
them take. In each round all cases come one after the other, on the same nodes, so that what
disturbs the machine for longer disturbs them alike.

What it does not know: how writes travel, and what follows from when they came (bench/markers.py).
"""

import argparse
import asyncio
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import aiohttp

from app.errors import StartupError
from bench import command
from bench.command import Tell
from bench.contenders import VALUE_BYTES, all_equal, under_kv
from bench.delayed import DelayedCluster
from bench.findings import Outcome
from bench.launch import until
from bench.load import Loads
from bench.markers import Case, Marker, cases_of, findings, notes, table
from bench.options import count, part, positive, zero_or_more
from bench.requests import write_requests
from bench.rounds import own_place

_WAIT_S: Final = 30
_WARM_UP_S: Final = 3.0
"""A link is to have noticed how long it is."""
_LOAD_OUTLASTS_S: Final = 0.5
_GOAL_LOAD: Final = 0.5
"""The goals are about this part of what A can take."""


class NotVisible(StartupError):
    """A marker was refused, or could not be read where it should be."""


class Bench:
    """Three nodes that run, and what is asked of them."""

    def __init__(
        self, cluster: DelayedCluster, http: aiohttp.ClientSession, loads: Loads, requests: Path
    ) -> None:
        self._cluster = cluster
        self._http = http
        self._loads = loads
        self._requests = requests
        self._port = int(cluster.urls["A"].rpartition(":")[2])
        self._numbers = itertools.count()
        self._rng = random.Random(0)

    async def fill(self, keys: int) -> None:
        """Every key has a value, on every node."""
        await self._loads.once(self._requests, self._port, keys)
        await self.settle()

    async def most_a_second(self, seconds: float) -> float:
        """How many puts A answers a second when all connections are busy."""
        await self._loads.saturate(self._requests, self._port, _WARM_UP_S)
        await self.settle()
        done = await self._loads.saturate(self._requests, self._port, seconds)
        await self.settle()
        return done.requests / done.seconds

    async def settle(self) -> None:
        """All nodes have what any of them has."""

        async def equal() -> bool:
            return await all_equal(self._http, self._cluster.urls.values())

        await until(equal, "all nodes have what one of them has")

    async def look(
        self, case: Case, number: int, seconds: float, per_second: float, rate: float
    ) -> tuple[list[Marker], dict[str, Any]]:
        """The markers of one case in one round, and what came of the load. Raises LoadFailed,
        NotVisible."""
        links = self._cluster.links
        links.set("A", "B", case.b_ms)
        for node in ("A", "B"):
            links.set(node, "C", case.c_ms or 0.0)
        with self._stopped("C") if case.c_ms is None else nothing_stopped(), first_failure():
            load_s = _WARM_UP_S + seconds + _LOAD_OUTLASTS_S
            async with asyncio.TaskGroup() as group:
                load = group.create_task(self._loads.pace(self._requests, self._port, load_s, rate))
                await asyncio.sleep(_WARM_UP_S)
                markers = [group.create_task(self._mark(case, number))]
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    # Not in step with anything that the nodes do at intervals.
                    await asyncio.sleep(self._rng.uniform(0.5, 1.5) / per_second)
                    markers.append(group.create_task(self._mark(case, number)))
        await self.settle()
        told = {"case": case.name, "round": number, **asdict(load.result())}
        return [seen for marker in markers for seen in marker.result()], told

    async def _mark(self, case: Case, number: int) -> list[Marker]:
        n = next(self._numbers)
        path, value = f"/kv/marker-{n}", f"{n:x<{VALUE_BYTES}}".encode()
        sent = time.monotonic()
        async with self._http.put(self._cluster.urls["A"] + path, data=value) as response:
            if response.status != 200:
                raise NotVisible(f"A refused a marker: {await response.text()}")
            context = response.headers["Causal-Context"]
        put_ms = (time.monotonic() - sent) * 1000

        async def read(node: str) -> Marker:
            async with self._http.get(
                self._cluster.urls[node] + path,
                params={"wait": str(_WAIT_S)},
                headers={"Causal-Context": context},
            ) as response:
                found = await response.read()
            lag_ms = (time.monotonic() - sent) * 1000
            if found != value:
                raise NotVisible(
                    f"{path} was to be read at {node} ({case.name}), which answered "
                    f"{response.status}: {found[:500].decode(errors='replace')}"
                )
            return Marker(case, number, node, lag_ms, put_ms)

        return list(await asyncio.gather(*map(read, case.readers)))

    @contextmanager
    def _stopped(self, node: str) -> Iterator[None]:
        """Within it the node takes connections and answers nothing: its processes stand still."""
        pid = self._cluster.pid(node)
        assert pid is not None
        os.killpg(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(pid, signal.SIGCONT)


@contextmanager
def first_failure() -> Iterator[None]:
    """Of tasks that fail together, the first says why."""
    try:
        yield
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


@contextmanager
def nothing_stopped() -> Iterator[None]:
    """All nodes run."""
    yield


async def measure(options: argparse.Namespace, tell: Tell) -> Outcome:
    """All rounds. Raises StartupError."""
    cases = cases_of(options.delays)
    markers: list[Marker] = []
    loads: list[dict[str, Any]] = []
    with own_place("the nodes") as place:
        async with running(place, options) as bench:
            tell("how much A can take")
            await bench.fill(options.keys)
            rate = await bench.most_a_second(options.calibrate) * options.load
            for number in range(options.rounds):
                for case in cases:
                    tell(f"round {number + 1} of {options.rounds}: {case.name}")
                    seen, load = await bench.look(
                        case, number, options.seconds, options.per_second, rate
                    )
                    markers += seen
                    loads.append(load)
    return Outcome(
        [table(markers, rate)],
        findings(markers, cases) if options.load == _GOAL_LOAD else [],
        None,
        {"rate": rate, "loads": loads, "markers": [_told(marker) for marker in markers]},
        notes(loads, rate),
    )


@asynccontextmanager
async def running(place: Path, options: argparse.Namespace) -> AsyncIterator[Bench]:
    """The nodes, and what they are asked, with their files in this place."""
    requests = place / "PUT.requests"
    keys = (f"key-{n:06}" for n in range(options.keys))
    write_requests((under_kv("PUT", key) for key in keys), requests)
    connections = aiohttp.TCPConnector(limit=0)
    async with (
        DelayedCluster(place, 3, {"FSYNC": options.fsync, "FAULTS": "0"}) as cluster,
        aiohttp.ClientSession(connector=connections) as http,
    ):
        yield Bench(cluster, http, Loads("ours", options.connections), requests)


def _told(marker: Marker) -> dict[str, Any]:
    told = asdict(marker)
    del told["case"]
    return {"case": marker.case.name, **told}


def main(arguments: Sequence[str] | None = None) -> int:
    """It was measured, shown and written down; the result is the exit code."""
    parser = command.parser("lag", "Measure when a write is visible at other nodes.", rounds=5)
    parser.add_argument(
        "--delays",
        type=zero_or_more,
        nargs="+",
        default=[0.0, 50.0, 150.0],
        metavar="MS",
        help="of all links, one way (0 50 150)",
    )
    parser.add_argument("--seconds", type=positive, default=10.0, help="of each case (10)")
    parser.add_argument("--per-second", type=positive, default=20.0, help="markers (20)")
    parser.add_argument("--calibrate", type=positive, default=5.0, help="seconds at full load (5)")
    parser.add_argument(
        "--load", type=part, default=_GOAL_LOAD, help="a part of what A can take (0.5)"
    )
    parser.add_argument("--connections", type=count, default=64, help="of the load (64)")
    parser.add_argument("--keys", type=count, default=1000, help="that the load puts (1000)")
    return command.run("lag", parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
