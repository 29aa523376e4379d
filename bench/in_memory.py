"""A worker whose clients are in its own process: `python -m bench.in_memory SERVER OPERATION
CONNECTIONS EACH REDIS_URL`.

So many connections, whose bytes come and go in memory, send so many requests each, one after the
other, to a node's worker (`alone`) or to aiohttp with fixed answers (`bare`). What the process does
is then what the worker does for them, and next to nothing else: for `bench/work.py`.

What it assumes and guarantees: the worker is put together as in production, before a real Redis.
Each request was answered well, or it ends with an error.

What it does not know: what is counted.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import uvloop
from aiohttp import web

from app import claim, http_server, log, node
from app.config import Config
from bench import bare
from bench.contenders import under_kv
from bench.planting import key_names
from bench.samples import Operation

_KEYS: Final = 256
_GOOD: Final = b"HTTP/1.1 200"

MakeProtocol = Callable[[], asyncio.Protocol]


@asynccontextmanager
async def alone(redis_url: str) -> AsyncIterator[MakeProtocol]:
    """A worker of a node without peers."""
    config = Config(node_id="A", redis_url=redis_url, fsync="trust")
    await claim.claim_redis(config)
    async with node.worker(config) as interface:
        _, connection = http_server.server_of(interface.answer, config.context_max_bytes)
        yield connection


@asynccontextmanager
async def fixed(redis_url: str) -> AsyncIterator[MakeProtocol]:
    """aiohttp's application, and nothing behind it."""
    runner = web.AppRunner(bare.application(), access_log=None)
    await runner.setup()
    try:
        assert runner.server is not None
        yield runner.server
    finally:
        await runner.cleanup()


SERVERS: Final = {"bare": fixed, "alone": alone}


class Client(asyncio.Transport):
    """The other end of one connection."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._answer: asyncio.Future[bytes] | None = None
        self._over = False
        protocol.connection_made(self)

    async def ask(self, request: bytes) -> None:
        """It was answered, and well. Raises RuntimeError."""
        self._answer = asyncio.get_running_loop().create_future()
        self._protocol.data_received(request)
        answer = await self._answer
        if not answer.startswith(_GOOD):
            raise RuntimeError(f"{request[:80]!r} was answered {answer[:200]!r}")

    def write(self, data: Any) -> None:
        """An answer, which each server here writes in one piece."""
        assert self._answer is not None
        if not self._answer.done():
            self._answer.set_result(bytes(data))

    def is_closing(self) -> bool:
        """Whether it is over."""
        return self._over

    def close(self) -> None:
        """It is over."""
        if not self._over:
            self._over = True
            self._protocol.connection_lost(None)


async def ask(make: MakeProtocol, requests: Sequence[bytes], connections: int, each: int) -> None:
    """So many connections have each sent so many of the requests, which they share, in turn."""

    async def one(first: int) -> None:
        client = Client(make())
        for number in range(first, first + each):
            await client.ask(requests[number % len(requests)])
        client.close()

    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(one(number * each))


async def run(
    server: str, operation: Operation, connections: int, each: int, redis_url: str
) -> None:
    """All keys were put once; then so many requests were made."""
    puts, requests = (
        [under_kv(one, key).encoded() for key in key_names(_KEYS)] for one in ("PUT", operation)
    )
    async with SERVERS[server](redis_url) as make:
        await ask(make, puts, 1, _KEYS)
        await ask(make, requests, connections, each)


def main(arguments: Sequence[str]) -> None:
    """As its command line says."""
    server, operation, connections, each, redis_url = arguments
    log.configure("warning", "text", node="A")
    asked = run(server, cast(Operation, operation), int(connections), int(each), redis_url)
    uvloop.run(asked)


if __name__ == "__main__":
    main(sys.argv[1:])
