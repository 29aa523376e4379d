"""Where a worker's time goes: `python -m bench.profiling`, or `make profile`.

What it is: a node, load on it, and a flame graph of its worker meanwhile, as a file that needs
nothing but itself.

What it assumes and guarantees: py-spy, which looks at the worker from outside and costs it nothing,
where the system lets one process look into another. Where it does not, as in some containers,
pyinstrument looks from inside: then each call costs the worker some time, what it did before the
load is shown with it, and shares are to be trusted more than times.

What it does not know: what the worker does.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from app import log
from app.errors import StartupError
from app.local_nodes import LocalCluster
from bench.contenders import under_kv
from bench.load import Loads
from bench.options import count, positive
from bench.requests import write_requests
from bench.results import OPERATIONS

EXIT_NO_RUN: Final = 2
_INSIDE: Final = Path(__file__).with_name("profiled_worker")
"""On whose path a worker profiles itself."""
_RATE_HZ: Final = 500
_DIRECTORY: Final = Path("data/bench")


class InsideCluster(LocalCluster):
    """Nodes whose workers profile themselves."""

    def environment(self, node: str) -> dict[str, str]:
        """What the node's process is given as its environment."""
        profile = str(self.data_dir / "worker-{pid}.html")
        environment = super().environment(node)
        return {**environment, "PYTHONPATH": str(_INSIDE), "BENCH_PROFILE": profile}


def main(arguments: Sequence[str] | None = None) -> int:
    """The flame graph is in a file, and it is said where; the result is the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    log.configure("warning", "text", node="profile")
    try:
        with tempfile.TemporaryDirectory(prefix="lightcone-profile-") as place:
            graph = asyncio.run(_profile(options, Path(place), console))
            options.directory.mkdir(parents=True, exist_ok=True)
            kept = options.directory / f"profile-{options.operation}{graph.suffix}"
            shutil.copy(graph, kept)
    except (StartupError, OSError) as error:
        print(f"profile: {error}", file=sys.stderr)
        return EXIT_NO_RUN
    console.print(f"The flame graph: {kept}")
    return 0


async def _profile(options: argparse.Namespace, place: Path, console: Console) -> Path:
    if options.by != "pyinstrument":
        try:
            return await _from_outside(options, place / "py-spy", console)
        except StartupError as error:
            if options.by == "py-spy":
                raise
            console.print(f"{error}\nSo pyinstrument looks from inside.")
    return await _from_inside(options, place / "pyinstrument", console)


async def _from_outside(options: argparse.Namespace, place: Path, console: Console) -> Path:
    program = _py_spy()
    graph = place / "worker.svg"
    async with LocalCluster(place, nodes=options.nodes, env=_settings(options)) as cluster:
        await _fill(options, cluster, console)
        command = (
            *(program, "record", "--pid", str(_worker(cluster)), "--output", str(graph)),
            *("--duration", str(max(1, round(options.seconds))), "--rate", str(_RATE_HZ)),
        )
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        (said, _), _ = await asyncio.gather(process.communicate(), _load(options, cluster))
    if process.returncode or not graph.exists():
        told = said.decode(errors="replace").strip()
        raise StartupError(f"py-spy could not look into the worker. It said:\n{told}")
    return graph


async def _from_inside(options: argparse.Namespace, place: Path, console: Console) -> Path:
    async with InsideCluster(place, nodes=options.nodes, env=_settings(options)) as cluster:
        worker = _worker(cluster)
        await _fill(options, cluster, console)
        await _load(options, cluster)
    graph = place / f"worker-{worker}.html"
    if not graph.exists():
        raise StartupError("The worker wrote no profile. Is pyinstrument installed?")
    return graph


def _settings(options: argparse.Namespace) -> dict[str, str]:
    return {"FAULTS": "0", "FSYNC": options.fsync}


def _worker(cluster: LocalCluster) -> int:
    return cluster.worker_pids(cluster.names[0])[0]


async def _fill(options: argparse.Namespace, cluster: LocalCluster, console: Console) -> None:
    """Every key has a value."""
    asked = cluster.names[0]
    console.print(f"{options.operation} at {asked}, {options.nodes} nodes, {options.seconds:g} s")
    keys = [f"key-{number:06}" for number in range(options.keys)]
    for operation in OPERATIONS:
        write_requests(
            (under_kv(operation, key) for key in keys), cluster.data_dir / f"{operation}.requests"
        )
    puts = cluster.data_dir / "PUT.requests"
    await Loads("ours", options.connections).once(puts, _port(cluster), len(keys))


async def _load(options: argparse.Namespace, cluster: LocalCluster) -> None:
    requests = cluster.data_dir / f"{options.operation}.requests"
    loads = Loads("ours", options.connections)
    await loads.saturate(requests, _port(cluster), options.seconds)


def _port(cluster: LocalCluster) -> int:
    return int(cluster.urls[cluster.names[0]].rpartition(":")[2])


def _py_spy() -> str:
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise StartupError("py-spy is not installed.")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.profiling",
        description="Draw a flame graph of a worker under load.",
        allow_abbrev=False,
    )
    parser.add_argument("--operation", choices=OPERATIONS, default="PUT", help="what is asked")
    parser.add_argument("--nodes", type=count, default=1, help="1, or more for its peers (1)")
    parser.add_argument("--seconds", type=positive, default=10.0, help="how long (10)")
    parser.add_argument("--connections", type=count, default=64, help="at once (64)")
    parser.add_argument("--keys", type=count, default=1000, help="how many different ones (1000)")
    parser.add_argument("--fsync", choices=("always", "everysec"), default="always")
    parser.add_argument(
        "--by",
        choices=("py-spy", "pyinstrument"),
        help="what looks (py-spy, and pyinstrument where that cannot)",
    )
    parser.add_argument(
        "--directory", type=Path, default=_DIRECTORY, help=f"where it is written ({_DIRECTORY})"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
