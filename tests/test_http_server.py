"""Serving on real sockets: what is no request, bodies as they come, and the end of serving."""

import asyncio
import json
import socket
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from aiohttp import web

from app.http_server import serve

FIELD_MAX_BYTES = 1000
ECHO = b"PUT /echo HTTP/1.1\r\nHost: n\r\n"


@dataclass
class Serving:
    """What is served, and what tells it to stop."""

    port: int
    stop: asyncio.Event
    entered: asyncio.Event
    go_on: asyncio.Event

    @asynccontextmanager
    async def said(self, text: bytes) -> AsyncIterator[asyncio.StreamReader]:
        """A client has connected and said this; the result is what it reads."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(text)
            yield reader
        finally:
            writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next answer that comes."""
    async with asyncio.timeout(30):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(fields["content-length"]))
    return int(head[0].split()[1]), fields, body


@asynccontextmanager
async def serving() -> AsyncIterator[Serving]:
    """`/echo` gives back the body, `/late` looks at it only when it is allowed to; `/slow` answers
    then, and `/stream` begins."""
    entered, go_on, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def echo(request: web.BaseRequest) -> web.Response:
        try:
            return web.Response(body=await request.read())
        except web.RequestPayloadError:
            return web.Response(status=400, text="no body")

    async def slow(_request: web.BaseRequest) -> web.Response:
        entered.set()
        await go_on.wait()
        return web.Response(text="done")

    async def late(request: web.BaseRequest) -> web.Response:
        await slow(request)
        return await echo(request)

    async def stream(request: web.BaseRequest) -> web.StreamResponse:
        await slow(request)
        response = web.StreamResponse()
        await response.prepare(request)
        return response

    handlers = {"/echo": echo, "/late": late, "/slow": slow, "/stream": stream}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await handlers[request.path](request)

    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    served = asyncio.create_task(
        serve(answer, lambda: None, [sock], stop, grace_s=30, field_max_bytes=FIELD_MAX_BYTES)
    )
    try:
        yield Serving(sock.getsockname()[1], stop, entered, go_on)
    finally:
        go_on.set()
        stop.set()
        await served


