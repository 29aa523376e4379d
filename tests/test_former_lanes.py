"""What waited when a node was put back to an older state: it comes home, or is done under another
name, and never twice."""

from typing import Any

from aiohttp import ClientResponse
from redis import Redis as BlockingRedis

from app.board import Board, PeerReport
from app.former_lanes import FormerLanes
from app.losses import Losses
from app.vector_clock import SEQUENCE_MAX, VectorClock
from app.write import Put
from tests.conftest import MakeStore, Store
from tests.model import Node
from tests.one_node import PEERS, Client, clock_of, context, kv, problem, replicated
from tests.processes import until
from tests.test_losses import CLOCK, Peers, node_a

ASYNC = {"Prefer": "respond-async"}


async def defer(client: Client, key: str, value: str, seen: str) -> None:
    """The put is accepted, once B is known to have what it waits for."""

    async def is_accepted() -> bool:
        headers = {**ASYNC, **context(f"lc1;{seen}")}
        async with client.put(f"/kv/{key}", data=value, headers=headers) as response:
            return response.status == 202

    await until(is_accepted)


async def deferred(client: Client) -> dict[str, Any]:
    return {
        one["dot"]: one["waiting_for"]
        for one in (await (await client.get("/pending")).json())["deferred"]
    }


def put_back(redis_url: str) -> None:
    """The Redis seems to be an old copy: nobody has used it for long, and it was started again."""
    with BlockingRedis.from_url(redis_url) as redis:
        redis.hset("meta", mapping={"alive": 1, "run": "another"})
        redis.hdel("meta", "rested")


async def read(client: Client, key: str, seen: str) -> ClientResponse:
    return await client.session.get(kv(client, key, "?wait=30"), headers=context(seen))


async def test_what_nobody_has_is_done_under_another_name_and_who_waits_for_it_is_served(
    redis_url: str,
) -> None:
    peers = Peers()
    peers.say("B", "B:1")
    async with node_a(redis_url, peers) as client:
        await defer(client, "x", "1", "B:1")
        await defer(client, "y", "2", "B:1;A+:1")
    put_back(redis_url)
    async with node_a(redis_url, peers) as client:
        await until(lambda: _is_known(client))
        status = await (await client.get("/status")).json()
        actor = status["actor"]
        assert actor.startswith("A~") and await clock_of(client) == {actor: 1}, (
            "the node has written once, for all to know its new name"
        )
        assert await deferred(client) == {"A+:1": ["B:1"], "A+:2": ["A+:1", "B:1"]}
        await replicated(client, Node("B").write([Put("lunch", b"noon?")], 5))
        assert len(await deferred(client)) == 2, "B and C may have it, as far as is known"
        refused = await client.get("/kv/x?wait=0", headers=context("lc1;A+:2"))
        await problem(refused, 503, "not-caught-up")
        for peer in ("B", "C"):
            peers.say(peer, f"B:1 {actor}:1")
        shown = await read(client, "y", "lc1;A+:2")
        assert (await shown.text(), shown.headers["Dot"]) == ("2", f"{actor}:5")
        shown = await read(client, "x", "lc1;A+:1")
        assert (await shown.text(), shown.headers["Dot"]) == ("1", f"{actor}:3")
        assert await deferred(client) == {}
        assert await clock_of(client) == {actor: 6, "A+": SEQUENCE_MAX, "B": 1}


async def _is_known(client: Client) -> bool:
    clock = await clock_of(client)
    return any(actor.startswith("A~") for actor in clock)


async def test_what_a_peer_has_comes_home_and_is_not_done_again(redis_url: str) -> None:
    peers = Peers()
    peers.say("B", "B:1")
    async with node_a(redis_url, peers) as client:
        await defer(client, "x", "1", "B:1")
    put_back(redis_url)
    b, before = Node("B"), Node("A+")
    cause = b.write([Put("lunch", b"noon?")], 5)
    before.receive([cause])
    effect = before.write([Put("x", b"1")], 6)
    peers.say("B", "B:1 A+:1")
    async with node_a(redis_url, peers) as client:
        await until(lambda: _is_known(client))
        await replicated(client, cause, effect)
        await until(lambda: is_empty(client))
        shown = await (await client.get("/kv/x?siblings=true")).json()
        assert [version["dot"] for version in shown["siblings"]] == ["A+:1"]
        assert (await clock_of(client))["A+"] == 1


