"""One Redis for one test: a real server with any settings, or a small one that fails as it is told.

What it assumes and guarantees: it ends with the test, and leaves nothing.

What it does not know: what is asked of it.
"""

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from app import redis_link
from app.redis_program import find_redis_server

LONG_MS = 30_000
SHORT_MS = 50
HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"
HANDSHAKE = {b"HELLO", b"CLIENT", b"SELECT", b"AUTH"}

Then = Callable[[asyncio.StreamWriter], Awaitable[None]]


# --- real servers --------------------------------------------------------------------------------


@contextmanager
def redis_server(*arguments: str, at: Path | None = None) -> Iterator[str]:
    """A redis-server with these settings, for one test; the URL of its socket, which is `at`."""
    directory = Path(tempfile.mkdtemp(prefix="lightcone-"))
    path = at or directory / "redis.sock"
    command = [str(find_redis_server().path), "--port", "0", "--unixsocket", str(path)]
    process = subprocess.Popen(
        [*command, "--save", "", *arguments], cwd=directory, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while not _answers(path):
            assert process.poll() is None, "redis-server ended while it started"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)
        yield f"unix://{path}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _answers(path: Path) -> bool:
    with BlockingRedis(unix_socket_path=str(path), retry=Retry(NoBackoff(), 0)) as redis:
        try:
            redis.ping()
        except AuthenticationError:
            return True
        except RedisConnectionError:
            return False
        return True


@asynccontextmanager
async def connected(url: str, timeout_ms: int = LONG_MS) -> AsyncIterator[Redis]:
    """The node's way to the Redis at `url`."""
    redis = redis_link.connect(url, timeout_ms)
    try:
        yield redis
    finally:
        await redis.aclose()


# --- a server that does as it is told ------------------------------------------------------------


class FakeServer:
    """A Redis that greets as it should, counts commands, and answers each as the test says."""

    def __init__(self) -> None:
        self.commands: list[list[bytes]] = []
        self.greetings = 0
        self.greets = True
        self.then: Then = say(b"+OK\r\n")
        self.url = ""
        self.is_serving = 0
        """So many connections."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.is_serving += 1
        try:
            while command := await _command(reader):
                if command[0].upper() not in HANDSHAKE:
                    self.commands.append(command)
                    await self.then(writer)
                elif not self.greets:
                    self.greetings += 1
                    await self.then(writer)
                elif command[0].upper() == b"HELLO":
                    self.greetings += 1
                    writer.write(HELLO)
                else:
                    writer.write(b"+OK\r\n")
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.is_serving -= 1


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    head = await reader.readline()
    items = []
    for _ in range(int(head[1:] or 0)):
        size = int((await reader.readline())[1:])
        items.append((await reader.readexactly(size + 2))[:-2])
    return items


@asynccontextmanager
async def fake_server() -> AsyncIterator[FakeServer]:
    """Such a server, which can be reached."""
    fake = FakeServer()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    fake.url = f"redis://{host}:{port}/3"
    yield fake
    server.close()


def say(answer: bytes) -> Then:
    async def then(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return then


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def say_nothing(_writer: asyncio.StreamWriter) -> None:
    return
