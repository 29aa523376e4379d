"""What scripts cost Redis, counted in instructions: `python -m bench.instructions`, or
`make bench-instructions`.

A Redis under callgrind (Debian's valgrind) takes so many steps, and another twice as many. What the
second has executed more than the first is what those steps cost.

What it assumes and guarantees: nothing else is asked of these Redis, and they write no file. So the
count is nearly the same each time, and on a busy machine: it is for comparing one version of a
script with another, where microseconds are too noisy to tell. It says nothing of what waits, of the
disk, nor of how long an instruction takes.

What it does not know: what a script does.
"""

import argparse
import asyncio
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from app.commits import Commit, Committed
from app.embedded_redis import PACKED_MAX_BYTES
from app.errors import StartupError
from app.keys import Keys
from app.redis_program import find_redis_server
from app.scripts import Received, Scripts
from app.vector_clock import Dot, VectorClock
from app.write import Put, Write
from bench import command
from bench.command import Tell
from bench.contenders import VALUE
from bench.findings import Outcome
from bench.launch import launched, until
from bench.options import above, count
from bench.planting import connected, foreign_writes, key_names, node_names
from bench.rounds import own_place

_KEYS: Final = tuple(key_names(256))
"""Written and read again and again; all are there before the first step that counts."""
_NODE: Final = "node00"
_SENDER: Final = "sender"
_NOW_US: Final = 1_800_000_000_000_000
_ALL_ANSWER: Final = 10**6
_COLLECTED: Final = re.compile(r"Collected : (\d+)")

Step = Callable[[Scripts, VectorClock, int, int], Awaitable[None]]
"""Does so many things, which begin with that number, at a node that knows this of others."""


async def received(scripts: Scripts, past: VectorClock, first: int, size: int) -> None:
    """Writes have come from a peer, each after the one before it."""
    writes = [
        Write(
            Dot(_SENDER, number + 1),
            past.with_dot(Dot(_SENDER, number)),
            _NOW_US + number,
            (Put(_key(number), VALUE),),
        )
        for number in range(first, first + size)
    ]
    got = await scripts.receive_writes(_NODE, writes, _NOW_US, _ALL_ANSWER, size)
    assert isinstance(got, Received) and got.applied == size, got


async def committed(scripts: Scripts, past: VectorClock, first: int, size: int) -> None:
    """Writes have been made here."""
    commits = [Commit((Put(_key(number), VALUE),)) for number in range(first, first + size)]
    done = await scripts.commit_writes(_NODE, commits, _NOW_US)
    assert done and all(isinstance(one, Committed) for one in done), done


async def read(scripts: Scripts, past: VectorClock, first: int, size: int) -> None:
    """Keys have been read."""
    keys = [_key(number) for number in range(first, first + size)]
    found = await scripts.read_keys(keys, None, _NOW_US)
    assert isinstance(found, tuple) and len(found[0]) == size, found


STEPS: Final[dict[str, Step]] = {"received": received, "committed": committed, "read": read}


@dataclass(frozen=True, slots=True)
class Counted:
    """How many instructions one write, or read, took, with so many in each step and so many nodes
    in the clock."""

    what: str
    size: int
    nodes: int
    each: int


def _key(number: int) -> str:
    return _KEYS[number % len(_KEYS)]


async def counted(what: str, size: int, nodes: int, things: int) -> Counted:
    """How many it takes, of so many that are counted. Raises StartupError."""
    steps = max(1, things // size)
    few, many = await asyncio.gather(
        *(_executed(what, size, nodes, number) for number in (steps, 2 * steps))
    )
    return Counted(what, size, nodes, (many - few) // (steps * size))


async def _executed(what: str, size: int, nodes: int, steps: int) -> int:
    """The instructions that a Redis took from its start to its end. Raises StartupError."""
    with own_place("valgrind") as where:
        socket = where / "redis.sock"
        program = _under_callgrind(where, socket)
        async with launched("valgrind", where, *program), connected(f"unix://{socket}") as redis:

            async def is_there() -> bool:
                return socket.exists()

            await until(is_there, "Redis takes connections")
            scripts, keys = Scripts(redis, Keys()), Keys()
            await scripts.claim_node(_NODE, 0, "counted")
            await redis.hset(keys.meta, "actor", _NODE)
            others = foreign_writes(node_names(nodes - 2))
            if others:
                await scripts.receive_writes(_NODE, others, _NOW_US, _ALL_ANSWER, len(others))
            past = VectorClock({write.dot.actor: 1 for write in others})
            for written in (received, committed):  # so that all keys, and both actors, are there
                await written(scripts, past, 0, len(_KEYS))
            # The peer has it all, so that what it sends takes the place of what is here.
            past = past.with_dot(Dot(_NODE, len(_KEYS)))
            for number in range(steps):
                await STEPS[what](scripts, past, len(_KEYS) + number * size, size)
        said = (where / "valgrind.log").read_text()
        if (found := _COLLECTED.search(said)) is None:
            raise StartupError(f"valgrind did not say how many instructions it has seen: {said}")
        return int(found[1])


def valgrind() -> str:
    """The program that counts. Raises StartupError."""
    if found := shutil.which("valgrind"):
        return found
    raise StartupError("Instructions are counted by valgrind, which is not here: install it.")


def _under_callgrind(where: Path, socket: Path) -> Sequence[str]:
    return (
        *(valgrind(), "--tool=callgrind", f"--callgrind-out-file={where / 'callgrind.out'}"),
        *(str(find_redis_server().path), "--port", "0", "--unixsocket", str(socket)),
        *("--save", "", "--dir", str(where), "--hz", "1", "--dynamic-hz", "no"),
        *("--hash-max-ziplist-value", str(PACKED_MAX_BYTES)),  # as a node's own
    )


async def measure(options: argparse.Namespace, tell: Tell) -> Outcome:
    """All that is counted. Raises StartupError."""
    found = []
    for what in STEPS:
        for size in options.sizes:
            for nodes in options.nodes:
                tell(f"{what}, {size} in a step, {nodes} nodes")
                found.append(await counted(what, size, nodes, options.things))
    table = Table("", "in a step", "nodes", "instructions each", title_justify="left", box=None)
    for one in found:
        table.add_row(one.what, str(one.size), str(one.nodes), f"{one.each:,}")
    return Outcome([table], [], (), {"counted": [asdict(one) for one in found]})


def main(arguments: Sequence[str] | None = None) -> int:
    """It was counted, and shown; the result is the exit code."""
    parser = command.parser("instructions", "What scripts cost Redis.", rounds=None, syncs=False)
    parser.add_argument("--sizes", type=count, nargs="+", default=[1, 16, 128], metavar="N")
    parser.add_argument("--nodes", type=above(1), nargs="+", default=[2, 16], metavar="N")
    parser.add_argument(
        "--things", type=count, default=1024, metavar="N", help="that are counted (1024)"
    )
    return command.run("instructions", parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
