"""What it costs to catch up: `python -m bench.recovery`, or `make bench-recovery`.

Two nodes, A and B, with a counting proxy between them. B holds so many keys, misses so many writes
while the proxy is shut, and catches up when it opens again. Then B loses its disk, and gets all of
it by snapshot, while a client reads at A.

What it assumes and guarantees: real processes, fsync always. Bytes are those that A sends to B in
that time, heartbeats included. Seconds include the pause until A tries again. Latencies at A are
compared within one run, before and while the snapshot is sent, under a light load of writes; for
that each node has a processor of its own (Linux, two processors at least), since they are on one
machine only here.

What it does not know: how any of it works.
"""

import argparse
import asyncio
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from app.local_nodes import LocalCluster, children_of, free_ports
from bench.counting_proxy import CountingProxy

VALUE_BYTES = 100
_TXN_PUTS = 100
_CLIENTS = 16
_LATENCY_SAMPLES = 1500
_SNAPSHOT_MAX_S = 1800


@dataclass(frozen=True, slots=True)
class CatchUp:
    """One measurement: B missed so many writes, or everything."""

    stored: int
    missed: int | None
    seconds: float
    bytes_sent: int
    p99_before_ms: float | None = None
    p99_meanwhile_ms: float | None = None


class Bench:
    """Two nodes and what is between them."""

    def __init__(self, cluster: LocalCluster, proxy: CountingProxy, http: aiohttp.ClientSession):
        self.cluster = cluster
        self.proxy = proxy
        self.http = http
        self.a, self.b = cluster.urls.values()

    async def fill(self, first: int, count: int, progress: Progress, bar: TaskID) -> None:
        """A has keys of these numbers, each with a value of `VALUE_BYTES`."""
        numbers = iter(range(first, first + count, _TXN_PUTS))

        async def client() -> None:
            for start in numbers:
                many = range(start, min(start + _TXN_PUTS, first + count))
                ops = [{"put": f"key-{n}", "value": f"{n:0{VALUE_BYTES}}"} for n in many]
                async with self.http.post(f"{self.a}/txn", json={"ops": ops}) as response:
                    assert response.status == 200, await response.text()
                progress.advance(bar, len(ops))

        await asyncio.gather(*(client() for _ in range(_CLIENTS)))

    async def write(self, count: int, progress: Progress, bar: TaskID) -> None:
        """A has so many more writes, of keys that it has."""
        numbers = iter(range(count))

        async def client() -> None:
            for n in numbers:
                value = f"{n:x<{VALUE_BYTES}}".encode()
                async with self.http.put(f"{self.a}/kv/key-{n}", data=value) as response:
                    assert response.status == 200, await response.text()
                progress.advance(bar)

        await asyncio.gather(*(client() for _ in range(_CLIENTS)))

    async def until_equal(self) -> None:
        """B has applied what A has, and serves."""
        while True:
            clocks = []
            for url in (self.a, self.b):
                try:
                    async with self.http.get(f"{url}/status") as response:
                        told = await response.json()
                    clocks.append(told["clock"] if not told["snapshot"] else None)
                except (aiohttp.ClientError, KeyError):
                    clocks.append(None)
            if clocks[0] is not None and clocks[0] == clocks[1]:
                return
            await asyncio.sleep(0.02)

    async def catch_up(self, stored: int, missed: int, progress: Progress) -> CatchUp:
        """B misses so many writes, and gets them."""
        await self.proxy.shut()
        bar = progress.add_task(f"{missed:,} writes that B misses", total=missed)
        await self.write(missed, progress, bar)
        progress.remove_task(bar)
        self.proxy.sent = 0
        begun = time.monotonic()
        await self.proxy.open()
        await self.until_equal()
        return CatchUp(stored, missed, time.monotonic() - begun, self.proxy.sent)

    async def lose_disk(self, stored: int) -> CatchUp:
        """B loses its disk, and gets everything by snapshot."""
        await self.cluster.kill("B")
        await asyncio.to_thread(shutil.rmtree, self.cluster.data_dir / "B")
        await self.proxy.shut()
        starting = asyncio.create_task(self.cluster.start("B"))
        await self._until_up(self.b)
        with self._apart():
            # Redis syncs each write, and lets reads wait for that, with a snapshot or without.
            writing = asyncio.create_task(self._keep_writing())
            before = await self._latencies_ms(_LATENCY_SAMPLES)
            self.proxy.sent = 0
            begun = time.monotonic()
            has_all = asyncio.create_task(self._until_b_has(await self._clock_of_a()))
            await self.proxy.open()
            meanwhile: list[float] = []
            while not has_all.done():
                meanwhile += await self._latencies_ms(10)
            seconds = time.monotonic() - begun
            writing.cancel()
        await starting
        await self.until_equal()
        return CatchUp(stored, None, seconds, self.proxy.sent, _p99(before), _p99(meanwhile))

    async def _until_up(self, url: str) -> None:
        """The node answers, though it may serve nobody yet."""
        while True:
            try:
                async with self.http.get(f"{url}/healthz") as response:
                    await response.read()
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)

    async def _keep_writing(self) -> None:
        """A takes about a hundred writes a second."""
        for n in itertools.count():
            async with self.http.put(f"{self.a}/kv/meanwhile-{n % 100}", data=b"x") as response:
                assert response.status == 200, await response.text()
            await asyncio.sleep(0.01)

    async def _clock_of_a(self) -> dict[str, int]:
        async with self.http.get(f"{self.a}/status") as response:
            clock: dict[str, int] = (await response.json())["clock"]
            return clock

    async def _until_b_has(self, wanted: dict[str, int]) -> None:
        """B has applied that much."""
        while True:
            async with self.http.get(f"{self.b}/status") as response:
                told = await response.json()
            has = {} if told["snapshot"] else told["clock"]
            if all(has.get(actor, 0) >= sequence for actor, sequence in wanted.items()):
                return
            await asyncio.sleep(0.02)

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Within it each node has a processor of its own, as if it were on a machine of its own;
        this process has A's."""
        everywhere = os.sched_getaffinity(0)
        first, second, *_ = sorted(everywhere)
        try:
            self._run_on({first}, {second})
            yield
        finally:
            self._run_on(everywhere, everywhere)

    def _run_on(self, of_a: set[int], of_b: set[int]) -> None:
        _pin(os.getpid(), of_a)  # and all that it started
        if (supervisor := self.cluster.pid("B")) is not None:
            _pin(supervisor, of_b)

    async def _latencies_ms(self, count: int) -> list[float]:
        found = []
        for n in range(count):
            begun = time.monotonic()
            async with self.http.get(f"{self.a}/kv/key-{n}") as response:
                await response.read()
            found.append((time.monotonic() - begun) * 1000)
        return found


