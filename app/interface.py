"""The routes of a node, what is promised of each, and the one way from a request to its answer.

Assumes handlers that answer as was declared, or raise. Guarantees that a route is served only with
its declaration; that a parameter which is not declared is refused; that whatever goes wrong is
answered, with a problem that says what became of the request (G10); that it is known how long each
took; and that `GET /openapi.json` tells of just the routes that this node serves.

Does not know what any route answers.
"""

import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import ClientConnectionResetError, HttpVersion11, hdrs, web

from app import checks, metrics, openapi
from app.contract import JSON, Answer, Content, Route
from app.errors import BadHttp, BadParameter
from app.problems import no_such_method, no_such_route, problem, refusal
from app.replies import Handler, Reply, Response
from app.routing import Router

CONTRACT: Final = Route(
    name="contract",
    method="GET",
    path="/openapi.json",
    group="node",
    about="This document: what this node serves, and how it answers.",
    answers=(Answer(200, "An OpenAPI document, version 3.1.", Content(JSON, dict[str, Any])),),
    head=True,
)


_FRAGMENT: Final = (
    "What is asked for has a #, which no request has: %23 is meant. Nothing was done."
)


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """A handler, the parameters that it knows, and whether a page of any site may come to it."""

    handler: Handler
    parameters: Sequence[str]
    is_open_to_pages: bool


class Interface:
    """The interface of one worker."""

    def __init__(self) -> None:
        self._router: Router[_Endpoint] = Router()
        self._routes: list[Route] = []
        self._streams: list[Callable[[], None]] = []
        self.serve(CONTRACT, self._tell)

    def serve(self, route: Route, handler: Handler) -> None:
        """The route is served, and is in the contract."""
        endpoint = _Endpoint(handler, route.query, route.is_open_to_pages)
        for method in (route.method, *(["HEAD"] if route.head else [])):
            self._router.add(method, route.path, endpoint)
        self._routes.append(route)

    def at_end(self, stop: Callable[[], None]) -> None:
        """Before this node ends, `stop` is called: what is streamed without end, ends."""
        self._streams.append(stop)

    def end(self) -> None:
        """What is streamed without end, ends."""
        for stop in self._streams:
            stop()

    async def answer(self, request: web.BaseRequest) -> Response:
        """The answer to any request. Raises ClientConnectionResetError if its client
        has gone before its answer began."""
        began = time.perf_counter()
        # What a client made up is no label: there would be no end of series.
        method, path = "none", "none"
        resource = self._router.find(request.rel_url.raw_path)
        if "#" in request.raw_path:  # aiohttp would leave out what follows
            response: Response = problem(BadHttp(_FRAGMENT))
        elif resource is None:
            response = no_such_route(request)
        elif (endpoint := resource.methods.get(request.method)) is None:
            response = no_such_method(request, resource.methods)
        else:
            method, path = request.method, resource.path
            try:
                if endpoint.is_open_to_pages:
                    checks.own_origin(request)
                if hdrs.EXPECT in request.headers:
                    await _go_on(request)
                if request.rel_url.raw_query_string:
                    checks.known_parameters(request, *endpoint.parameters)
                response = await endpoint.handler(request)
            except ClientConnectionResetError:
                raise  # that is no failure, and told to nobody
            except Exception as error:
                response = refusal(error, request.method, request.path)
        metrics.answered(method, path, response.status, time.perf_counter() - began)
        return response

    def path_of(self, request: web.BaseRequest) -> str | None:
        """The path of the route that a request is for, as it was declared."""
        resource = self._router.find(request.rel_url.raw_path)
        return resource.path if resource and request.method in resource.methods else None

    def served(self) -> list[tuple[str, str]]:
        """Method and path of all that is served."""
        return [(method, found.path) for found in self._router.paths() for method in found.methods]

    def document(self) -> dict[str, Any]:
        """The contract, as an OpenAPI document."""
        return openapi.document(self._routes)

    async def _tell(self, _request: web.BaseRequest) -> Reply:
        return Reply(self._text.encode(), headers={"Content-Type": JSON})

    @functools.cached_property
    def _text(self) -> str:
        return json.dumps(self.document())


async def _go_on(request: web.BaseRequest) -> None:
    """The client, which waits for leave to send its body, has it; it can expect nothing else.

    Raises BadParameter.
    """
    if ",".join(request.headers.getall(hdrs.EXPECT)).lower() != "100-continue":
        raise BadParameter("Expect is 100-continue, or left out. Nothing was done.")
    if request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun
        await request.writer.drain()
