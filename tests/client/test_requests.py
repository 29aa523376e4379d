"""What is sent for each call, what comes back, and what is refused before anything is sent."""

import asyncio
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from aiohttp import web

from client import BadInput, Lightcone, LightconeError, Unreachable, Version
from client.context import UNDER_WAY_MAX
from tests.client.fake_node import FakeNode, Misbehaviour, answers, refuses


async def test_text_and_bytes_come_back_as_they_were(a: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        written = await kv.put("text", "déjà vu")
        assert (written.key, written.dot, written.clock) == ("text", "A:1", {"A": 1})
        text = await kv.get("text")
        assert text is not None
        assert text.text == "déjà vu"
        assert text.content_type == "text/plain; charset=utf-8"
        assert (text.key, text.dot, text.etag, text.siblings) == ("text", "A:1", '"A:1"', 1)
        await kv.put("bytes", b"\xff\xfe")
        raw = await kv.get("bytes")
        assert raw is not None
        assert raw.value == b"\xff\xfe"
        assert raw.content_type == "application/octet-stream"
        await kv.put("typed", b"{}", "application/json")
        assert a.seen[-1].content_type == "application/json"


async def test_an_empty_value_is_a_value(a: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        await kv.put("nothing", b"")
        version = await kv.get("nothing")
        assert version is not None
        assert version.value == b""


async def test_siblings_of_text_and_of_bytes_and_of_nothing(a: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        await kv.put("text", "déjà vu")
        await kv.put("bytes", b"\xff\xfe")
        assert [version.text for version in await kv.siblings("text")] == ["déjà vu"]
        assert [version.value for version in await kv.siblings("bytes")] == [b"\xff\xfe"]
        assert await kv.siblings("absent") == []


async def test_a_deleted_key_is_gone_and_may_be_deleted_again(a: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        await kv.put("lunch", "noon?")
        await kv.delete("lunch")
        assert await kv.get("lunch") is None
        await kv.delete("lunch")


@pytest.mark.parametrize(
    "key", ["a/b", "a//b", "/", "..", ".", "../up", "a b", "%2F", "?x=1#y", "é", "\x00", "k" * 512]
)
async def test_any_key_arrives_as_it_is(a: FakeNode, key: str) -> None:
    async with Lightcone([a.url]) as kv:
        assert (await kv.put(key, "x")).key == key
        assert await kv.get(key) is not None
    path = a.seen[0].path.partition("?")[0]
    assert "/" not in path.removeprefix("/kv/")
    assert path == f"/kv/{quote(key, safe='')}" or key in (".", "..")


@pytest.mark.parametrize("key", ["", "k" * 513, "é" * 257, "\ud800", 7])
async def test_a_key_that_no_node_would_take_is_refused_unsent(a: FakeNode, key: Any) -> None:
    async with Lightcone([a.url]) as kv:
        for call in (kv.put(key, "x"), kv.get(key), kv.siblings(key), kv.delete(key)):
            with pytest.raises(BadInput, match="nothing was sent"):
                await call
    assert a.seen == []


@pytest.mark.parametrize("key", [b"lunch", {"lunch"}])
async def test_a_transaction_about_what_cannot_be_said_in_json_is_refused_unsent(
    a: FakeNode, key: Any
) -> None:
    async with Lightcone([a.url]) as kv:
        txn = kv.txn()
        txn.get(key)
        with pytest.raises(BadInput, match="not JSON"):
            await txn.commit()
    assert a.seen == []


@pytest.mark.parametrize("value", [7, None, {"a": 1}, "\ud800"])
async def test_a_value_that_is_neither_bytes_nor_text_is_refused_unsent(
    a: FakeNode, tmp_path: Path, value: Any
) -> None:
    async with Lightcone([a.url], record=tmp_path / "history") as kv:
        with pytest.raises(BadInput, match=r"[Nn]othing was sent"):
            await kv.put("key", value)
        with pytest.raises(BadInput, match=r"[Nn]othing was sent"):
            async with kv.txn() as txn:
                txn.put("key", value)
    assert a.seen == []


@pytest.mark.parametrize("content_type", ["", "text/plain\r\nX: y", "téxt"])
async def test_a_content_type_that_is_none_is_refused_unsent(
    a: FakeNode, content_type: str
) -> None:
    async with Lightcone([a.url]) as kv:
        with pytest.raises(BadInput, match="not a content type"):
            await kv.put("key", b"", content_type)
    assert a.seen == []


@pytest.mark.parametrize(
    "options",
    [
        *({"idempotency_key": key} for key in ("", " x", "a\nb", "é", "k" * 256, "\udcff")),
        *({"if_match": etag} for etag in ('"A:1"\r\nX: y', "\udcff", 1)),
        {"if_none_match": '"A:1"'},
    ],
)
async def test_what_no_header_can_say_is_refused_unsent(
    a: FakeNode, options: dict[str, Any]
) -> None:
    async with Lightcone([a.url]) as kv:
        for write in (kv.put("key", "x", **options), kv.delete("key", **options)):
            with pytest.raises(BadInput, match="nothing was sent"):
                await write
    assert a.seen == []


async def test_a_name_that_is_no_text_of_utf_8_is_not_sent_without_the_rest(a: FakeNode) -> None:
    """What a command is given comes with surrogates for what is none."""
    async with Lightcone([a.url]) as kv:
        for listing in (kv.list("a\udcff"), kv.conflicts("a\udcff")):
            with pytest.raises(BadInput, match="nothing was sent"):
                await anext(aiter(listing))
        with pytest.raises(BadInput, match="nothing was sent"):
            kv.watch("a\udcff")
        for change in (kv.remove_member("a\udcff"), kv.heal(a.url, "a\udcff")):
            with pytest.raises(BadInput, match="nothing was sent"):
                await change
    assert a.seen == []


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        "http://127.0.0.1:8001",
        [""],
        ["127.0.0.1:8001"],
        ["ftp://127.0.0.1"],
        ["http://"],
        ["http://a:b:c"],
        ["http://a:99999"],
        ["http://a?x=1"],
        ["http://a#x"],
        ["http://a?"],
        ["http://a#"],
        ["http://a..b"],
        ["http://" + "a" * 64],
        ["http://a b"],
        ["http://a:\n80"],
        ["http://a\\b"],
        ["http://a/b c"],
        ["http://user:secret@a"],
        ["http://user:secret@a:b"],
        ["http://a\n"],
    ],
)
def test_what_is_not_a_list_of_addresses_is_refused(nodes: Any) -> None:
    with pytest.raises(BadInput) as raised:
        Lightcone(nodes)
    assert "secret" not in str(raised.value)


def test_an_address_has_one_form_and_counts_once() -> None:
    kv = Lightcone(["http://127.0.0.1:8001/", "http://127.0.0.1:8001"])
    assert kv.nodes == ("http://127.0.0.1:8001",)
    others = (
        "http://[::1]:8001",
        "https://node.example./lightcone",
        "http://a_b",
        "http://1.2.3.4",
    )
    assert Lightcone(others).nodes == others


@pytest.mark.parametrize("seconds", [-1, 31, float("nan")])
def test_a_patience_that_no_node_would_have_is_refused(seconds: float) -> None:
    with pytest.raises(BadInput, match="patience_s is 0 to 30 seconds"):
        Lightcone(["http://127.0.0.1:8001"], patience_s=seconds)


@pytest.mark.parametrize("seconds", [0, -1, 3601, float("nan")])
def test_a_deadline_is_some_time_and_not_for_ever(seconds: float) -> None:
    with pytest.raises(BadInput, match=r"timeout_s is 0\.01 to 3600 seconds"):
        Lightcone(["http://127.0.0.1:8001"], timeout_s=seconds)


async def test_a_client_that_is_not_open_says_so() -> None:
    kv = Lightcone(["http://127.0.0.1:8001"])
    with pytest.raises(RuntimeError, match="async with"):
        await kv.get("lunch")
    async with kv:
        pass
    with pytest.raises(RuntimeError, match="async with"):
        await kv.get("lunch")
    with pytest.raises(RuntimeError, match="make another one"):
        await kv.__aenter__()


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("bad-key", 400),
        ("foreign-context", 400),
        ("not-found", 404),
        ("method-not-allowed", 405),
        ("too-large", 413),
    ],
)
async def test_a_refusal_hands_on_what_the_node_said(a: FakeNode, kind: str, status: int) -> None:
    a.misbehaviours.append(refuses(kind, status, detail="the reason", outcome="not_applied"))
    async with Lightcone([a.url]) as kv:
        with pytest.raises(BadInput, match="the reason") as raised:
            await kv.put("lunch", "noon?")
    assert raised.value.kind == kind
    assert raised.value.problem["status"] == status
    assert raised.value.outcome == "not_applied"
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, LightconeError)


