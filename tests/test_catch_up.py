"""Catching up costs what was missed (DESIGN.md, section 4), counted on the wire.

Three nodes in one process, each with a database of its own on a real redis-server. What they send
each other is counted on its way.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import ClientError
from redis.asyncio import Redis

from app import wire
from app.config import Config
from app.errors import PeerUnreachable
from app.node import World, worker
from app.vector_clock import Dot
from app.wire import Answer, Batch
from tests.conftest import begin_at
from tests.one_node import Client, serving
from tests.processes import until

Clients = dict[str, Client]


@dataclass
class CountedLinks:
    """Carries batches between the nodes, counts what is in them, and can leave nodes out."""

    nodes: Clients = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    sent: Counter[tuple[str, str, Dot]] = field(default_factory=Counter)
    """(sender, receiver, dot) -> how often."""

    async def __call__(self, url: str, batch: Batch) -> Answer:
        if self.away & {batch.sender, batch.receiver} or batch.receiver not in self.nodes:
            raise PeerUnreachable("away")
        for write in batch.writes:
            self.sent[batch.sender, batch.receiver, write.dot] += 1
        body = wire.encode_batch(batch)
        try:
            response = await self.nodes[batch.receiver].post("/replicate", data=body)
            assert response.status == 200, await response.text()
            return wire.decode_answer(await response.read())
        except ClientError as error:  # it is being shut down
            raise PeerUnreachable(str(error)) from error

    def sent_to(self, receiver: str) -> Counter[str]:
        """How many writes each sender has sent to `receiver`, repeats counted."""
        writes: Counter[str] = Counter()
        for (sender, to, _), times in self.sent.items():
            if to == receiver:
                writes[sender] += times
        return writes


@asynccontextmanager
async def three_nodes(
    socket: Path, links: CountedLinks, relay_after_ms: int
) -> AsyncIterator[None]:
    """A, B and C serve, and reach each other by `links`."""
    async with AsyncExitStack() as stack:
        for database, node in enumerate("ABC"):
            config = Config(
                node_id=node,
                peers={peer: f"http://{peer}.invalid" for peer in "ABC" if peer != node},
                redis_url=f"unix://{socket}?db={database}",
                retry_max_ms=100,
                heartbeat_ms=100,
                relay_after_ms=relay_after_ms,
            )
            await begin_at(str(config.redis_url), node)
            interface = await stack.enter_async_context(worker(config, World(exchange=links)))
            client = serving(interface.answer)
            links.nodes[node] = await stack.enter_async_context(client)
            stack.callback(links.nodes.pop, node)
        yield


@pytest.fixture
async def socket(redis_socket: Path) -> Path:
    """The socket of a real, empty redis-server."""
    async with Redis(unix_socket_path=str(redis_socket)) as redis:
        await redis.flushall()
    return redis_socket


async def put(links: CountedLinks, node: str, count: int) -> None:
    for number in range(count):
        response = await links.nodes[node].put(f"/kv/{node}-{number}", data=b"x")
        assert response.status == 200


async def until_equal(links: CountedLinks) -> None:
    """The nodes have applied the same writes."""

    async def equal() -> bool:
        clocks = [(await (await n.get("/status")).json())["clock"] for n in links.nodes.values()]
        return clocks.count(clocks[0]) == len(clocks)

    await until(equal)


async def test_a_peer_that_was_away_is_sent_exactly_what_it_missed(socket: Path) -> None:
    links = CountedLinks()
    # Nobody relays, so that it is certain who sends what.
    async with three_nodes(socket, links, relay_after_ms=3_600_000):
        await put(links, "A", 100)
        await put(links, "B", 10)
        await until_equal(links)
        links.away = {"C"}
        await put(links, "A", 700)
        await put(links, "B", 70)
        before = links.sent_to("C")
        links.away = set()
        await until_equal(links)
        assert links.sent_to("C") - before == {"A": 700, "B": 70}


async def test_each_write_crosses_each_link_once_while_all_is_well(socket: Path) -> None:
    links = CountedLinks()
    async with three_nodes(socket, links, relay_after_ms=3_600_000):
        await put(links, "A", 200)
        await until_equal(links)
        assert links.sent_to("B") == {"A": 200}
        assert links.sent_to("C") == {"A": 200}
        assert not links.sent_to("A")


async def test_a_node_that_restarts_sends_nothing_again(socket: Path) -> None:
    before, after = CountedLinks(), CountedLinks()
    async with three_nodes(socket, before, relay_after_ms=3_600_000):
        await put(before, "A", 50)
        await until_equal(before)
    async with three_nodes(socket, after, relay_after_ms=3_600_000):
        await put(after, "A", 3)
        await until_equal(after)
        assert after.sent_to("B") == after.sent_to("C") == {"A": 3}


async def test_a_dead_nodes_writes_are_spread_by_whoever_has_them(socket: Path) -> None:
    links = CountedLinks(away={"C"})
    async with three_nodes(socket, links, relay_after_ms=50):
        await put(links, "A", 60)

        async def b_has_all() -> bool:
            status = await (await links.nodes["B"].get("/status")).json()
            return bool(status["clock"].get("A") == 60)

        await until(b_has_all)
        links.away = {"A"}

        async def c_has_all() -> bool:
            status = await (await links.nodes["C"].get("/status")).json()
            return bool(status["clock"].get("A") == 60)

        await until(c_has_all)
        assert links.sent_to("C")["A"] == 0
        assert links.sent_to("C")["B"] >= 60
