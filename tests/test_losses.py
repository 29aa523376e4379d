"""Sessions that have seen what is lost, at one node with its parts as in production.

Its peers are this test: they say what they are told to, over the node's own links.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import ANY

import pytest
import structlog
from aiohttp import ClientResponse
from redis import Redis as BlockingRedis
from typer.testing import CliRunner, Result

from app import node, wire
from app.board import Board, PeerReport
from app.claim import wall_clock_us
from app.config import Config
from app.errors import LogTrimmed, NotLost, PeerUnreachable
from app.keys import end_key
from app.losses import Losses
from app.lost import Loss
from app.standing import Heard, Standing
from app.vector_clock import SEQUENCE_MAX, VectorClock
from app.wire import Answer, Batch
from app.write import Put, Write
from client import BadInput, Lightcone, NotApplied
from client.cli import made
from client.cli_errors import Code
from tests.conftest import MakeStore, Store, begin_at
from tests.model import Node
from tests.one_node import PEERS, Client, asking
from tests.processes import until

CLOCK = VectorClock.parse


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
        now_us = wall_clock_us()
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
        node.worker(config, node.World(exchange=peers.exchange)) as interface,
        asking(interface) as client,
    ):
        yield client


async def receive(client: Client, *writes: Write) -> None:
    body = wire.encode_batch(Batch("C", "A", VectorClock(), writes))
    async with client.post("/replicate", data=body) as response:
        assert response.status == 200, await response.text()


async def told_lost(client: Client, token: str, **options: Any) -> tuple[str, dict[str, Any]]:
    """The context and the problem that who carries the token is given.

    It may have to ask again: what peers said must be new, and machines are slow.
    """
    for _ in range(500):
        headers = {"Causal-Context": token}
        async with client.request(
            options.get("method", "GET"), "/kv/x?wait=0", headers=headers, data=options.get("data")
        ) as response:
            if response.status == 410:
                assert response.content_type == "application/problem+json"
                problem = await response.json(content_type=None)
                return response.headers["Causal-Context"], problem
            assert response.status == 503, await response.text()
        await asyncio.sleep(0.02)
    raise AssertionError("it is waited for")


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
        peers.say("B", "B~x:1 B:2")
        peers.say("C", "B~x:1", "B:2")
        await peers.heard(redis_url)
        token, problem = await told_lost(client, "lc1;A:1;B:5;C:3")
        assert problem["type"] == "urn:lightcone:lost"
        assert problem["outcome"] == "not_applied"
        assert problem["lost"] == [{"actor": "B", "after": 2, "through": 5}]
        assert "B:3 to B:5" in problem["detail"]
        # All else that it has seen it still waits for.
        assert token == "lc1;A:1;B:2;C:3"
        token, _ = await told_lost(client, "lc1;B:5")
        async with await get(client, token) as response:
            assert (response.status, await response.read()) == (200, b"2")


async def test_a_write_of_who_has_seen_what_is_lost_is_not_done(redis_url: str) -> None:
    peers = Peers()
    async with node_a(redis_url, peers) as client:
        own, again = history()
        await receive(client, *own, again)
        peers.say("B", "B~x:1 B:2")
        peers.say("C", "B~x:1 B:2")
        await peers.heard(redis_url)
        await told_lost(client, "lc1;B:3", method="PUT", data=b"new")
        async with client.get("/kv/x") as response:
            assert await response.read() == b"2"


@pytest.mark.parametrize(
    ("applied", "waiting"),
    [
        (None, ""),  # away
        ("B~x:1 B:5", ""),  # has it
        ("B~x:1 B:2", "B:5"),  # holds it, and it waits
        ("B:2", ""),  # does not know yet that B has ended
        ("B~x:1 B:1", ""),  # lacks B:2 yet, and may hold it beyond that
    ],
)
async def test_as_long_as_a_peer_may_have_it_it_is_waited_for(
    redis_url: str, applied: str | None, waiting: str
) -> None:
    peers = Peers()
    async with node_a(redis_url, peers) as client:
        own, again = history()
        await receive(client, *own, again)
        peers.say("B", "B~x:1 B:2")
        peers.say("C", applied, waiting)
        await peers.heard(redis_url)
        async with await get(client, "lc1;B:5") as response:
            assert response.status == 503, await response.text()
            assert (await response.json(content_type=None))["type"] == "urn:lightcone:not-caught-up"
        peers.say("C", "B~x:1 B:2")
        await peers.heard(redis_url)
        await told_lost(client, "lc1;B:5")


async def test_what_waits_here_is_not_lost(redis_url: str) -> None:
    peers = Peers()
    async with node_a(redis_url, peers) as client:
        own, again = history()
        author = Node("B", applied=[*own, Node("C").write([Put("z", b"")], 3)])
        blocked = author.write([Put("x", b"3")], 4)  # after C:1, which has not come
        await receive(client, *own, again, blocked)
        peers.say("B", "B~x:1 B:2", "B:3")
        peers.say("C", "B~x:1 B:2", "B:3")
        await peers.heard(redis_url)
        async with await get(client, "lc1;B:3") as response:
            assert response.status == 503
            missing = [
                entry["dot"] for entry in (await response.json(content_type=None))["missing"]
            ]
        assert missing == ["C:1", "B:3"]
        token, _ = await told_lost(client, "lc1;B:4")
        assert token == "lc1;B:3"


async def test_what_a_peer_said_long_ago_is_not_counted_on(make_store: MakeStore) -> None:
    a: Store = await make_store("A")
    own, again = history()
    await a.buffer.receive([*own, again])
    board = Board(a.redis, a.keys, a.scripts, "a worker")
    clock = CLOCK("B~x:1 B:2")
    for peer, at_us in (("B", 5_000_000), ("C", 7_000_000)):
        await board.post_peer(peer, PeerReport(clock, "", at_us, 0, clock))

    async def lost_at(now_us: int) -> list[Loss]:
        found = Losses(
            *("A", lambda: PEERS, board, a.buffer, a.progress),
            *(100_000, 1_000_000, lambda: now_us, a.deferred.given),
        )
        return await found.among(CLOCK("B:5 C:1"))

    assert await lost_at(6_200_000) == [], "C said it in the future: this clock was set back"
    assert await lost_at(7_100_000) == [], "B said it 2.1 s ago"
    await board.post_peer("B", PeerReport(clock, "", 7_000_000, 0, clock))
    assert await lost_at(8_300_000) == [Loss("B", 2, 5)]
    assert await lost_at(8_300_001) == []


async def test_what_others_tell_of_a_member_that_cannot_be_asked_is_counted_on_for_a_while(
    make_store: MakeStore,
) -> None:
    """As long as it may take from member to member: here two times 1.3 s, and 0.4 s until it is
    asked."""
    a: Store = await make_store("A")
    own, again = history()
    await a.buffer.receive([*own, again])
    board, ended = Board(a.redis, a.keys, a.scripts, "a worker"), CLOCK("B~x:1 B:2")

    async def lost_at(now_us: int) -> list[Loss]:
        await board.post_peer("B", PeerReport(ended, "", now_us, 0, ended))
        found = Losses(
            *("A", lambda: PEERS, board, a.buffer, a.progress),
            *(100_000, 400_000, lambda: now_us, a.deferred.given),
        )
        return await found.among(CLOCK("B:5"))

    async def told(clock: str, waiting: str = "") -> None:
        standing = Standing(CLOCK(clock), CLOCK(clock).merge(CLOCK(waiting)))
        await board.post_hearsay({"C": Heard(standing, 7_000_000)})

    await told("B~x:1 B:2")
    assert await lost_at(10_400_000) == [Loss("B", 2, 5)], "C was never heard"
    assert await lost_at(10_400_001) == []
    assert await lost_at(6_999_999) == [], "this clock was set back"
    await board.post_peer("C", PeerReport(CLOCK("B:5"), "it is away", 6_900_000, 0, CLOCK("B:5")))
    assert await lost_at(8_000_000) == [Loss("B", 2, 5)], "C was heard of, and has lost it since"
    for clock, waiting in (("B~x:1 B:5", ""), ("B~x:1", "B:5"), ("B:2", ""), ("B~x:1 B:1", "")):
        await told(clock, waiting)
        assert await lost_at(8_000_000) == []


async def test_a_lost_write_that_comes_all_the_same_is_there_again(redis_url: str) -> None:
    peers = Peers()
    async with node_a(redis_url, peers) as client:
        own, again = history()
        await receive(client, own[0], again)
        peers.say("B", "B~x:1 B:1")
        peers.say("C", "B~x:1 B:1")
        await peers.heard(redis_url)
        await told_lost(client, "lc1;B:2")
        await receive(client, own[1])
        async with await get(client, "lc1;B:2") as response:
            assert (response.status, await response.read()) == (200, b"2")


# --- declared lost --------------------------------------------------------------------------------


async def declare(client: Client, *dots: str) -> tuple[int, dict[str, Any]]:
    async with client.post("/lost", json={"dots": dots}) as response:
        return response.status, await response.json(content_type=None)


def after_what_is_lost(own: list[Write]) -> Write:
    """C:1, which follows B:3, which nobody has."""
    author = Node("C", applied=[*own, Node("B", applied=list(own)).write([Put("x", b"3")], 3)])
    return author.write([Put("z", b"after")], 4)


async def test_what_waited_for_what_is_declared_lost_waits_no_more(redis_url: str) -> None:
    peers = Peers()
    async with node_a(redis_url, peers) as client:
        own, again = history()
        waits = after_what_is_lost(own)
        await receive(client, *own, again, waits)
        peers.say("B", "B~x:1 B:2")
        peers.say("C", "B~x:1 B:2")
        await peers.heard(redis_url)
        async with await get(client, "", "z") as response:
            assert response.status == 404
        await told_lost(client, "lc1;B:3")
        status, answer = await declare(client, "B:3")
        assert (status, answer["lost"]) == (200, [{"actor": "B", "after": 2}])
        async with await get(client, "lc1;C:1;B:3", "z") as response:
            assert (response.status, await response.read()) == (200, b"after")
        async with client.get("/status") as response:
            said = await response.json()
        assert said["clock"]["B"] == SEQUENCE_MAX
        assert said["pending"]["total"] == 0
        assert said["peers"]["C"]["lag_writes"] < 10, "what is lost is no lag"
        assert await declare(client, "B:3", "B:9") == (200, {**answer, "lost": [], "clock": ANY})
        # What turns up later is too late, here as anywhere.
        author = Node("B", applied=list(own))
        await receive(client, author.write([Put("x", b"3")], 3), author.write([Put("x", b"4")], 4))
        async with await get(client, "") as response:
            assert await response.read() == b"2"
        async with client.get("/kv?wait=0") as response:
            assert (await response.json())["keys"] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("dot", "applied", "why"),
    [
        ("B:5", None, "C is not heard from"),
        ("B:5", "B~x:1 B:5", "C has it"),
        ("B:5", "B~x:1 B:4", "lacks B:4 yet, and may hold what follows it"),
        ("B:5", "B~x:1 B:1", "C lacks B:2 yet, and may hold what follows it"),
        ("B:5", "B:2", "C has seen no write of B"),
        # Here as well: it would look as if it had been declared lost before.
        ("B:2", "B~x:1 B:2", "of B:2, B has it"),
    ],
)
async def test_nothing_is_declared_lost_that_may_be_somewhere(
    redis_url: str, dot: str, applied: str | None, why: str
) -> None:
    peers = Peers()
    async with node_a(redis_url, peers) as client:
        own, again = history()
        await receive(client, *own, again)
        peers.say("B", "B~x:1 B:2")
        peers.say("C", applied)
        await peers.heard(redis_url)
        status, problem = await declare(client, dot)
        assert (status, problem["type"]) == (409, "urn:lightcone:not-lost")
        assert why in problem["detail"]
        async with client.get("/status") as response:
            assert (await response.json())["clock"] == {"B": 2, "B~x": 1}


async def test_nor_before_what_all_hold_of_its_actor_is_applied_here(redis_url: str) -> None:
    peers = Peers()
    async with node_a(redis_url, peers) as client:
        own, again = history()
        author = Node("B", applied=[*own, Node("C").write([Put("z", b"")], 3)])
        await receive(client, *own, again, author.write([Put("x", b"3")], 4))  # waits for C:1
        peers.say("B", "B~x:1 B:3")
        peers.say("C", "B~x:1 B:3")
        await peers.heard(redis_url)
        status, problem = await declare(client, "B:5")
        assert (status, problem["type"]) == (409, "urn:lightcone:not-lost")
        assert "B:3, and it is not applied here yet" in problem["detail"]
        async with client.get("/status") as response:
            assert (await response.json())["clock"] == {"B": 2, "B~x": 1}


@pytest.mark.parametrize(
    ("dot", "status", "why"),
    [
        ("B+:2", 409, "ask B to declare it"),
        ("D+:2", 409, "what D did later is not all applied here yet"),
        ("E+:2", 200, ""),
    ],
    ids=["a member's", "of one that is none, and C has more of it", "of one that is none"],
)
async def test_what_is_of_a_lane_is_declared_where_all_is_that_was_done_in_its_place(
    redis_url: str, dot: str, status: int, why: str
) -> None:
    """What waited in it may be done under another name. Where the end of the lane is declared, what
    waits for the old names goes on: so it must be there by then. (Chaos found that it was not.)"""
    peers = Peers()
    async with node_a(redis_url, peers) as client:
        later = [Node(name).write([Put("x", b"1")], 1) for name in ("B~x", "D~x", "E~x")]
        batch = Batch("C", "A", CLOCK("B~x:1 D~x:1 E~x:1"), tuple(later))
        async with client.post("/replicate", data=wire.encode_batch(batch)) as response:
            assert response.status == 200
        peers.say("B", "B~x:1 D~x:1 E~x:1")
        peers.say("C", "B~x:1 D~x:2 E~x:1")
        await peers.heard(redis_url)
        answered, said = await declare(client, dot)
        assert answered == status, said
        if why:
            assert said["type"] == "urn:lightcone:not-lost" and why in said["detail"]
        else:
            assert said["lost"] == [{"actor": "E+", "after": 0}]


async def test_an_operator_declares_it_with_the_python_client(redis_url: str) -> None:
    peers = Peers()
    async with node_a(redis_url, peers) as client, Lightcone([str(client.make_url("/"))]) as kv:
        own, again = history()
        await receive(client, *own, again)
        peers.say("B", "B~x:1 B:2")
        peers.say("C", "B~x:1 B:5")
        await peers.heard(redis_url)
        waiting = kv.session(context="lc1;B:5", timeout_s=1)
        with pytest.raises(NotApplied, match="C has it"):
            await waiting.declare_lost(["B:5"])
        assert waiting.context == "lc1;B:5"
        with pytest.raises(BadInput, match="not a dot"):
            await kv.declare_lost(["B"])
        peers.say("C", "B~x:1 B:2")
        await peers.heard(redis_url)
        declared = await kv.declare_lost(["B:5"])
        assert (declared.lost, declared.clock["B"]) == ({"B": 2}, SEQUENCE_MAX)
        assert kv.context == declared.context
        assert (await kv.declare_lost(["B:3"], node=kv.nodes[0])).lost == {}
        assert kv.context == declared.context, "one token, however often"
        await waiting.declare_lost(["B:3"])
        assert waiting.context == declared.context, "what is lost need not be waited for"
        version = await waiting.get("x")
        assert version is not None and version.text == "2"


async def test_an_operator_declares_it_on_the_command_line(redis_url: str) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(made(completion=False), ["declare-lost", *arguments])

    peers = Peers()
    async with node_a(redis_url, peers) as client:
        node = ("--node", str(client.make_url("/")))
        own, again = history()
        await receive(client, *own, again)
        peers.say("B", "B~x:1 B:2")
        peers.say("C", None)
        await peers.heard(redis_url)
        result = await asyncio.to_thread(run, "B:5", *node, "--timeout", "1")
        assert (result.exit_code, result.stdout) == (Code.NOT_APPLIED, "")
        assert "C is not heard from" in result.stderr
        result = await asyncio.to_thread(run, "B", *node)
        assert (result.exit_code, result.stdout) == (Code.BAD_INPUT, "")
        peers.say("C", "B~x:1 B:2")
        await peers.heard(redis_url)
        result = await asyncio.to_thread(run, "B:5", *node, "--timeout", "20")
        assert (result.exit_code, result.stdout) == (0, "Lost: all of B after B:2.\n")
        result = await asyncio.to_thread(run, "B:5", "--json", *node, "--timeout", "20")
        said = json.loads(result.stdout)
        assert (said["lost"], said["clock"]["B"]) == ({}, SEQUENCE_MAX)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"dots": []}', b'{"dots": ["B"]}', b"[]"])
async def test_what_is_no_declaration_is_refused(redis_url: str, body: bytes) -> None:
    async with (
        node_a(redis_url, Peers()) as client,
        client.post("/lost", data=body) as response,
    ):
        assert response.status == 400
        problem = await response.json(content_type=None)
        assert problem["type"] == "urn:lightcone:bad-parameter"


async def test_no_client_reads_or_writes_what_was_declared(redis_url: str) -> None:
    async with node_a(redis_url, Peers()) as client:
        url = client.make_url("/kv/%00end%2FB")
        async with client.session.put(url, data=b"1") as response:
            assert response.status == 400
        operations = {"ops": [{"put": "\0end/B", "value": "1"}]}
        async with client.post("/txn", json=operations) as response:
            assert response.status == 400


async def ended(make_store: MakeStore, *more: Write) -> Store:
    """Node A, which has two writes of B, or more, and was told by C that they are all."""
    a: Store = await make_store("A")
    own, again = history()
    await a.buffer.receive([*own, *more, again])
    teller = Node("C", applied=[*own, again])
    await a.buffer.receive([teller.write([Put(end_key("B"), b"2", "text/plain")], 20)])
    assert await a.store.clock() == CLOCK(f"B:{SEQUENCE_MAX} B~x:1 C:1")
    return a


async def test_a_log_ends_where_its_actor_was_declared_to_end(make_store: MakeStore) -> None:
    a = await ended(make_store)
    written = await a.store.log.after("B", 0, 10)
    assert [str(write.dot) for write in written] == ["B:1", "B:2"]
    assert await a.store.log.after("B", 2, 10) == []
    assert await a.scripts.find_hole() == ""
    await a.store.log.trim("B", 1, 1)
    with pytest.raises(LogTrimmed):
        await a.store.log.after("B", 0, 10)
    assert await a.scripts.find_hole() == ""


async def test_a_log_that_ends_before_its_actor_was_declared_to_end_has_a_hole(
    make_store: MakeStore,
) -> None:
    a = await ended(make_store)
    await a.redis.xdel("log:B", "2-0")
    assert "from B:1 to B:1" in await a.scripts.find_hole()


async def test_a_snapshot_holds_what_is_left_of_an_actor_that_was_closed(
    make_store: MakeStore,
) -> None:
    a = await ended(make_store)
    found = await a.snapshots.read_cut(CLOCK("B:1"), 100, 1000)
    assert found is not None
    cut, states = found
    assert cut.clock["B"] == SEQUENCE_MAX
    assert {state.key for state in states} == {"x", "y", end_key("B")}


async def test_who_has_more_than_was_declared_says_so(make_store: MakeStore) -> None:
    own, _ = history()
    third = Node("B", applied=list(own)).write([Put("x", b"3")], 3)
    with structlog.testing.capture_logs() as logs:
        a = await ended(make_store, third)
    [line] = [entry for entry in logs if entry["log_level"] == "error"]
    assert (line["event"], line["writes"]) == ("declared lost, and here", "{B:3}")
    assert await a.scripts.find_hole() == ""


async def test_what_waits_of_a_closed_actor_is_given_up(make_store: MakeStore) -> None:
    a: Store = await make_store("A")
    own, again = history()
    author = Node("B", applied=[*own])
    author.write([Put("x", b"3")], 3)
    fourth = author.write([Put("x", b"4")], 4)  # behind B:3, which nobody has
    await a.buffer.receive([*own, again, fourth])
    assert await a.buffer.counts() == {"B": 1}
    teller = Node("C", applied=[*own, again])
    received = await a.buffer.receive([teller.write([Put(end_key("B"), b"2", "text/plain")], 20)])
    assert (received.received, received.missing) == (CLOCK(""), CLOCK(""))
    assert await a.buffer.counts() == {}


async def test_more_that_came_meanwhile_is_not_declared_lost(make_store: MakeStore) -> None:
    a: Store = await make_store("A")
    own, again = history()
    await a.buffer.receive([*own, again])
    with pytest.raises(NotLost):
        await a.store.commit([Put(end_key("B"), b"1", "text/plain")])
    assert await a.store.clock() == CLOCK("B:2 B~x:1")
    committed = await a.store.commit([Put(end_key("B"), b"2", "text/plain")])
    assert committed.clock == await a.store.clock() == CLOCK(f"A:1 B:{SEQUENCE_MAX} B~x:1")
