"""What harms a cluster, undoes the harm, and shows that there was some.

What it is: a `Nemesis` for each name in `plan.NEMESES`, made by `nemesis_for`.

What it assumes and guarantees: after `strike` something is broken, and after `heal` it is well
again and that was seen. `proof` says in a line what shows, at this moment, that the harm was
really there: what was observed of processes, sockets and answers, never what was ordered. It is
empty for as long as nothing shows it.

What it does not know: when it strikes, what else is broken meanwhile, and what should come of it.

Where the idea is from: the nemeses of Jepsen; that a test of faults has to show its faults is from
everybody who found, years later, that theirs had never been injected.
"""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from redis.asyncio import Redis

from app.local_cluster import HOST
from app.server import is_ready
from client import Lightcone, LightconeError, PeerStatus
from tests.chaos.nodes import ChaosNodes
from tests.chaos.plan import NEMESES, Strike, Wire
from tests.processes import alive, until

#: What each nemesis does, for people.
MEANING = {
    "kill-worker": "kill -9 of all workers of a node; the supervisor replaces them",
    "kill-redis": "kill -9 of a node's redis-server; the supervisor starts another",
    "kill-node": "kill -9 of a whole node, Redis too; it is started again later",
    "kill-supervisor": "kill -9 of a node's supervisor; its Redis is left, and found at the start",
    "stop-node": "SIGTERM to a node, as for an upgrade; it is started again later",
    "pause-worker": "SIGSTOP of all workers of a node, and SIGCONT later",
    "pause-redis": "SIGSTOP of a node's redis-server, and SIGCONT later",
    "full-memory": "a node's Redis has no memory left and refuses writes",
    "full-disk": "a node's disk is full, so that its Redis ends, again and again",
    "isolate": "one node is cut off from all others",
    "one-way": "what one node sends to one other is held back",
    "bridge": "the cluster is parted in two, and one node reaches both sides",
    "halves": "the cluster is parted in two",
    "delay": "what goes between two nodes takes longer",
    "clock-jump": "the wall clock of a node and of its Redis jumps, and back",
}

_GLANCE_S = 1.0
_FILLER = "filler"


class Nemesis(Protocol):
    """Harm of one kind, at one place."""

    async def strike(self) -> None:
        """Something is broken."""

    async def proof(self) -> str:
        """What shows that it is, or was; empty while nothing does."""

    async def heal(self) -> None:
        """It is well again."""


class Place:
    """A node, as a nemesis sees it: processes, port, Redis, and what clients are told."""

    def __init__(self, nodes: ChaosNodes, kv: Lightcone, node: str) -> None:
        self.nodes = nodes
        self.node = node
        self.directory = nodes.data_dir / node
        self.port = int(urlsplit(nodes.urls[node]).port or 0)
        probing = kv.session(name=f"nemesis-{node}", timeout_s=_GLANCE_S, patience_s=0)
        self._session = probing.at(nodes.urls[node])
        self._numbers = itertools.count()

    async def until_ready(self) -> None:
        """The node serves."""
        await until(lambda: is_ready(HOST, self.port))

    async def says(self) -> str:
        """What a client that writes here now is told: empty when the write is acknowledged."""
        try:
            await self._session.put(probe_key(self.node), f"probe.{next(self._numbers)}")
        except LightconeError as error:
            kind = f" {error.kind}" if error.kind else ""
            return f"{type(error).__name__}{kind}"
        return ""

    async def peers(self) -> dict[str, PeerStatus]:
        """What the node says of its peers; nothing while it says nothing."""
        try:
            return (await self._session.status())["peers"]
        except LightconeError:
            return {}

    def redis(self) -> Redis:
        """A connection to the node's Redis, for an operator."""
        return Redis(unix_socket_path=str(self.nodes.socket(self.node)))


def probe_key(node: str) -> str:
    """What is written to see whether the node takes writes."""
    return f"probe/{node}"


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


