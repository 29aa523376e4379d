"""One node for tests of what it answers: its real parts in this process, and peers that are not.

What it is: `node_a`, a worker of node A that serves HTTP, and a client of it; and what is said to
it, and looked at in its answers, again and again.

What it assumes and guarantees: the Redis at the URL is the test's own. The node has the peers B and
C and reaches neither, so nothing happens that the test does not ask for. Whatever it answers is
such as the contract promises; else the test fails when it ends.

What it does not know: what the tests ask.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import msgspec
from aiohttp import ClientResponse, web
from aiohttp.test_utils import RawTestServer, TestClient
from yarl import URL

from app import node, wire
from app.claim import wall_clock_us
from app.config import Config
from app.errors import PeerUnreachable
from app.interface import Interface
from app.replies import Handler, for_aiohttp
from app.vector_clock import VectorClock
from app.wire import Answer, Batch
from app.write import Put, Write
from tests.conftest import begin_at
from tests.contract import PROMISED, keeping_to
from tests.model import Node

PEERS: Final = {"B": "http://127.0.0.1:1", "C": "http://127.0.0.1:2"}

SECRET: Final = "a secret of this cluster"
Logs = list[Any]

Client = TestClient[web.BaseRequest, None]


async def nobody(url: str, batch: Batch) -> Answer:
    """An exchange that reaches no peer."""
    raise PeerUnreachable(f"there is no {batch.receiver} in this test")


class Server(RawTestServer):
    """As in production, a handler goes on when its client goes away, and bodies come as sent."""

    async def _make_runner(self, debug: bool = True, **kwargs: Any) -> web.ServerRunner:
        production = {"handler_cancellation": False, "auto_decompress": False}
        return await super()._make_runner(debug, **{**kwargs, **production})


def serving(answer: Handler) -> Client:
    """A client of what answers so."""
    return TestClient(Server(for_aiohttp(answer)))


@asynccontextmanager
async def node_a(redis_url: str, *, actor: str = "A", **settings: Any) -> AsyncIterator[Client]:
    """Node A serves, with one worker, not for the first time; the result is a client of it.

    `now_us` is its wall clock, if not the machine's; all else are settings.
    """
    await begin_at(redis_url, "A", actor)
    async with new_node_a(redis_url, **settings) as client:
        yield client


@asynccontextmanager
async def new_node_a(
    redis_url: str, *, now_us: Callable[[], int] = wall_clock_us, **settings: Any
) -> AsyncIterator[Client]:
    """Node A serves, and its Redis is as the test has made it."""
    config = Config(node_id="A", peers=PEERS, redis_url=redis_url, **settings)
    async with (
        node.worker(config, node.World(exchange=nobody, now_us=now_us)) as interface,
        asking(interface) as client,
    ):
        yield client


@asynccontextmanager
async def asking(interface: Interface) -> AsyncIterator[Client]:
    """A client of it, all of whose answers have to be as the contract promises."""
    broken: list[str] = []
    async with serving(keeping_to(PROMISED, interface, broken)) as client:
        try:
            yield client
        finally:
            interface.end()
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


def path_of(client: Client, path: str) -> URL:
    """The URL of a path that goes out exactly as it stands here."""
    return URL(f"{str(client.make_url('/')).rstrip('/')}{path}", encoded=True)


def kv(client: Client, key: str, query: str = "") -> URL:
    return path_of(client, f"/kv/{quote(key, safe='').replace('.', '%2E')}{query}")


async def put(client: Client, key: str, value: str | bytes, **options: Any) -> str:
    """The key has this value now; the result is the token of its writer."""
    async with client.session.put(kv(client, key), data=value, **options) as response:
        assert response.status == 200, await response.text()
        return response.headers["Causal-Context"]


def context(*tokens: str) -> dict[str, str]:
    return {"Causal-Context": ", ".join(tokens)}


async def token_of(client: Client, key: str, **headers: str) -> str:
    """The token of somebody who reads the key."""
    async with client.session.get(kv(client, key), headers=headers) as response:
        assert response.status in (200, 404), await response.text()
        return response.headers["Causal-Context"]


async def clock_of(client: Client) -> dict[str, int]:
    response = await client.get("/status")
    clock: dict[str, int] = (await response.json())["clock"]
    return clock


async def problem(
    response: ClientResponse, status: int, kind: str, outcome: str = "not_applied"
) -> dict[str, Any]:
    """The response is this problem, in full; its fields."""
    text = await response.text()
    assert response.status == status, text
    assert response.content_type == "application/problem+json"
    fields: dict[str, Any] = msgspec.json.decode(text)
    assert fields["type"] == f"urn:lightcone:{kind}"
    assert fields["status"] == status
    assert fields["outcome"] == outcome
    assert fields["title"]
    assert fields["detail"]
    return fields


def grave(logs: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [entry for entry in logs if entry["log_level"] in ("error", "critical")]


async def concurrent_lunches(client: Client) -> None:
    """Three nodes have put lunch without knowing of each other; the clock of B is far ahead."""
    await put(client, "lunch", b"pizza", headers={"Content-Type": "text/plain"})
    soup = Node("B").write([Put("lunch", b"\xff\x00", "image/x-soup")], 9_000_000_000_000_000)
    bread = Node("C").write([Put("lunch", "bröd".encode(), "text/plain")], 5)
    await replicated(client, bread, soup)


async def connect(client: Client) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(client.host, client.port)


def contents(redis: Any) -> dict[bytes, bytes]:
    """All that the Redis of a node holds, save what links post of themselves."""
    keys = [key for key in redis.keys("*") if not key.startswith((b"peer:", b"lease:"))]
    held = {key: redis.dump(key) for key in keys}
    if b"meta" in held:  # where a worker says now and then that it is at work
        meta = {k: v for k, v in redis.hgetall("meta").items() if k != b"alive"}
        held[b"meta"] = repr(sorted(meta.items())).encode()
    return held
