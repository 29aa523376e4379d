"""One node, as a nemesis sees it: processes, port, Redis, and what clients are told there.

What it is: `Place`, through which nemeses look at a node.

What it assumes and guarantees: it only looks. What it writes, to see whether the node takes writes,
is recorded like the writes of any client, under a key of its own.

What it does not know: what is being done to the node.
"""

import itertools
from urllib.parse import urlsplit

from redis.asyncio import Redis

from app.local_cluster import HOST
from app.server import is_ready
from client import Lightcone, LightconeError, PeerStatus
from tests.chaos.nodes import ChaosNodes
from tests.processes import until

#: How long to wait for a node that may be dead.
GLANCE_S = 1.0


class Place:
    """A node, as a nemesis sees it: processes, port, Redis, and what clients are told."""

    def __init__(self, nodes: ChaosNodes, kv: Lightcone, node: str) -> None:
        self.nodes = nodes
        self.node = node
        self.directory = nodes.data_dir / node
        self.port = int(urlsplit(nodes.urls[node]).port or 0)
        probing = kv.session(name=f"nemesis-{node}", timeout_s=GLANCE_S, patience_s=0)
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
