"""Whether a node's memory stays as it is: `python -m bench.memory`, or `make bench-memory`.

One node, without peers, is asked for the same keys over and over, as fast as it can answer, half
puts and half gets. Meanwhile the memory of its processes is looked at once a second.

What it assumes and guarantees: Linux. Memory is what a process has in RAM (RSS), as the system
tells it. The first quarter of the time is to warm up; a straight line is fitted to the rest (least
squares), and its rise from the beginning of that rest to the end is the growth. A process is flat
if it grows by less than 1 MB, or by less than 1 % of its memory.

What it does not know: what the memory is used for.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.table import Table

from app.local_nodes import HOST, LocalCluster
from bench import command
from bench.accounting import ProcessGone
from bench.command import Tell
from bench.contenders import Running, cluster_of, under_kv
from bench.findings import Finding, Outcome
from bench.load import Loads
from bench.options import count, positive
from bench.requests import write_requests
from bench.rounds import own_place
from bench.samples import Answered

FLAT_MB: Final = 1.0
FLAT_PART: Final = 0.01
_WARM_UP_PART: Final = 0.25
_TENTHS: Final = 10
_LOAD_S: Final = 20.0
"""How long each load generator runs: one that remembered the whole run would take memory itself."""
_PROC: Final = Path("/proc")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Looked:
    """What the processes of one kind had in RAM at a moment."""

    at_s: float
    mb: float


Looks = Mapping[str, Sequence[Looked]]
"""By what the processes are for, in the order in which they were looked at."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through what was seen after the warm-up."""

    mb: float
    """In the middle of it."""
    mb_per_minute: float
    growth_mb: float
    """From one end to the other."""

    @property
    def limit_mb(self) -> float:
        """Less growth than that is none."""
        return max(FLAT_MB, FLAT_PART * self.mb)


