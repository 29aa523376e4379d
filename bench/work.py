"""What a worker does for a request, counted in instructions: `python -m bench.work`, or
`make bench-work`.

A worker whose clients are in its own process (`bench/in_memory.py`) runs under cachegrind (Debian's
valgrind) and answers so many requests, and another one three times as many. What the second has
executed more than the first is what those requests cost. Beside it aiohttp with fixed answers.

What it assumes and guarantees: the worker is one in production but for its sockets, and the Redis
behind it is real and counted in neither. So a count is the same within about 2 %, on a busy machine
as well: it is for comparing one version with another, where microseconds are too noisy to tell. It
says nothing of the system's calls, of the disk, nor of how long an instruction takes.

What it does not know: what is asked.
"""

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from rich.table import Table

from app import metrics
from app.errors import StartupError
from bench import command
from bench.command import Tell
from bench.contenders import own_redis
from bench.findings import Outcome
from bench.in_memory import SERVERS
from bench.instructions import valgrind
from bench.launch import finished
from bench.options import count
from bench.results import OPERATIONS
from bench.rounds import own_place
from bench.samples import Operation

_EXECUTED: Final = re.compile(r"I +refs: +([\d,]+)")


@dataclass(frozen=True, slots=True)
class Counted:
    """How many instructions one request took, with so many connections that ask."""

    server: str
    operation: Operation
    connections: int
    each: int


async def counted(server: str, operation: Operation, connections: int, requests: int) -> Counted:
    """How many it takes, of so many that are counted. Raises StartupError."""
    few = max(1, requests // connections // 2)
    least, most = await asyncio.gather(
        *(_executed(server, operation, connections, number) for number in (few, 3 * few))
    )
    return Counted(server, operation, connections, (most - least) // (2 * few * connections))


async def _executed(server: str, operation: Operation, connections: int, each: int) -> int:
    """The instructions that a worker took from its start to its end. Raises StartupError."""
    counting = (valgrind(), "--tool=cachegrind", "--cache-sim=no")
    with own_place("valgrind") as where:
        async with own_redis(where, "everysec") as redis:
            said = await finished(
                "The worker under valgrind",
                *(*counting, f"--cachegrind-out-file={where / 'cachegrind.out'}"),
                *(sys.executable, "-m", "bench.in_memory", server, operation),
                *(str(connections), str(each), redis.url),
                env=metrics.environment_of_worker(str(where), 0),
            )
        if (found := _EXECUTED.search(said)) is None:
            raise StartupError(f"valgrind did not say how many instructions it has seen: {said}")
        return int(found[1].replace(",", ""))


async def measure(options: argparse.Namespace, tell: Tell) -> Outcome:
    """All that is counted. Raises StartupError."""
    found = []
    for operation in OPERATIONS:
        for server in SERVERS:
            for connections in options.connections:
                tell(f"{server}: {operation}, {connections} at once")
                found.append(await counted(server, operation, connections, options.requests))
    table = Table("", "", "at once", "instructions each", "/ bare", title_justify="left", box=None)
    bare = {(one.operation, one.connections): one.each for one in found if one.server == "bare"}
    for one in found:
        ratio = one.each / bare[one.operation, one.connections]
        table.add_row(
            one.operation, one.server, str(one.connections), f"{one.each:,}", f"{ratio:.2f}"
        )
    return Outcome([table], [], (), {"counted": [asdict(one) for one in found]})


def main(arguments: Sequence[str] | None = None) -> int:
    """It was counted, and shown; the result is the exit code."""
    parser = command.parser("work", "What a worker does.", rounds=None, syncs=False)
    parser.add_argument("--connections", type=count, nargs="+", default=[30, 3], metavar="N")
    parser.add_argument(
        "--requests", type=count, default=3000, metavar="N", help="that are counted (3000)"
    )
    return command.run("work", parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
