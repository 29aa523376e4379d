"""A TCP proxy in front of a port of this machine.

What it assumes and guarantees: bytes pass in order and unchanged, as `pump` has it; while it is
shut, connections are refused and broken off. What it does not know: what passes, and what becomes
of it on the way.
"""

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Self

from app.local_nodes import HOST


class Proxy(ABC):
    """A port in front of another."""

    def __init__(self, port: int, target_port: int) -> None:
        self._port = port
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shut()

    @abstractmethod
    async def pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        """All that the reader gives has been written, and that there is no more."""

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
                    group.create_task(self.pump(reader, far_writer, is_answer=False))
                    group.create_task(self.pump(far_reader, writer, is_answer=True))
            except* OSError:
                pass
            finally:
                far_writer.transport.abort()
        writer.transport.abort()
        self._connections.discard(task)
