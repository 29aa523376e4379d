"""The network between nodes: a TCP proxy a link, so that real connections are cut and slowed down.

What it is: `Network`, with a `Wire` for each direction between two nodes and a `_Link` for what one
node asks another: requests go along one wire, answers come back along the other.

What it assumes and guarantees: nodes reach each other by these links alone. Bytes pass in order and
unchanged. On a cut wire they are held, and arrive when it is mended, even from a sender who has
given up on them: so it is with real networks, and so batches come late and twice. A cut has
happened only when something was held by it or refused; `Wire` counts that, and is never told.

What it does not know: HTTP, and what nodes say to each other.

Where the idea is from: Toxiproxy.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from app.local_nodes import HOST, free_ports

_CHUNK_BYTES = 65536
#: Chunks under way on one wire of one connection; the sender waits when there are more.
_UNDER_WAY_MAX = 64


class Wire:
    """What one node sends to another."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        #: Chunks that met a cut.
        self.held = 0
        self._cuts = 0
        self._is_whole = asyncio.Event()
        self._is_whole.set()

    @property
    def is_cut(self) -> bool:
        """Whether nothing passes."""
        return not self._is_whole.is_set()

    def cut(self) -> None:
        """Nothing passes, until it has been mended as often as it was cut."""
        self._cuts += 1
        self._is_whole.clear()

    def mend(self) -> None:
        """One cut less."""
        self._cuts -= 1
        if not self._cuts:
            self._is_whole.set()

    async def passes(self) -> None:
        """Something is through."""
        if self.is_cut:
            self.held += 1
            await self._is_whole.wait()


class _Link:
    """A port at which one node finds another."""

    def __init__(self, port: int, target: tuple[str, int], forth: Wire, back: Wire) -> None:
        self.port = port
        self._target = target
        self._wires = forth, back
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._refusals = 0

    async def open(self) -> None:
        """Connections are taken."""
        self._server = await asyncio.start_server(self._accepted, HOST, self.port)

    async def close(self) -> None:
        """Connections are refused, and those that were open are broken off."""
        if self._server is not None:
            self._server.close()
            self._server = None
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    @property
    def refuses(self) -> bool:
        """Whether connections are refused."""
        return self._server is None

    async def refuse(self) -> None:
        """Connections are refused, until `accept` was called as often."""
        self._refusals += 1
        if self._refusals == 1:
            await self.close()

    async def accept(self) -> None:
        """One reason less to refuse connections."""
        self._refusals -= 1
        if not self._refusals:
            await self.open()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._connect(reader, writer)
        except asyncio.CancelledError:
            pass  # by `close`; to hand it on would only make the server complain
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        forth, back = self._wires
        await forth.passes()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            return
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pump(reader, far_writer, forth))
                pumps.create_task(_pump(far_reader, writer, back))
        finally:
            far_writer.transport.abort()


class Network:
    """All links and wires between some nodes, from `open` to `close`."""

    def __init__(self, nodes: Mapping[str, str]) -> None:
        """`nodes` are the real addresses by name. Nothing listens yet."""
        pairs = list(itertools.permutations(nodes, 2))
        targets = {node: _host_and_port(url) for node, url in nodes.items()}
        # The ports of the nodes may be free still.
        taken = {port for _, port in targets.values()}
        ports = (port for port in free_ports(len(pairs) + len(taken)) if port not in taken)
        self.wires = {pair: Wire() for pair in pairs}
        self._links = {
            (source, target): _Link(
                next(ports),
                targets[target],
                self.wires[source, target],
                self.wires[target, source],
            )
            for source, target in pairs
        }

    def url(self, source: str, target: str) -> str:
        """Where the source finds the target."""
        return f"http://{HOST}:{self._links[source, target].port}"

    async def open(self) -> None:
        """All links take connections."""
        for link in self._links.values():
            await link.open()

    async def close(self) -> None:
        """Nothing listens, and nothing is under way."""
        await asyncio.gather(*(link.close() for link in self._links.values()))

    async def cut(self, wires: Iterable[tuple[str, str]], *, refuses: bool = False) -> None:
        """Nothing passes along these wires. With `refuses`, their links refuse connections too."""
        for wire in wires:
            self.wires[wire].cut()
            if refuses:
                await self._links[wire].refuse()

    async def mend(self, wires: Iterable[tuple[str, str]], *, refuses: bool = False) -> None:
        """The cut that was made with the same arguments is undone."""
        for wire in wires:
            self.wires[wire].mend()
            if refuses:
                await self._links[wire].accept()

    def refuses(self, source: str, target: str) -> bool:
        """Whether the source is refused connections to the target."""
        return self._links[source, target].refuses

    async def exchange_s(self, source: str, target: str, max_s: float) -> float:
        """How long a request from the source to the target took. Raises OSError, TimeoutError."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with asyncio.timeout(max_s):
            reader, writer = await asyncio.open_connection(HOST, self._links[source, target].port)
            try:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
                if not await reader.readline():
                    raise ConnectionResetError("it broke off")
            finally:
                writer.close()
        return loop.time() - started


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire) -> None:
    """All that the reader gives has been written, and then the end of it."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDER_WAY_MAX)

    async def read() -> None:
        chunk = b"begin"
        while chunk:
            try:
                chunk = await reader.read(_CHUNK_BYTES)
            except OSError:
                chunk = b""  # it was broken off: for the other end that is the end
            await under_way.put((loop.time() + wire.delay_s, chunk))

    reading = asyncio.create_task(read())
    try:
        while True:
            due, chunk = await under_way.get()
            await asyncio.sleep(due - loop.time())
            await wire.passes()
            if not chunk:
                break
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        pass  # whoever was to have it is gone
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port
