"""Where a peer opens a WebSocket to this node, over which its batches follow each other.

Assumes nothing of what comes. Guarantees that each batch is taken as one that comes alone is
(`http_replicate.py`), after the one before it, and that answers are in the order of the batches.
What is wrong with one is answered as a problem, and ends nothing.

Does not know what a batch is. The other side is in `websockets.py`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import msgspec
from aiohttp import WSCloseCode, WSMessage, WSMsgType, hdrs, web

from app import contract, errors, metrics
from app.carriers import SignedAnswer, SignedBatch
from app.contract import Route
from app.interface import Interface
from app.log import get_logger
from app.patience import SILENCE_S
from app.problems import refusal
from app.websockets import FAREWELL_S, SLACK_BYTES

log = get_logger(__name__)

WEBSOCKET: Final = Route(
    name="replicateWebSocket",
    method="GET",
    path="/replicate",
    group="internal",
    about="A WebSocket: each message is a batch, and is answered with what became of it before "
    "the next one is looked at.\n\ndocs/protocol.md has the fields of the messages.",
    answers=(contract.Answer(101, "Batches may come."),),
    problems=(errors.NoWebsocket,),
)

_Socket = web.WebSocketResponse[Literal[True]]
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(SignedBatch).decode


class WebSocketRoutes:
    """The route to a WebSocket."""

    def __init__(
        self, take: Callable[[SignedBatch], Awaitable[SignedAnswer]], batch_max_bytes: int
    ) -> None:
        """`take` gives the answer to a batch, or raises what is wrong with it."""
        self._take = take
        self._message_max_bytes = batch_max_bytes + SLACK_BYTES
        self._idle: set[_Socket] = set()
        self._ends = False
        self._ending: set[asyncio.Task[bool]] = set()

    def add_to(self, interface: Interface) -> None:
        """It is served."""
        interface.serve(WEBSOCKET, self.websocket)
        interface.at_end(self.end)

    def end(self) -> None:
        """Batches that are taken just now are answered; no other one is taken."""
        self._ends = True
        for socket in self._idle:
            closing = asyncio.create_task(socket.close(code=WSCloseCode.GOING_AWAY))
            self._ending.add(closing)
            closing.add_done_callback(self._ending.discard)

    async def websocket(self, request: web.BaseRequest) -> web.StreamResponse:
        """Each batch is answered, until the peer or this node ends it."""
        # Of one, aiohttp would warn the operator.
        if hdrs.SEC_WEBSOCKET_PROTOCOL in request.headers:
            raise _no_websocket("no protocol is spoken in it but that of batches")
        socket: _Socket = web.WebSocketResponse(
            compress=False,
            max_msg_size=self._message_max_bytes,
            receive_timeout=SILENCE_S,  # its peer opens another when it has something to say
            timeout=FAREWELL_S,
        )
        try:
            await socket.prepare(request)
        except web.HTTPBadRequest as error:
            raise _no_websocket(" ".join((error.text or "").split())[:200].rstrip(".")) from None
        try:
            while not self._ends and (message := await self._next(socket)).type is WSMsgType.BINARY:
                await socket.send_bytes(_encode(await self._answer(message.data)))
        except (ConnectionError, TimeoutError) as error:
            log.debug("websocket ends", remote=request.remote, reason=type(error).__name__)
        await socket.close(code=WSCloseCode.GOING_AWAY)
        return socket

    async def _next(self, socket: _Socket) -> WSMessage:
        self._idle.add(socket)
        try:
            return await socket.receive()
        finally:
            self._idle.discard(socket)

    async def _answer(self, message: bytes) -> SignedAnswer:
        """What became of the batch, or what is wrong with it."""
        began = time.perf_counter()
        try:
            answer = await self._take(_signed_batch(message))
        except Exception as error:
            told = refusal(error, "POST", WEBSOCKET.path)
            answer = SignedAnswer(told.status, told.body)
        metrics.answered(
            WEBSOCKET.method, WEBSOCKET.path, answer.status, time.perf_counter() - began
        )
        return answer


def _no_websocket(why: str) -> errors.NoWebsocket:
    return errors.NoWebsocket(
        f"Only a WebSocket begins here: {why}. Nothing was done. A single batch goes with POST."
    )


def _signed_batch(message: bytes) -> SignedBatch:
    try:
        return _decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.BadBatch(
            f"The message cannot be read: {error}. Nothing was applied."
        ) from None
