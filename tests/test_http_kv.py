"""Keys: what is put is got, and which of several versions wins; conditions, repeats, replicas."""

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator

import pytest

from tests.model import Node
from tests.one_node import (
    clock_of,
    concurrent_lunches,
    connect,
    context,
    kv,
    node_a,
    path_of,
    problem,
    put,
    put_by,
    replicated,
)

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
