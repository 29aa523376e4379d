"""HTTP/1.1 on the node's sockets: aiohttp's server, as this node wants it.

Assumes an application whose handlers answer every failure of their own. Guarantees that what is no
request, or is one with too long a head, is refused with a problem, too (G10); that bodies come to
the handlers as they were sent; and that serving ends without leaving a client in doubt.

Does not know any route.
"""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from app import errors
from app.log import get_logger
from app.port import BACKLOG, leave_port
from app.problems import problem

log = get_logger(__name__)

_FAREWELL_S: Final = 2.0
"""How long a node that ends still answers on connections that are open, so that busy clients learn
with an answer that theirs ends. To close at once would leave some not knowing what became of the
request that they had just sent. Connections that nobody uses are closed after it."""


async def serve(
    application: web.Application,
    sockets: Sequence[socket.socket],
    stop: asyncio.Event,
    *,
    grace_s: float,
    field_max_bytes: int,
) -> None:
    """Serve until `stop` is set; then finish what is in flight, for at most `grace_s`, and return.

    A header field over `field_max_bytes` is refused.
    """
    application.middlewares.append(_farewell(stop))
    runner = web.AppRunner(application, shutdown_timeout=grace_s)
    await runner.setup()
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    connection = partial(
        _Connection,
        runner.server,
        loop=loop,
        access_log=None,  # type: ignore[arg-type]  # its type forgets that it may be none
        auto_decompress=False,
        max_field_size=field_max_bytes,
    )
    try:
        accepting = [
            await loop.create_server(connection, sock=sock, backlog=BACKLOG) for sock in sockets
        ]
        await stop.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await leave_port(sockets)
        for server in accepting:
            server.close()
        await runner.shutdown()  # what is streamed without end, ends
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_FAREWELL_S, grace_s)):
                while runner.server.connections:
                    await asyncio.sleep(0.02)
    finally:
        await runner.cleanup()


class _Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ()

    def log_exception(self, *args: Any, **options: Any) -> None:
        """What somebody sent is no error of ours, and is not repeated."""
        if isinstance(options.get("exc_info"), HttpProcessingError | web.RequestPayloadError):
            log.debug("no http", reason=type(options["exc_info"]).__name__)
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
        said = (message or "").strip().partition("\n")[0].rstrip(":") or "it cannot be parsed"
        log.debug("no http", remote=request.remote, reason=said)
        refusal = problem(errors.BadHttp(f"This is no HTTP request: {said}. Nothing was done."))
        refusal.force_close()
        return refusal


def _farewell(stop: asyncio.Event) -> Middleware:
    """Once `stop` is set, each answer ends its connection."""

    @web.middleware
    async def end_connection(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if stop.is_set():
            response.force_close()
        return response

    return end_connection
