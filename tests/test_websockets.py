"""WebSockets to a peer, against servers that answer, refuse, babble, hang or go away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

import aiohttp
import msgspec
import pytest
from aiohttp import WSCloseCode, web
from aiohttp.test_utils import TestServer

from app import websockets
from app.carriers import ANSWER_MAX_BYTES, Posts, SignedAnswer, SignedBatch
from app.errors import PeerRefused, PeerTakesLess
from app.websockets import WebSockets, refuse_to_move

LONG_S = 60.0
SHORT_S = 0.05

Socket = web.WebSocketResponse[Literal[True]]
Serve = Callable[[Socket], Awaitable[None]]


def batch(name: str) -> SignedBatch:
    return SignedBatch(name.encode(), "signature of " + name[:10])


def answer_to(message: bytes) -> bytes:
    """What the played peers answer: the batch, and whose answer it is."""
    came = msgspec.msgpack.decode(message, type=SignedBatch)
    return msgspec.msgpack.encode(SignedAnswer(200, b"took " + came.body, came.signature))


class Peer:
    """A node, played: how each of its websockets is served, and what a single batch is answered."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.websockets = 0
        self.posts: list[bytes] = []
        self.refusal: web.Response | None = None
        self.url = ""

    async def open(self, request: web.Request) -> web.StreamResponse:
        if self.refusal is not None:
            return self.refusal
        self.websockets += 1
        socket: Socket = web.WebSocketResponse(max_msg_size=100_000)
        await socket.prepare(request)
        await self.serve(socket)
        return socket

    async def post(self, request: web.Request) -> web.Response:
        self.posts.append(await request.read())
        return web.Response(body=b"posted", status=200)


@asynccontextmanager
async def played(serve: Serve) -> AsyncIterator[tuple[Peer, WebSockets]]:
    """Such a peer, and WebSockets to it."""
    peer = Peer(serve)
    app = web.Application()
    app.router.add_get("/replicate", peer.open)
    app.router.add_post("/replicate", peer.post)
    async with AsyncExitStack() as stack:
        server = TestServer(app, host="127.0.0.1")
        await stack.enter_async_context(server)
        peer.url = str(server.make_url("")).rstrip("/")
        session = await stack.enter_async_context(
            aiohttp.ClientSession(middlewares=(refuse_to_move,))
        )
        yield peer, await stack.enter_async_context(WebSockets(session, Posts(session)))


async def answering(socket: Socket) -> None:
    async for message in socket:
        await socket.send_bytes(answer_to(message.data))


async def failure(carry: WebSockets, peer: Peer, timeout_s: float = LONG_S) -> Exception:
    with pytest.raises((PeerRefused, aiohttp.ClientError, OSError)) as caught:
        await carry(peer.url, batch("one"), timeout_s)
    return caught.value


async def test_each_batch_has_its_own_answer_over_one_connection() -> None:
    async with played(answering) as (peer, carry):
        names = [f"batch {n}" for n in range(50)]
        answers = await asyncio.gather(*(carry(peer.url, batch(n), LONG_S) for n in names))
        assert answers == [
            SignedAnswer(200, b"took " + name.encode(), "signature of " + name) for name in names
        ]
        assert (await carry(peer.url, batch("last"), LONG_S)).body == b"took last"
        assert peer.websockets == 1
        assert peer.posts == []


async def test_batches_arrive_in_the_order_in_which_they_left_and_do_not_wait_for_answers() -> None:
    came: list[bytes] = []

    async def serve(socket: Socket) -> None:
        while len(came) < 20:
            came.append((await socket.receive()).data)
        for message in came:
            await socket.send_bytes(answer_to(message))
        await socket.receive()

    async with played(serve) as (peer, carry):
        # As large as they may be: what is longer than the connection takes at once is not torn.
        sent = [batch(f"{n} " + "x" * 90_000) for n in range(20)]
        await asyncio.gather(*(carry(peer.url, one, LONG_S) for one in sent))
        assert [msgspec.msgpack.decode(one, type=SignedBatch) for one in came] == sent


async def test_the_answer_to_what_was_given_up_is_nobody_elses() -> None:
    asked, told = asyncio.Event(), asyncio.Event()

    async def serve(socket: Socket) -> None:
        first = await socket.receive()
        asked.set()
        await told.wait()
        await socket.send_bytes(answer_to(first.data))
        await answering(socket)

    async with played(serve) as (peer, carry):
        given_up = asyncio.create_task(carry(peer.url, batch("one"), LONG_S))
        await asked.wait()
        given_up.cancel()
        second = asyncio.create_task(carry(peer.url, batch("two"), LONG_S))
        told.set()
        assert (await second).body == b"took two"
        assert given_up.cancelled()
        assert peer.websockets == 1


async def test_a_connection_that_is_silent_is_not_used_again() -> None:
    silent, never = asyncio.Event(), asyncio.Event()

    async def serve(socket: Socket) -> None:
        if not silent.is_set():
            silent.set()
            await never.wait()
        await answering(socket)

    async with played(serve) as (peer, carry):
        patient = asyncio.create_task(carry(peer.url, batch("patient"), LONG_S))
        await silent.wait()
        with pytest.raises(TimeoutError):
            await carry(peer.url, batch("one"), SHORT_S)
        # Its batch was before that one, and is as late.
        with pytest.raises(TimeoutError, match="another answer did not come in time"):
            await patient
        assert (await carry(peer.url, batch("two"), LONG_S)).body == b"took two"
        assert peer.websockets == 2
        never.set()


