"""A batch as a request of its own, against a server that looks at what comes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app import wire
from app.carriers import ANSWER_MAX_BYTES, Posts, SignedAnswer, SignedBatch
from app.errors import PeerRefused

LONG_S = 60.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Carried = Callable[[SignedBatch], Awaitable[SignedAnswer]]


@asynccontextmanager
async def carried_to(handler: Handler) -> AsyncIterator[Carried]:
    """Brings batches to a server whose `POST /replicate` is handled so."""
    app = web.Application()
    app.router.add_post("/replicate", handler)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server(auto_decompress=False)
    async with server, aiohttp.ClientSession() as session:
        url = str(server.make_url("")).rstrip("/")
        yield lambda batch: Posts(session)(url, batch, LONG_S)


@pytest.mark.parametrize("signature", [None, "5f70"])
@pytest.mark.parametrize("compressed", [False, True])
async def test_a_batch_goes_as_it_is_with_headers_that_say_what_it_is(
    signature: str | None, compressed: bool
) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.content_type == wire.CONTENT_TYPE
        assert request.headers.get("Cluster-Signature") == signature
        assert request.headers.get("Content-Encoding") == ("deflate" if compressed else None)
        assert await request.content.read() == b"\0batch"
        return web.Response(body=b"\0answer", headers={"Cluster-Signature": "07f5"})

    async with carried_to(handler) as carry:
        answer = await carry(SignedBatch(b"\0batch", signature, compressed))
    assert answer == SignedAnswer(200, b"\0answer", "07f5")


@pytest.mark.parametrize("status", [200, 301, 307, 403, 500])
async def test_whatever_comes_back_is_given_back(status: int) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=b"said", status=status, headers={"Location": str(request.url)})

    async with carried_to(handler) as carry:
        assert await carry(SignedBatch(b"")) == SignedAnswer(status, b"said")


@pytest.mark.parametrize("beyond", [0, 1])
async def test_an_answer_has_a_largest_size(beyond: int) -> None:
    body = bytes(ANSWER_MAX_BYTES + beyond)

    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with carried_to(handler) as carry:
        if beyond:
            with pytest.raises(PeerRefused, match="is none of ours"):
                await carry(SignedBatch(b""))
        else:
            assert (await carry(SignedBatch(b""))).body == body