def rss_mb(pids: Sequence[int]) -> float:
    """What these processes have in RAM. Raises ProcessGone."""
    pages = 0
    for pid in pids:
        try:
            pages += int((_PROC / str(pid) / "statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGone(f"Process {pid} ended while it was measured.") from None
    return pages * _PAGE_BYTES / 1e6


def trend(looks: Sequence[Looked]) -> Trend:
    """Of what was seen after the first quarter of the time; there are two looks at least."""
    begun, ended = looks[0].at_s, looks[-1].at_s
    after = begun + _WARM_UP_PART * (ended - begun)
    seen = [look for look in looks if look.at_s >= after]
    times, sizes = [look.at_s for look in seen], [look.mb for look in seen]
    line = statistics.linear_regression(times, sizes)
    growth = line.slope * (times[-1] - times[0])
    return Trend(statistics.fmean(sizes), line.slope * 60, growth)


# --- measuring -----------------------------------------------------------------------------------


async def measure(options: argparse.Namespace, tell: Tell) -> Outcome:
    """Raises StartupError, ProcessGone."""
    keys = [f"key-{n:06}" for n in range(options.keys)]
    loads = Loads("ours", options.connections)
    with own_place("the node") as place:
        requests, puts = place / "requests", place / "PUT.requests"
        write_requests((under_kv("PUT", key) for key in keys), puts)
        write_requests((under_kv(one, key) for key in keys for one in ("PUT", "GET")), requests)
        async with cluster_of(LocalCluster, 1, place, options.fsync) as running:
            port = running.ports[0]
            await loads.once(puts, port, options.keys)
            tell(f"{options.minutes:g} minutes of as much as the node can answer")
            looks, answered = await _watched(
                running, options.minutes * 60, options.every, loads, requests, tell
            )
            logged = await _writes_in_logs(port)
    trends = {role: trend(seen) for role, seen in looks.items()}
    requests_done = sum(one.requests for one in answered)
    seconds = sum(one.seconds for one in answered)
    rate = requests_done / seconds
    notes = [
        f"{requests_done:,} requests, {rate:,.0f} a second while there was load.",
        f"{logged:,} writes were in the logs at the end.",
    ]
    if errors := sum(one.errors for one in answered):
        notes.append(f"{errors} requests failed.")
    return Outcome(
        [course(looks), table(trends)],
        findings(trends),
        None,
        {
            "trends": {role: asdict(one) for role, one in trends.items()},
            "looks": {role: [(look.at_s, look.mb) for look in s] for role, s in looks.items()},
            "requests": requests_done,
            "logged": logged,
        },
        notes,
    )


async def _watched(
    running: Running, seconds: float, every_s: float, loads: Loads, requests: Path, tell: Tell
) -> tuple[Looks, list[Answered]]:
    """What was seen while the node was busy for so long, and what it answered."""
    looks: dict[str, list[Looked]] = {role: [] for role in running.processes}
    begun = time.monotonic()

    async def look() -> None:
        while True:
            for role, pids in running.processes.items():
                looks[role].append(Looked(time.monotonic() - begun, rss_mb(pids)))
            await asyncio.sleep(every_s)

    looking = asyncio.create_task(look())
    answered: list[Answered] = []
    try:
        while (left_s := seconds - (time.monotonic() - begun)) > 0 and not looking.done():
            load_s = min(left_s, _LOAD_S)
            answered.append(await loads.saturate(requests, running.ports[0], load_s))
            sizes = ", ".join(f"{role} {seen[-1].mb:.1f} MB" for role, seen in looks.items())
            tell(f"{(time.monotonic() - begun) / 60:.1f} min: {sizes}")
    finally:
        looking.cancel()
        await asyncio.wait([looking])
    if not looking.cancelled():
        looking.result()  # raises what ended it
    return looks, answered


async def _writes_in_logs(port: int) -> int:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://{HOST}:{port}/status") as response,
    ):
        told: dict[str, Any] = await response.json()
    entries: int = told["log"]["entries"]
    return entries


# --- what it says --------------------------------------------------------------------------------


def findings(trends: Mapping[str, Trend]) -> list[Finding]:
    """The goals, one for each kind of process."""
    return [
        Finding(f"{role}: growth after the warm-up", [one.growth_mb], one.limit_mb, "MB", digits=2)
        for role, one in trends.items()
    ]


def course(looks: Looks) -> Table:
    """How much each had in RAM in each tenth of the time."""
    shown = Table(title="MB in RAM, mean of each tenth of the time", title_justify="left", box=None)
    shown.add_column("")
    for number in range(1, _TENTHS + 1):
        shown.add_column(str(number), justify="right")
    for role, seen in looks.items():
        shown.add_row(role, *("-" if one is None else f"{one:.1f}" for one in tenths(seen)))
    return shown


def tenths(looks: Sequence[Looked]) -> list[float | None]:
    """The mean of each tenth of the time; None where nothing was seen."""
    begun, whole = looks[0].at_s, looks[-1].at_s - looks[0].at_s
    parts: list[list[float]] = [[] for _ in range(_TENTHS)]
    for look in looks:
        part = int(_TENTHS * (look.at_s - begun) / whole) if whole else 0
        parts[min(part, _TENTHS - 1)].append(look.mb)
    return [statistics.fmean(part) if part else None for part in parts]


def table(trends: Mapping[str, Trend]) -> Table:
    """The lines that were fitted, for people."""
    shown = Table(title="After the first quarter", title_justify="left", box=None)
    for name in ("", "MB", "MB a minute", "growth MB"):
        shown.add_column(name, justify="right" if name else "left")
    for role, one in trends.items():
        shown.add_row(role, f"{one.mb:.1f}", f"{one.mb_per_minute:+.3f}", f"{one.growth_mb:+.2f}")
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """It was measured, shown and written down; the result is the exit code."""
    about = "Measure whether a node's memory stays as it is under load."
    parser = command.parser("memory", about, rounds=None)
    parser.add_argument("--minutes", type=positive, default=10.0, help="for how long (10)")
    parser.add_argument("--every", type=positive, default=1.0, help="seconds between looks (1)")
    parser.add_argument("--connections", type=count, default=64, help="at once (64)")
    parser.add_argument("--keys", type=count, default=1000, help="how many different ones (1000)")
    return command.run("memory", parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
