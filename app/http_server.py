"""HTTP/1.1 on the node's sockets: aiohttp's server, as this node wants it.

Assumes that whoever answers answers every failure of its own, too. Guarantees that what is no
request, or is one with too long a head, is refused with a problem, too (G10); that bodies come to
the handlers as they were sent; and that serving ends without leaving a client in doubt.

Does not know any route.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

from aiohttp import ClientConnectionResetError, web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import InvalidURLError
from aiohttp.web_protocol import _ErrInfo

from app import errors
from app.log import get_logger
from app.port import BACKLOG, leave_port
from app.problems import problem
from app.replies import Handler, Response, for_aiohttp

log = get_logger(__name__)

_FAREWELL_S: Final = 2.0
"""How long a node that ends still answers on connections that are open, so that busy clients learn
with an answer that theirs ends. To close at once would leave some not knowing what became of the
request that they had just sent. Connections that nobody uses are closed after it."""
_NO_TIME_S: Final = 0.01
"""What aiohttp is given where there is none left: it takes 0 for no limit."""


async def serve(
    answer: Handler,
    end_streams: Callable[[], None],
    sockets: Sequence[socket.socket],
    stop: asyncio.Event,
    *,
    grace_s: float,
    field_max_bytes: int,
) -> None:
    """Serve until `stop` is set; then finish what is in flight, for at most `grace_s`, and return.

    A header field over `field_max_bytes` is refused.
    """

    async def answer_or_part(request: web.BaseRequest) -> Response:
        response = await answer(request)
        if stop.is_set():  # from now on each answer ends its connection
            response.force_close()
        return response

    loop = asyncio.get_running_loop()
    server, connection = server_of(answer_or_part, field_max_bytes)
    try:
        accepting = [
            await loop.create_server(connection, sock=sock, backlog=BACKLOG) for sock in sockets
        ]
        await stop.wait()
        ends = loop.time() + grace_s
        with suppress(TimeoutError):
            async with asyncio.timeout_at(ends):
                await leave_port(sockets)
        for one in accepting:
            one.close()
        end_streams()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(loop.time() + _FAREWELL_S, ends)):
                while server.connections:
                    await asyncio.sleep(0.02)
        grace_s = ends - loop.time()
    finally:
        server.pre_shutdown()
        await server.shutdown(max(_NO_TIME_S, grace_s))


def server_of(
    answer: Handler, field_max_bytes: int
) -> tuple[web.Server, Callable[[], asyncio.Protocol]]:
    """aiohttp's server for what answers so, and what makes the protocol of one connection."""
    server = web.Server(for_aiohttp(answer))
    connection = partial(
        _Connection,
        server,
        loop=asyncio.get_running_loop(),
        access_log=None,
        auto_decompress=False,
        max_field_size=field_max_bytes,
    )
    return server, connection


class _Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ("_may_be_paused",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._may_be_paused = False

    def pause_reading(self) -> None:
        self._may_be_paused = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """What was paused goes on. aiohttp wants that for each body that was read, and most were
        here before anybody had to be told to pause."""
        if self._may_be_paused:
            # Without its parser it is so halfway only: that is resumed by the next one.
            self._may_be_paused = not resume_parser
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        """What came is read. A body that stops being one halfway has ended: aiohttp keeps that for
        a request of its own, behind the one that waits for the rest, and waits for ever."""
        super().data_received(data)
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            bodies = [body for _, body in self._messages]
            if self._current_request is not None:
                bodies.append(self._current_request.content)
            for body in bodies:
                if not body.is_eof():
                    body.set_exception(web.RequestPayloadError("what came is no body"))

    def log_exception(self, *args: Any, **options: Any) -> None:
        """What somebody sent is no error of ours, and is not repeated; nor is it one that a client
        goes."""
        error = options.get("exc_info")
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            log.debug("no http", reason=type(error).__name__)
        elif isinstance(error, ClientConnectionResetError):
            log.debug("client gone")
        else:
            super().log_exception(*args, **options)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What cannot be read as a request is a problem, and the end of the connection."""
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        # The rest of aiohttp's message quotes what came, which belongs in no log and no answer.
        said = (message or "").strip().partition("\n")[0].partition(": ")[0].rstrip(".:")
        if isinstance(exc, InvalidURLError):  # of which the message is the whole of what came
            said = "its target cannot be read"
        said = said or "it cannot be parsed"
        log.debug("no http", remote=request.remote, reason=said)
        refusal = problem(errors.BadHttp(f"This is no HTTP request: {said}. Nothing was done."))
        refusal.force_close()
        return cast("web.StreamResponse", refusal)