def _pin(process: int, processors: set[int]) -> None:
    """The process, its children and theirs run on these processors."""
    for child in children_of(process):
        _pin(child, processors)
    for thread in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(thread.name), processors)


def _p99(samples: list[float]) -> float:
    return statistics.quantiles(samples, n=100)[-1]


async def measure(stored: list[int], missed: list[int], console: Console) -> list[CatchUp]:
    """The measurements of all these sizes."""
    results: list[CatchUp] = []
    directory = Path(tempfile.mkdtemp(prefix="lightcone-bench-"))
    ports = free_ports(3)
    env = {
        # Else B, which may not reach A for long, would have to be sent a snapshot.
        "LOG_MAX_ENTRIES": "1000000",
        "LOG_MIN_ENTRIES": "0",
    }
    cluster = ProxiedCluster(directory, ports, env)
    proxy = CountingProxy(ports[2], ports[1])
    await proxy.open()
    try:
        async with cluster, aiohttp.ClientSession() as http:
            bench = Bench(cluster, proxy, http)
            there = 0
            with Progress(console=console) as progress:
                for count in stored:
                    bar = progress.add_task(f"{count:,} keys", total=count - there)
                    await bench.fill(there, count - there, progress, bar)
                    there = count
                    await bench.until_equal()
                    for writes in missed:
                        results.append(await bench.catch_up(count, writes, progress))
                    results.append(await bench.lose_disk(count))
                    progress.remove_task(bar)
    finally:
        await proxy.shut()
        await asyncio.to_thread(shutil.rmtree, directory)
    return results


class ProxiedCluster(LocalCluster):
    """Nodes A and B, where A reaches B by the third port."""

    def __init__(self, data_dir: Path, ports: list[int], env: dict[str, str]) -> None:
        super().__init__(data_dir, nodes=2, ports=ports[:2], env=env, ready_max_s=_SNAPSHOT_MAX_S)
        self._proxy_port = ports[2]

    def environment(self, node: str) -> dict[str, str]:
        """What the node's process is given as its environment."""
        environment = super().environment(node)
        if node == "A":
            environment["PEERS"] = f"B=http://127.0.0.1:{self._proxy_port}"
        return environment


def table(results: list[CatchUp]) -> Table:
    """The results, for people."""
    shown = Table(title="Catching up")
    for name in ("stored", "missed", "seconds", "sent", "bytes each"):
        shown.add_column(name, justify="right")
    shown.add_column("p99 of reads: before, meanwhile", justify="right")
    for one in results:
        count = one.stored if one.missed is None else one.missed
        shown.add_row(
            f"{one.stored:,}",
            "all (snapshot)" if one.missed is None else f"{one.missed:,}",
            f"{one.seconds:.1f}",
            f"{one.bytes_sent / 1e6:.2f} MB",
            f"{one.bytes_sent / count:.0f}",
            ""
            if one.p99_before_ms is None or one.p99_meanwhile_ms is None
            else f"{one.p99_before_ms:.1f} ms, {one.p99_meanwhile_ms:.1f} ms",
        )
    return shown


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description=__doc__)
    parser.add_argument(
        "--stored", type=int, nargs="+", default=[10_000, 100_000], help="keys that B has"
    )
    parser.add_argument(
        "--missed", type=int, nargs="+", default=[1_000, 10_000], help="writes that B misses"
    )
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    console = Console(stderr=True)
    results = asyncio.run(measure(options.stored, options.missed, console))
    Console().print(table(results))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in results], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
