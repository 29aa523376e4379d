"""One node, as a nemesis sees it: processes, port, Redis, and what clients are told there.

What it is: `Place`, through which nemeses look at a node.

What it assumes and guarantees: it only looks, changes members, and declares what is lost. What it
writes, to see whether the node takes writes, is recorded like the writes of any client, under a key
of its own.

What it does not know: what is being done to the node.
"""

import itertools
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import ClientTimeout
from redis.asyncio import Redis

from app.local_nodes import HOST
from app.server import is_ready
from client import Lightcone, LightconeError, PeerStatus, Session, Status
from client.shapes import Pending
from tests.chaos.logbook import Logbook, LogReader
from tests.chaos.nodes import ChaosNodes
from tests.contents import redis_contents, sequence_of
from tests.processes import until

#: How long to wait for a node that may be dead.
GLANCE_S = 1.0


class Place:
    """A node, as a nemesis sees it: processes, port, Redis, and what clients are told."""

    def __init__(self, nodes: ChaosNodes, kv: Lightcone, node: str, logbook: Logbook) -> None:
        self.nodes = nodes
        self.node = node
        self._logbook = logbook
        self.directory = nodes.data_dir / node
        self.url = nodes.urls[node]
        self.port = int(urlsplit(self.url).port or 0)
        #: The peers between which and the node no wire is severed.
        self.reaches = [
            peer for peer in nodes.names if peer != node and (node, peer) not in nodes.plan.severed
        ]
        session = kv.session(name=f"nemesis-{node}", timeout_s=GLANCE_S, patience_s=0)
        self._session = session.at(self.url)
        self._numbers = itertools.count()

    async def until_ready(self) -> None:
        """The node serves."""
        await until(lambda: is_ready(HOST, self.port))

    async def says(self) -> str:
        """What a client that writes here now is told: empty when the write is acknowledged."""
        try:
            await self._stranger().put(probe_key(self.node), f"probe.{next(self._numbers)}")
        except LightconeError as error:
            kind = f" {error.kind}" if error.kind else ""
            return f"{type(error).__name__}{kind}"
        return ""

    async def peers(self) -> dict[str, PeerStatus]:
        """What the node says of its peers; nothing while it says nothing."""
        status = await self.status()
        return {} if status is None else status["peers"]

    async def status(self) -> Status | None:
        """What the node says of itself; None while it says nothing."""
        try:
            return await self._session.status()
        except LightconeError:
            return None

    async def clock_off_s(self) -> float | None:
        """By how much the node's wall clock is ahead, within a second or two, as the date of an
        answer says; None while it says nothing."""
        timeout = ClientTimeout(total=GLANCE_S)
        try:
            async with aiohttp.request("GET", f"{self.url}/healthz", timeout=timeout) as response:
                dated = parsedate_to_datetime(response.headers["Date"])
        except (aiohttp.ClientError, TimeoutError):
            return None
        return dated.timestamp() - time.time()

    async def remove_member(self, node: str) -> None:
        """`node` is no member any more, by a change that is made here. Raises LightconeError."""
        await self._stranger().remove_member(node)

    async def add_member(self, node: str, url: str) -> None:
        """`node` is a member, by a change that is made here. Raises LightconeError."""
        await self._stranger().add_member(node, url)

    async def waiting(self) -> Pending | None:
        """What waits at the node, as far as it shows that; None while it says nothing."""
        try:
            return await self._session.pending()
        except LightconeError:
            return None

    async def declare_lost(self, dot: str) -> None:
        """Nothing waits for this write any more. Raises LightconeError."""
        await self._stranger().declare_lost([dot])

    async def given(self, lane: str) -> int:
        """The last sequence that the lane has given. Raises RedisError."""
        # In this order: what stops waiting meanwhile is in the clock by then.
        waiting = (await self.lanes()).get(lane, 0)
        return max(waiting, (await self.clock()).get(lane, 0))

    async def lanes(self) -> dict[str, int]:
        """The lanes in which something waits, or has, and the last sequence that each has given.

        Raises RedisError.
        """
        held = await redis_contents(self.nodes.socket(self.node), "deferred")
        return {lane.decode(): int(s) for lane, s in held.get("deferred", {}).items()}

    async def clock(self) -> dict[str, int]:
        """What the node's Redis says has been applied there. Raises RedisError."""
        held = await redis_contents(self.nodes.socket(self.node), "clock")
        return {actor.decode(): int(s) for actor, s in held.get("clock", {}).items()}

    async def received(self) -> dict[str, int]:
        """The writes in the node's Redis, applied or waiting, per actor up to the first gap.

        Raises RedisError.
        """
        # In this order: what stops waiting meanwhile has been applied by then.
        pending = await redis_contents(self.nodes.socket(self.node), "pending:*")
        received = await self.clock()
        for key, waiting in pending.items():
            actor = key.removeprefix("pending:")
            while str(received.get(actor, 0) + 1).encode() in waiting:
                received[actor] = received.get(actor, 0) + 1
        return received

    async def log_begins(self) -> dict[str, int]:
        """Per actor the first sequence that the node's log of it has, or will have if it is empty.

        Raises RedisError.
        """
        # In this order: what is trimmed meanwhile only lets a log begin later.
        clock = await self.clock()
        async with self.redis() as redis:
            first: dict[str, Any] = {
                actor: await redis.xrange(f"log:{actor}", count=1) for actor in clock
            }
        return {
            actor: sequence_of(first[actor][0][0]) if first[actor] else sequence + 1
            for actor, sequence in clock.items()
        }

    async def keep_log(self) -> None:
        """What stands in the node's logs now is in the logbook. Raises RedisError."""
        await LogReader(self._logbook, self.node, self.nodes.socket(self.node)).read()

    async def timestamp(self) -> int:
        """When the newest write here was made: *now* is no less. Raises RedisError."""
        meta = await redis_contents(self.nodes.socket(self.node), "meta")
        return int(meta["meta"].get(b"timestamp", 0))

    async def birth(self) -> str:
        """The name of the data in the node's Redis, which no other Redis has. Raises RedisError."""
        meta = await redis_contents(self.nodes.socket(self.node), "meta")
        return str(meta["meta"][b"birth"].decode())

    def redis(self) -> Redis:
        """A connection to the node's Redis, for an operator."""
        return Redis(unix_socket_path=str(self.nodes.socket(self.node)))

    def _stranger(self) -> Session:
        """A client of the node that has seen nothing, and so misses nothing that is lost."""
        return self._session.session(name=self._session.name)


def probe_key(node: str) -> str:
    """What is written to see whether the node takes writes."""
    return f"probe/{node}"
