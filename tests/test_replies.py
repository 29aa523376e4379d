"""Whole answers: on the wire they are what aiohttp's own responses are."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web

from app.replies import Reply, Response, json_reply
from tests.one_node import serving

KEPT = {"Dot": "A:7", "Content-Type": "text/plain"}


@asynccontextmanager
async def closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def exchange(make: Callable[[], Response], said: str) -> tuple[str, list[str], bytes]:
    """Status line, header lines without the date, and the body that comes."""

    async def answer(_request: web.BaseRequest) -> Response:
        return make()

    async with serving(answer) as client:
        url = client.make_url("/")
        reader, writer = await asyncio.open_connection(url.host, url.port)
        async with closing(writer):
            writer.write(said.encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip("\r\n")
            status, *lines = head.split("\r\n")
            length = [int(line.partition(": ")[2]) for line in lines if "Content-Length" in line]
            body = await reader.readexactly(0 if said.startswith("HEAD") else sum(length))
            if "Connection: close" in lines:
                assert await reader.read() == b""
    return status, sorted(line for line in lines if not line.startswith("Date")), body


REQUESTS = {
    "one that goes on": "GET / HTTP/1.1\r\nHost: n\r\n\r\n",
    "one that ends": "GET / HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n",
    "of HTTP/1.0": "GET / HTTP/1.0\r\n\r\n",
    "of HTTP/1.0, to go on": "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "for the head": "HEAD / HTTP/1.1\r\nHost: n\r\n\r\n",
    "with a body": "PUT / HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\n\r\nhi",
}
RESPONSES: dict[str, dict[str, Any]] = {
    "a value": {"body": b"soup", "headers": KEPT},
    "an empty value": {"body": b"", "headers": KEPT},
    "a refusal": {"body": b"no", "status": 404, "headers": KEPT},
    "nothing": {"status": 204, "headers": {"Dot": "A:7"}},
    "nothing new": {"status": 304, "headers": {"Dot": "A:7"}},
}


@pytest.mark.parametrize("said", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("made", RESPONSES.values(), ids=RESPONSES)
async def test_it_is_sent_as_any_other_response(said: str, made: dict[str, Any]) -> None:
    ours = await exchange(lambda: Reply(**made), said)
    theirs = await exchange(lambda: web.Response(**made), said)
    if not made.get("body", b"x"):  # aiohttp leaves the type of an empty body as it is, too
        assert "Content-Type: text/plain" in ours[1]
    assert ours == theirs


async def test_one_that_is_told_to_closes_its_connection() -> None:
    def last() -> Reply:
        reply = Reply(b"x")
        reply.force_close()
        return reply

    _, lines, body = await exchange(last, REQUESTS["one that goes on"])
    assert ("Connection: close" in lines, body) == (True, b"x")


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nX: y"])
async def test_a_header_cannot_hold_another_one(value: str) -> None:
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await exchange(lambda: Reply(body=b"x", headers={"Dot": value}), REQUESTS["with a body"])
    assert caught.value.partial == b"", "something was sent"


async def test_json_says_that_it_is() -> None:
    reply = json_reply({"key": "süß"}, status=202, headers={"Dot": "A:1"})
    assert (reply.status, reply.body) == (202, '{"key":"süß"}'.encode())
    assert reply.headers == {"Dot": "A:1", "Content-Type": "application/json"}
