"""The cluster that the scenario runs against: one of its own, or one that runs already.

What it is: `Cluster`, what the scenario needs of a cluster; `RunningCluster`, known by its
addresses; and `OwnCluster`, three nodes that live as long as it does.

What it assumes and guarantees: `python -m app.local_cluster` can be run from here, and speaks a
line of JSON at a time. Whatever way this process ends, that one sees the end of its input and stops
every node. When something failed, the logs stay and their place is told.

What it does not know: what the scenario does, and anything of a node that is not in its address.

Where the idea is from: a child process and a pipe, so that the client never imports the node.
"""

import contextlib
import json
import queue
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

#: Starting three nodes takes a few seconds; a machine may be very busy.
ANSWER_MAX_S = 120.0


class ClusterError(Exception):
    """The cluster could not be started, or did not do what it was told."""


class Cluster(Protocol):
    """Nodes by id, each with its address."""

    nodes: Mapping[str, str]

    def why_no_crash(self) -> str:
        """Why nodes of this cluster cannot be killed and started from here; empty if they can."""

    def kill(self, node: str) -> None:
        """The node and its Redis were killed. Raises ClusterError."""

    def start(self, node: str) -> None:
        """The node was started again. Raises ClusterError."""


class RunningCluster:
    """A cluster that somebody else runs. `{node}` in a command stands for the id of the node."""

    def __init__(self, nodes: Mapping[str, str], kill_command: str, start_command: str) -> None:
        self.nodes = nodes
        self._commands = {"kill": kill_command, "start": start_command}

    def why_no_crash(self) -> str:
        missing = [f"--{verb}" for verb, command in self._commands.items() if not command]
        if not missing:
            return ""
        return f"this cluster is not ours, and {' and '.join(missing)} did not say how to do it"

    def kill(self, node: str) -> None:
        self._run("kill", node)

    def start(self, node: str) -> None:
        self._run("start", node)

    def _run(self, verb: str, node: str) -> None:
        command = self._commands[verb].replace("{node}", node)
        try:
            ran = subprocess.run(
                shlex.split(command), capture_output=True, text=True, timeout=ANSWER_MAX_S
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise ClusterError(f"`{command}` failed: {error}") from error
        if ran.returncode != 0:
            raise ClusterError(f"`{command}` ended with {ran.returncode}. {ran.stderr.strip()}")


class OwnCluster:
    """Nodes A, B and C, run by a child process."""

    def __init__(self, directory: Path) -> None:
        """The nodes are ready, with their data and logs in this directory. Raises ClusterError."""
        self._log = directory / "cluster.log"
        command = [sys.executable, "-m", "app.local_cluster", "--json", "--ports", "auto"]
        with self._log.open("wb") as log:
            self._runner = subprocess.Popen(
                [*command, "--data-dir", str(directory)],
                # Where both packages are, wherever this was called from.
                cwd=Path(__file__).parents[1],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # Ctrl-C is for the scenario, which heals and stops the cluster in good order.
                start_new_session=True,
            )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            said = self._answer("the start of the cluster")
            self.nodes: Mapping[str, str] = {
                node: about["url"] for node, about in said["nodes"].items()
            }
        except BaseException:  # also Ctrl-C: no node may be left running
            self.stop()
            raise

    def why_no_crash(self) -> str:
        return ""

    def kill(self, node: str) -> None:
        self._tell(f"kill {node}")

    def start(self, node: str) -> None:
        self._tell(f"start {node}")

    def stop(self) -> None:
        """No node runs."""
        assert self._runner.stdin is not None
        with contextlib.suppress(OSError):
            self._runner.stdin.close()
        try:
            self._runner.wait(ANSWER_MAX_S)
        except subprocess.TimeoutExpired:
            self._runner.kill()
            self._runner.wait()

    def _listen(self) -> None:
        assert self._runner.stdout is not None
        with self._runner.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def _tell(self, order: str) -> None:
        assert self._runner.stdin is not None
        try:
            self._runner.stdin.write(f"{order}\n")
            self._runner.stdin.flush()
        except OSError as error:
            raise ClusterError(f"{order}: the cluster has ended.{self._last_words()}") from error
        said = self._answer(order)
        if not said.get("ok"):
            raise ClusterError(f"{order}: {said.get('error')}")

    def _answer(self, what: str) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=ANSWER_MAX_S)
        except queue.Empty:
            raise ClusterError(
                f"{what}: no answer within {ANSWER_MAX_S:.0f} s.{self._last_words()}"
            ) from None
        if not line:
            raise ClusterError(f"{what}: the cluster has ended.{self._last_words()}")
        said = json.loads(line)
        assert isinstance(said, dict)
        return said

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-20:]
        return "\n".join(["", f"Last lines of {self._log}:", *lines]) if lines else ""


@contextlib.contextmanager
def own_cluster() -> Iterator[OwnCluster]:
    """A cluster while the block runs. Its directory is removed, unless the block fails."""
    directory = Path(tempfile.mkdtemp(prefix="lightcone-"))
    is_of_use = False
    try:
        cluster = OwnCluster(directory)
        try:
            yield cluster
        finally:
            cluster.stop()
    except Exception:  # whatever it was, somebody will look for its cause
        is_of_use = True
        print(f"The data and the logs of the nodes are left in {directory}", file=sys.stderr)
        raise
    finally:
        if not is_of_use:
            shutil.rmtree(directory, ignore_errors=True)
