"""Who the members are, and what changes that (app/members.py), asked of one node by HTTP."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import pytest
from redis import Redis as BlockingRedis

from app import codec, wire
from app.board import Board
from app.carriers import SignedBatch
from app.codec import MemberRecord
from app.config import Config
from app.errors import NodeRemoved
from app.http_replicate import ReplicateRoutes
from app.keys import Keys, member_key
from app.members import Members, Told, members_of
from app.node import tell_settings
from app.peers import Signer
from app.snapshot import Cut, Part
from app.snapshot_receiving import SnapshotReceiving
from app.vector_clock import Dot, VectorClock
from app.wire import Batch
from app.write import Put
from tests.conftest import MakeStore, Store
from tests.model import Node
from tests.one_node import Client, contents, node_a

PEERS = {"B": "http://b", "C": "http://c"}


# --- the rule ------------------------------------------------------------------------------------


def record(url: str, dot: Dot, *, is_member: bool = True) -> tuple[MemberRecord, Dot]:
    return MemberRecord(url, is_member), dot


def test_without_a_change_the_members_are_those_of_the_settings() -> None:
    members = members_of("A", "http://a", PEERS, Told({}, {}))
    assert {m.node: (m.url, m.source) for m in members.values()} == {
        "A": ("http://a", "self"),
        "B": ("http://b", "settings"),
        "C": ("http://c", "settings"),
    }


def test_a_nodes_own_settings_hold_over_any_url_that_it_was_told() -> None:
    told = Told({"B": record("http://told", Dot("C", 1))}, {"C": {"B": "http://as-c-knows-it"}})
    assert members_of("A", "", PEERS, told)["B"].url == "http://b"
    assert members_of("A", "", {}, told)["B"].url == "http://told"


def test_what_a_node_says_of_itself_holds_over_what_others_say_of_it() -> None:
    settings = {"A": {"C": "http://a-says"}, "C": {"C": "http://c-says"}, "D": {"C": ""}}
    assert members_of("E", "", {}, Told({}, settings))["C"].url == "http://c-says"
    del settings["C"]
    assert members_of("E", "", {}, Told({}, settings))["C"].url == "http://a-says"
    del settings["A"]
    assert members_of("E", "", {}, Told({}, settings))["C"].url == ""


def test_a_removal_holds_over_all_settings() -> None:
    told = Told({"B": record("", Dot("C", 7), is_member=False)}, {"C": {"B": "http://b"}})
    assert members_of("A", "", PEERS, told)["B"].removed == Dot("C", 7)


# --- what a node keeps ---------------------------------------------------------------------------


async def members_at(store: Store, **settings: Any) -> Members:
    config = Config(node_id="A", **settings)
    members = Members(config, store.redis, store.keys, store.scripts)
    await members.refresh()
    return members


async def test_who_was_told_of_a_removal_knows_it_until_one_that_knows_says_otherwise(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    members = await members_at(a, peers=PEERS)
    await members.hear("B", Dot("B", 7), VectorClock({"B": 9}), was_asked=False)
    assert members.in_question
    with pytest.raises(NodeRemoved, match="B:7"):
        members.check()
    assert (await members_at(a, peers=PEERS)).removed == Dot("B", 7), "also after a restart"
    await members.hear("C", None, VectorClock({"C": 3}), was_asked=True)
    assert members.removed, "C has not heard of it, so it revokes nothing"
    for other in "BD":
        await members.hear(other, None, VectorClock({"B": 8}), was_asked=False)
    assert members.removed, "it was not asked, and may not have looked since it applied it"
    await members.hear("D", None, VectorClock({"B": 8}), was_asked=True)
    members.check()
    assert not members.in_question
    assert (await members_at(a, peers=PEERS)).removed is None


async def test_who_asks_is_told_of_a_removal_that_was_applied_a_moment_ago(
    make_store: MakeStore,
) -> None:
    """The worker that is asked has not been told yet that a key of the system was written."""
    a, c = await make_store("A"), Node("C")
    members = await members_at(a, peers=PEERS)
    removal = c.write(
        [Put(member_key("B"), codec.pack_member(MemberRecord("", is_member=False)))], 1
    )
    await a.buffer.receive([removal])
    routes = ReplicateRoutes(
        Config(node_id="A", peers=PEERS),
        a.life,
        members,
        a.buffer,
        cast(SnapshotReceiving, None),
        a.progress,
        Board(a.redis, a.keys, a.scripts, "a worker"),
        Signer(None),
        lambda: 0,
    )
    question = wire.encode_batch(Batch("B", "A", VectorClock(), (), asks_hearsay=True))
    answer = wire.decode_answer((await routes.take(SignedBatch(question))).body)
    assert answer.clock.covers(removal.dot)
    assert answer.removed == removal.dot


async def test_a_removal_that_went_with_the_disk_of_its_teller_holds_no_more(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    members = await members_at(a, peers=PEERS)
    await members.hear("B", Dot("B", 7), VectorClock({"B": 9}), was_asked=False)
    await members.hear("B", None, VectorClock({"B~1": 1}), was_asked=True)
    assert members.removed is None


async def test_once_the_removal_itself_has_come_the_key_says_whether_it_holds(
    make_store: MakeStore,
) -> None:
    a, b = await make_store("A"), Node("B")
    members = await members_at(a, peers=PEERS)
    gone = codec.pack_member(MemberRecord("http://a", is_member=False))
    back = codec.pack_member(MemberRecord("http://a", is_member=True))
    removal, revocation = (
        b.write([Put(member_key("A"), gone)], 1),
        b.write([Put(member_key("A"), back)], 2),
    )
    await members.hear("B", removal.dot, VectorClock({"B": 1}), was_asked=True)
    await a.buffer.receive([removal])
    await members.refresh()
    assert members.removed == removal.dot
    await a.buffer.receive([revocation])
    await members.refresh()
    assert members.removed is None
    await members.hear("B", removal.dot, VectorClock({"B": 1}), was_asked=True)
    assert members.removed is None, "whoever says so has not heard of what came after"


async def test_what_settings_name_is_written_once_and_nothing_while_there_is_no_change(
    make_store: MakeStore,
) -> None:
    a, b = await make_store("A"), Node("B")
    members = await members_at(a, peers=PEERS)
    board = Board(a.redis, a.keys, a.scripts, "a worker")
    await tell_settings(members, a.store, board, 60_000)
    assert not await a.redis.exists("lease:~settings"), "a lease is a write, and costs a sync"
    joined = codec.pack_member(MemberRecord("http://d", is_member=True))
    await a.buffer.receive([b.write([Put(member_key("D"), joined)], 1)])
    await members.refresh()
    for _ in range(2):
        await tell_settings(members, a.store, board, 60_000)
    assert (await a.store.clock())["A"] == 1


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff", b'{"url": 1, "state": "member"}', b"[]"])
async def test_what_is_no_record_of_a_member_is_none(make_store: MakeStore, value: bytes) -> None:
    a = await make_store("A")
    await a.store.commit([Put(member_key("D"), value), Put("\0settings/D", value)])
    await a.store.commit([Put(member_key("../x"), codec.pack_member(MemberRecord("", True)))])
    members = await members_at(a, peers=PEERS)
    assert [member.node for member in members.all] == ["A", "B", "C"]


# --- keys of the system --------------------------------------------------------------------------


async def test_a_key_of_the_system_is_noted_and_told_by_both_scripts(make_store: MakeStore) -> None:
    """lua/commit_writes.lua, lua/receive_writes.lua"""
    a, b = await make_store("A"), Node("B")
    async with a.redis.pubsub() as channel:
        await channel.subscribe(Keys().system_channel)
        await a.store.commit([Put("user", b"x"), Put("\0mine", b"x")])
        await a.buffer.receive([b.write([Put("us\0er", b"x"), Put("\0theirs", b"x")], 1)])
        heard: list[bytes] = []
        while len(heard) < 2:
            message = await channel.get_message(timeout=5)
            assert message is not None
            heard += [message["data"]] if message["type"] == "message" else []
    assert heard == [b"\0mine", b"\0theirs"]
    assert await a.redis.smembers("system") == {b"\0mine", b"\0theirs"}


# --- over HTTP -----------------------------------------------------------------------------------


async def refused(response: Any, status: int, kind: str) -> str:
    """What the problem says."""
    text = await response.text()
    assert response.status == status, text
    fields = msgspec.json.decode(text)
    assert (fields["type"], fields["outcome"]) == (f"urn:lightcone:{kind}", "not_applied")
    detail: str = fields["detail"]
    return detail


async def test_a_member_is_added_and_shown_and_added_again_without_effect(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        d = {"id": "D", "url": "http://127.0.0.1:4"}
        response = await client.post("/members", json=d)
        token = response.headers["Causal-Context"]
        expected = {**d, "source": "learned", "state": "member", "reachable": False}
        assert (response.status, await response.json(), token) == (201, expected, "lc1;A:1")
        again = await client.post("/members", json={**d, "url": d["url"] + "/"})
        assert (again.status, again.headers["Causal-Context"]) == (200, "lc1;")
        response = await client.get("/members", headers={"Causal-Context": token})
        assert response.headers["Causal-Context"] == token
        shown = (await response.json())["members"]
        assert shown[0] == {
            "id": "A",
            "url": None,
            "source": "self",
            "state": "member",
            "reachable": True,
        }
        assert [(m["id"], m["source"]) for m in shown[1:]] == [
            ("B", "settings"),
            ("C", "settings"),
            ("D", "learned"),
        ]


async def test_a_member_is_removed_once_and_stays_listed(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        for token in ("lc1;A:1", "lc1;"):
            response = await client.delete("/members/C")
            assert (response.status, response.headers["Causal-Context"]) == (204, token)
        shown = (await (await client.get("/members")).json())["members"]
        assert [(m["id"], m["state"], m["reachable"]) for m in shown] == [
            ("A", "member", True),
            ("B", "member", False),
            ("C", "removed", None),
        ]
        status = await (await client.get("/status")).json()
        assert (list(status["peers"]), status["removed"]) == (["B"], ["C"])
        assert (await client.post("/members", json={"id": "C", "url": "http://c"})).status == 201
        assert list((await (await client.get("/status")).json())["peers"]) == ["B", "C"]


async def test_a_node_says_where_it_is_reached_itself(redis_url: str) -> None:
    async with node_a(redis_url, advertise_url="http://a:1/") as client:
        shown = (await (await client.get("/members")).json())["members"]
        assert shown[0]["url"] == "http://a:1"
    async with node_a(redis_url) as client:
        response = await client.post("/members", json={"id": "A", "url": "http://a:2"})
        assert (response.status, (await response.json())["url"]) == (200, "http://a:2")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "A member is JSON such as"),
        (b"\xff", "A member is JSON such as"),
        (b"[" * 5000, "larger than|A member is JSON such as"),
        (b'{"id": "D"}', "url"),
        (b'{"id": "D", "url": null}', "url"),
        (b'{"id": "D", "url": "http://d", "weight": 2}', "weight"),
        (b'{"id": "D~1", "url": "http://d"}', "'D~1' is not a node id"),
        (b'{"id": "", "url": "http://d"}', "'' is not a node id"),
        (b'{"id": "D", "url": "d:8000"}', "must be http://host:port"),
        (b'{"id": "D", "url": "http://d/path"}', "must be http://host:port"),
        (b'{"id": "D", "url": "http://u:hunter2@d"}', "must not hold a password"),
        (b'{"id": "D", "url": "http://d..example:8000"}', "must name a host that can be looked up"),
        (b'{"id": "D", "url": "http://127.0.0.1:1"}', "B is reached at"),
    ],
)
async def test_a_bad_member_is_refused_and_nothing_is_changed(
    redis_url: str, body: bytes, says: str
) -> None:
    async with node_a(redis_url) as client:
        assert (await client.put("/kv/x", data=b"x")).status == 200  # so it is settled who writes
        with BlockingRedis.from_url(redis_url) as redis:
            before = contents(redis)
            response = await client.post("/members", data=body)
            kind = "too-large" if len(body) > 4096 else "bad-member"
            detail = await refused(response, 413 if len(body) > 4096 else 400, kind)
            assert any(part in detail for part in says.split("|")), detail
            assert "hunter2" not in detail
            assert contents(redis) == before


async def test_who_is_no_member_cannot_be_removed(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        assert "Z" in await refused(await client.delete("/members/Z"), 404, "no-such-member")
        await client.delete("/members/B")
        await client.delete("/members/C")
        await refused(await client.delete("/members/A"), 409, "last-member")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_keys_of_the_system_are_not_for_clients(redis_url: str, method: str) -> None:
    async with node_a(redis_url) as client:
        await client.post("/members", json={"id": "D", "url": "http://d"})
        response = await client.request(method, "/kv/%00member/D")
        assert "reserved for the system" in await refused(response, 400, "bad-key")
        assert (await client.get("/readyz")).status == 200


# --- strangers -----------------------------------------------------------------------------------

Ask = Callable[..., Awaitable[Any]]


async def ask(client: Client, sender: str, *, birth: str = "a birth", **more: Any) -> Any:
    batch = Batch(
        sender, "A", more.pop("clock", VectorClock()), more.pop("writes", ()), birth, **more
    )
    return await client.post("/replicate", data=wire.encode_batch(batch))


async def test_a_stranger_that_only_asks_is_told_who_the_members_are_and_remembered(
    redis_url: str,
) -> None:
    async with node_a(redis_url) as client:
        await client.put("/kv/x", data=b"x")
        for birth in ("first", "second"):
            answer = wire.decode_answer(await (await ask(client, "D", birth=birth)).read())
            assert answer.first_birth == "first"
            assert answer.clock == VectorClock({"A": 1})
            assert answer.members == {"A": "", "B": "http://127.0.0.1:1", "C": "http://127.0.0.1:2"}


async def test_a_stranger_that_sends_anything_or_asks_nothing_is_refused(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        write = Node("D").write([Put("x", b"x")], 1)
        cut = Cut(VectorClock({"A": 1}), VectorClock(), 5)
        for response in (
            await ask(client, "D", writes=(write,)),
            await ask(client, "D", part=Part("s", "", "", 1)),
            await ask(client, "D", part=Part("s", "p", "", 1, (), cut)),
            await ask(client, "D", birth=""),
            await ask(client, "no id"),
        ):
            assert "POST /members" in await refused(response, 403, "unknown-peer")
        with BlockingRedis.from_url(redis_url) as redis:
            assert redis.hkeys("births") == [b"A"], "only itself is known"
            assert not redis.exists("snapshot", "staging")


async def test_a_stranger_is_not_believed(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        for n in (1, 2):
            response = await ask(client, "D", clock=VectorClock({f"A~zzz{n}": 1}))
            assert wire.decode_answer(await response.read()).clock["A"] == n - 1
            written = await (await client.put("/kv/x", data=b"x")).json()
            assert written["dot"] == f"A:{n}", "it has not lost its name"
        # From a member, that is a reason to look for what was lost.
        await ask(client, "B", clock=VectorClock({"A~zzz3": 1}))
        written = await (await client.put("/kv/x", data=b"x")).json()
        assert written["dot"].startswith("A~")


async def test_only_so_many_strangers_are_remembered(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.http_replicate._STRANGERS_MAX", 3)
    async with node_a(redis_url) as client:
        # It knows of itself, too.
        assert [(await ask(client, node)).status for node in "DEF"] == [200, 200, 403]
        assert (await ask(client, "B")).status == 200, "a member is no stranger"
        await client.post("/members", json={"id": "F", "url": "http://f"})
        assert (await ask(client, "F")).status == 200
