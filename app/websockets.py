"""A WebSocket to each peer: one connection that stays, over which batches follow each other.

Assumes a peer that answers batches in the order in which they came. Guarantees that they arrive in
the order in which they left; that each exchange has the answer to its own batch; and that a
connection over which an answer did not come in time is not used again. Where a WebSocket is
refused, as by something in between that knows only requests, each batch goes as a request for some
time.

Does not know what the bytes say. Each message there is a `SignedBatch`, and each one back a
`SignedAnswer`, as MessagePack (RFC 6455; docs/adr/0028-a-websocket-per-link.md).
"""

import asyncio
from collections import deque
from typing import Final, Never, Self

import aiohttp
import msgspec
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, WSCloseCode, WSMsgType

from app.carriers import ANSWER_MAX_BYTES, Carry, SignedAnswer, SignedBatch, too_long
from app.errors import PeerRefused, PeerTakesLess

SLACK_BYTES: Final = 1024
"""What a message holds beside the bytes of a batch or of an answer, at most."""
_REQUESTS_FOR_S: Final = 60.0
"""For so long a peer that refused a WebSocket is not asked for one again."""
FAREWELL_S: Final = 1.0
"""For so long whoever ends one may wait for the other side to end it, too."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(SignedAnswer).decode


class WebSockets:
    """The WebSockets of one worker, by the URLs of its peers, for as long as it is entered."""

    def __init__(self, session: aiohttp.ClientSession, otherwise: Carry) -> None:
        """Where a WebSocket is refused, batches travel `otherwise`."""
        self._session = session
        self._otherwise = otherwise
        self._websockets: dict[str, WebSocket] = {}
        self._requests_until: dict[str, float] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for websocket in self._websockets.values():
            websocket.end(aiohttp.ClientConnectionError("this worker ends"))
        if self._running:
            await asyncio.wait(self._running)

    async def __call__(self, url: str, batch: SignedBatch, timeout_s: float) -> SignedAnswer:
        """As any `Carry`."""
        now = asyncio.get_running_loop().time()
        if now < self._requests_until.get(url, now):
            return await self._otherwise(url, batch, timeout_s)
        websocket = self._websocket(url)
        try:
            async with asyncio.timeout(timeout_s):
                return await websocket.exchange(batch)
        except TimeoutError:
            # Nor would it be of use soon: TCP sends again what was lost, but ever more rarely.
            # What is before it there is as late: it is what this one has waited for.
            websocket.end(aiohttp.ServerTimeoutError("another answer did not come in time"))
            raise
        except aiohttp.WSServerHandshakeError:
            self._requests_until[url] = now + _REQUESTS_FOR_S
            return await self._otherwise(url, batch, timeout_s)

    def _websocket(self, url: str) -> "WebSocket":
        """The WebSocket to this URL, which may be opening yet."""
        websocket = self._websockets.get(url)
        if websocket is None or websocket.has_ended:
            websocket = self._websockets[url] = WebSocket(self._session, url)
            self._running.add(websocket.running)
            websocket.running.add_done_callback(self._running.discard)
        return websocket


class WebSocket:
    """One connection to a peer, from when it is wanted until it ends."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """It opens."""
        loop = asyncio.get_running_loop()
        self._open: asyncio.Future[aiohttp.ClientWebSocketResponse] = loop.create_future()
        self._awaited: deque[asyncio.Future[SignedAnswer]] = deque()
        self._why: Exception | None = None
        self.running = loop.create_task(self._run(session, url))
        """Until the connection is closed."""

    @property
    def has_ended(self) -> bool:
        """Whether no more is exchanged."""
        return self._why is not None

    async def exchange(self, batch: SignedBatch) -> SignedAnswer:
        """The answer to this batch. Raises PeerRefused, ClientError, OSError."""
        socket = await asyncio.shield(self._open)
        if self._why is not None:
            raise self._why
        answer: asyncio.Future[SignedAnswer] = asyncio.get_running_loop().create_future()
        # Nobody else comes between this and what is sent: so answers and batches are in one order.
        self._awaited.append(answer)
        try:
            await socket.send_bytes(_encode(batch))
        except BaseException:  # also that it is given up: nobody will look at the answer
            if not answer.cancel():
                answer.exception()
            raise
        return await answer

    def end(self, why: Exception) -> None:
        """No more is exchanged; who awaits an answer is told why."""
        self._end(why)
        self.running.cancel()

    def _end(self, why: Exception) -> None:
        self._why = self._why or why
        if not self._open.done():
            self._open.set_exception(self._why)
            self._open.exception()  # whoever waits for it sees it; perhaps nobody does
        for answer in self._awaited:
            if not answer.done():
                answer.set_exception(self._why)
        self._awaited.clear()

    async def _run(self, session: aiohttp.ClientSession, url: str) -> None:
        try:
            async with session.ws_connect(
                f"{url}/replicate",
                max_msg_size=ANSWER_MAX_BYTES + SLACK_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=FAREWELL_S),
            ) as socket:
                self._open.set_result(socket)
                try:
                    await self._read(socket)
                except (PeerRefused, aiohttp.ClientError) as error:
                    self._end(error)
        except Exception as error:  # whatever it is, it is for those who wait to deal with
            self._end(error)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> Never:
        """Each answer is given to who awaits it. Raises what ended that."""
        while (message := await socket.receive()).type is WSMsgType.BINARY:
            try:
                answer = _decode(message.data)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise PeerRefused(f"its answer cannot be read: {error}") from None
            if not self._awaited:
                raise PeerRefused("it answered, and was not asked")
            awaited = self._awaited.popleft()
            if not awaited.done():  # else nobody wants it any more
                awaited.set_result(answer)
        if message.type is WSMsgType.ERROR and socket.close_code == WSCloseCode.MESSAGE_TOO_BIG:
            raise too_long()
        if socket.close_code == WSCloseCode.MESSAGE_TOO_BIG:
            raise PeerTakesLess(
                "it takes no batch of that size: its REPLICATE_MAX_BYTES is too small for our "
                "BATCH_MAX_BYTES, or for a key with all its siblings"
            )
        raise aiohttp.ClientConnectionError(f"the connection has ended ({socket.close_code})")


async def refuse_to_move(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """A middleware of a client's session: whoever opens a WebSocket is not led elsewhere."""
    response = await handler(request)
    if "Upgrade" in request.headers and 300 <= response.status < 400:
        response.close()
        raise aiohttp.WSServerHandshakeError(
            response.request_info, (), status=response.status, message="it leads elsewhere"
        )
    return response
