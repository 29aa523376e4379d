"""Nodes on this machine whose links take as long as links between sites do.

What it is: `DelayedLinks`, a TCP proxy for each direction in which a node asks another, and
`DelayedCluster`, nodes that reach each other by these.

What it assumes and guarantees: bytes pass in order and unchanged, none sooner than its delay after
it came, and up to a millisecond later, for so coarse is the loop's timer. A delay holds for what
comes after it was set. To open a connection takes no time here: nodes keep theirs.

What it does not know: what passes.
"""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from app.local_nodes import HOST, LocalCluster, free_ports
from bench.proxy import Proxy

_CHUNK_BYTES: Final = 65536
_UNDER_WAY_MAX: Final = 1024
"""Chunks under way on one connection each way; who sends waits when there are more."""


class Wire:
    """What passes between two nodes, either way."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        """One way."""


class DelayingProxy(Proxy):
    """All that passes takes as long as on its wire."""

    def __init__(self, port: int, target_port: int, wire: Wire) -> None:
        super().__init__(port, target_port)
        self._wire = wire

    async def pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        """All that the reader gives has been written, each chunk when it is due."""
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDER_WAY_MAX)

        async def read() -> None:
            chunk = b"begin"
            while chunk:
                chunk = await reader.read(_CHUNK_BYTES)
                await under_way.put((loop.time() + self._wire.delay_s, chunk))

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            while True:
                due, chunk = await under_way.get()
                if (pause_s := due - loop.time()) > 0:
                    await asyncio.sleep(pause_s)
                if not chunk:
                    break
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()


class DelayedLinks:
    """All links between some nodes; `async with` opens and shuts them."""

    def __init__(self, nodes: Sequence[str], ports: Mapping[str, int], own: Sequence[int]) -> None:
        """`ports` are those of the nodes. `own`, one for each ordered pair, are free."""
        self._wires = {frozenset(pair): Wire() for pair in itertools.combinations(nodes, 2)}
        self._ports = dict(zip(itertools.permutations(nodes, 2), own, strict=True))
        self._proxies = [
            DelayingProxy(port, ports[target], self._wires[frozenset((source, target))])
            for (source, target), port in self._ports.items()
        ]

    async def __aenter__(self) -> Self:
        """All links pass what comes, at once."""
        for proxy in self._proxies:
            await proxy.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        for proxy in self._proxies:
            await proxy.shut()

    def set(self, one: str, other: str, delay_ms: float) -> None:
        """What passes between these two takes so long from now on, one way."""
        self._wires[frozenset((one, other))].delay_s = delay_ms / 1000

    def url(self, source: str, target: str) -> str:
        """Where the source finds the target."""
        return f"http://{HOST}:{self._ports[source, target]}"


class DelayedCluster(LocalCluster):
    """Nodes that reach each other by delayed links, which are open as long as they run."""

    def __init__(self, data_dir: Path, nodes: int, env: Mapping[str, str]) -> None:
        free = free_ports(nodes * nodes)
        super().__init__(data_dir, nodes=nodes, ports=free[:nodes], env=env)
        ports = dict(zip(self.names, free[:nodes], strict=True))
        self.links = DelayedLinks(self.names, ports, free[nodes:])

    async def __aenter__(self) -> Self:
        """All nodes are ready, or none runs. Raises StartupError."""
        await self.links.__aenter__()
        try:
            return await super().__aenter__()
        except BaseException:  # also Ctrl-C: no port may be left open
            await self.links.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        await self.links.__aexit__()

    def environment(self, node: str) -> dict[str, str]:
        """What the node's process is given as its environment."""
        peers = (f"{name}={self.links.url(node, name)}" for name in self.names if name != node)
        return {**super().environment(node), "PEERS": ",".join(peers)}