class Cut:
    """Nodes do not reach each other, for the wires between them are cut."""

    def __init__(self, places: dict[str, Place], strike: Strike) -> None:
        self._places = places
        self._wires = strike.wires
        self._refuses = strike.refuses
        any_place = next(iter(places.values()))
        self._network = any_place.nodes.network
        self._held: dict[Wire, int] = {}

    async def strike(self) -> None:
        self._held = {wire: self._network.wires[wire].held for wire in self._wires}
        await self._network.cut(self._wires, refuses=self._refuses)

    async def proof(self) -> str:
        """Every node says that it lacks every other, and every wire has held or refused something.

        A wire carries requests and answers, so it parts both nodes from each other.
        """
        shown = []
        for source, target in dict.fromkeys(_both(self._wires)):
            peers = await self._places[source].peers()
            if target not in peers or peers[target]["reachable"]:
                return ""
            shown.append(f"{source} lacks {target}")
        for wire in self._wires:
            if not (what := await self._stopped(wire)):
                return ""
            shown.append(what)
        return ", ".join(shown)

    async def heal(self) -> None:
        await self._network.mend(self._wires, refuses=self._refuses)

    async def _stopped(self, wire: Wire) -> str:
        source, target = wire
        if self._refuses:
            try:
                await self._network.exchange_s(source, target, _GLANCE_S)
            except ConnectionRefusedError:
                return f"{source}>{target} refuses"
            except (OSError, TimeoutError):
                pass
            return ""
        held = self._network.wires[wire].held - self._held[wire]
        return f"{source}>{target} held {held}" if held else ""


class Delay:
    """What is sent between two nodes takes longer."""

    def __init__(self, places: dict[str, Place], strike: Strike) -> None:
        any_place = next(iter(places.values()))
        self._network = any_place.nodes.network
        self._wires = strike.wires
        self._by_s = strike.amount / 1000

    async def strike(self) -> None:
        self._add(self._by_s)

    async def proof(self) -> str:
        """A request along the first wire took as long as it should: there and back, at least."""
        source, target = self._wires[0]
        wires = self._network.wires
        least_s = wires[source, target].delay_s + wires[target, source].delay_s
        try:
            took_s = await self._network.exchange_s(source, target, least_s + _GLANCE_S)
        except (OSError, TimeoutError):
            return ""
        # A timer may be early by a tick.
        if took_s < 0.95 * least_s:
            return ""
        return f"{source} to {target} and back takes {1000 * took_s:.0f} ms"

    async def heal(self) -> None:
        self._add(-self._by_s)

    def _add(self, by_s: float) -> None:
        for wire in self._wires:
            self._network.wires[wire].delay_s += by_s


class ClockJump:
    """The wall clock of a node jumps, and jumps back later."""

    def __init__(self, places: dict[str, Place], strike: Strike) -> None:
        self._place = places[strike.node]
        self._others = [place for node, place in places.items() if node != strike.node]
        self._by_s = strike.amount

    async def strike(self) -> None:
        self._place.nodes.set_clock(self._by_s)

    async def proof(self) -> str:
        for other in self._others:
            skew_s = await self._skew_s(other)
            if skew_s is not None and skew_s / self._by_s > 0.5:
                return f"{other.node} sees the clock of {self._place.node} {skew_s:+.1f} s off"
        return ""

    async def heal(self) -> None:
        self._place.nodes.set_clock(0)
        await until(self._is_right)

    async def _is_right(self) -> bool:
        skews_s = [await self._skew_s(other) for other in self._others]
        return any(skew_s is not None and abs(skew_s / self._by_s) < 0.5 for skew_s in skews_s)

    async def _skew_s(self, other: Place) -> float | None:
        peers = await other.peers()
        about = peers.get(self._place.node)
        if about is None or not about["reachable"] or about["skew_ms"] is None:
            return None
        return about["skew_ms"] / 1000


def nemesis_for(strike: Strike, places: dict[str, Place]) -> Nemesis:
    """What carries out the strike."""
    assert strike.nemesis in NEMESES
    kind, _, what = strike.nemesis.partition("-")
    match kind, what:
        case ("kill", "node" | "supervisor") | ("stop", _):
            return End(places[strike.node], strike.nemesis)
        case "kill", _:
            return Kill(places[strike.node], what)
        case "pause", _:
            return Pause(places[strike.node], what)
        case "full", "memory":
            return FullMemory(places[strike.node])
        case "full", _:
            return FullDisk(places[strike.node])
        case "clock", _:
            return ClockJump(places, strike)
        case "delay", _:
            return Delay(places, strike)
        case _:
            return Cut(places, strike)


def _both(wires: tuple[Wire, ...]) -> Iterator[Wire]:
    for source, target in wires:
        yield source, target
        yield target, source


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
