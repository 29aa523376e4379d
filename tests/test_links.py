"""Members that come and go, as nodes in one process see it (app/links.py, app/members.py).

Each node has a database of its own on a real redis-server. They reach each other by URL, over wires
that a test can cut.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError
from redis.asyncio import Redis

from app import codec, wire
from app.board import Board
from app.codec import MemberRecord
from app.config import Config
from app.errors import PeerRefused, PeerUnreachable
from app.keys import member_key
from app.links import Links
from app.members import Members
from app.node import World, worker
from app.replication import Tools
from app.wire import Answer, Batch
from app.write import Put
from tests.conftest import MakeStore, begin_at
from tests.model import Node
from tests.one_node import Client, put, replicated, serving
from tests.processes import until


def url_of(node: str) -> str:
    return f"http://{node.lower()}.invalid"


class Cluster:
    """Nodes in this process, and the wires between them."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.nodes: dict[str, Client] = {}
        self.cut: set[frozenset[str]] = set()
        self.exchanges: list[tuple[str, str]] = []
        """(sender, URL) of each that reached a node."""
        self.places: dict[str, str] = {}
        """URL -> the node there, where that is not the one that `url_of` gives the URL to."""
        self._stacks: dict[str, AsyncExitStack] = {}

    async def __call__(self, url: str, batch: Batch) -> Answer:
        at = self.places.get(url) or next((n for n in self.nodes if url_of(n) == url), None)
        if at not in self.nodes or frozenset((batch.sender, at)) in self.cut:
            raise PeerUnreachable("away")
        self.exchanges.append((batch.sender, url))
        body = wire.encode_batch(batch)
        try:
            response = await self.nodes[at].post("/replicate", data=body)
            if response.status != 200:
                raise PeerRefused(await response.text())
            return wire.decode_answer(await response.read())
        except ClientError as error:  # it is being shut down
            raise PeerUnreachable(str(error)) from error

    def redis_url(self, node: str) -> str:
        return f"unix://{self.socket}?db={ord(node) - ord('A')}"

    async def start(self, node: str, peers: str, **settings: Any) -> None:
        """The node serves, and its settings name these peers. Its Redis is as it was left."""
        config = Config(
            node_id=node,
            peers={peer: url_of(peer) for peer in peers},
            redis_url=self.redis_url(node),
            **{
                "retry_max_ms": 100,
                "heartbeat_ms": 50,
                "relay_after_ms": 100,
                "first_start_wait_ms": 30_000,
                "sweep_ms": 100,
                **settings,
            },
        )
        stack = self._stacks[node] = AsyncExitStack()
        interface = await stack.enter_async_context(worker(config, World(exchange=self)))
        self.nodes[node] = await stack.enter_async_context(serving(interface.answer))

    async def stop(self, node: str) -> None:
        del self.nodes[node]
        await self._stacks.pop(node).aclose()

    async def stop_all(self) -> None:
        for node in list(self.nodes):
            await self.stop(node)

    async def wipe(self, node: str) -> None:
        """The Redis of the node, which does not run, is empty."""
        async with Redis.from_url(self.redis_url(node)) as redis:
            await redis.flushdb()

    async def put(self, node: str, key: str, value: str = "x") -> str:
        """The name of the write."""
        response = await self.nodes[node].put(f"/kv/{key}", data=value.encode())
        assert response.status == 200, await response.text()
        dot: str = (await response.json())["dot"]
        return dot

    async def get(self, node: str, key: str) -> str | None:
        response = await self.nodes[node].get(f"/kv/{key}")
        assert response.status in (200, 404), await response.text()
        return await response.text() if response.status == 200 else None

    async def add(self, at: str, node: str, url: str = "") -> None:
        body = {"id": node, "url": url or url_of(node)}
        response = await self.nodes[at].post("/members", json=body)
        assert response.status in (200, 201), await response.text()

    async def remove(self, at: str, node: str) -> None:
        response = await self.nodes[at].delete(f"/members/{node}")
        assert response.status == 204, await response.text()

    async def status(self, node: str) -> dict[str, Any]:
        status: dict[str, Any] = await (await self.nodes[node].get("/status")).json()
        return status

    async def clock(self, node: str) -> dict[str, int]:
        clock: dict[str, int] = (await self.status(node))["clock"]
        return clock

    async def members(self, node: str) -> dict[str, str]:
        """Member -> its state, as the node sees it."""
        shown = await (await self.nodes[node].get("/members")).json()
        return {member["id"]: member["state"] for member in shown["members"]}

    async def until_equal(self, nodes: Sequence[str]) -> None:
        """These nodes have applied the same writes, and see the same members."""

        async def equal() -> bool:
            clocks = [await self.clock(node) for node in nodes]
            members = [await self.members(node) for node in nodes]
            same = clocks.count(clocks[0]) == members.count(members[0])
            return same and clocks.count(clocks[0]) == len(nodes)

        await until(equal)

    async def until_status(self, node: str, path: str, status: int) -> None:
        """The node answers so."""

        async def answers() -> bool:
            return (await self.nodes[node].get(path)).status == status

        await until(answers)


