"""Reaching a peer, against servers that answer, refuse, babble, hang or are not there."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app import wire
from app.carriers import SIGNATURE_HEADER, Posts, SignedAnswer, SignedBatch, signed_with
from app.compression import unpacked
from app.errors import (
    BadSignature,
    OtherBase,
    PeerError,
    PeerRefused,
    PeerTakesLess,
    PeerTooSlow,
    PeerUnreachable,
)
from app.peers import PeerExchange, Signer
from app.vector_clock import Dot, VectorClock
from app.websockets import WebSockets
from app.wire import Answer, Batch
from app.write import Put, Write

SECRET = "a secret of the cluster"
LONG_MS = 60_000

BAD_URLS = [
    *("", "b", "ftp://b", "http://b..example:1", "http://.:1", "http://" + "b" * 64),
    *("http://b:99999", "http://b:x", "http://[b", "http://1\0[]@"),
]
"""What the settings of another node may say, or a member's record, for nobody checks these."""

BATCH = Batch(
    "A",
    "B",
    VectorClock({"A": 1}),
    (Write(Dot("A", 1), VectorClock(), 1, (Put("lunch", b"noon?", "text/plain"),)),),
)
ANSWER = Answer("B", VectorClock({"A": 1}), VectorClock({"A": 1}), VectorClock(), 1, 0, 0, 0, 5)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]
RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ServeRaw = Callable[[RawHandler], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server that handles `POST /replicate`; its URL."""
    servers: list[TestServer] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_post("/replicate", handler)
        server = TestServer(app, host="127.0.0.1")
        servers.append(server)
        await server.start_server(auto_decompress=False)
        return str(server.make_url("")).rstrip("/")

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
async def serve_raw() -> AsyncIterator[ServeRaw]:
    """Starts a server that is given each connection once a request's head has come; its URL."""
    servers: list[asyncio.Server] = []

    async def start(handler: RawHandler) -> str:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readuntil(b"\r\n\r\n")
                await handler(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        servers.append(server)
        host, port = server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    yield start
    for server in servers:
        server.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Exchanges:
    """Sends BATCH, with or without a secret."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(
        self, url: str, *, secret: str | None = None, timeout_ms: int = LONG_MS
    ) -> Answer:
        return await PeerExchange(Posts(self._session), Signer(secret), timeout_ms)(url, BATCH)

    async def refused(self, url: str, *, secret: str | None = None) -> str:
        """What is said when the peer answered and did not take the batch."""
        with pytest.raises(PeerRefused) as caught:
            await self(url, secret=secret)
        return str(caught.value)

    async def unreachable(self, url: str, *, timeout_ms: int = LONG_MS) -> str:
        """What is said when no answer came."""
        with pytest.raises(PeerUnreachable) as caught:
            await self(url, timeout_ms=timeout_ms)
        assert str(caught.value)
        return str(caught.value)


@pytest.fixture
async def exchange(session: aiohttp.ClientSession) -> Exchanges:
    return Exchanges(session)


def answering(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Handler:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers=headers)

    return handler


def problem(status: int, body: bytes) -> Handler:
    return answering(body, status, {"Content-Type": "application/problem+json"})


# --- signing -------------------------------------------------------------------------------------


def signed(secret: str, body: bytes) -> str:
    signature = Signer(secret).signature(body)
    assert signature
    return signature


def test_what_is_signed_is_accepted_by_whoever_has_the_secret() -> None:
    for body in (b"", b"x", bytes(range(256))):
        signature = signed(SECRET, body)
        Signer(SECRET).check(body, signature)


def test_without_a_secret_nothing_is_signed_or_asked_for() -> None:
    assert Signer(None).signature(b"body") is None
    Signer(None).check(b"body", None)


def signature_refusal(signer: Signer, body: bytes, signature: str | None) -> str:
    with pytest.raises(BadSignature) as caught:
        signer.check(body, signature)
    assert caught.value.outcome == "not_applied"
    assert "Nothing was applied." in caught.value.detail
    assert "CLUSTER_SECRET" in caught.value.detail
    assert SECRET not in caught.value.detail
    return caught.value.detail


def test_a_body_that_was_altered_is_refused() -> None:
    signature = signed(SECRET, b"body")
    signature_refusal(Signer(SECRET), b"Body", signature)
    signature_refusal(Signer(SECRET), b"", signature)


def test_a_signature_of_another_secret_is_refused() -> None:
    signature = signed("another secret", b"body")
    signature_refusal(Signer(SECRET), b"body", signature)


@pytest.mark.parametrize("signature", [None, "", "x", "0" * 64, "ü", "\udcff"])
def test_a_missing_or_made_up_signature_is_refused(signature: str | None) -> None:
    """Bytes of a header that are not UTF-8 come as lone surrogates."""
    signature_refusal(Signer(SECRET), b"body", signature)


def test_no_character_of_a_signature_can_be_changed_or_left_out() -> None:
    signature = signed(SECRET, b"body")
    for position, was in enumerate(signature):
        other = "1" if was == "0" else "0"
        changed = signature[:position] + other + signature[position + 1 :]
        signature_refusal(Signer(SECRET), b"body", changed)
        signature_refusal(Signer(SECRET), b"body", signature[:position])
    signature_refusal(Signer(SECRET), b"body", signature + "0")


def test_a_signature_is_refused_where_there_is_no_secret() -> None:
    signature = signed(SECRET, b"body")
    assert "has no CLUSTER_SECRET" in signature_refusal(Signer(None), b"body", signature)


# --- the peer answers ----------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, SECRET])
async def test_the_answer_of_the_peer_comes_back(
    serve: Serve, exchange: Exchanges, secret: str | None
) -> None:
    got: list[Batch] = []
    signer = Signer(secret)

    async def handler(request: web.Request) -> web.Response:
        body = await request.read()
        assert request.content_type == wire.CONTENT_TYPE
        signer.check(body, request.headers.get(SIGNATURE_HEADER))
        got.append(wire.decode_batch(body))
        answer = wire.encode_answer(ANSWER)
        return web.Response(body=answer, headers=signed_with(signer.signature(answer)))

    assert await exchange(await serve(handler), secret=secret) == ANSWER
    assert got == [BATCH]


async def test_an_answer_in_many_pieces_comes_back_whole(serve: Serve, exchange: Exchanges) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in wire.encode_answer(ANSWER):
            await response.write(bytes([byte]))
        return response

    assert await exchange(await serve(handler)) == ANSWER


@pytest.mark.parametrize("secret", [None, SECRET])
async def test_a_batch_of_some_size_is_compressed_where_that_is_wanted(
    serve: Serve, session: aiohttp.ClientSession, secret: str | None
) -> None:
    got: list[tuple[str | None, Batch]] = []
    signer = Signer(secret)

    async def handler(request: web.Request) -> web.Response:
        body, encoding = await request.content.read(), request.headers.get("Content-Encoding")
        signer.check(body, request.headers.get(SIGNATURE_HEADER))
        got.append((encoding, wire.decode_batch(unpacked(body, 10_000) if encoding else body)))
        answer = wire.encode_answer(ANSWER)
        return web.Response(body=answer, headers=signed_with(signer.signature(answer)))

    url = await serve(handler)
    size = len(wire.encode_batch(BATCH))
    for least in (0, size + 1, size, 1):
        exchange = PeerExchange(Posts(session), signer, LONG_MS, least)
        assert await exchange(url, BATCH) == ANSWER
    assert got == [(None, BATCH), (None, BATCH), ("deflate", BATCH), ("deflate", BATCH)]


ENDED = VectorClock({"B~1": 5, "C~1": 7})


async def test_what_the_peer_has_of_former_incarnations_is_not_said_again(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    got: list[Batch] = []
    now = ENDED.merge(VectorClock({"A": 1, "B~2": 1, "C~2": 1}))

    async def handler(request: web.Request) -> web.Response:
        batch = wire.decode_batch(await request.read(), ENDED)
        got.append(batch)
        return web.Response(
            body=wire.encode_answer(replace(ANSWER, clock=now, received=now), batch.base)
        )

    url = await serve(handler)
    exchange = PeerExchange(Posts(session), Signer(None), LONG_MS)
    batch = replace(BATCH, clock=now)
    answers = [await exchange(url, batch) for _ in range(3)]
    assert {(answer.clock, answer.received) for answer in answers} == {(now, now)}
    assert [batch.base for batch in got] == [VectorClock(), ENDED, ENDED]
    assert {batch.clock for batch in got} == {now}


async def test_a_peer_that_has_something_else_meanwhile_is_told_everything(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    holds = [ENDED, VectorClock({"B~1": 5}), VectorClock()]
    got: list[Batch] = []
    refused = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal refused
        try:
            batch = wire.decode_batch(await request.read(), holds[len(got)])
        except OtherBase:
            refused += 1
            return await problem(409, b'{"type": "urn:lightcone:other-base"}')(request)
        got.append(batch)
        has = holds[len(got) - 1].merge(VectorClock({"B~2": 1, "C~2": 1}))
        return web.Response(body=wire.encode_answer(replace(ANSWER, clock=has), batch.base))

    url = await serve(handler)
    exchange = PeerExchange(Posts(session), Signer(None), LONG_MS)
    batch = replace(BATCH, clock=ENDED)
    for _ in holds:
        await exchange(url, batch)
    assert [(batch.base, batch.clock) for batch in got] == [(VectorClock(), ENDED)] * 3
    assert refused == 2


# --- the peer answers, and it is of no use -------------------------------------------------------


async def test_the_answer_of_another_node_is_refused(serve: Serve, exchange: Exchanges) -> None:
    url = await serve(answering(wire.encode_answer(replace(ANSWER, node="C"))))
    assert await exchange.refused(url) == f"the node at {url} is C, and PEERS says that it is B"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 421, 422, 500, 503])
async def test_a_problem_is_told_in_the_words_of_the_peer(
    serve: Serve, exchange: Exchanges, status: int
) -> None:
    body = b'{"type": "urn:lightcone:x", "detail": "Add it to PEERS here.", "outcome": "unknown"}'
    url = await serve(problem(status, body))
    assert await exchange.refused(url) == f"it answered {status}: Add it to PEERS here."


@pytest.mark.parametrize("body", [b"{}", b"<html>"], ids=["a node", "a proxy"])
async def test_a_batch_that_is_too_large_for_the_peer_would_never_be_taken(
    serve: Serve, exchange: Exchanges, body: bytes
) -> None:
    with pytest.raises(PeerTakesLess):
        await exchange(await serve(problem(413, body)))


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"null", b"[]", b'"text"', b"{", b"{}", b'{"detail": null}', b'{"detail": ""}']
    + [b"\xff\xfe", b'{"detail": "\xff"}', b'{"\xff": 1}'],
)
async def test_a_problem_in_no_words_is_told_by_its_status(
    serve: Serve, exchange: Exchanges, body: bytes
) -> None:
    assert await exchange.refused(await serve(problem(502, body))) == (
        "it answered 502: and gave no reason"
    )


async def test_a_problem_that_is_nested_without_end_is_told_by_its_status(
    serve: Serve, exchange: Exchanges
) -> None:
    url = await serve(problem(400, b'{"detail": ' + b"[" * 100_000))
    assert "it answered 400" in await exchange.refused(url)


async def test_a_redirect_is_not_followed(serve: Serve, exchange: Exchanges) -> None:
    followed: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        followed.append(request.path)
        return web.Response(body=wire.encode_answer(ANSWER))

    other = await serve(elsewhere)
    url = await serve(answering(b"", 307, {"Location": f"{other}/replicate"}))
    assert "it answered 307" in await exchange.refused(url)
    assert followed == []


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"hello", b"{}", b"\x80", wire.encode_answer(ANSWER)[:-1]]
)
async def test_an_answer_that_cannot_be_read_is_refused(
    serve: Serve, exchange: Exchanges, body: bytes
) -> None:
    assert "The answer cannot be read" in await exchange.refused(await serve(answering(body)))


async def test_an_answer_that_does_not_end_is_refused(serve: Serve, exchange: Exchanges) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(64 * 1024))
        except ConnectionError:
            return response

    assert "bytes is none of ours" in await exchange.refused(await serve(handler))


async def test_an_answer_with_no_signature_is_refused_where_there_is_a_secret(
    serve: Serve, exchange: Exchanges
) -> None:
    url = await serve(answering(wire.encode_answer(ANSWER)))
    assert "CLUSTER_SECRET" in await exchange.refused(url, secret=SECRET)


async def test_an_answer_with_a_wrong_signature_is_refused(
    serve: Serve, exchange: Exchanges
) -> None:
    answer = wire.encode_answer(ANSWER)
    other = signed_with(Signer("another secret").signature(answer))
    url = await serve(answering(answer, headers=other))
    assert "CLUSTER_SECRET" in await exchange.refused(url, secret=SECRET)
    assert "has no CLUSTER_SECRET" in await exchange.refused(url, secret=None)


async def test_an_answer_with_a_signature_that_is_no_text_is_refused(
    serve_raw: ServeRaw, exchange: Exchanges
) -> None:
    async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = wire.encode_answer(ANSWER)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n{SIGNATURE_HEADER}: "
        writer.write(head.encode() + b"\xff\xfe\r\n\r\n" + answer)
        await writer.drain()

    assert "CLUSTER_SECRET" in await exchange.refused(await serve_raw(handler), secret=SECRET)


# --- the peer does not answer --------------------------------------------------------------------


async def test_a_connection_that_is_refused_is_unreachable(exchange: Exchanges) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        port = bound.getsockname()[1]
        assert str(port) in await exchange.unreachable(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("url", BAD_URLS)
async def test_nothing_is_reached_at_what_is_no_url(
    session: aiohttp.ClientSession, exchange: Exchanges, url: str
) -> None:
    await exchange.unreachable(url)
    async with WebSockets(session, Posts(session)) as websockets:
        with pytest.raises(PeerUnreachable):
            await PeerExchange(websockets, Signer(None), LONG_MS)(url, BATCH)


@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"+PONG\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot hexadecimal\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain",
        b"HTTP/1.1 99999 OK\r\n\r\n",
    ],
    ids=[
        "nothing",
        "another protocol",
        "too little",
        "bad chunk",
        "no end",
        "no gzip",
        "no status",
    ],
)
async def test_a_connection_that_breaks_off_or_babbles_is_unreachable(
    serve_raw: ServeRaw, exchange: Exchanges, says: bytes
) -> None:
    async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await writer.drain()

    await exchange.unreachable(await serve_raw(handler))


@pytest.mark.parametrize(
    "says", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"], ids=["head", "body"]
)
async def test_a_peer_that_hangs_is_unreachable(
    serve_raw: ServeRaw, exchange: Exchanges, says: bytes
) -> None:
    never = asyncio.Event()

    async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await writer.drain()
        await never.wait()

    url = await serve_raw(handler)
    assert await exchange.unreachable(url, timeout_ms=50) == "no answer within 0.05 s"
    never.set()


async def test_one_write_that_was_not_answered_in_time_has_twice_the_time_then() -> None:
    given_s: list[float] = []

    async def silent(url: str, batch: SignedBatch, timeout_s: float) -> SignedAnswer:
        given_s.append(timeout_s)
        raise TimeoutError

    exchange = PeerExchange(silent, Signer(None), 1000)
    for sent in (BATCH, BATCH, replace(BATCH, writes=()), BATCH):
        with pytest.raises(PeerTooSlow):
            await exchange("http://b.invalid", sent)
    assert given_s == [1, 2, 1, 4]


async def test_an_exchange_that_is_given_up_is_no_failure_of_the_peer(
    serve_raw: ServeRaw, exchange: Exchanges
) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def handler(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        asked.set()
        await never.wait()

    exchanging = asyncio.create_task(exchange(await serve_raw(handler)))
    await asked.wait()
    exchanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchanging
    never.set()


def test_whatever_goes_wrong_is_a_peer_error() -> None:
    assert issubclass(PeerUnreachable, PeerError)
    assert issubclass(PeerRefused, PeerError)
