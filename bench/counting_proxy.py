"""A TCP proxy that counts what passes, and can be shut.

What it assumes and guarantees: bytes pass in order and unchanged; while it is shut, connections are
refused and broken off. What it does not know: what passes.
"""

import asyncio
from contextlib import suppress

from app.local_nodes import HOST

_CHUNK_BYTES = 256 * 1024


class CountingProxy:
    """A port in front of another, on this machine."""

    def __init__(self, port: int, target_port: int) -> None:
        self._port = port
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.sent = 0
        """Bytes from whoever connected."""
        self.answered = 0
        """Bytes back to them."""

    async def open(self) -> None:
        """Connections are taken."""
        self._server = await asyncio.start_server(self._connected, HOST, self._port)

    async def shut(self) -> None:
        """Nothing passes."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        with suppress(OSError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, far_writer, "sent"))
                    group.create_task(self._pump(far_reader, writer, "answered"))
            except* OSError:
                pass
            finally:
                far_writer.transport.abort()
        writer.transport.abort()
        self._connections.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counter: str
    ) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            setattr(self, counter, getattr(self, counter) + len(chunk))
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