NO_REQUESTS = {
    "other words": (b"hello\r\n\r\n", "method"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", "HTTPS traffic"),
    "another version": (b"GET /slow HTTP/9.9\r\nHost: n\r\n\r\n", "status line"),
    "a negative length": (ECHO + b"Content-Length: -1\r\n\r\n", "Content-Length"),
    "two lengths": (ECHO + b"Content-Length: 1, 2\r\n\r\n", "Content-Length"),
    "a name with a space": (ECHO + b"bad header: x\r\n\r\n", "header"),
    "a length and chunks": (
        ECHO + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length",
    ),
    "a long field": (ECHO + b"X: " + b"x" * (FIELD_MAX_BYTES + 1), "more than 1000"),
}


@pytest.mark.parametrize(("said", "why"), NO_REQUESTS.values(), ids=NO_REQUESTS)
async def test_what_is_no_request_is_refused_with_a_problem(said: bytes, why: str) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving() as server:
            async with server.said(said) as reader:
                status, fields, body = await answer(reader)
                assert await reader.read() == b"", "the connection goes on"
            problem: dict[str, Any] = json.loads(body)
            assert (status, problem["status"]) == (400, 400)
            assert fields["content-type"].startswith("application/problem+json")
            assert problem["type"] == "urn:lightcone:bad-http"
            assert problem["outcome"] == "not_applied"
            assert why.lower() in problem["detail"].lower()
            assert not server.entered.is_set()
            async with server.said(ECHO + b"Content-Length: 2\r\n\r\nhi") as reader:
                assert (await answer(reader))[2] == b"hi", "others are not served"
    assert {entry["log_level"] for entry in logs} <= {"debug"}, "anybody could fill the log"


async def test_a_client_that_is_gone_before_its_answer_begins_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving() as server:
            async with server.said(b"GET /stream HTTP/1.1\r\nHost: n\r\n\r\n"):
                await server.entered.wait()
            async with server.said(ECHO + b"Content-Length: 2\r\n\r\nhi") as reader:
                await answer(reader)  # by now the server knows that the other one has gone
            server.go_on.set()
    assert {entry["event"] for entry in logs if entry["log_level"] == "debug"} >= {"client gone"}
    assert {entry["log_level"] for entry in logs} == {"debug"}
    assert not caplog.records


async def test_whoever_has_connected_before_serving_ends_is_answered() -> None:
    async with serving() as server:
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        for client in clients:
            client.sendall(ECHO + b"Content-Length: 2\r\n\r\nhi")
        server.stop.set()  # before the server could accept any of them
        for client in clients:
            reader, writer = await asyncio.open_connection(sock=client)
            status, fields, body = await answer(reader)
            assert (status, fields["connection"], body) == (200, "close", b"hi")
            writer.close()


@pytest.mark.parametrize(
    "said",
    [
        ECHO + b"X: a\x01secret\r\n\r\n",
        ECHO + b"X: secret" + b"x" * FIELD_MAX_BYTES,
        b"GET /echo?secret" + b"x" * 10_000,
        b"GET http://[secret/echo HTTP/1.1\r\nHost: n\r\n\r\n",
    ],
    ids=["a control character", "a long field", "a long target", "a target that is none"],
)
async def test_what_was_sent_is_not_repeated_in_the_refusal(said: bytes) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving() as server, server.said(said) as reader:
            status, _, body = await answer(reader)
    assert status == 400
    assert b"secret" not in body and ".. " not in body.decode()
    assert "secret" not in str(logs)


async def test_a_body_that_breaks_a_rule_halfway_fills_no_log() -> None:
    with structlog.testing.capture_logs() as logs:
        head = ECHO + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nxyz\r\n"
        async with serving() as server, server.said(head) as reader:
            await reader.read()
    assert [entry["event"] for entry in logs if entry["log_level"] == "debug"]
    assert {entry["log_level"] for entry in logs} == {"debug"}


@pytest.mark.parametrize("beyond", [b"xyz\r\n", b"2\r\nhi!"], ids=["no size", "no end"])
async def test_a_body_that_breaks_a_rule_while_it_is_awaited_is_not_waited_for(
    beyond: bytes,
) -> None:
    head = b"PUT /late HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
    with structlog.testing.capture_logs() as logs:
        async with serving() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            try:
                writer.write(head)
                async with asyncio.timeout(30):
                    await server.entered.wait()
                server.go_on.set()
                writer.write(beyond)
                status, _, body = await answer(reader)
                assert (status, body) == (400, b"no body")
                assert await reader.read() == b"", "the connection goes on"
            finally:
                writer.close()
    assert {entry["log_level"] for entry in logs} == {"debug"}, "anybody could fill the log"


async def test_a_body_comes_as_it_was_sent() -> None:
    packed = zlib.compress(b"hello")
    head = f"Content-Encoding: deflate\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    async with serving() as server, server.said(ECHO + head + packed) as reader:
        assert (await answer(reader))[2] == packed


async def test_who_sends_more_than_is_taken_meanwhile_waits_and_then_goes_on() -> None:
    bodies = [bytes([number]) * 900_000 for number in range(3)]
    ask = b"PUT /late HTTP/1.1\r\nHost: n\r\nContent-Length: 900000\r\n\r\n"
    async with serving() as server, server.said(b"".join(ask + body for body in bodies)) as reader:
        async with asyncio.timeout(30):
            await server.entered.wait()
        server.go_on.set()
        assert [(await answer(reader))[2] for _ in bodies] == bodies


async def test_what_is_in_flight_when_serving_ends_is_answered_and_told_to_go() -> None:
    slow = b"GET /slow HTTP/1.1\r\nHost: n\r\n\r\n"
    async with serving() as server, server.said(slow) as reader:
        async with asyncio.timeout(30):
            await server.entered.wait()
        server.stop.set()
        await nobody_accepts(server.port)
        server.go_on.set()
        status, fields, body = await answer(reader)
        assert (status, body) == (200, b"done")
        assert fields["connection"] == "close"
        assert await reader.read() == b""


async def nobody_accepts(port: int) -> None:
    """No connection is taken there any more."""
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:  # refused, or reset if it was still in the queue
                return
            writer.close()
            await asyncio.sleep(0.005)
