"""The HTTP interface of one node, with its parts as in production; its peers are this test."""

import asyncio
import base64
import itertools
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import structlog
from aiohttp import ClientResponse
from redis import Redis as BlockingRedis
from redis.exceptions import ConnectionError as RedisConnectionError
from yarl import URL

from app import __version__, node, wire
from app.config import Config
from app.errors import StartupError
from app.peers import SIGNATURE_HEADER, Signer
from app.redis_program import find_redis_server
from app.vector_clock import VectorClock
from app.write import Delete, Operation, Put
from tests.model import Node
from tests.one_node import PEERS, Client, new_node_a, node_a, put_by, replicate, replicated
from tests.processes import until

SECRET = "a secret of this cluster"
Logs = list[Any]


# --- a node, and what is said to it ---------------------------------------------------------------


@pytest.fixture
def redis_url(redis_socket: Path) -> str:
    """An empty database of a real redis-server."""
    with BlockingRedis(unix_socket_path=str(redis_socket)) as redis:
        redis.flushall()
    return f"unix://{redis_socket}?db=3"


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


@pytest.fixture
def logs() -> Iterator[Logs]:
    """What the node logs while the test runs."""
    with structlog.testing.capture_logs() as captured:
        yield captured


def grave(logs: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [entry for entry in logs if entry["log_level"] in ("error", "critical")]


# --- keys and values ------------------------------------------------------------------------------


async def test_a_put_is_answered_with_its_dot_and_the_clock(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await replicated(client, put_by(Node("B"), "tea", b"five"))
        response = await client.put("/kv/lunch", data=b"noon?")
        assert response.status == 200
        answer = await response.json()
        assert answer == {"key": "lunch", "dot": "A:1", "clock": {"A": 1, "B": 1}}
        assert response.headers["ETag"] == '"A:1"'
        assert response.headers["Causal-Context"] == "lc1;A:1"


async def test_what_was_put_is_got(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?", headers={"Content-Type": "text/plain; charset=utf-8"})
        response = await client.get("/kv/lunch")
        assert response.status == 200
        assert await response.read() == b"noon?"
        shown = {name: response.headers[name] for name in ("ETag", "Siblings", "Dot")}
        assert shown == {"ETag": '"A:1"', "Siblings": "1", "Dot": "A:1"}
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert response.headers["Causal-Context"] == "lc1;A:1"


async def test_a_head_is_a_get_without_the_value(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?", headers={"Content-Type": "text/plain"})
        got, head = await client.get("/kv/lunch"), await client.head("/kv/lunch")
        assert head.status == 200
        assert await head.read() == b""
        names = ("Content-Type", "Content-Length", "ETag", "Siblings", "Dot", "Causal-Context")
        assert {n: head.headers[n] for n in names} == {n: got.headers[n] for n in names}
        absent = await client.head("/kv/dinner")
        assert absent.status == 404
        assert absent.headers["Causal-Context"] == "lc1;A:1"


async def test_a_delete_is_answered_the_same_whether_the_key_was_there_or_not(
    redis_url: str,
) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        for dot in ("A:2", "A:3"):
            response = await client.delete("/kv/lunch")
            assert response.status == 204
            assert await response.read() == b""
            assert response.headers["Causal-Context"] == f"lc1;{dot}"
            assert response.headers["Dot"] == dot
        await problem(await client.get("/kv/lunch"), 404, "no-such-key")


async def test_a_key_that_is_absent_is_a_problem_with_a_context(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        response = await client.get("/kv/lunch")
        assert "lunch" in (await problem(response, 404, "no-such-key"))["detail"]
        assert response.headers["Causal-Context"] == "lc1;"
        await replicated(client, put_by(Node("B"), "tea", b"five"))
        await put(client, "dinner", b"six?")
        for query in ("", "?siblings=true"):
            response = await client.get(f"/kv/lunch{query}")
            await problem(response, 404, "no-such-key")
            assert response.headers["Causal-Context"] == "lc1;A:1;B:1"


@pytest.mark.parametrize("value", [b"", b"\0", bytes(range(256)), b"\xff" * 100_000])
async def test_a_value_is_any_bytes(redis_url: str, value: bytes) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", value)
        response = await client.get("/kv/lunch")
        assert await response.read() == value
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert response.headers["Content-Length"] == str(len(value))


async def test_a_value_may_come_in_chunks(redis_url: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"no"
        yield b"on?"

    async with node_a(redis_url) as client:
        await client.put("/kv/lunch", data=chunks())
        assert await (await client.get("/kv/lunch")).read() == b"noon?"


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/json; charset=utf-8", 'a/b; title="x, y"', "odd", "x" * 255],
)
async def test_a_content_type_comes_back_as_it_was(redis_url: str, content_type: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"{}", headers={"Content-Type": content_type})
        assert (await client.get("/kv/lunch")).headers["Content-Type"] == content_type


async def test_without_a_content_type_a_value_is_bytes(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?", skip_auto_headers=["Content-Type"])
        response = await client.get("/kv/lunch")
        assert response.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("content_type", ["x" * 256, "", "text/é", "text/\x7f"])
async def test_a_content_type_that_cannot_be_kept_is_refused(
    redis_url: str, content_type: str
) -> None:
    async with node_a(redis_url) as client:
        request = b"PUT /kv/lunch HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n"
        request += b"Content-Type: " + content_type.encode() + b"\r\n\r\nx"
        reader, writer = await connect(client)
        writer.write(request)
        status_line, _, rest = (await reader.read()).partition(b"\r\n")
        writer.close()
        assert b" 400 " in status_line
        if b"problem+json" in rest:  # else aiohttp has refused it before us
            assert b"urn:lightcone:bad-parameter" in rest
        assert await clock_of(client) == {}


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        *("a/b", "a//b", "/", "/a", "a/", ".", "..", "../up", "a/../b", "a b", "%2F", "%", "+"),
        *("?x=1#y", "a&b=c", "é", "日本", "\U0001f355", "a\0", "\r\n", "deletes", "A:1", "k" * 512),
        "é" * 256,
    ],
)
async def test_a_key_is_any_text(redis_url: str, key: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, key, b"x")
        await put(client, "another", b"y")
        response = await client.session.get(kv(client, key, "?siblings=true"))
        assert (await response.json())["key"] == key
        assert (await client.session.delete(kv(client, key))).status == 204
        await problem(await client.session.get(kv(client, key)), 404, "no-such-key")
        assert await (await client.get("/kv/another")).read() == b"y"


async def test_slashes_and_letters_may_be_encoded_or_not(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        for path in ("/kv/menu/l%C3%A9", "/kv/menu%2Fl%c3%a9", "/kv/m%65nu/l%C3%a9"):
            await client.session.put(path_of(client, path), data=path)
            response = await client.session.get(path_of(client, "/kv/menu/l%C3%A9"))
            assert await response.text() == path


@pytest.mark.parametrize("path", ["/%6bv/lunch", "/%6B%76/lunch", "/k%76/l%75nch"])
async def test_what_stands_before_a_key_may_be_encoded_too(redis_url: str, path: str) -> None:
    async with node_a(redis_url) as client:
        response = await client.session.put(path_of(client, path), data=b"noon?")
        assert (await response.json())["key"] == "lunch"
        assert await (await client.get("/kv/lunch")).read() == b"noon?"


async def test_a_plus_in_a_key_is_a_plus(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, "a b", b"space")
        await client.session.put(path_of(client, "/kv/a+b"), data=b"plus")
        assert await (await client.session.get(kv(client, "a b"))).read() == b"space"
        assert await (await client.session.get(kv(client, "a+b"))).read() == b"plus"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "path",
    ["/kv/", "/kv/" + "k" * 513, "/kv/" + "%C3%A9" * 257, "/kv/%FF", "/kv/a%C3", "/kv/%ED%A0%80"],
)
async def test_a_key_that_cannot_be_is_refused(redis_url: str, method: str, path: str) -> None:
    async with node_a(redis_url) as client:
        response = await client.session.request(method, path_of(client, path))
        if method == "HEAD":
            assert response.status == 400
        else:
            assert "key" in (await problem(response, 400, "bad-key"))["detail"].lower()
        assert await clock_of(client) == {}


# --- siblings -------------------------------------------------------------------------------------


async def concurrent_lunches(client: Client) -> None:
    """Three nodes have put lunch without knowing of each other; the clock of B is far ahead."""
    await put(client, "lunch", b"pizza", headers={"Content-Type": "text/plain"})
    soup = Node("B").write([Put("lunch", b"\xff\x00", "image/x-soup")], 9_000_000_000_000_000)
    bread = Node("C").write([Put("lunch", "bröd".encode(), "text/plain")], 5)
    await replicated(client, bread, soup)


async def test_a_get_gives_the_winner_and_says_how_many_siblings_there_are(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await concurrent_lunches(client)
        response = await client.get("/kv/lunch")
        assert await response.read() == b"\xff\x00"
        assert response.headers["Content-Type"] == "image/x-soup"
        assert response.headers["Siblings"] == "3"
        assert response.headers["Dot"] == "B:1"
        assert response.headers["ETag"] == '"A:1,B:1,C:1"'
        assert response.headers["Causal-Context"] == "lc1;A:1;B:1;C:1"


async def test_all_siblings_are_shown_as_json_winner_first(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await concurrent_lunches(client)
        response = await client.get("/kv/lunch?siblings=true")
        assert response.content_type == "application/json"
        assert response.headers["ETag"] == '"A:1,B:1,C:1"'
        assert response.headers["Causal-Context"] == "lc1;A:1;B:1;C:1"
        shown = await response.json()
        assert (shown["key"], shown["winner"]) == ("lunch", "B:1")
        soup, pizza, bread = shown["siblings"]
        assert soup == {
            "dot": "B:1",
            "timestamp": 9_000_000_000_000_000,
            "content_type": "image/x-soup",
            "base64": base64.b64encode(b"\xff\x00").decode(),
        }
        assert (pizza["dot"], pizza["text"]) == ("A:1", "pizza")
        expected = {"dot": "C:1", "timestamp": 5, "content_type": "text/plain", "text": "bröd"}
        assert bread == expected


async def test_a_write_supersedes_the_siblings_it_could_see(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await concurrent_lunches(client)
        await put(client, "lunch", b"all three")
        response = await client.get("/kv/lunch?siblings=true")
        [only] = (await response.json())["siblings"]
        assert (only["dot"], only["text"]) == ("A:2", "all three")
        assert response.headers["ETag"] == '"A:2"'
        assert only["timestamp"] > 9_000_000_000_000_000


async def test_siblings_false_is_a_plain_get(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        assert await (await client.get("/kv/lunch?siblings=false")).read() == b"noon?"


# --- conditions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "value", "holds"),
    [
        ("If-Match", '"A:1,B:1,C:1"', True),
        ("If-Match", '"A:1", "A:1,B:1,C:1"', True),
        ("If-Match", "*", True),
        ("If-Match", '"A:1"', False),
        ("If-Match", 'W/"A:1,B:1,C:1"', False),
        ("If-Match", '"something-else"', False),
        ("If-None-Match", "*", False),
    ],
)
async def test_a_write_is_done_only_if_the_key_holds_what_is_wanted(
    redis_url: str, header: str, value: str, holds: bool
) -> None:
    async with node_a(redis_url) as client:
        await concurrent_lunches(client)
        for method in ("PUT", "DELETE"):
            if holds and method == "DELETE":
                value = '"A:2"' if value.startswith('"') else value
            response = await client.request(method, "/kv/lunch", headers={header: value})
            if holds:
                assert response.status in (200, 204)
                continue
            fields = await problem(response, 412, "precondition-failed")
            now = {"key": "lunch", "etag": '"A:1,B:1,C:1"', "siblings": 3}
            assert fields["keys"] == [now]
            assert response.headers["ETag"] == now["etag"]
            assert response.headers["Causal-Context"] == "lc1;A:1;B:1;C:1"
        assert (await clock_of(client))["A"] == (3 if holds else 1)


async def test_a_key_is_created_once(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        absent = {"If-None-Match": "*"}
        responses = await asyncio.gather(
            *(client.put("/kv/lunch", data=b"%d" % n, headers=absent) for n in range(10))
        )
        assert sorted(response.status for response in responses) == [200] + 9 * [412]
        assert await clock_of(client) == {"A": 1}
        refused = await client.put("/kv/dinner", data=b"x", headers={"If-Match": "*"})
        fields = await problem(refused, 412, "precondition-failed")
        assert fields["keys"] == [{"key": "dinner", "etag": None, "siblings": 0}]
        assert "ETag" not in refused.headers
        assert refused.headers["Causal-Context"] == "lc1;A:1"


async def test_increments_by_compare_and_set_are_none_lost(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, "count", b"0")

        async def increment() -> None:
            while True:
                response = await client.get("/kv/count")
                value, tag = int(await response.read()), response.headers["ETag"]
                put = client.put("/kv/count", data=b"%d" % (value + 1), headers={"If-Match": tag})
                if (await put).status == 200:
                    return

        await asyncio.gather(*(increment() for _ in range(10)))
        assert await (await client.get("/kv/count")).read() == b"10"


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("value", ["A:1", '"A:1', "", '*, "A:1"'])
async def test_a_condition_that_cannot_be_read_is_refused(
    redis_url: str, header: str, value: str
) -> None:
    async with node_a(redis_url) as client:
        response = await client.put("/kv/lunch", data=b"x", headers={header: value})
        if header == "If-Match":
            assert header in (await problem(response, 400, "bad-parameter"))["detail"]
        else:
            await problem(response, 501, "unsupported-header")
        await put(client, "lunch", b"x")
        response = await client.get("/kv/lunch", headers={"If-None-Match": value})
        await problem(response, 400, "bad-parameter")


async def test_who_has_what_is_there_is_not_sent_it_again(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        for method, value in itertools.product(
            ("GET", "HEAD"), ('"A:1"', 'W/"A:1"', '"x", "A:1"', "*")
        ):
            response = await client.request(method, "/kv/lunch", headers={"If-None-Match": value})
            assert response.status == 304
            assert await response.read() == b""
            assert response.headers["ETag"] == '"A:1"'
            assert response.headers["Causal-Context"] == "lc1;A:1"
        response = await client.get("/kv/lunch", headers={"If-None-Match": '"A:2"'})
        assert response.status == 200
        absent = await client.get("/kv/dinner", headers={"If-None-Match": "*"})
        await problem(absent, 404, "no-such-key")


# --- requests that are repeated -------------------------------------------------------------------


async def test_a_request_with_an_idempotency_key_is_done_once(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        key = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}
        first = await client.put("/kv/lunch", data=b"noon?", headers=key)
        await put(client, "tea", b"five")
        again = await client.put(
            "/kv/lunch?wait=3", data=b"noon?", headers={**key, **context("lc1;A:2")}
        )
        assert await again.read() == await first.read()
        assert again.headers["ETag"] == first.headers["ETag"] == '"A:1"'
        assert again.headers["Causal-Context"] == "lc1;A:2"
        assert again.headers["Idempotent-Replayed"] == "true"
        assert "Idempotent-Replayed" not in first.headers
        for other in (
            await client.put("/kv/lunch", data=b"one?", headers=key),
            await client.put("/kv/dinner", data=b"noon?", headers=key),
            await client.put("/kv/lunch", data=b"noon?", headers={**key, "If-Match": "*"}),
            await client.delete("/kv/lunch", headers=key),
        ):
            await problem(other, 422, "idempotency-key-reused")
        assert await clock_of(client) == {"A": 2}


async def test_deletes_and_transactions_are_done_once_too(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        for _ in range(2):
            response = await client.delete("/kv/lunch", headers={"Idempotency-Key": "1"})
            assert (response.status, response.headers["Dot"]) == (204, "A:1")
            ops = {"ops": [{"put": "a", "value": "x"}, {"delete": "b"}]}
            response = await client.post("/txn", json=ops, headers={"Idempotency-Key": "2"})
            assert (response.status, (await response.json())["dot"]) == (200, "A:2")
        ops = {"ops": [{"put": "a", "value": "x"}, {"get": "b"}]}
        response = await client.post("/txn", json=ops, headers={"Idempotency-Key": "3"})
        await problem(response, 400, "bad-transaction")
        assert await clock_of(client) == {"A": 2}


@pytest.mark.parametrize("key", ["", "x" * 256, "é"])
async def test_an_idempotency_key_that_cannot_be_is_refused(redis_url: str, key: str) -> None:
    async with node_a(redis_url) as client:
        response = await client.delete("/kv/lunch", headers={"Idempotency-Key": key})
        await problem(response, 400, "bad-parameter")
        twice = [("Idempotency-Key", "1"), ("Idempotency-Key", "1")]
        response = await client.delete("/kv/lunch", headers=twice)
        await problem(response, 400, "bad-parameter")
        assert await clock_of(client) == {}


# --- replicas -------------------------------------------------------------------------------------


async def test_a_write_that_too_few_nodes_hold_stands_and_says_who_holds_it(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        body = {"ops": [{"put": "tea", "value": "five"}]}
        for dot, response in (
            ("A:1", await client.put("/kv/lunch?replicas=2&wait=0.1", data=b"noon?")),
            ("A:2", await client.delete("/kv/lunch?replicas=3&wait=0")),
            ("A:3", await client.post("/txn?replicas=2&wait=0", json=body)),
        ):
            fields = await problem(response, 504, "replicas-missing", "applied")
            assert (fields["dot"], fields["nodes"]) == (dot, ["A"])
            assert response.headers["Dot"] == dot
            assert response.headers["Causal-Context"] == f"lc1;{dot}"
        assert await clock_of(client) == {"A": 3}


async def test_one_replica_is_this_node(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        response = await client.put("/kv/lunch?replicas=1", data=b"noon?")
        assert (response.status, response.headers["Replicas"]) == (200, "A")
        assert "Replicas" not in (await client.put("/kv/lunch", data=b"noon?")).headers


@pytest.mark.parametrize("replicas", ["0", "4", "x", "", "1.5"])
async def test_more_replicas_than_there_are_nodes_are_refused(
    redis_url: str, replicas: str
) -> None:
    async with node_a(redis_url) as client:
        response = await client.put(f"/kv/lunch?replicas={replicas}", data=b"noon?")
        assert "from 1 to 3" in (await problem(response, 400, "bad-parameter"))["detail"]
        response = await client.post("/txn?replicas=2", json={"ops": [{"get": "lunch"}]})
        await problem(response, 400, "bad-parameter")
        assert await clock_of(client) == {}


# --- stale reads ----------------------------------------------------------------------------------


async def test_a_stale_read_is_answered_at_once_and_is_no_part_of_the_session(
    redis_url: str,
) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        for path in ("/kv/lunch?stale=true", "/kv?stale=true", "/conflicts?stale=true"):
            response = await client.get(path, headers=context("lc1;B:7", "lc1;C:1"))
            assert response.status == 200
            assert response.headers["Stale"] == "true"
            assert response.headers["Causal-Context"] == "lc1;B:7;C:1"
        response = await client.get("/kv/dinner?stale=true", headers=context("lc1;B:7"))
        await problem(response, 404, "no-such-key")
        assert response.headers["Stale"] == "true"
        assert response.headers["Causal-Context"] == "lc1;B:7"


async def test_a_read_that_may_be_stale_and_is_not_is_an_ordinary_one(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        await put(client, "tea", b"five?")
        response = await client.get("/kv/lunch?stale=true", headers=context("lc1;A:2"))
        assert "Stale" not in response.headers
        assert response.headers["Causal-Context"] == "lc1;A:2"
        response = await client.get("/kv/lunch?stale=true")
        assert "Stale" not in response.headers
        assert response.headers["Causal-Context"] == "lc1;A:1"
        response = await client.get("/kv/lunch?stale=true", headers=context("lc1;Z:1"))
        await problem(response, 400, "foreign-context")


# --- lists ----------------------------------------------------------------------------------------


async def pages_of(client: Client, path: str, **query: str) -> list[Any]:
    """What all pages of a list hold."""
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        response = await client.get(path, params={**query, "cursor": cursor})
        assert response.status == 200, await response.text()
        page = await response.json()
        found += page["keys"]
        cursor = page["cursor"]
    return found


async def test_keys_are_listed_in_the_order_of_their_bytes_a_page_at_a_time(
    redis_url: str,
) -> None:
    async with node_a(redis_url) as client:
        names = ["a", "a b", "a+b", "a/1", "a/2", "a/é", "a/日本", "b", "Z", "\x01", "%2F", "🍕"]
        for name in names:
            await put(client, name, b"x")
        await put(client, "gone", b"x")
        await client.delete("/kv/gone")
        in_order = sorted(names, key=str.encode)
        assert await pages_of(client, "/kv") == in_order
        for limit in ("1", "5", "12", "1000"):
            assert await pages_of(client, "/kv", limit=limit) == in_order
        assert await pages_of(client, "/kv", prefix="a/", limit="2") == [
            "a/1",
            "a/2",
            "a/é",
            "a/日本",
        ]
        assert await pages_of(client, "/kv", prefix="a+") == ["a+b"]
        assert await pages_of(client, "/kv", prefix="nothing") == []


async def test_a_list_has_seen_all_that_is_here(redis_url: str) -> None:
    """What is not in it may be absent because it was deleted."""
    async with node_a(redis_url) as client:
        await replicated(client, put_by(Node("B"), "tea", b"five"))
        await put(client, "dinner", b"six?")
        for path in ("/kv", "/kv?prefix=x", "/conflicts"):
            response = await client.get(path, headers=context("lc1;B:1"))
            assert response.headers["Causal-Context"] == "lc1;A:1;B:1"
        response = await client.get("/kv?wait=0", headers=context("lc1;B:2"))
        await problem(response, 503, "not-caught-up")


async def test_conflicts_are_listed_until_they_are_settled(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await concurrent_lunches(client)
        await put(client, "dinner", b"six?")
        conflict = {"key": "lunch", "etag": '"A:1,B:1,C:1"', "siblings": 3}
        assert await pages_of(client, "/conflicts") == [conflict]
        assert await pages_of(client, "/conflicts", prefix="d") == []
        settled = {"If-Match": str(conflict["etag"])}
        assert (await client.put("/kv/lunch", data=b"all", headers=settled)).status == 200
        assert await pages_of(client, "/conflicts") == []


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "limit=x", "limit=", "limit=1&limit=2", "limit=1.5", "limit=-1"),
        *("prefix=%FF", "cursor=%FF", "prefix=" + "x" * 513, "other=1", "stale=true&wait=0"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(redis_url: str, query: str) -> None:
    async with node_a(redis_url) as client:
        for path in ("/kv", "/conflicts"):
            response = await client.session.get(path_of(client, f"{path}?{query}"))
            await problem(response, 400, "bad-parameter")


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "query"),
    [
        *(("GET", f"?siblings={value}") for value in ("", "1", "TRUE", "yes")),
        *((m, f"?wait={v}") for m in ("GET", "PUT", "DELETE") for v in ("", "soon", "-1", "31")),
        *(
            ("GET", f"?wait={value}")
            for value in ("nan", "inf", "1e9", "0x1", "1_0", "%D9%A1", "+1")
        ),
        *((method, "?wait=1&wait=1") for method in ("GET", "PUT", "DELETE")),
        ("GET", "?siblings=true&siblings=false"),
        *((method, "?whatever=1") for method in ("GET", "PUT", "DELETE")),
        ("PUT", "?siblings=true"),
        ("DELETE", "?siblings=true"),
        *(("GET", f"?stale={value}") for value in ("", "1", "yes")),
        *((method, "?stale=true") for method in ("PUT", "DELETE")),
        ("GET", "?stale=true&wait=1"),
        *((method, "?wait=1&wait=2") for method in ("GET", "PUT", "DELETE")),
    ],
)
async def test_a_parameter_that_means_nothing_is_refused(
    redis_url: str, method: str, query: str
) -> None:
    async with node_a(redis_url) as client:
        response = await client.request(method, f"/kv/lunch{query}")
        name = query[1:].partition("=")[0]
        assert name in (await problem(response, 400, "bad-parameter"))["detail"]
        assert await clock_of(client) == {}


@pytest.mark.parametrize("wait", ["0", "0.5", "30", "1e1"])
async def test_patience_is_a_number_of_seconds(redis_url: str, wait: str) -> None:
    async with node_a(redis_url) as client:
        assert (await client.put(f"/kv/lunch?wait={wait}", data=b"x")).status == 200


@pytest.mark.parametrize("path", ["/status", "/pending"])
async def test_views_take_no_parameters(redis_url: str, path: str) -> None:
    async with node_a(redis_url) as client:
        await problem(await client.get(f"{path}?limit=3"), 400, "bad-parameter")


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
async def test_a_value_over_the_limit_is_refused(redis_url: str, chunked: bool) -> None:
    async def in_chunks(value: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(value), 100):
            yield value[start : start + 100]

    async with node_a(redis_url, value_max_bytes=1000) as client:
        for size, fits in ((1000, True), (1001, False), (100_000, False)):
            value = b"x" * size
            response = await client.put("/kv/lunch", data=in_chunks(value) if chunked else value)
            if fits:
                assert response.status == 200
            else:
                detail = (await problem(response, 413, "too-large"))["detail"]
                assert "1000 bytes (VALUE_MAX_BYTES)" in detail
        assert await (await client.get("/kv/lunch")).read() == b"x" * 1000
        assert await clock_of(client) == {"A": 1}


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "whatever"])
async def test_an_encoded_body_is_refused(redis_url: str, encoding: str) -> None:
    """Kept as it is, it would be read as something else."""
    async with node_a(redis_url) as client:
        headers = {"Content-Encoding": encoding}
        for path, put in (("/kv/lunch", client.put), ("/replicate", client.post)):
            response = await put(path, data=b"", headers=headers)
            detail = (await problem(response, 415, "unsupported-encoding"))["detail"]
            assert encoding in detail
        headers = {"Content-Encoding": "identity"}
        assert (await client.put("/kv/lunch", data=b"x", headers=headers)).status == 200
        assert await clock_of(client) == {"A": 1}


@pytest.mark.parametrize(
    "condition",
    [
        {"If-None-Match": '"A:1"'},
        *({"If-Unmodified-Since": "now"}, {"Content-Range": "bytes 0-3/10"}),
    ],
    ids=lambda condition: next(iter(condition)),
)
async def test_a_condition_that_would_not_be_looked_at_is_refused(
    redis_url: str, condition: dict[str, str]
) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        for response in (
            await client.put("/kv/lunch", data=b"one?", headers=condition),
            await client.delete("/kv/lunch", headers=condition),
        ):
            detail = (await problem(response, 501, "unsupported-header"))["detail"]
            assert next(iter(condition)) in detail
        assert await (await client.get("/kv/lunch")).read() == b"noon?"
        assert await clock_of(client) == {"A": 1}


async def test_a_state_that_nobody_foresaw_is_logged_and_told_with_what_became_of_the_request(
    redis_url: str, logs: Logs
) -> None:
    async with node_a(redis_url) as client:
        with BlockingRedis.from_url(redis_url) as redis:
            for name in ("kv:lunch", "log:A"):
                redis.set(name, "no hash and no stream")
        await problem(await client.get("/kv/lunch"), 500, "internal")
        response = await client.put("/kv/dinner", data=b"soup")
        await problem(response, 500, "internal", "unknown")
        failed = [(log["method"], log["path"]) for log in grave(logs)]
        assert failed == [("GET", "/kv/lunch"), ("PUT", "/kv/dinner")]
        assert await clock_of(client) == {}
        assert (await client.get("/kv/dinner")).status == 404


@pytest.mark.parametrize("path", ["/", "/nothing", "/replicate/x", "/status/"])
async def test_an_unknown_route_is_a_problem(redis_url: str, path: str) -> None:
    async with node_a(redis_url) as client:
        await problem(await client.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/kv/lunch", {"GET", "HEAD", "PUT", "DELETE"}),
        ("PATCH", "/kv/lunch", {"GET", "HEAD", "PUT", "DELETE"}),
        ("PUT", "/kv", {"GET", "HEAD"}),
        ("POST", "/conflicts", {"GET", "HEAD"}),
        ("GET", "/replicate", {"POST"}),
        ("PUT", "/status", {"GET", "HEAD"}),
        ("DELETE", "/pending", {"GET", "HEAD"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
        ("POST", "/readyz", {"GET", "HEAD"}),
    ],
)
async def test_a_method_that_a_route_does_not_have_is_a_problem(
    redis_url: str, method: str, path: str, allowed: set[str]
) -> None:
    async with node_a(redis_url) as client:
        response = await client.request(method, path)
        await problem(response, 405, "method-not-allowed")
        assert set(response.headers["Allow"].split(",")) == allowed


# --- contexts -------------------------------------------------------------------------------------


async def test_a_token_grows_by_what_its_session_writes_and_reads(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await replicated(client, put_by(Node("B"), "tea", b"five"))
        await put(client, "dinner", b"six?")
        mine = await put(client, "lunch", b"noon?")
        assert mine == "lc1;A:2"
        mine = await token_of(client, "tea", **context(mine))
        assert mine == "lc1;A:2;B:1"
        mine = await token_of(client, "dinner", **context(mine))
        assert mine == "lc1;A:2;B:1"
        mine = await put(client, "lunch", b"one?", headers=context(mine))
        assert mine == "lc1;A:3;B:1"
        response = await client.delete("/kv/lunch", headers=context(mine))
        assert response.headers["Causal-Context"] == "lc1;A:4;B:1"


async def test_several_tokens_are_joined(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        b, c = Node("B"), Node("C")
        writes = [put_by(b, "tea", b"1"), put_by(b, "tea", b"2"), put_by(c, "soup", b"3")]
        await replicated(client, *writes)
        await put(client, "lunch", b"noon?")
        joined = await token_of(client, "lunch", **context("lc1;B:1;C:1", "lc1;B:2", "lc1;"))
        assert joined == "lc1;A:1;B:2;C:1"
        headers = [("Causal-Context", "lc1;B:2"), ("Causal-Context", "lc1;C:1")]
        response = await client.put("/kv/lunch", data=b"one?", headers=headers)
        assert response.headers["Causal-Context"] == "lc1;A:2;B:2;C:1"


@pytest.mark.parametrize("empty", ["", " ", ",", "lc1;", "lc1;, lc1;"])
async def test_an_empty_context_asks_for_nothing(redis_url: str, empty: str) -> None:
    async with node_a(redis_url) as client:
        response = await client.put("/kv/lunch", data=b"x", headers={"Causal-Context": empty})
        assert response.headers["Causal-Context"] == "lc1;A:1"


async def test_a_session_reads_its_own_writes_of_another_node_once_they_have_come(
    redis_url: str,
) -> None:
    async with node_a(redis_url) as client:
        question = put_by(Node("B"), "lunch", b"noon?")
        waiting = asyncio.create_task(
            client.get("/kv/lunch?wait=30", headers=context("lc1;B:1")).__aenter__()
        )
        await problem(
            await client.get("/kv/lunch?wait=0", headers=context("lc1;B:1")), 503, "not-caught-up"
        )
        assert not waiting.done()
        await replicated(client, question)
        response = await waiting
        assert response.status == 200
        assert await response.read() == b"noon?"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_what_the_patience_ends_for_is_named_and_nothing_is_done(
    redis_url: str, method: str
) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        asked = context("lc1;A:1;B:4;C:2")
        response = await client.request(method, "/kv/lunch?wait=0", headers=asked)
        assert response.status == 503
        if method != "HEAD":
            fields = await problem(response, 503, "not-caught-up")
            assert {"B:4", "C:2"} <= {missing["dot"] for missing in fields["missing"]}
            assert "A:1" not in {missing["dot"] for missing in fields["missing"]}
            assert all(missing["known_for_s"] >= 0 for missing in fields["missing"])
            assert "B:4" in fields["detail"]
        assert await clock_of(client) == {"A": 1}
        assert await (await client.get("/kv/lunch")).read() == b"noon?"


async def test_a_refusal_names_what_the_asked_for_write_waits_for(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        b, c = Node("B"), Node("C")
        b.receive([put_by(c, "tea", b"five")])
        await replicated(client, put_by(b, "lunch", b"noon?"))
        response = await client.get("/kv/lunch?wait=0", headers=context("lc1;B:1"))
        fields = await problem(response, 503, "not-caught-up")
        assert "C:1" in [missing["dot"] for missing in fields["missing"]]
        assert "C:1" in fields["detail"]


async def test_a_refusal_names_the_gap_that_the_asked_for_write_waits_behind(
    redis_url: str,
) -> None:
    """B:3 is here and waits; what is missing, and what to look for, is B:2."""
    async with node_a(redis_url) as client:
        b = Node("B")
        first, _, third = (put_by(b, "lunch", b"%d" % n) for n in (1, 2, 3))
        await replicated(client, first, third)
        response = await client.get("/kv/lunch?wait=0", headers=context("lc1;B:3"))
        fields = await problem(response, 503, "not-caught-up")
        assert "B:2" in [missing["dot"] for missing in fields["missing"]]


async def test_how_long_a_write_is_missed_counts_from_when_it_was_heard_of(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        response = await replicate(client, clock=VectorClock({"B": 1}))
        assert response.status == 200
        ages = []
        for _ in range(2):
            response = await client.get("/kv/lunch?wait=0.01", headers=context("lc1;B:1"))
            [missing] = (await problem(response, 503, "not-caught-up"))["missing"]
            assert missing["dot"] == "B:1"
            ages.append(missing["known_for_s"])
        assert 0 < ages[0] < ages[1]


async def test_a_context_of_another_cluster_is_refused(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        for method in ("GET", "PUT", "DELETE"):
            response = await client.request(method, "/kv/x", headers=context("lc1;A:1;Z:1"))
            assert "Z" in (await problem(response, 400, "foreign-context"))["detail"]
        assert await clock_of(client) == {}


@pytest.mark.parametrize("stranger", ["lc1;B:1", "lc1;B~x1:1", "lc1;C.3:1"])
async def test_a_context_of_a_member_is_none_of_another_cluster(
    redis_url: str, stranger: str
) -> None:
    async with node_a(redis_url) as client:
        response = await client.get("/kv/x?wait=0", headers=context(stranger))
        await problem(response, 503, "not-caught-up")


@pytest.mark.parametrize(
    "token",
    [
        *("B:1", "lc2;B:1", "lc1;B", "lc1;B:", "lc1;B:0", "lc1;B:-1", "lc1;B:01", "lc1;B:x"),
        *("lc1;B:1;B:2", "lc1;:1", "lc1;B:9007199254740992", "lc1;B:1;s=abc", "LC1;B:1", "null"),
        *("lc1;B:1,rubbish", "lc1;B:\u0661", "lc1;" + "B" * 65 + ":1"),
    ],
)
async def test_a_context_that_no_node_made_is_refused(redis_url: str, token: str) -> None:
    async with node_a(redis_url) as client:
        response = await client.put("/kv/lunch", data=b"x", headers=context(token))
        await problem(response, 400, "bad-context")
        assert await clock_of(client) == {}


async def test_a_context_over_the_limit_is_refused(redis_url: str) -> None:
    async with node_a(redis_url, context_max_bytes=100) as client:
        asked = context(*["lc1;B:1"] * 20)
        detail = (await problem(await client.get("/kv/x", headers=asked), 413, "too-large"))[
            "detail"
        ]
        assert "CONTEXT_MAX_BYTES" in detail


async def test_in_a_signed_cluster_a_token_is_taken_only_as_it_was_given(redis_url: str) -> None:
    async with node_a(redis_url, cluster_secret=SECRET) as client:
        mine = await put(client, "lunch", b"noon?")
        assert re.fullmatch(r"lc1;A:1;s=[\w-]+", mine)
        assert await token_of(client, "lunch", **context(mine)) == mine
        joined = await token_of(client, "absent", **context(mine, mine))
        assert joined == mine
        forged = [mine.replace("A:1", "A:2"), mine[:-1], mine.partition(";s=")[0], "lc1;"]
        for token in [*forged, mine.swapcase(), mine + "x"]:
            response = await client.get("/kv/lunch", headers=context(token))
            await problem(response, 400, "bad-context")


async def test_a_token_of_another_secret_is_refused(redis_url: str) -> None:
    async with node_a(redis_url, cluster_secret="another secret entirely") as client:
        theirs = await put(client, "lunch", b"noon?")
    async with node_a(redis_url, cluster_secret=SECRET) as client:
        await problem(await client.get("/kv/x", headers=context(theirs)), 400, "bad-context")
    async with node_a(redis_url) as client:
        await problem(await client.get("/kv/x", headers=context(theirs)), 400, "bad-context")


# --- replicate ------------------------------------------------------------------------------------


async def test_a_batch_is_answered_with_what_became_of_it(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        b = Node("B")
        first, _, third = (put_by(b, "lunch", b"%d" % n) for n in (1, 2, 3))
        answer = await replicated(client, first, first, third)
        became = (answer.applied, answer.duplicate, answer.pending, answer.refused)
        assert became == (1, 1, 1, 0)
        assert answer.node == "A"
        assert answer.clock == answer.received == VectorClock({"B": 1})
        assert answer.missing == VectorClock({"B": 2})
        assert answer.now_us > 1_700_000_000_000_000
        assert await (await client.get("/kv/lunch")).read() == b"1"


async def test_what_waits_without_a_gap_counts_as_received(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        b, c = Node("B"), Node("C")
        b.receive([put_by(c, "tea", b"five")])
        answer = await replicated(client, put_by(b, "lunch", b"1"), put_by(b, "lunch", b"2"))
        assert answer.clock == VectorClock()
        assert answer.received == VectorClock({"B": 2})
        assert answer.missing == VectorClock({"C": 1})


async def test_an_empty_batch_is_a_heartbeat(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        answer = await replicated(client)
        assert answer.clock == VectorClock({"A": 1})
        assert (answer.applied, answer.duplicate, answer.pending, answer.refused) == (0, 0, 0, 0)


async def test_writes_are_taken_from_whichever_member_has_them(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        c = Node("C")
        answer = await replicated(client, put_by(c, "tea", b"five"), c.write([Delete("tea")], 5))
        assert answer.applied == 2
        await problem(await client.get("/kv/tea"), 404, "no-such-key")


async def test_a_full_buffer_says_so_and_loses_nothing(redis_url: str) -> None:
    async with node_a(redis_url, pending_max=1) as client:
        b = Node("B")
        first, second, third = (put_by(b, "lunch", b"%d" % n) for n in (1, 2, 3))
        answer = await replicated(client, second, third)
        assert (answer.pending, answer.refused) == (1, 1)
        answer = await replicated(client, first, second, third)
        assert answer.clock == VectorClock({"B": 3})


def raw_write(**changes: Any) -> list[Any]:
    """A write of B as it travels, with some fields changed."""
    fields: dict[str, Any] = {
        "actor": "B",
        "sequence": 1,
        "timestamp": 5,
        "dependencies": {},
        "operations": [["put", "lunch", b"noon?", "text/plain"]],
    }
    return list({**fields, **changes}.values())


def raw_batch(*writes: list[Any], **changes: Any) -> bytes:
    """A batch of B for A as it travels, with some fields changed."""
    fields = {"version": 1, "sender": "B", "receiver": "A", "clock": {}, "writes": list(writes)}
    return msgspec.msgpack.encode({**fields, **changes})


def put_form(key: Any = "lunch", value: Any = b"x", content_type: Any = "text/plain") -> list[Any]:
    return ["put", key, value, content_type]


GOOD = raw_batch(raw_write())
BAD_BATCHES = {
    "nothing": b"",
    "garbage": b"\xc1\xff\x00",
    "json": b'{"version": 1, "sender": "B", "receiver": "A", "clock": {}, "writes": []}',
    "truncated": GOOD[:-1],
    "truncated early": GOOD[:9],
    "something after it": GOOD + b"\0",
    "a list": msgspec.msgpack.encode([1, "B", "A", {}, []]),
    "deeply nested": b"\x91" * 100_000,
    "a later version": raw_batch(raw_write(), version=2),
    "a later version with other fields": msgspec.msgpack.encode({"version": 2, "from": "B"}),
    "version 0": raw_batch(version=0),
    "a field that is missing": msgspec.msgpack.encode({"version": 1, "sender": "B"}),
    "a field too many": raw_batch(more=1),
    "a clock with zero": raw_batch(clock={"B": 0}),
    "a clock beyond numbers": raw_batch(clock={"B": 2**53}),
    "sequence 0": raw_batch(raw_write(sequence=0)),
    "a negative sequence": raw_batch(raw_write(sequence=-1)),
    "a sequence beyond numbers": raw_batch(raw_write(sequence=2**53)),
    "a sequence that is a text": raw_batch(raw_write(sequence="1")),
    "a sequence without the one before": raw_batch(raw_write(sequence=3)),
    "a dependency on itself": raw_batch(raw_write(dependencies={"B": 1})),
    "a dependency of zero": raw_batch(raw_write(dependencies={"C": 0})),
    "a dependency of nobody": raw_batch(raw_write(dependencies={"": 1})),
    "an actor that cannot be": raw_batch(raw_write(actor="B B")),
    "an actor with a line break": raw_batch(raw_write(actor="B\n")),
    "no timestamp": raw_batch(raw_write(timestamp=0)),
    "a timestamp beyond numbers": raw_batch(raw_write(timestamp=2**53)),
    "no operations": raw_batch(raw_write(operations=[])),
    "too many operations": raw_batch(
        raw_write(operations=[put_form(f"k{n}") for n in range(1001)])
    ),
    "one key twice": raw_batch(raw_write(operations=[put_form(), ["delete", "lunch"]])),
    "an unknown operation": raw_batch(raw_write(operations=[["incr", "lunch"]])),
    "an empty key": raw_batch(raw_write(operations=[put_form("")])),
    "a key too long": raw_batch(raw_write(operations=[put_form("k" * 513)])),
    "a content type with a line break": raw_batch(
        raw_write(operations=[put_form(content_type="a\nb")])
    ),
    "a value that is a number": raw_batch(raw_write(operations=[put_form(value=7)])),
    "a bad write after a good one": raw_batch(raw_write(), raw_write(sequence=0)),
    "text that is not utf-8": GOOD.replace(b"lunch", b"lunc\xff"),
}


@pytest.mark.parametrize("body", BAD_BATCHES.values(), ids=BAD_BATCHES.keys())
async def test_a_batch_that_no_node_would_send_is_refused_as_a_whole(
    redis_url: str, body: bytes
) -> None:
    async with node_a(redis_url) as client:
        response = await client.post("/replicate", data=body)
        await problem(response, 400, "bad-batch")
        assert await clock_of(client) == {}
        assert (await (await client.get("/pending")).json())["total"] == 0


async def test_a_batch_of_another_version_is_told_which_version_is_spoken(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        for name in ("a later version", "a later version with other fields"):
            response = await client.post("/replicate", data=BAD_BATCHES[name])
            detail = (await problem(response, 400, "bad-batch"))["detail"]
            assert "protocol version 2, and this node speaks 1" in detail


async def test_the_raw_batch_of_these_tests_is_good(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        response = await client.post("/replicate", data=GOOD)
        assert wire.decode_answer(await response.read()).applied == 1


@pytest.mark.parametrize(
    ("batch", "status", "kind", "named"),
    [
        (raw_batch(raw_write(actor="Z")), 422, "unknown-actor", "Z"),
        (raw_batch(raw_write(dependencies={"Z": 3})), 422, "unknown-actor", "Z"),
        (raw_batch(raw_write(), raw_write(actor="Z~1")), 422, "unknown-actor", "Z~1"),
        (raw_batch(raw_write(), sender="Z"), 403, "unknown-peer", "Z"),
        (raw_batch(raw_write(), sender=""), 403, "unknown-peer", "''"),
        (raw_batch(raw_write(), sender="A"), 409, "same-node-id", "NODE_ID"),
        (raw_batch(raw_write(), sender="A", receiver="B"), 409, "same-node-id", "NODE_ID"),
        (raw_batch(raw_write(), receiver="C"), 421, "misdirected", "'C'"),
    ],
)
async def test_a_batch_of_the_wrong_people_is_refused_as_a_whole(
    redis_url: str, batch: bytes, status: int, kind: str, named: str
) -> None:
    async with node_a(redis_url) as client:
        response = await client.post("/replicate", data=batch)
        assert named in (await problem(response, status, kind))["detail"]
        assert await clock_of(client) == {}
        assert (await (await client.get("/pending")).json())["total"] == 0


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
async def test_a_batch_over_the_limit_is_refused(redis_url: str, chunked: bool) -> None:
    limits: dict[str, Any] = {
        "value_max_bytes": 1,
        "txn_max_bytes": 1,
        "batch_max_bytes": 1,
        "replicate_max_bytes": 65_538,
    }

    async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    async with node_a(redis_url, **limits) as client:
        body = raw_batch(raw_write(operations=[put_form(value=b"x" * 65_538)]))
        response = await client.post("/replicate", data=in_chunks(body) if chunked else body)
        detail = (await problem(response, 413, "too-large"))["detail"]
        assert "REPLICATE_MAX_BYTES" in detail
        assert await clock_of(client) == {}


async def test_a_signed_cluster_takes_and_gives_signed_messages_only(redis_url: str) -> None:
    signer = Signer(SECRET)
    async with node_a(redis_url, cluster_secret=SECRET) as client:
        for headers in (
            {},
            {SIGNATURE_HEADER: ""},
            {SIGNATURE_HEADER: "0" * 64},
            Signer("another secret entirely").headers(GOOD),
            signer.headers(GOOD + b"x"),
        ):
            response = await client.post("/replicate", data=GOOD, headers=headers)
            await problem(response, 401, "bad-signature")
        assert await clock_of(client) == {}
        response = await client.post("/replicate", data=GOOD, headers=signer.headers(GOOD))
        assert response.status == 200
        answer = await response.read()
        signer.check(answer, response.headers[SIGNATURE_HEADER])
        assert wire.decode_answer(answer).applied == 1


async def test_a_signed_message_to_a_node_without_the_secret_is_refused(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        headers = Signer(SECRET).headers(GOOD)
        response = await client.post("/replicate", data=GOOD, headers=headers)
        assert "CLUSTER_SECRET" in (await problem(response, 401, "bad-signature"))["detail"]
        assert await clock_of(client) == {}


# --- clients that go away -------------------------------------------------------------------------


async def connect(client: Client) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(client.host, client.port)


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("request_line", ["PUT /kv/lunch", "POST /replicate"])
@pytest.mark.parametrize("framing", ["Content-Length: 5000", "Transfer-Encoding: chunked"])
async def test_a_client_that_goes_away_within_its_body_changes_nothing(
    redis_url: str, logs: Logs, how: str, request_line: str, framing: str
) -> None:
    async with node_a(redis_url) as client:
        assert client.server.handler is not None
        connections: Any = client.server.handler
        before = len(connections.connections)
        _, writer = await connect(client)
        head = f"{request_line} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"
        body = GOOD if "Length" in framing else b"%x\r\n%b" % (2 * len(GOOD), GOOD)
        writer.write(head.encode() + body)
        await writer.drain()
        await until(lambda: len(connections.connections) == before + 1)
        if how == "resets":
            no_lingering = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, no_lingering)
        writer.close()
        await until(lambda: len(connections.connections) == before)
        for _ in range(3):  # by then the handler of the lost connection has ended, too
            assert await clock_of(client) == {}
        assert (await (await client.get("/pending")).json())["total"] == 0
    assert grave(logs) == []


# --- looking in -----------------------------------------------------------------------------------


async def test_the_status_of_a_node_that_reaches_nobody(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        await put(client, "lunch", b"one?")
        b = Node("B")
        put_by(b, "tea", b"1")
        await replicated(client, put_by(b, "tea", b"2"))
        status = await (await client.get("/status")).json()
        assert (status["node"], status["actor"], status["version"]) == ("A", "A", __version__)
        assert status["clock"] == {"A": 2}
        assert status["timestamp"] > 1_700_000_000_000_000
        assert status["pending"] == {"total": 1, "by_actor": {"B": 1}}
        assert set(status["peers"]) == {"B", "C"}
        peer = status["peers"]["B"]
        assert peer["url"] == PEERS["B"]
        assert peer["reachable"] is False
        assert peer["error"]
        assert peer["clock"] is peer["skew_ms"] is peer["last_contact_s"] is None
        assert peer["lag_s"] >= 0
        assert {"pending_max", "value_max_bytes", "batch_max_writes"} <= set(status["limits"])
        assert all(isinstance(limit, int) for limit in status["limits"].values())


async def test_the_status_names_the_fields_that_the_contract_names(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        status = await (await client.get("/status")).json()
        names = "url reachable clock lag_writes lag_s skew_ms last_contact_s error faults snapshot"
        assert set(status["peers"]["B"]) == set(names.split())


async def test_the_status_tells_no_secret(redis_url: str) -> None:
    async with node_a(redis_url, cluster_secret=SECRET) as client:
        text = await (await client.get("/status")).text()
        assert SECRET not in text
        assert "redis" not in text


async def test_what_waits_is_shown_with_what_it_waits_for(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        assert await (await client.get("/pending")).json() == {"total": 0, "writes": []}
        b, c = Node("B"), Node("C")
        b.receive([put_by(c, "tea", b"five")])
        operations: list[Operation] = [Put("lunch", b"noon?"), Delete("dinner")]
        await replicated(client, b.write(operations, 5))
        shown = await (await client.get("/pending")).json()
        [write] = shown["writes"]
        assert shown["total"] == 1
        assert write.pop("waiting_s") >= 0
        assert write == {
            "dot": "B:1",
            "dependencies": {"C": 1},
            "waiting_for": ["C:1"],
            "could_come_from": {"C:1": ["C"]},
            "keys": ["lunch", "dinner"],
        }


async def test_a_node_is_alive_and_ready(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        assert await (await client.get("/healthz")).json() == {"status": "alive"}
        assert await (await client.get("/readyz")).json() == {"status": "ready"}


async def test_a_node_that_is_told_to_end_ends_whatever_it_was_about_to_do(redis_url: str) -> None:
    for steps in range(0, 60, 3):
        async with asyncio.timeout(10), node_a(redis_url):
            for _ in range(steps):
                await asyncio.sleep(0)


# --- faults ---------------------------------------------------------------------------------------


async def test_without_faults_there_is_no_such_route(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await problem(await client.put("/faults/B", json={"cut": True}), 404, "not-found")
        await problem(await client.delete("/faults/B"), 404, "not-found")


async def test_a_fault_is_set_shown_replaced_and_healed(redis_url: str) -> None:
    async def shown(client: Client, peer: str) -> Any:
        status = await (await client.get("/status")).json()
        return status["peers"][peer].get("faults")

    healthy = {
        **{"delay_ms": 0, "jitter_ms": 0, "drop": 0.0, "duplicate": 0.0, "reorder": 0.0},
        **{"cut": False, "no_relay": False},
    }
    async with node_a(redis_url, faults=True) as client:
        assert await shown(client, "B") is None
        response = await client.put("/faults/B", json={"delay_ms": 20, "drop": 0.5})
        assert response.status == 200
        fault = {**healthy, "delay_ms": 20, "drop": 0.5}
        assert await response.json() == fault
        assert await shown(client, "B") == fault
        assert await shown(client, "C") is None
        await client.put("/faults/B", json={"cut": True})
        assert await shown(client, "B") == {**healthy, "cut": True}
        response = await client.delete("/faults/B")
        assert response.status == 204
        assert await shown(client, "B") is None


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"cut", b"[]", b'{"cut": 1}', b'{"drop": 1.1}', b'{"drop": -0.1}', b'{"drop": "1"}'),
        *(b'{"delay_ms": -1}', b'{"delay_ms": 1.5}', b'{"explode": true}', b'{"delay_ms": 1e9}'),
        *(b"\xff", b"[" * 4000),
    ],
)
async def test_a_fault_that_cannot_be_is_refused(redis_url: str, body: bytes) -> None:
    async with node_a(redis_url, faults=True) as client:
        await problem(await client.put("/faults/B", data=body), 400, "bad-fault")


async def test_a_fault_that_is_too_large_is_refused(redis_url: str) -> None:
    async with node_a(redis_url, faults=True) as client:
        await problem(await client.put("/faults/B", data=b" " * 10_000), 413, "too-large")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("peer", ["A", "Z", "b"])
async def test_there_is_no_fault_on_a_link_that_is_not(
    redis_url: str, method: str, peer: str
) -> None:
    async with node_a(redis_url, faults=True) as client:
        response = await client.request(method, f"/faults/{peer}", json={})
        await problem(response, 403, "unknown-peer")


# --- a Redis that fails ---------------------------------------------------------------------------


class OwnRedis:
    """A durable redis-server of the test's own, that it may kill and start again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{directory}/redis.sock"

    def client(self) -> BlockingRedis:
        return BlockingRedis(unix_socket_path=f"{self._directory}/redis.sock")

    def start(self) -> None:
        """It answers."""
        self._process = subprocess.Popen(
            [str(find_redis_server().path), "--port", "0", "--unixsocket", "redis.sock"]
            + ["--save", "", "--appendonly", "yes", "--appendfsync", "always"],
            cwd=self._directory,
            stdout=subprocess.DEVNULL,
        )
        with self.client() as redis:
            while True:
                try:
                    redis.ping()
                    return
                except RedisConnectionError:
                    assert self._process.poll() is None, "redis-server ended while it started"

    def kill(self) -> None:
        """It is gone, without having had a chance to say so."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    directory = Path(tempfile.mkdtemp(prefix="lightcone-"))
    redis = OwnRedis(directory)
    redis.start()
    try:
        yield redis
    finally:
        redis.kill()
        shutil.rmtree(directory)


async def assert_nothing_is_written(client: Client) -> None:
    """All that would change something is refused, and has changed nothing."""
    await problem(await client.put("/kv/lunch", data=b"lost?"), 503, "redis-unavailable")
    await problem(await client.delete("/kv/lunch"), 503, "redis-unavailable")
    response = await replicate(client, [put_by(Node("B"), "tea", b"five")])
    await problem(response, 503, "redis-unavailable")


async def test_without_its_redis_a_node_is_alive_and_says_what_it_cannot_do(
    own_redis: OwnRedis, logs: Logs
) -> None:
    async with node_a(own_redis.url) as client:
        await put(client, "lunch", b"noon?")
        own_redis.kill()
        await problem(await client.get("/readyz"), 503, "redis-unavailable")
        assert (await client.get("/healthz")).status == 200
        await assert_nothing_is_written(client)
        for path in ("/kv/lunch", "/status", "/pending"):
            await problem(await client.get(path), 503, "redis-unavailable")
        own_redis.start()
        response = await client.get("/readyz")
        assert response.status == 200, await response.text()
        assert await (await client.get("/kv/lunch")).read() == b"noon?"
        assert await put(client, "lunch", b"one?") == "lc1;A:2"
        assert (await replicated(client, put_by(Node("B"), "tea", b"five"))).applied == 1
    assert grave(logs) == []


async def test_a_node_survives_that_its_redis_goes_and_comes_time_and_again(
    own_redis: OwnRedis,
) -> None:
    async with node_a(own_redis.url, sweep_ms=5, heartbeat_ms=5, retry_max_ms=50) as client:
        for n in range(1, 4):
            assert await put(client, "lunch", b"%d" % n) == f"lc1;A:{n}"
            own_redis.kill()
            await problem(await client.get("/readyz"), 503, "redis-unavailable")
            own_redis.start()
            assert (await client.get("/readyz")).status == 200


async def test_a_full_redis_is_read_and_not_written(own_redis: OwnRedis, logs: Logs) -> None:
    async with node_a(own_redis.url) as client:
        await put(client, "lunch", b"noon?")
        with own_redis.client() as redis:
            redis.config_set("maxmemory", "1")
            await assert_nothing_is_written(client)
            assert await (await client.get("/kv/lunch")).read() == b"noon?"
            assert await clock_of(client) == {"A": 1}
            redis.config_set("maxmemory", "0")
        assert await put(client, "lunch", b"one?") == "lc1;A:2"
    assert grave(logs) == []


async def test_a_redis_that_became_a_replica_is_read_and_not_written(
    own_redis: OwnRedis, logs: Logs
) -> None:
    async with node_a(own_redis.url) as client:
        await put(client, "lunch", b"noon?")
        with own_redis.client() as redis:
            redis.replicaof("127.0.0.1", "1")
            await assert_nothing_is_written(client)
            assert await (await client.get("/kv/lunch")).read() == b"noon?"
            assert await clock_of(client) == {"A": 1}
            redis.replicaof("NO", "ONE")
        assert await put(client, "lunch", b"one?") == "lc1;A:2"
    assert grave(logs) == []


async def test_scripts_that_redis_forgot_are_no_matter(own_redis: OwnRedis) -> None:
    async with node_a(own_redis.url) as client:
        await put(client, "lunch", b"noon?")
        with own_redis.client() as redis:
            redis.script_flush()
        assert await put(client, "lunch", b"one?") == "lc1;A:2"
        assert (await replicated(client, put_by(Node("B"), "tea", b"five"))).applied == 1


async def test_a_redis_that_does_not_come_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node, "_REDIS_COMES_WITHIN_S", 0.1)
    config = Config(node_id="A", redis_url="redis://user:hunter2@127.0.0.1:1/3")
    with pytest.raises(StartupError, match=r"REDIS_URL: .*127\.0\.0\.1:1.* cannot be used") as told:
        await node.claim_redis(config)
    assert "hunter2" not in str(told.value)


async def test_under_an_emptied_redis_a_node_goes_on_as_another_incarnation(
    own_redis: OwnRedis,
) -> None:
    async with node_a(own_redis.url) as client:
        lunch = Node("A").write([Put("lunch", b"noon?", "text/plain")], 5)
        mine = await put(client, "lunch", b"noon?")
        with own_redis.client() as redis:
            redis.flushall()
        later = await put(client, "dinner", b"six?")
        assert re.fullmatch(r"lc1;A~[0-9a-z]{8}:1", later), "A:1 names two writes"
        status = await (await client.get("/status")).json()
        assert later == f"lc1;{status['actor']}:1"
        assert status["clock"] == {status["actor"]: 1}
        assert "A has written before" in status["incarnation"]["reason"]
        assert (await client.get("/readyz")).status == 200
        # Who has seen what was lost is not told that it never was.
        response = await client.get("/kv/lunch?wait=0", headers=context(mine))
        shown = await problem(response, 503, "not-caught-up")
        assert [one["dot"] for one in shown["missing"]] == ["A:1"]
        # It comes home under its old name.
        assert (await replicated(client, lunch)).applied == 1
        response = await client.get("/kv/lunch", headers=context(mine))
        assert await response.read() == b"noon?"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_who_has_seen_what_is_lost_is_not_served_from_what_is_left(
    own_redis: OwnRedis, method: str
) -> None:
    """Though this worker had applied it, as far as it knew when the request came."""
    async with node_a(own_redis.url) as client:
        mine = await put(client, "lunch", b"noon?")
        with own_redis.client() as redis:
            redis.flushall()
        response = await client.request(method, "/kv/lunch", headers=context(mine))
        await problem(response, 503, "redis-unavailable")
        response = await client.request(method, "/kv/lunch?wait=0", headers=context(mine))
        await problem(response, 503, "not-caught-up")
        assert await clock_of(client) == {}


async def test_a_peer_that_has_seen_more_of_a_node_than_itself_ends_its_incarnation(
    redis_url: str,
) -> None:
    """As after an old copy was put back."""
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        model = Node("A")
        for n in range(3):
            model.write([Put("lunch", b"%d" % n)], 5 + n)
        _, second, third = model.applied
        # A heartbeat that says so, or one of the writes that were lost.
        response = await replicate(client, [third], clock=VectorClock({"A": 3}))
        await problem(response, 503, "redis-unavailable")
        after = await put(client, "dinner", b"six?")
        assert re.fullmatch(r"lc1;A~[0-9a-z]{8}:1", after)
        assert (await replicated(client, second, third)).applied == 2
        clock = await clock_of(client)
        assert clock.pop("A") == 3
        assert list(clock.values()) == [1]
        assert await put(client, "dinner", b"seven?") == after.replace(":1", ":2"), "it stays"


async def test_a_new_node_whose_peers_are_silent_takes_another_name_after_a_while(
    redis_url: str,
) -> None:
    async with new_node_a(redis_url, first_start_wait_ms=3000) as client:
        assert (await client.get("/status")).status == 200
        await problem(await client.get("/readyz"), 503, "not-ready")
        await problem(await client.put("/kv/lunch", data=b"x"), 503, "not-ready")
        async with asyncio.timeout(30):
            while (await client.get("/readyz")).status != 200:
                await asyncio.sleep(0.005)
        assert (await put(client, "lunch", b"noon?")).startswith("lc1;A~")