@pytest.fixture
async def cluster(redis_socket: Path) -> AsyncIterator[Cluster]:
    """A, B and C, which serve, not for the first time, and whose settings name each other."""
    async with Redis(unix_socket_path=str(redis_socket)) as redis:
        await redis.flushall()
    cluster = Cluster(redis_socket)
    for node in "ABC":
        await begin_at(cluster.redis_url(node), node)
        await cluster.start(node, "ABC".replace(node, ""))
    try:
        yield cluster
    finally:
        await cluster.stop_all()


async def test_a_link_that_fails_ends_the_worker_though_it_was_begun_later(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    config = Config(node_id="A")
    members = Members(config, a.redis, a.keys, a.scripts)
    board = Board(a.redis, a.keys, a.scripts, "a worker")

    async def broken(url: str, batch: Batch) -> Answer:
        raise NotImplementedError(url)

    rng = random.Random(1)

    def no_snapshot(_peer: str) -> Any:
        return None

    tools = Tools(
        *(config, a.store, board, a.progress, a.life, members, broken),
        no_snapshot,
        lambda: 1,
        rng,
    )
    links = Links("A", members, tools)
    with pytest.raises(ExceptionGroup) as failed:
        async with asyncio.TaskGroup() as group:
            links.begin(group.create_task)
            await a.store.commit(members.adding("D", "http://d"))
            await members.refresh()
            await asyncio.Event().wait()
    assert failed.value.subgroup(NotImplementedError)


async def test_a_member_whose_url_is_none_cannot_be_reached_and_ends_nothing(
    redis_url: str,
) -> None:
    """What was stored is not checked any more, nor what another node's settings say."""
    urls = {"D": "http://d..example:8000", "E": "http://.:80", "F": "no URL"}
    records = [
        Put(member_key(node), codec.pack_member(MemberRecord(url, is_member=True)))
        for node, url in urls.items()
    ]
    config = Config(node_id="A", peers={"B": "http://127.0.0.1:1"}, redis_url=redis_url)
    await begin_at(redis_url, "A")
    async with (
        worker(config, World()) as interface,
        serving(interface.answer) as client,
    ):
        await replicated(client, Node("B").write(records, 1))

        async def all_failed() -> bool:
            peers = (await (await client.get("/status")).json())["peers"]
            return all(node in peers and peers[node]["error"] for node in urls)

        await until(all_failed)
        await put(client, "lunch", b"noon?")


# --- coming --------------------------------------------------------------------------------------


async def test_a_new_node_that_knows_one_member_learns_the_rest_and_all_that_was_written(
    cluster: Cluster,
) -> None:
    for node in "ABC":
        await cluster.put(node, f"{node}-0")
    await cluster.until_equal("ABC")
    await cluster.add("A", "D")
    await cluster.start("D", "A")
    await cluster.until_equal("ABCD")
    assert [await cluster.get("D", f"{node}-0") for node in "ABC"] == ["x"] * 3
    assert set((await cluster.status("D"))["peers"]) == {"A", "B", "C"}
    assert (await cluster.put("D", "hello")).startswith("D:"), "nobody is silent: a plain name"
    await cluster.until_equal("ABCD")
    assert ("D", url_of("B")) in cluster.exchanges
    assert {("B", url_of("D")), ("C", url_of("D"))} <= set(cluster.exchanges)


async def test_a_node_is_ready_once_it_was_added_and_has_what_the_others_had(
    cluster: Cluster,
) -> None:
    for n in range(5):
        await cluster.put("B", f"b-{n}")
    await cluster.until_equal("ABC")
    await cluster.start("D", "A")

    # A, B and C have told it where they stand, and take nothing from it yet.
    async def is_joining() -> bool:
        answer = await cluster.nodes["D"].get("/readyz")
        assert answer.status == 503
        return bool((await answer.json())["type"] == "urn:lightcone:joining")

    await until(is_joining)
    assert await cluster.put("D", "early") == "D:1"
    assert await is_joining()
    assert "D" not in await cluster.clock("A")
    await cluster.add("C", "D")
    await cluster.until_status("D", "/readyz", 200)
    await cluster.until_equal("ABCD")
    assert await cluster.get("A", "early") == "x"


async def test_a_node_that_lost_its_disk_is_remembered_also_by_those_it_was_only_told_of(
    cluster: Cluster,
) -> None:
    await cluster.add("B", "D")
    await cluster.until_equal("B")
    # It hears of A and C by B, and asks them too, who have not heard of it. It does not tell its
    # settings, which would be a write that they have.
    cluster.cut = {frozenset("AB"), frozenset("BC")}
    await cluster.start("D", "B", sweep_ms=3_600_000)
    await cluster.until_status("D", "/readyz", 200)
    cluster.cut |= {frozenset("DA"), frozenset("DC")}
    old = await cluster.put("D", "x", "old")
    assert old.startswith("D:")
    await cluster.until_equal("BD")
    await cluster.stop("D")
    await cluster.wipe("D")
    cluster.cut = {frozenset("AB"), frozenset("BC"), frozenset("BD")}
    await cluster.start("D", "AC")
    assert "D" not in await cluster.clock("A"), "it has nobody who has seen its writes"

    async def writes() -> bool:
        response = await cluster.nodes["D"].put("/kv/x", data=b"new")
        return response.status == 200

    await until(writes)
    assert (await cluster.status("D"))["actor"].startswith("D~"), f"{old} would name two writes"
    cluster.cut = set()
    await cluster.until_equal("ABCD")
    assert "D" in await cluster.clock("A")


async def test_a_member_is_reached_where_it_was_last_said_to_be(cluster: Cluster) -> None:
    await cluster.add("A", "D")
    await cluster.start("D", "ABC")
    await cluster.until_equal("ABCD")
    cluster.places = {"http://moved.invalid": "D"}
    await cluster.add("B", "D", "http://moved.invalid")

    async def all_moved() -> bool:
        return {(node, "http://moved.invalid") for node in "ABC"} <= set(cluster.exchanges)

    await until(all_moved)


async def test_a_nodes_own_settings_say_how_it_reaches_a_peer(cluster: Cluster) -> None:
    cluster.places = {"http://elsewhere.invalid": "C"}
    await cluster.add("A", "C", "http://elsewhere.invalid")
    await cluster.until_equal("ABC")
    await cluster.put("A", "x")
    await cluster.until_equal("ABC")
    assert not [url for _, url in cluster.exchanges if "elsewhere" in url]


async def test_members_outlast_a_restart_of_all_nodes(cluster: Cluster) -> None:
    await cluster.add("A", "D")
    await cluster.start("D", "A")
    await cluster.until_equal("ABCD")
    await cluster.remove("B", "C")
    await cluster.until_equal("ABD")
    await cluster.stop_all()
    for node, peers in {"B": "AC", "D": "A"}.items():  # and A is away
        await cluster.start(node, peers)
    await cluster.put("D", "x", "from d")
    await cluster.until_equal("BD")
    assert await cluster.members("D") == {
        "A": "member",
        "B": "member",
        "C": "removed",
        "D": "member",
    }


# --- going ---------------------------------------------------------------------------------------


async def test_a_removed_node_refuses_clients_and_hands_over_what_it_has(
    cluster: Cluster,
) -> None:
    cluster.cut = {frozenset("CA"), frozenset("CB")}
    for n in range(5):
        await cluster.put("C", f"c-{n}", "kept")
    await cluster.remove("A", "C")
    await cluster.until_equal("AB")
    assert "C" not in await cluster.clock("B")
    cluster.cut = {frozenset("CA")}
    for path in ("/kv/c-0", "/readyz"):
        await cluster.until_status("C", path, 410)
    refused = await cluster.nodes["C"].put("/kv/late", data=b"x")
    told = await refused.json()
    assert (refused.status, told["type"]) == (410, "urn:lightcone:node-removed")
    assert told["outcome"] == "not_applied" and "POST /members" in told["detail"]
    await cluster.until_equal("AB")

    async def all_have_it() -> bool:
        return all([(await cluster.clock(node)).get("C") == 5 for node in "AB"])

    await until(all_have_it)
    assert await cluster.get("A", "c-4") == "kept"
    assert (await cluster.status("A"))["removed"] == ["C"]
    assert set((await cluster.status("A"))["peers"]) == {"B"}


async def test_nothing_is_sent_to_a_node_that_was_removed(cluster: Cluster) -> None:
    await cluster.remove("A", "C")
    await cluster.until_equal("AB")
    await cluster.until_status("C", "/readyz", 410)
    cluster.exchanges.clear()
    await cluster.put("A", "x")
    await cluster.until_equal("AB")

    async def c_has_asked_often() -> bool:
        return cluster.exchanges.count(("C", url_of("A"))) >= 10

    await until(c_has_asked_often)
    assert not [sender for sender, url in cluster.exchanges if url == url_of("C")]
    async with Redis.from_url(cluster.redis_url("A")) as redis:
        assert await redis.keys("lease:?") == [b"lease:B"]
    assert await cluster.get("B", "x") == "x"


async def test_a_removed_node_knows_it_after_a_restart_though_it_reaches_nobody(
    cluster: Cluster,
) -> None:
    await cluster.remove("A", "C")
    await cluster.until_status("C", "/readyz", 410)
    await cluster.stop("C")
    cluster.cut = {frozenset("CA"), frozenset("CB")}
    await cluster.start("C", "AB")
    assert (await cluster.nodes["C"].get("/kv/x")).status == 410


async def test_a_node_that_is_added_again_serves_and_catches_up_both_ways(
    cluster: Cluster,
) -> None:
    await cluster.put("A", "before")
    await cluster.until_equal("ABC")
    cluster.cut = {frozenset("CA"), frozenset("CB")}
    mine = await cluster.put("C", "own", "of c")
    await cluster.remove("A", "C")
    for n in range(20):
        await cluster.put("A", f"a-{n}")
    await cluster.until_equal("AB")
    cluster.cut = {frozenset("CB")}
    await cluster.until_status("C", "/readyz", 410)
    await cluster.add("B", "C")
    cluster.cut = set()
    await cluster.until_equal("ABC")
    await cluster.until_status("C", "/kv/a-19", 200)
    assert await cluster.get("A", "own") == "of c"
    assert (mine, (await cluster.put("C", "again"))[:2]) == ("C:1", "C:")
    await cluster.until_equal("ABC")


async def test_a_node_can_remove_itself_and_the_others_hear_of_it_from_it(
    cluster: Cluster,
) -> None:
    await cluster.put("C", "last", "words")
    await cluster.remove("C", "C")
    assert (await cluster.nodes["C"].get("/readyz")).status == 410
    await cluster.until_equal("AB")

    async def drained() -> bool:
        peers = (await cluster.status("C"))["peers"]
        a_knows = (await cluster.members("A"))["C"] == "removed"
        return a_knows and not any(peer["lag_writes"] for peer in peers.values())

    await until(drained)
    assert await cluster.get("A", "last") == "words"


async def test_a_removed_node_changes_no_members_but_can_be_taken_back_by_name(
    cluster: Cluster,
) -> None:
    await cluster.remove("A", "C")
    await cluster.until_status("C", "/readyz", 410)
    for change in (
        cluster.nodes["C"].post("/members", json={"id": "D", "url": url_of("D")}),
        cluster.nodes["C"].delete("/members/A"),
    ):
        response = await change
        assert response.status == 410, await response.text()
    await cluster.add("C", "C")
    await cluster.until_equal("ABC")
    await cluster.until_status("C", "/readyz", 200)
    assert (await cluster.members("A"))["C"] == "member"


# --- at the same time ----------------------------------------------------------------------------


async def test_changes_of_different_members_at_different_nodes_all_hold(
    cluster: Cluster,
) -> None:
    cluster.cut = {frozenset("AB"), frozenset("AC"), frozenset("BC")}
    await cluster.add("A", "D")
    await cluster.add("B", "E")
    await cluster.remove("B", "C")
    cluster.cut = set()
    await cluster.until_equal("AB")
    expected = dict.fromkeys("ABDE", "member") | {"C": "removed"}
    assert await cluster.members("A") == await cluster.members("B") == expected


@pytest.mark.parametrize("last", ["removed", "member"])
async def test_of_changes_of_one_member_at_different_nodes_all_agree_on_one(
    cluster: Cluster, last: str
) -> None:
    cluster.cut = {frozenset("AB"), frozenset("AC"), frozenset("BC")}
    if last == "removed":
        await cluster.add("A", "C", "http://elsewhere.invalid")
        await cluster.remove("B", "C")
    else:
        await cluster.remove("B", "C")
        await cluster.add("A", "C", "http://elsewhere.invalid")
    cluster.cut = set()
    await cluster.until_equal("AB")
    # They have the same versions, of which the later one wins; C ends as what it says.
    assert (await cluster.members("A"))["C"] == last
    await cluster.until_status("C", "/readyz", 410 if last == "removed" else 200)
    if last == "member":
        await cluster.until_equal("ABC")
