"""Several nodes on this machine, each a `python -m app` with a Redis of its own.

What it is: `LocalCluster`, for tests and programs; `python -m app.local_cluster` is made of it.

What it assumes and guarantees: every node is ready when `start` returns, or the reason is told in
the words of that node's log. Whatever way the cluster ends, its nodes end too: each is told to stop
when its standard input closes, which also happens when this process is killed.

What it does not know: anything a client could not know. It starts, stops and kills processes, and
asks a node whether it is ready.

Where the idea is from: etcd's Procfile and Redis' create-cluster, the one-command clusters for
trying things out.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import string
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from app.embedded_redis import node_pid, redis_pid
from app.errors import StartupError
from app.port import take_port
from app.server import is_ready

HOST = "127.0.0.1"
READY_MAX_S = 60.0
#: More than a node takes by itself with the default SHUTDOWN_GRACE_MS.
STOP_MAX_S = 20.0
POLL_S = 0.02
LOG_LINES_SHOWN = 15
#: Free ports are looked for below the ones that systems give to outgoing connections (from 32768
#: on Linux), so that nobody takes the port of a node while it is down.
AUTO_PORTS = range(20000, 32768)
#: Set for each node by the cluster; the same value for all nodes would be wrong.
OWN_SETTINGS = ("NODE_ID", "HOST", "PORT", "PEERS", "REDIS_URL", "DATA_DIR")


class LocalCluster:
    """Nodes A, B, C ... on this machine; `async with` starts and stops them all."""

    def __init__(
        self,
        data_dir: Path,
        *,
        nodes: int = 3,
        ports: Sequence[int] | None = None,
        env: Mapping[str, str] | None = None,
        show_logs: bool = False,
        ready_max_s: float = READY_MAX_S,
    ) -> None:
        """Nothing runs yet. Without `ports`, free ones are found; `env` holds settings for all.

        A node that is not ready after `ready_max_s` has failed to start. The nodes log to this
        process' stderr with `show_logs`, else to `data_dir`/NODE.log.
        """
        self.names = list(string.ascii_uppercase[:nodes])
        self._ports = dict(zip(self.names, ports or free_ports(nodes), strict=True))
        self.urls = {name: f"http://{HOST}:{port}" for name, port in self._ports.items()}
        self.data_dir = data_dir
        self._env = {"FAULTS": "1", **(env or {})}
        self._show_logs = show_logs
        self._ready_max_s = ready_max_s
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def __aenter__(self) -> Self:
        """All nodes are ready, or none runs. Raises StartupError."""
        try:
            for name in self.names:
                self._log_file(name).unlink(missing_ok=True)
                await self._launch(name)
            for name in self.names:
                await self._until_ready(name)
        except BaseException:  # also Ctrl-C: no node may be left running
            await self.stop_all()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_all()

    def pid(self, node: str) -> int | None:
        """The process id of the node's supervisor while it runs."""
        process = self._processes.get(node)
        return process.pid if process and process.returncode is None else None

    def worker_pids(self, node: str) -> list[int]:
        """The process ids of the node's workers, as Linux tells them."""
        redis = redis_pid(self.data_dir / node)
        return [pid for pid in children_of(self._running(node).pid) if pid != redis]

    def redis_pid(self, node: str) -> int | None:
        """The process id of the node's redis-server while it runs."""
        return redis_pid(self.data_dir / node)

    async def start(self, node: str) -> None:
        """The node is ready. Raises StartupError with the end of its log when it does not start."""
        if self.pid(node) is not None:
            raise StartupError(f"{node} runs already.")
        try:
            await self._launch(node)
            await self._until_ready(node)
        except BaseException:  # also Ctrl-C: it may not be left half started
            await self._end(node)
            raise

    async def stop(self, node: str) -> None:
        """The node has finished what was in flight, and has ended."""
        self._running(node)
        await self._end(node)

    async def stop_all(self) -> None:
        """No node runs."""
        await asyncio.gather(*(self._end(node) for node in self._processes))

    async def kill(self, node: str) -> None:
        """All processes of the node were killed with SIGKILL, its redis-server included."""
        process = self._running(node)
        self._kill(process, node)
        await process.wait()
        await self._until_redis_ended(node)

    def kill_all(self) -> None:
        """Every node is told to end this instant."""
        for node, process in self._processes.items():
            if process.returncode is None:
                self._kill(process, node)

    async def wait(self, node: str) -> int:
        """Waits until the node ends, for whatever reason; the result is its exit code."""
        return await self._running(node).wait()

    def environment(self, node: str) -> dict[str, str]:
        """What the node's process is given as its environment. A subclass may change it."""
        peers = ",".join(f"{name}={url}" for name, url in self.urls.items() if name != node)
        inherited = {k: v for k, v in os.environ.items() if k.upper() not in OWN_SETTINGS}
        return {
            **inherited,
            **self._env,
            "NODE_ID": node,
            "HOST": HOST,
            "PORT": str(self._ports[node]),
            "PEERS": peers,
            "DATA_DIR": str(self.data_dir),
        }

    def _running(self, node: str) -> asyncio.subprocess.Process:
        process = self._processes.get(node)
        if process is None or process.returncode is not None:
            raise StartupError(f"{node} does not run.")
        return process

    def _is_ours(self, process: asyncio.subprocess.Process, node: str) -> bool:
        """Whether no other node than this process has the node's data, which refuses it then."""
        return node_pid(self.data_dir / node) in (None, process.pid)

    def _kill(self, process: asyncio.subprocess.Process, node: str) -> None:
        redis = redis_pid(self.data_dir / node) if self._is_ours(process, node) else None
        # The supervisor first, and with it its workers: so none of them sees Redis go.
        for kill, pid in ((os.killpg, process.pid), (os.kill, redis)):
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)

    async def _launch(self, node: str) -> None:
        # Without this, whoever has the port now would be taken for the node.
        for sock in await take_port(HOST, self._ports[node]):
            sock.close()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as files:
            output: IO[bytes] | None = None
            if not self._show_logs:
                output = files.enter_context(self._log_file(node).open("ab"))
            self._processes[node] = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "app", "--until-eof"),
                env=self.environment(node),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                # Ctrl-C is for this process, which then stops the nodes in good order; and a
                # whole node, workers included, can be killed as one group.
                start_new_session=True,
            )

    async def _until_ready(self, node: str) -> None:
        process = self._processes[node]
        try:
            async with asyncio.timeout(self._ready_max_s):
                while not await is_ready(HOST, self._ports[node]):
                    if process.returncode is not None:
                        raise StartupError(
                            f"Node {node} ended with code {process.returncode} while it started."
                            f"{self._last_lines(node)}"
                        )
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise StartupError(
                f"Node {node} is not ready after {self._ready_max_s:.0f} s.{self._last_lines(node)}"
            ) from None

    async def _end(self, node: str) -> None:
        process = self._processes[node]
        try:
            async with asyncio.timeout(STOP_MAX_S):
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await process.wait()
                if self._is_ours(process, node):
                    # A supervisor that was killed leaves its redis-server behind.
                    if (redis := self.redis_pid(node)) is not None:
                        os.kill(redis, signal.SIGTERM)
                    await self._until_redis_ended(node)
        except TimeoutError:
            self._kill(process, node)
            await process.wait()

    async def _until_redis_ended(self, node: str) -> None:
        while self.redis_pid(node) is not None:
            await asyncio.sleep(POLL_S)

    def _log_file(self, node: str) -> Path:
        return self.data_dir / f"{node}.log"

    def _last_lines(self, node: str) -> str:
        if self._show_logs:
            return " Its log is above."
        lines = self._log_file(node).read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return "\n".join(["", f"Last lines of {self._log_file(node)}:", *(f"  {x}" for x in lines)])


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens at this moment."""
    found: list[int] = []
    for port in random.sample(AUTO_PORTS, len(AUTO_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == count:
            break
    return found


def children_of(parent: int) -> list[int]:
    """The processes that `parent` started and that still run, as Linux tells them."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name, which may hold anything, in parentheses: state and parent.
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and fields[0] != "Z":
                children.append(int(stat.parent.name))
    return sorted(children)
