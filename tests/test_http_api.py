"""What holds for every route of a node: what is refused, and clients that go away."""

import struct
from collections.abc import AsyncIterator
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import pytest
from multidict import CIMultiDict
from redis import Redis as BlockingRedis

from app import wire
from app.vector_clock import VectorClock
from app.wire import Batch
from tests.model import Node
from tests.one_node import Logs, clock_of, connect, grave, node_a, path_of, problem, put, put_by
from tests.processes import until
from tools import contract_page

GOOD = wire.encode_batch(Batch("B", "A", VectorClock(), (put_by(Node("B"), "lunch", b"x"),)))


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
            if (path, encoding) == ("/replicate", "deflate"):
                continue  # nodes send each other that
            response = await put(path, data=b"", headers=headers)
            detail = (await problem(response, 415, "unsupported-encoding"))["detail"]
            assert encoding in detail
        twice = CIMultiDict([("Content-Encoding", "identity"), *headers.items()])
        response = await client.put("/kv/lunch", data=b"", headers=twice)
        await problem(response, 415, "unsupported-encoding")
        headers = {"Content-Encoding": "identity"}
        assert (await client.put("/kv/lunch", data=b"x", headers=headers)).status == 200
        assert await clock_of(client) == {"A": 1}


async def test_a_body_that_is_encoded_for_its_way_is_refused_but_for_its_chunks(
    redis_url: str,
) -> None:
    async with node_a(redis_url) as client:
        for coding, status in (("gzip, chunked", 415), ("chunked", 200)):
            reader, writer = await connect(client)
            head = f"PUT /kv/lunch HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: {coding}\r\n\r\n"
            writer.write(head.encode() + b"1\r\nx\r\n0\r\n\r\n")
            answer = (await reader.readline()).split()
            assert int(answer[1]) == status, coding
            writer.close()
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


async def test_an_unknown_route_is_shown_as_it_was_asked_for(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        response = await client.session.get(path_of(client, "/kv%2Fx?a=b"))
        said = await problem(response, 404, "not-found")
        assert said["detail"] == "GET /kv%2Fx: Not Found. Nothing was done."


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/kv/lunch", {"GET", "HEAD", "PUT", "DELETE"}),
        ("PATCH", "/kv/lunch", {"GET", "HEAD", "PUT", "DELETE"}),
        ("PUT", "/kv", {"GET", "HEAD"}),
        ("POST", "/conflicts", {"GET", "HEAD"}),
        ("PUT", "/replicate", {"GET", "POST"}),
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


# --- clients that go away -------------------------------------------------------------------------


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


# --- pages of other sites -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "browser",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://other.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
    ],
    ids=str,
)
async def test_a_page_of_another_site_changes_nothing(
    redis_url: str, browser: dict[str, str]
) -> None:
    served = contract_page.interface().served()
    async with node_a(redis_url) as client:
        posts = [path for method, path in served if method == "POST"]
        assert set(posts) >= {"/txn", "/restore", "/members", "/lost", "/replicate"}
        for path in posts:
            body = GOOD if path == "/replicate" else b'{"ops": [{"put": "lunch", "value": "x"}]}'
            response = await client.post(path, data=body, headers=browser)
            refused = await problem(response, 403, "cross-origin")
            assert browser.get("Origin", "unnamed") in refused["detail"]
        response = await client.get("/replicate", headers=browser)
        await problem(response, 403, "cross-origin")
        assert await clock_of(client) == {}


@pytest.mark.parametrize("browser", [{"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}])
async def test_a_page_of_its_own_may_ask(redis_url: str, browser: dict[str, str]) -> None:
    async with node_a(redis_url) as client:
        origin = str(client.make_url("/")).rstrip("/")
        for headers in (browser, {**browser, "Origin": "https://a.example"}, {"Origin": origin}):
            done = await client.post("/txn", json={"ops": [{"get": "x"}]}, headers=headers)
            assert done.status == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
async def test_no_browser_is_given_leave_for_another_site(redis_url: str, method: str) -> None:
    async with node_a(redis_url) as client:
        asking = {"Origin": "https://evil.example", "Access-Control-Request-Method": method}
        response = await client.options("/kv/lunch", headers=asking)
        await problem(response, 405, "method-not-allowed")
        assert not [name for name in response.headers if name.startswith("Access-Control")]
