"""What the tests of real processes need: waiting for a condition, and whether a process lives."""

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from client import Lightcone, NotApplied

#: Far more than anything here takes, for a machine that is busy with something else.
DEADLINE_S = 40.0
POLL_S = 0.01
#: For nodes whose logs are looked at in the end: nothing is trimmed.
WHOLE_LOGS = {"LOG_MIN_ENTRIES": "1000000"}


async def until(
    condition: Callable[[], object | Awaitable[object]], deadline_s: float = DEADLINE_S
) -> None:
    """The condition holds. Fails with the condition's source when it does not come to hold."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + deadline_s
    while True:
        result = condition()
        if await result if inspect.isawaitable(result) else result:
            return
        if loop.time() > give_up:
            raise AssertionError(f"never came true: {inspect.getsource(condition).strip()}")
        await asyncio.sleep(POLL_S)


async def until_equal_clocks(urls: Mapping[str, str]) -> dict[str, int]:
    """All nodes have applied the same writes, and none waits. Returns their clock."""
    clock: dict[str, int] = {}

    async def equal() -> bool:
        nonlocal clock
        try:
            seen = [await kv.status(url) for url in urls.values()]
        except NotApplied:  # a node or its Redis was killed, and comes up
            return False
        clock = seen[0]["clock"]
        waiting = sum(node["pending"]["total"] for node in seen)
        return not waiting and all(node["clock"] == clock for node in seen)

    async with Lightcone(list(urls.values())) as kv:
        await until(equal)
    return clock


def alive(pid: int) -> bool:
    """Whether the process runs. One that has ended but that nobody has asked about does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not Path("/proc/self").exists()
