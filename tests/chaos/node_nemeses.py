"""What harms one node: its processes, its Redis, its disk, its clock.

What it is: a `Nemesis` (nemeses.py) each.

What it assumes and guarantees: no two of those for processes, Redis and disk strike one node at
once; each begins with a node that is well, and leaves one.

What it does not know: what else is broken meanwhile.

Where the idea is from: the process, file system and clock nemeses of Jepsen.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from app.local_nodes import HOST
from tests.chaos.place import Place
from tests.chaos.plan import Strike
from tests.processes import alive, until

_FILLER = "filler"


class Kill:
    """Processes are killed with SIGKILL, and others come in their place."""

    def __init__(self, place: Place, what: str) -> None:
        self._place = place
        self._what = what
        self._killed: list[int] = []

    async def strike(self) -> None:
        await until(self._pids)
        self._killed = self._pids()
        for pid in self._killed:
            os.kill(pid, signal.SIGKILL)

    async def proof(self) -> str:
        new = [pid for pid in self._pids() if pid not in self._killed]
        if len(new) < len(self._killed) or any(map(alive, self._killed)):
            return ""
        return f"{_listed(self._killed)} gone, {_listed(new)} in their place"

    async def heal(self) -> None:
        await self._place.until_ready()

    def _pids(self) -> list[int]:
        nodes, node = self._place.nodes, self._place.node
        if self._what == "worker":
            return nodes.worker_pids(node)
        redis = nodes.redis_pid(node)
        return [] if redis is None else [redis]


class End:
    """A node ends, and is started again later.

    It is killed with SIGKILL, its Redis too; or its supervisor alone is, whose workers then end by
    themselves and whose Redis does not; or it is told to stop.
    """

    def __init__(self, place: Place, how: str) -> None:
        self._place = place
        self._how = how
        self._ended: list[int] = []
        self._left: list[int] = []

    async def strike(self) -> None:
        nodes, node = self._place.nodes, self._place.node
        await until(lambda: nodes.worker_pids(node) and nodes.redis_pid(node))
        supervisor, redis = nodes.pid(node), nodes.redis_pid(node)
        assert supervisor is not None and redis is not None
        self._ended = [supervisor, *nodes.worker_pids(node)]
        match self._how:
            case "kill-supervisor":
                os.kill(supervisor, signal.SIGKILL)
                await nodes.wait(node)
                self._left = [redis]
            case "kill-node":
                await nodes.kill(node)
                self._ended.append(redis)
            case _:
                await nodes.stop(node)
                self._ended.append(redis)

    async def proof(self) -> str:
        if any(map(alive, self._ended)) or not all(map(alive, self._left)):
            return ""
        try:
            _, writer = await asyncio.open_connection(HOST, self._place.port)
        except ConnectionRefusedError:
            left = f", redis-server {_listed(self._left)} is left" if self._left else ""
            return f"{_listed(self._ended)} gone, port {self._place.port} refuses{left}"
        except ConnectionError:  # it was still in the queue of a port that closed: look again
            return ""
        writer.close()
        return ""

    async def heal(self) -> None:
        await self._place.nodes.start(self._place.node)


class Pause:
    """Processes stand still with SIGSTOP, and go on with SIGCONT as if nothing had been.

    Of Redis this is what DEBUG SLEEP does, and works where that is not allowed.
    """

    def __init__(self, place: Place, what: str) -> None:
        self._place = place
        self._what = what
        self._paused: list[int] = []

    async def strike(self) -> None:
        nodes, node = self._place.nodes, self._place.node
        await until(lambda: nodes.worker_pids(node) and nodes.redis_pid(node))
        redis = nodes.redis_pid(node)
        self._paused = nodes.worker_pids(node) if self._what == "worker" else [redis or 0]
        for pid in self._paused:
            os.kill(pid, signal.SIGSTOP)

    async def proof(self) -> str:
        if not all(_state(pid) == "T" for pid in self._paused):
            return ""
        if not (told := await self._place.says()):
            return ""
        return f"{_listed(self._paused)} in state T, a write is told {told}"

    async def heal(self) -> None:
        for pid in self._paused:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await self._place.until_ready()


class FullMemory:
    """Redis has no memory left, and refuses what would take some."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def strike(self) -> None:
        async with self._place.redis() as redis:
            await redis.config_set("maxmemory", 1)

    async def proof(self) -> str:
        told = await self._place.says()
        return f"a write is told {told}" if told else ""

    async def heal(self) -> None:
        async with self._place.redis() as redis:
            await redis.config_set("maxmemory", 0)
        await until(self._writes)

    async def _writes(self) -> bool:
        return not await self._place.says()


class FullDisk:
    """The disk of a node is full to the last byte.

    Redis 6.2 and 7 end when they cannot write their append-only file with `appendfsync always`,
    and so does each that is started in their place, until there is room.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._filler = place.directory / _FILLER
        self._redis: int | None = None

    async def strike(self) -> None:
        nodes, node = self._place.nodes, self._place.node
        await until(lambda: nodes.redis_pid(node))
        self._redis = nodes.redis_pid(node)
        await asyncio.to_thread(_fill, self._filler)

    async def proof(self) -> str:
        # Whatever was freed meanwhile, by a file that was put in another's place, is filled too.
        await asyncio.to_thread(_fill, self._filler)
        told = await self._place.says()
        free = os.statvfs(self._place.directory).f_bfree
        if not told or self._redis is None or alive(self._redis):
            return ""
        return f"{free} blocks free, redis-server {self._redis} gone, a write is told {told}"

    async def heal(self) -> None:
        self._filler.unlink(missing_ok=True)
        await until(self._writes)

    async def _writes(self) -> bool:
        return not await self._place.says()


class ClockJump:
    """The wall clock of a node jumps, and jumps back later."""

    def __init__(self, places: Mapping[str, Place], strike: Strike) -> None:
        self._place = places[strike.node]
        self._others = [place for node, place in places.items() if node != strike.node]
        self._by_s = strike.amount

    async def strike(self) -> None:
        self._place.nodes.set_clock(self._by_s)

    async def proof(self) -> str:
        # What peers say may be of the jump before.
        if not await self._is_off():
            return ""
        for other in self._others:
            skew_s = await self._skew_s(other)
            if skew_s is not None and skew_s / self._by_s > 0.5:
                return f"{other.node} sees the clock of {self._place.node} {skew_s:+.1f} s off"
        return ""

    async def heal(self) -> None:
        self._place.nodes.set_clock(0)
        await until(self._is_right)

    async def _is_off(self) -> bool | None:
        """Whether the node's clock is, by itself; None while it says nothing."""
        off_s = await self._place.clock_off_s()
        return None if off_s is None else off_s / self._by_s > 0.5

    async def _is_right(self) -> bool:
        """The node's clock is, by itself, and by whoever reaches it: all may be cut off from it."""
        skews_s = [await self._skew_s(other) for other in self._others]
        is_seen_off = any(s is not None and abs(s / self._by_s) > 0.5 for s in skews_s)
        return not is_seen_off and await self._is_off() is False

    async def _skew_s(self, other: Place) -> float | None:
        peers = await other.peers()
        about = peers.get(self._place.node)
        if about is None or not about["reachable"] or about["skew_ms"] is None:
            return None
        return about["skew_ms"] / 1000


def _fill(path: Path) -> None:
    """No byte is left on the disk where `path` is."""
    with path.open("ab", buffering=0) as filler:
        for size in (1024 * 1024, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(size))


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _listed(pids: list[int]) -> str:
    return " ".join(map(str, pids))