async def is_empty(client: Client) -> bool:
    return not await deferred(client)


async def test_while_a_peer_is_away_it_waits(redis_url: str) -> None:
    peers = Peers()
    peers.say("B", "B:1")
    async with node_a(redis_url, peers) as client:
        await defer(client, "x", "1", "B:1")
    put_back(redis_url)
    async with node_a(redis_url, peers) as client:
        await until(lambda: _is_known(client))
        [actor] = await clock_of(client)
        await replicated(client, Node("B").write([Put("lunch", b"noon?")], 5))
        peers.say("B", f"B:1 {actor}:1")
        peers.say("C", None)
        await peers.heard(redis_url)
        for dot in ("A+:1", "A+:2"):  # the second was given after the copy was made
            declared = await client.post("/lost", json={"dots": [dot]})
            assert "waits here" in (await problem(declared, 409, "not-lost"))["detail"]
        assert await deferred(client) == {"A+:1": []}
        peers.say("C", f"B:1 {actor}:1")
        await until(lambda: is_empty(client))
        assert (await (await client.get("/kv/x")).text()) == "1"


async def test_nothing_is_done_again_that_a_peer_may_have(make_store: MakeStore) -> None:
    a: Store = await make_store("A")
    board = Board(a.redis, a.keys, a.scripts, "a worker")
    now_us = 9_000_000
    losses = Losses(
        *("A", lambda: PEERS, board, a.buffer, a.progress),
        *(100_000, 1_000_000, lambda: now_us, a.deferred.given),
    )
    former = FormerLanes(a.deferred, a.store, a.life, losses, a.progress)
    await a.deferred.accept([Put("x", b"1")], VectorClock())
    await a.redis.hset("meta", "actor", "A~x1")
    a.life.node = "A~x1"

    async def waits_when(b: str, c: str, c_holds: str = "", heard_us: int = now_us) -> bool:
        for peer, clock, holds, at_us in (
            ("B", CLOCK(b), CLOCK(b), now_us),
            ("C", CLOCK(c), CLOCK(c).merge(CLOCK(c_holds)), heard_us),
        ):
            await board.post_peer(peer, PeerReport(clock, "", at_us, 0, holds))
        await former.clear()
        return bool(await a.deferred.first(1))

    seen = "A~x1:1"
    assert await waits_when("", ""), "they have not heard of the new name"
    assert await a.store.clock() == CLOCK(seen), "which the node tells them of"
    assert await waits_when(seen, ""), "C has not"
    assert await waits_when(seen, f"{seen} A+:1"), "C has it"
    assert await waits_when(seen, seen, "A+:1"), "at C it waits"
    assert await waits_when(f"{seen} A:1", seen), "of a name in between, B has more"
    assert await waits_when(seen, seen, "A:1"), "at C that waits"
    assert await waits_when(seen, seen, heard_us=1_000_000), "C said so long ago"
    assert not await waits_when(seen, seen)
    assert await a.store.clock() == CLOCK(f"A+:{SEQUENCE_MAX} A~x1:4")


async def test_what_waits_in_a_lane_that_was_declared_lost_is_done_all_the_same(
    redis_url: str,
) -> None:
    """Another node was asked to declare it, and could not know that it waits here."""
    peers = Peers()
    peers.say("B", "B:1")
    async with node_a(redis_url, peers) as client:
        await defer(client, "x", "1", "B:1")
    put_back(redis_url)
    peers.say("C", None)
    async with node_a(redis_url, peers) as client:
        await until(lambda: _is_known(client))
        [actor] = await clock_of(client)
        b = Node("B")
        first = b.write([Put("lunch", b"noon?")], 5)
        end = b.write([Put("\0end/A+", b"0", "text/plain")], 6)
        await replicated(client, first, end)
        assert await deferred(client) == {"A+:1": []}, "C may know that it is done"
        for peer in ("B", "C"):
            peers.say(peer, f"B:2 {actor}:1 A+:{SEQUENCE_MAX}")
        await until(lambda: is_empty(client))
        shown = await client.get("/kv/x")
        assert (await shown.text(), shown.headers["Dot"]) == ("1", f"{actor}:3")
