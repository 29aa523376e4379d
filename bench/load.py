"""Load on one port, made by a process of its own, and what came of it.

What it is: `saturate`, as much as there can be, and `pace`, so many requests a second.

What it assumes and guarantees: wrk, where it is to be used, is on the PATH. `pace` is always by the
generator of ours, for wrk cannot. A generator that fails is an error, never a figure.

What it does not know: who is asked what.
"""

import asyncio
import json
import resource
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from app.errors import StartupError
from app.local_nodes import HOST
from bench.samples import Answered

Tool = Literal["wrk", "ours"]
#: Beyond the time of the load itself: what a generator needs to start, and its own patience.
_GRACE_S: Final = 30.0
_SLOWEST_RATE: Final = 200
"""Requests a second that anybody here can answer."""
_SCRIPT: Final = Path(__file__).with_name("load.lua")


class LoadFailed(StartupError):
    """A load generator did not do what it was told to."""


@dataclass(frozen=True, slots=True)
class Loads:
    """How load is made: by what, on how many connections, and whether each is a session."""

    tool: Tool
    connections: int
    sessions: bool = False

    async def saturate(self, requests: Path, port: int, seconds: float) -> Answered:
        """All connections were busy for so long. With wrk, whole seconds. Raises LoadFailed."""
        if self.tool == "ours":
            return await self._ours(requests, port, seconds)
        told, cpu_s = await _run(
            seconds,
            *("wrk", "--threads", "1", "--connections", str(self.connections)),
            *("--duration", f"{round(seconds)}s", "--script", str(_SCRIPT)),
            *(f"http://{HOST}:{port}", "--", str(requests)),
        )
        return Answered(**told, cpu_s=cpu_s)

    async def pace(self, requests: Path, port: int, seconds: float, rate: float) -> Answered:
        """So many requests a second were sent for so long. Raises LoadFailed."""
        return await self._ours(requests, port, seconds, "--rate", str(rate))

    async def once(self, requests: Path, port: int, most: int) -> Answered:
        """The first so many of the requests were done. Raises LoadFailed."""
        seconds = _GRACE_S + most / _SLOWEST_RATE
        done = await self._ours(requests, port, seconds, "--most", str(most))
        if done.errors or done.requests < most:
            refused = f"{done.errors} of {done.requests} requests failed"
            raise LoadFailed(f"{most} requests were to be done in {seconds:.0f} s; {refused}.")
        return done

    async def _ours(self, requests: Path, port: int, seconds: float, *more: str) -> Answered:
        told, _ = await _run(
            seconds,
            *(sys.executable, "-m", "bench.generator", str(requests), "--port", str(port)),
            *("--connections", str(self.connections), "--seconds", str(seconds), *more),
            *(["--sessions"] if self.sessions else []),
        )
        return Answered(**told)


def default_tool() -> Tool:
    """wrk, where it is installed."""
    return "wrk" if shutil.which("wrk") else "ours"


async def _run(seconds: float, *command: str) -> tuple[dict[str, Any], float]:
    """What the generator told in its last line, and its CPU time."""
    before = children_cpu_s()
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds + _GRACE_S):
            output, errors = await process.communicate()
    except TimeoutError:
        raise LoadFailed(f"{command[0]} did not end in {seconds + _GRACE_S:.0f} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        if process.returncode:
            raise ValueError
        told = json.loads(output.decode().strip().rpartition("\n")[2])
    except ValueError:
        said = (errors or output).decode(errors="replace").strip()[-1000:]
        raise LoadFailed(f"The load generator failed: {' '.join(command)}\n{said}") from None
    if not told["requests"]:
        raise LoadFailed(f"The load generator had no answer: {' '.join(command)}")
    return told, children_cpu_s() - before


def children_cpu_s() -> float:
    """The CPU time of processes that this one started, and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
