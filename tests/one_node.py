"""One node for tests of what it answers: its real parts in this process, and peers that are not.

What it is: `node_a`, a worker of node A that serves HTTP, and a client of it.

What it assumes and guarantees: the Redis at the URL is the test's own. The node has the peers B and
C and reaches neither, so nothing happens that the test does not ask for. Whatever it answers is
such as the contract promises; else the test fails when it ends.

What it does not know: what the tests ask.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from app import node, wire
from app.config import Config
from app.peers import PeerUnreachable
from app.vector_clock import VectorClock
from app.wire import Answer, Batch
from app.write import Put, Write
from tests.conftest import begin_at
from tests.contract import PROMISED, keeping_to
from tests.model import Node

PEERS: Final = {"B": "http://127.0.0.1:1", "C": "http://127.0.0.1:2"}

Client = TestClient[web.Request, web.Application]


async def nobody(url: str, batch: Batch) -> Answer:
    """An exchange that reaches no peer."""
    raise PeerUnreachable(f"there is no {batch.receiver} in this test")


class Server(TestServer):
    """As in production, a handler goes on when its client goes away, and bodies come as sent."""

    async def _make_runner(self, **kwargs: Any) -> web.BaseRunner:
        production = {"handler_cancellation": False, "auto_decompress": False}
        return await super()._make_runner(**{**kwargs, **production})


@asynccontextmanager
async def node_a(redis_url: str, *, actor: str = "A", **settings: Any) -> AsyncIterator[Client]:
    """Node A serves, with one worker, not for the first time; the result is a client of it."""
    await begin_at(redis_url, "A", actor)
    async with new_node_a(redis_url, **settings) as client:
        yield client


@asynccontextmanager
async def new_node_a(redis_url: str, **settings: Any) -> AsyncIterator[Client]:
    """Node A serves, and its Redis is as the test has made it."""
    config = Config(node_id="A", peers=PEERS, redis_url=redis_url, **settings)
    async with (
        node.worker(config, node.World(exchange=nobody)) as application,
        asking(application) as client,
    ):
        yield client


@asynccontextmanager
async def asking(application: web.Application) -> AsyncIterator[Client]:
    """A client of the application, all of whose answers have to be as the contract promises."""
    broken: list[str] = []
    application.middlewares.insert(0, keeping_to(PROMISED, broken))
    async with TestClient(Server(application)) as client:
        yield client
    assert not broken, "all that a node answers is as the contract promises"


def put_by(author: Node, key: str, value: bytes, content_type: str = "text/plain") -> Write:
    return author.write([Put(key, value, content_type)], 1_700_000_000_000_000)


async def replicate(
    client: Client,
    writes: Iterable[Write] = (),
    *,
    sender: str = "B",
    receiver: str = "A",
    clock: VectorClock = VectorClock(),  # noqa: B008 (immutable)
) -> ClientResponse:
    """A peer sends these writes."""
    body = wire.encode_batch(Batch(sender, receiver, clock, tuple(writes)))
    return await client.post("/replicate", data=body)


async def replicated(client: Client, *writes: Write) -> Answer:
    """What the node answers a peer that sends these writes."""
    response = await replicate(client, writes)
    assert response.status == 200, await response.text()
    assert response.content_type == "application/vnd.msgpack"
    return wire.decode_answer(await response.read())


def contents(redis: Any) -> dict[bytes, bytes]:
    """All that the Redis of a node holds, save what links post of themselves."""
    keys = [key for key in redis.keys("*") if not key.startswith((b"peer:", b"lease:"))]
    held = {key: redis.dump(key) for key in keys}
    if b"meta" in held:  # where a worker says now and then that it is at work
        meta = {k: v for k, v in redis.hgetall("meta").items() if k != b"alive"}
        held[b"meta"] = repr(sorted(meta.items())).encode()
    return held
