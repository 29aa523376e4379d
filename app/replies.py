"""Answers that are whole, and sent in one piece.

Assumes headers that name the type of the body, too. Guarantees that what is sent is what aiohttp's
own response would be, for less: nothing is made that is not sent, and head and body are put
together once, and written once.

Does not know what is answered.
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, cast

import msgspec
from aiohttp import ClientConnectionResetError, HttpVersion10, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_WITHOUT_BODY: Final = (204, 304)
_json: Final = msgspec.json.Encoder()


class Reply:
    """An answer whose body is here: all that aiohttp's server wants of a response."""

    __slots__ = ("_request", "body", "headers", "keep_alive", "status")

    _request: web.BaseRequest

    def __init__(
        self, body: bytes = b"", *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.body = body
        self.status = status
        self.headers: Mapping[str, str] = headers or {}
        self.keep_alive: bool | None = None
        """Whether its connection goes on after it; None as long as its client decides that."""

    def force_close(self) -> None:
        """Its connection ends with it."""
        self.keep_alive = False

    async def prepare(self, request: web.BaseRequest) -> None:
        """It is for this request."""
        self._request = request
        if self.keep_alive is None:
            self.keep_alive = request.keep_alive

    async def write_eof(self) -> None:
        """It is on its way.

        Raises ValueError for a header that would be two; ClientConnectionResetError.
        """
        request, body = self._request, self.body
        is_old, is_head = request.version == HttpVersion10, request.method == "HEAD"
        head = f"HTTP/1.{0 if is_old else 1} {self.status} {_REASONS[self.status]}\r\n"
        for name, value in self.headers.items():
            head += f"{name}: {value}\r\n"
        if head.count("\n") > len(self.headers) + 1:
            raise ValueError("a header holds a line break")
        if self.status in _WITHOUT_BODY:
            body = b""
        elif body or not is_head:
            head += f"Content-Length: {len(body)}\r\n"
        head += f"Date: {rfc822_formatted_time()}\r\nServer: {SERVER_SOFTWARE}\r\n"
        if is_old == self.keep_alive:  # else it is what that version takes for granted
            head += f"Connection: {'keep-alive' if is_old else 'close'}\r\n"
        sent = f"{head}\r\n".encode()
        await _send(request, sent if is_head else sent + body)


async def _send(request: web.BaseRequest, answer: bytes) -> None:
    """The whole answer is on its way. aiohttp's writer would first ask how it is to be sent.

    Raises ClientConnectionResetError.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ClientConnectionResetError("the client has gone")
    request.writer.output_size += len(answer)
    transport.write(answer)
    if request.protocol.writing_paused:
        await request.writer.drain()


Response = Reply | web.StreamResponse
"""What requests are answered with: what is whole, or a stream."""

Handler = Callable[[web.BaseRequest], Awaitable[Response]]
"""What answers requests."""


def for_aiohttp(handler: Handler) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """The same, for aiohttp's server, whose types ask for more of a response than it does."""
    return cast("Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]", handler)


def json_reply(
    answer: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Reply:
    """The answer as JSON."""
    return Reply(
        _json.encode(answer),
        status=status,
        headers={**(headers or {}), "Content-Type": "application/json"},
    )