async def test_one_that_does_not_open_in_time_is_not_waited_for() -> None:
    never = asyncio.Event()

    async def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await never.wait()
        writer.close()

    async with played(answering) as (_, carry):
        silent = await asyncio.start_server(connected, "127.0.0.1", 0)
        host, port = silent.sockets[0].getsockname()
        with pytest.raises(TimeoutError):
            await carry(f"http://{host}:{port}", batch("one"), SHORT_S)
        never.set()
        silent.close()


async def test_who_awaits_an_answer_is_told_that_the_peer_has_gone_and_the_next_opens_anew() -> (
    None
):
    async def serve(socket: Socket) -> None:
        if peer.websockets == 1:
            await socket.receive()
            await socket.close(code=WSCloseCode.GOING_AWAY)
        await answering(socket)

    async with played(serve) as (peer, carry):
        assert "the connection has ended (1001)" in str(await failure(carry, peer))
        assert (await carry(peer.url, batch("two"), LONG_S)).body == b"took two"
        assert peer.websockets == 2


async def test_a_connection_that_breaks_off_is_the_same() -> None:
    async def serve(socket: Socket) -> None:
        await socket.receive()
        assert socket._req is not None and socket._req.transport is not None
        socket._req.transport.abort()

    async with played(serve) as (peer, carry):
        assert isinstance(await failure(carry, peer), aiohttp.ClientConnectionError)


async def test_nobody_there_is_found_out_each_time(unused_tcp_port: int) -> None:
    async with played(answering) as (peer, carry):
        peer.url = f"http://127.0.0.1:{unused_tcp_port}"
        for _ in range(2):
            assert isinstance(await failure(carry, peer), aiohttp.ClientConnectorError)


@pytest.mark.parametrize("status", [200, 400, 403, 404, 405, 426, 500, 503])
async def test_where_a_websocket_is_refused_batches_go_as_requests(status: int) -> None:
    async with played(answering) as (peer, carry):
        peer.refusal = web.Response(status=status)
        assert await carry(peer.url, batch("one"), LONG_S) == SignedAnswer(200, b"posted")
        peer.refusal = None  # nor is it asked again at once
        await carry(peer.url, batch("two"), LONG_S)
        assert peer.posts == [b"one", b"two"]
        assert peer.websockets == 0


async def test_and_after_some_time_one_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websockets, "_REQUESTS_FOR_S", 0.0)
    async with played(answering) as (peer, carry):
        peer.refusal = web.Response(status=405)
        await carry(peer.url, batch("one"), LONG_S)
        peer.refusal = None
        assert (await carry(peer.url, batch("two"), LONG_S)).body == b"took two"
        assert peer.posts == [b"one"]


async def test_nobody_is_led_elsewhere() -> None:
    async with played(answering) as (elsewhere, _), played(answering) as (peer, carry):
        peer.refusal = web.Response(status=307, headers={"Location": f"{elsewhere.url}/replicate"})
        assert await carry(peer.url, batch("one"), LONG_S) == SignedAnswer(200, b"posted")
        assert elsewhere.websockets == 0
        assert peer.posts == [b"one"]


async def test_a_batch_too_large_for_the_peer_is_refused_in_words() -> None:
    async with played(answering) as (peer, carry):
        with pytest.raises(PeerTakesLess, match="REPLICATE_MAX_BYTES"):
            await carry(peer.url, batch("x" * 100_000), LONG_S)
        assert (await carry(peer.url, batch("two"), LONG_S)).body == b"took two"


WHOLE = msgspec.msgpack.encode(SignedAnswer(200, b"took one"))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (bytes(2 * ANSWER_MAX_BYTES), "is none of ours"),
        (b"", "cannot be read"),
        (b"\xc1", "cannot be read"),
        (WHOLE[:-1], "cannot be read"),
        (WHOLE + b"\0", "cannot be read"),
        (msgspec.msgpack.encode({"status": 200}), "cannot be read"),
        (msgspec.msgpack.encode([200, b"x", None, 1]), "cannot be read"),
        (msgspec.msgpack.encode(["200", b"x", None]), "cannot be read"),
        (b"\x93\xcc\xc8\xc4\x00\xa1\xff", "cannot be read"),
        ("text", "has ended"),
    ],
)
async def test_what_is_no_answer_ends_the_websocket(message: bytes | str, why: str) -> None:
    async def serve(socket: Socket) -> None:
        if peer.websockets > 1:
            await answering(socket)
        await socket.receive()
        if isinstance(message, str):
            await socket.send_str(message)
        else:
            await socket.send_bytes(message)
        await socket.receive()

    async with played(serve) as (peer, carry):
        assert why in str(await failure(carry, peer))
        assert (await carry(peer.url, batch("two"), LONG_S)).body == b"took two"


async def test_an_answer_to_nothing_ends_the_websocket() -> None:
    ended = asyncio.Event()

    async def serve(socket: Socket) -> None:
        if peer.websockets == 1:
            message = await socket.receive()
            for _ in range(2):
                await socket.send_bytes(answer_to(message.data))
            await socket.receive()
            ended.set()
        await answering(socket)

    async with played(serve) as (peer, carry):
        assert (await carry(peer.url, batch("one"), LONG_S)).body == b"took one"
        await ended.wait()
        assert (await carry(peer.url, batch("two"), LONG_S)).body == b"took two"
        assert peer.websockets == 2


async def test_when_the_worker_ends_its_connections_end_and_leave_nothing_behind() -> None:
    closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def serve(socket: Socket) -> None:
        await answering(socket)
        closed.set_result(socket.close_code)

    before = asyncio.all_tasks()
    async with played(serve) as (peer, carry):
        await carry(peer.url, batch("one"), LONG_S)
    assert await closed == WSCloseCode.OK
    assert asyncio.all_tasks() == before
