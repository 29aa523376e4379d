"""Sessions that have seen what is lost, at one node with its parts as in production.

Its peers are this test: they say what they are told to, over the node's own links.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient
from redis import Redis as BlockingRedis

from app import codec, node
from app.board import Board, PeerReport
from app.codec import Answer, Batch
from app.config import Config
from app.losses import Losses
from app.lost import Loss
from app.peers import PeerUnreachable
from app.vector_clock import VectorClock
from app.write import Put, Write
from tests.conftest import MakeStore, Store, begin_at
from tests.model import Node
from tests.one_node import PEERS, Client, Server
from tests.processes import until

CLOCK = VectorClock.parse


@pytest.fixture
def redis_url(redis_socket: Path) -> str:
    """An empty database of a real redis-server."""
    with BlockingRedis(unix_socket_path=str(redis_socket)) as redis:
        redis.flushall()
    return f"unix://{redis_socket}?db=3"


class Peers:
    """B and C: what each says that it has applied, and holds besides; None if it is away."""

    def __init__(self) -> None:
        self.applied: dict[str, VectorClock | None] = {"B": VectorClock(), "C": VectorClock()}
        self.waiting = {"B": VectorClock(), "C": VectorClock()}

    def say(self, peer: str, applied: str | None, waiting: str = "") -> None:
        self.applied[peer] = None if applied is None else CLOCK(applied)
        self.waiting[peer] = CLOCK(waiting)

    async def exchange(self, url: str, batch: Batch) -> Answer:
        peer = batch.receiver
        clock = self.applied[peer]
        if clock is None:
            raise PeerUnreachable(f"{peer} is away")
        received = clock.merge(self.waiting[peer])
        now_us = node.wall_clock_us()
        return Answer(peer, clock, received, VectorClock(), 0, 0, 0, 0, now_us, batch.birth)

    async def heard(self, redis_url: str) -> None:
        """The node knows what they say now."""
        with BlockingRedis.from_url(redis_url) as redis:

            def is_known(peer: str) -> bool:
                applied = self.applied[peer]
                error, clock, received = redis.hmget(f"peer:{peer}", "error", "clock", "received")
                if applied is None:
                    return bool(error)
                wanted = applied, applied.merge(self.waiting[peer])
                said = CLOCK((clock or b"").decode()), CLOCK((received or b"").decode())
                return error == b"" and said == wanted

            await until(lambda: all(map(is_known, self.applied)))


@asynccontextmanager
async def node_a(redis_url: str, peers: Peers, **settings: Any) -> AsyncIterator[Client]:
    """Node A, which hears its peers often."""
    await begin_at(redis_url, "A")
    settings = {"heartbeat_ms": 100, "relay_after_ms": 60_000, **settings}
    config = Config(node_id="A", peers=PEERS, redis_url=redis_url, **settings)
    async with (
        node.worker(config, node.World(exchange=peers.exchange)) as application,
        TestClient(Server(application)) as client,
    ):
        yield client


async def receive(client: Client, *writes: Write) -> None:
    body = codec.encode_batch(Batch("C", "A", VectorClock(), writes))
    async with client.post("/replicate", data=body) as response:
        assert response.status == 200, await response.text()


def history() -> tuple[list[Write], Write]:
    """Two writes of B, and one of its next life, after it lost all."""
    first = Node("B")
    own = [first.write([Put("x", b"%d" % n)], n) for n in (1, 2)]
    return own, Node("B~x").write([Put("y", b"again")], 10)


async def get(client: Client, token: str, key: str = "x", query: str = "?wait=0") -> ClientResponse:
    return await client.get(f"/kv/{key}{query}", headers={"Causal-Context": token})


async def test_who_has_seen_what_nobody_has_is_told_so_and_may_go_on(redis_url: str) -> None:
    peers = Peers()
    async with node_a(redis_url, peers) as client:
        own, again = history()
        await receive(client, *own, again)
        peers.say("B", "B~x:1 B:1")
        peers.say("C", "B~x:1 B:2")
        await peers.heard(redis_url)
        async with await get(client, "lc1;A:1;B:5;C:3") as response:
            assert response.status == 410, await response.text()
            problem = json.loads(await response.text())
        assert problem["type"] == "urn:lightcone:lost"
        assert problem["outcome"] == "not_applied"
        assert problem["lost"] == [{"actor": "B", "after": 2, "through": 5}]
        assert "B:3 to B:5" in problem["detail"]
        # All else that it has seen it still waits for.
        assert response.headers["Causal-Context"] == "lc1;A:1;B:2;C:3"
        async with await get(client, "lc1;B:5") as response:
            assert response.status == 410
        async with await get(client, response.headers["Causal-Context"]) as response:
            assert (response.status, await response.read()) == (200, b"2")


async def test_a_write_of_who_has_seen_what_is_lost_is_not_done(redis_url: str) -> None:
    peers = Peers()
    async with node_a(redis_url, peers) as client:
        own, again = history()
        await receive(client, *own, again)
        peers.say("B", "B~x:1")
        peers.say("C", "B~x:1")
        await peers.heard(redis_url)
        headers = {"Causal-Context": "lc1;B:3"}
        async with client.put("/kv/x?wait=0", data=b"new", headers=headers) as response:
            assert response.status == 410
        async with client.get("/kv/x") as response:
            assert await response.read() == b"2"


@pytest.mark.parametrize(
    ("applied", "waiting"),
    [
        (None, ""),  # away
        ("B~x:1 B:5", ""),  # has it
        ("B~x:1 B:2", "B:5"),  # holds it, and it waits
        ("B:2", ""),  # does not know yet that B has ended
    ],
)
async def test_as_long_as_a_peer_may_have_it_it_is_waited_for(
    redis_url: str, applied: str | None, waiting: str
) -> None:
    peers = Peers()
    async with node_a(redis_url, peers) as client:
        own, again = history()
        await receive(client, *own, again)
        peers.say("B", "B~x:1")
        peers.say("C", applied, waiting)
        await peers.heard(redis_url)
        async with await get(client, "lc1;B:5") as response:
            assert response.status == 503, await response.text()
            assert (await response.json())["type"] == "urn:lightcone:not-caught-up"
        peers.say("C", "B~x:1 B:2")
        await peers.heard(redis_url)
        async with await get(client, "lc1;B:5") as response:
            assert response.status == 410


async def test_what_waits_here_is_not_lost(redis_url: str) -> None:
    peers = Peers()
    async with node_a(redis_url, peers) as client:
        own, again = history()
        author = Node("B", applied=[*own, Node("C").write([Put("z", b"")], 3)])
        blocked = author.write([Put("x", b"3")], 4)  # after C:1, which has not come
        await receive(client, *own, again, blocked)
        peers.say("B", "B~x:1")
        peers.say("C", "B~x:1")
        await peers.heard(redis_url)
        async with await get(client, "lc1;B:3") as response:
            assert response.status == 503
            missing = [entry["dot"] for entry in (await response.json())["missing"]]
        assert missing == ["C:1", "B:3"]
        async with await get(client, "lc1;B:4") as response:
            assert response.status == 410
            assert response.headers["Causal-Context"] == "lc1;B:3"


async def test_what_a_peer_said_long_ago_is_not_counted_on(make_store: MakeStore) -> None:
    a: Store = await make_store("A")
    own, again = history()
    await a.buffer.receive([*own, again])
    board = Board(a.redis, a.keys, a.scripts, "a worker")
    for peer, at_us in (("B", 5_000_000), ("C", 6_000_000)):
        clock = CLOCK("B~x:1")
        await board.post_peer(peer, PeerReport(clock, "", at_us, 0, clock))

    async def lost_at(now_us: int) -> list[Loss]:
        found = Losses("A", lambda: PEERS, board, a.buffer, a.progress, 100_000, lambda: now_us)
        return await found.among(CLOCK("B:5 C:1"))

    assert await lost_at(5_300_000) == [], "C said it in the future: this clock was set back"
    assert await lost_at(6_100_000) == [], "B said it eleven heartbeats ago"
    await board.post_peer("B", PeerReport(CLOCK("B~x:1"), "", 6_000_000, 0, CLOCK("B~x:1")))
    assert await lost_at(6_300_000) == [Loss("B", 2, 5)]
    assert await lost_at(6_300_001) == []


async def test_a_lost_write_that_comes_all_the_same_is_there_again(redis_url: str) -> None:
    peers = Peers()
    async with node_a(redis_url, peers) as client:
        own, again = history()
        await receive(client, own[0], again)
        peers.say("B", "B~x:1")
        peers.say("C", "B~x:1")
        await peers.heard(redis_url)
        async with await get(client, "lc1;B:2") as response:
            assert response.status == 410
        await receive(client, own[1])
        async with await get(client, "lc1;B:2") as response:
            assert (response.status, await response.read()) == (200, b"2")
