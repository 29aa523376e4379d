"""A proxy that counts what passes. What it does not know: what passes."""

import asyncio

from bench.proxy import Proxy

_CHUNK_BYTES = 256 * 1024


class CountingProxy(Proxy):
    """How many bytes passed either way."""

    def __init__(self, port: int, target_port: int) -> None:
        super().__init__(port, target_port)
        self.sent = 0
        """Bytes from whoever connected."""
        self.answered = 0
        """Bytes back to them."""

    async def pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        """All that the reader gives has been counted and written."""
        while chunk := await reader.read(_CHUNK_BYTES):
            if is_answer:
                self.answered += len(chunk)
            else:
                self.sent += len(chunk)
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
