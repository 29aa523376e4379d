"""The routes of an application, and what is promised of each.

Assumes handlers that answer as was declared. Guarantees that a route is served only with its
declaration, that a parameter which is not declared is refused, and that `GET /openapi.json` tells
of just the routes that this node serves.

Does not know what any route answers.
"""

import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import HttpVersion11, hdrs, web

from app import checks, openapi
from app.contract import JSON, Answer, Content, Route
from app.errors import BadParameter
from app.problems import problem

CONTRACT: Final = Route(
    name="contract",
    method="GET",
    path="/openapi.json",
    group="node",
    about="This document: what this node serves, and how it answers.",
    answers=(Answer(200, "An OpenAPI document, version 3.1.", Content(JSON, dict[str, Any])),),
    head=True,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Interface:
    """The interface of one application, where it is to be found under INTERFACE."""

    def __init__(self, app: web.Application) -> None:
        app[INTERFACE] = self
        self._router = app.router
        self._routes: list[Route] = []
        self.serve(CONTRACT, self._tell)

    def serve(self, route: Route, handler: Handler) -> None:
        """The route is served, and is in the contract."""

        async def keep(request: web.Request) -> web.StreamResponse:
            checks.known_parameters(request, *route.query)
            return await handler(request)

        # A key may hold anything, slashes and line breaks too.
        path = route.path.replace("{key}", "{key:(?s:.*)}")
        for method in (route.method, *(["HEAD"] if route.head else [])):
            self._router.add_route(method, path, keep, expect_handler=_go_on)
        self._routes.append(route)

    def document(self) -> dict[str, Any]:
        """The contract, as an OpenAPI document."""
        return openapi.document(self._routes)

    async def _tell(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._text, content_type=JSON)

    @functools.cached_property
    def _text(self) -> str:
        return json.dumps(self.document())


INTERFACE: Final = web.AppKey("interface", Interface)


async def _go_on(request: web.Request) -> web.Response | None:
    """The client, which waits for leave to send its body, has it; it can expect nothing else.

    aiohttp's own refusal would be no problem, for it is made outside of all middlewares.
    """
    if request.headers[hdrs.EXPECT].lower() != "100-continue":
        return problem(BadParameter("Expect is 100-continue, or left out. Nothing was done."))
    if request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun
    return None