async def test_a_server_that_is_no_node_is_a_mistake_in_the_address(a: FakeNode) -> None:
    a.misbehaviours.append(answers(404, "no such page"))
    async with Lightcone([a.url]) as kv:
        with pytest.raises(BadInput, match="404"):
            await kv.get("lunch")


@pytest.mark.parametrize("missing", [None, "A:1", [7], [{"known_for_s": 1}]])
async def test_a_refusal_that_names_nothing_understandable_is_still_a_refusal(
    a: FakeNode, missing: object
) -> None:
    a.misbehaviours.append(refuses("not-caught-up", 503, missing=missing))
    async with Lightcone([a.url], patience_s=0) as kv:
        with pytest.raises(LightconeError) as raised:
            await kv.get("lunch")
    assert not cast(Any, raised.value).missing


async def test_a_fault_is_set_and_healed_at_the_node_that_has_it(a: FakeNode, b: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        assert await kv.set_fault(b.url, "C", delay_ms=50, no_relay=True) == b.faults["C"]
        assert b.faults == {"C": {"delay_ms": 50, "no_relay": True}}
        await kv.heal(b.url, "C")
        assert b.faults == {}
        with pytest.raises(BadInput):
            await kv.heal(b.url, "")


async def test_a_write_that_is_cancelled_leaves_the_session_usable(a: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        for _ in range(2 * UNDER_WAY_MAX):
            writing = asyncio.create_task(kv.put("lunch", "noon?"))
            await asyncio.sleep(0)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
        await kv.put("dinner", "seven?")


async def test_no_port_listening_is_unreachable_for_questions_too(a: FakeNode) -> None:
    await a.stop()
    async with Lightcone([a.url], timeout_s=0.3) as kv:
        with pytest.raises(Unreachable):
            await kv.status()


@pytest.mark.parametrize(
    ("content_type", "value", "text"),
    [
        ("text/plain", "é".encode(), "é"),
        ("text/plain; charset=latin-1", b"\xe9", "é"),
        ('text/plain; charset="utf-16-le"', "é".encode("utf-16-le"), "é"),
    ],
)
def test_text_is_read_in_its_charset(content_type: str, value: bytes, text: str) -> None:
    assert Version("k", value, content_type, "A:1", '"A:1"', 1, "http://a").text == text


@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=klingon"])
def test_what_is_not_text_says_so(content_type: str) -> None:
    with pytest.raises(ValueError):
        _ = Version("k", b"\xff", content_type, "A:1", '"A:1"', 1, "http://a").text


def says(status: int, body: Any = None) -> Misbehaviour:
    """A node that answers so, in the session."""

    async def answer(_request: web.Request) -> web.Response:
        headers = {"Causal-Context": "lc1;A:1"}
        if body is None:
            return web.Response(status=status, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    return answer


async def test_members_are_added_listed_and_removed_as_part_of_the_session(a: FakeNode) -> None:
    d = {"id": "D", "url": "http://d", "source": "learned", "state": "member", "reachable": False}
    a.misbehaviours += [says(201, d), says(200, d), says(200, {"members": [d]}), says(204)]
    async with Lightcone([a.url]) as kv:
        assert await kv.add_member("D", "http://d") == d
        assert await kv.add_member("D", "http://d") == d
        assert await kv.members() == [d]
        await kv.remove_member("D/..")
        with pytest.raises(BadInput, match="Name the member"):
            await kv.remove_member("")
    assert [(seen.method, seen.path.partition("?")[0]) for seen in a.seen] == [
        ("POST", "/members"),
        ("POST", "/members"),
        ("GET", "/members"),
        ("DELETE", "/members/D%2F.."),
    ]
    assert a.seen[0].body == b'{"id": "D", "url": "http://d"}'
    assert [seen.context for seen in a.seen] == ["", *["lc1;A:1"] * 3]


async def test_a_node_that_was_removed_is_passed_over(a: FakeNode, b: FakeNode) -> None:
    a.misbehaviours.append(refuses("node-removed", 410, outcome="not_applied"))
    async with Lightcone([a.url, b.url]) as kv:
        assert (await kv.put("lunch", "noon?")).node == b.url
    assert len(a.seen) == 1
