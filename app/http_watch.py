"""What watchers are told, as server-sent events.

Assumes a client that goes on from the last `id` it has read: a stream may end at any time. Nobody
is told that a stream was complete, for it never is. Guarantees that an `id` is a context that
covers just what was told up to it, so that it is a place to go on from, and a read token; that no
more is held for a watcher than one event and what a connection holds; and that whoever does not
read on is given up.

Does not know in which order writes are told.

Server-sent events are those of the HTML standard, `EventSource`.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Final

from aiohttp import web

from app import checks, contract, errors, metrics, shapes
from app.config import Config
from app.contract import Answer, Content, Parameter, Route
from app.errors import LogTrimmed, NotCaughtUp, RequestError
from app.http_session import CONTEXT_HEADER, Sessions
from app.http_shapes import shown_state, shown_write
from app.interface import Interface
from app.kv_store import KVStore
from app.log import get_logger
from app.problems import shown
from app.snapshot import KeyState
from app.vector_clock import NOTHING, VectorClock
from app.watching import Begin, Cut, Event, OutOfLog, Quiet, Told, Watching
from app.write import KEY_MAX_BYTES, SYSTEM

log = get_logger(__name__)

_NOW: Final = "now"
_RETRY_MS: Final = 500
"""After so long a browser asks again when a stream ends."""

_PLACE_TEXT: Final = {"type": "string"}

WATCH: Final = Route(
    name="watch",
    method="GET",
    path="/watch",
    group="keys",
    about="What is written, as it happens, in causal order and each write once, as server-sent "
    "events.\n\n"
    "`begin`, then `state` for each key, then `cut`: the state, if neither `since` nor "
    "`Last-Event-ID` says where to go on. Then `write` for each write, all operations of a "
    "transaction in one. `end`, a problem, says why no more comes. Each `id` is a `Causal-Context` "
    "that covers just what was told up to it: a place to go on from, at any node, and a read "
    "token.",
    parameters=(
        contract.WAIT,
        Parameter(
            "query",
            "prefix",
            "What the keys begin with.",
            {"type": "string", "maxLength": KEY_MAX_BYTES, "default": ""},
            "user/",
        ),
        Parameter(
            "query",
            "since",
            "`now`, or an `id` that was told before; without it the state comes first.",
            _PLACE_TEXT,
            "now",
        ),
        Parameter(
            "header",
            "Last-Event-ID",
            "The `id` that was told last. It is taken instead of `since`.",
            _PLACE_TEXT,
            "lc1;A:1",
        ),
        contract.CONTEXT,
    ),
    answers=(
        Answer(
            200,
            "A stream that ends only when it is broken off.",
            Content("text/event-stream"),
            (
                contract.SEEN,
                Parameter(
                    "header",
                    "Cache-Control",
                    "What is told is told once.",
                    {"const": "no-store"},
                    "no-store",
                    always=True,
                ),
            ),
        ),
    ),
    problems=(*(*contract.READING, errors.TooFarBack, errors.TooManyWatchers, errors.Stopping),),
)


class WatchRoutes:
    """The route of watchers."""

    def __init__(
        self, config: Config, store: KVStore, watching: Watching, sessions: Sessions
    ) -> None:
        self._config = config
        self._store = store
        self._watching = watching
        self._sessions = sessions
        self._watchers = 0

    def add_to(self, interface: Interface) -> None:
        """This route is served, and its streams end when the node does."""
        interface.serve(WATCH, self.watch)
        interface.at_end(self.end)
        metrics.WATCHERS.set(0)  # those of the worker before this one are gone

    def end(self) -> None:
        """Those who watch are told that it ends."""
        self._watching.stop()

    async def watch(self, request: web.BaseRequest) -> web.StreamResponse:
        """A stream of events, until the client goes or the node cannot go on."""
        prefix = checks.text(request, "prefix")
        with self._seat():
            context, since = await self._start(request)
            async with aclosing(self._watching.events(prefix, since)) as events:
                try:
                    first = await anext(events)  # what is refused is refused before the stream
                except OutOfLog as error:
                    raise self._too_far_back(error) from None
                headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
                response = web.StreamResponse(
                    headers={**headers, **self._sessions.headers(since or context)}
                )
                await response.prepare(request)
                stream = _Stream(self._config, self._sessions, prefix, request, response)
                try:
                    await self._tell(stream, first, events)
                except ConnectionError:
                    log.debug("watcher gone")
                except TimeoutError:
                    metrics.WATCHERS_GIVEN_UP.inc()
                    log.info("watcher given up", reason="it does not read", remote=request.remote)
                    stream.abort()
                return response

    async def _start(self, request: web.BaseRequest) -> tuple[VectorClock, VectorClock | None]:
        """The request's context, which this node covers, and after which clock it is told; None for
        one that is told the state first.

        Raises BadContext, TooLarge, NodeRemoved, NotCaughtUp, Lost, Syncing, RedisUnavailable.
        """
        text = request.headers.get("Last-Event-ID") or checks.parameters(request).get("since", "")
        begins_now = text == _NOW
        place = NOTHING if begins_now else self._sessions.contexts.parse(text)
        context = self._sessions.context(request)
        try:
            await self._sessions.catch_up(request, place)
        except NotCaughtUp:
            # What a watcher was told it is not told again, so it need not be here.
            if not context <= self._sessions.progress.clock:
                raise
        _, clock = await self._store.snapshot([], context, [], 0)  # there is a state to read
        self._sessions.progress.advance(clock)
        if begins_now:
            return context, clock
        return context, place if text else None

    async def _tell(
        self, stream: "_Stream", first: Event, events: AsyncGenerator[Event, None]
    ) -> None:
        """The watcher has been told all there is, and then why there is no more."""
        try:
            await stream.begin()
            await stream.tell(first)
            async for event in events:
                await stream.tell(event)
        except (OutOfLog, LogTrimmed, RequestError) as error:
            log.info("watch ends", reason=str(error))
            await stream.end(self._why(error))
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # too late for another answer
            log.critical("watch broken off", exc_info=error)
            stream.abort()

    def _why(self, error: OutOfLog | LogTrimmed | RequestError) -> RequestError:
        if isinstance(error, OutOfLog):
            return self._too_far_back(error)
        if isinstance(error, LogTrimmed):
            # While it was told the state: there is nothing yet to go on from.
            return errors.RedisUnavailable("logs were cut short while the state was read")
        return error

    def _too_far_back(self, error: OutOfLog) -> errors.TooFarBack:
        headers = self._sessions.headers(error.go_on)
        refusal = errors.TooFarBack(error.missed, headers[CONTEXT_HEADER])
        refusal.headers = headers
        return refusal

    @contextmanager
    def _seat(self) -> Iterator[None]:
        """Within it there is one more watcher. Raises TooManyWatchers."""
        if self._watchers >= self._config.watchers_max:
            raise errors.TooManyWatchers(self._config.watchers_max)
        self._watchers += 1
        metrics.WATCHERS.inc()
        try:
            yield
        finally:
            self._watchers -= 1
            metrics.WATCHERS.dec()


class _Stream:
    """What one watcher is sent."""

    def __init__(
        self,
        config: Config,
        sessions: Sessions,
        prefix: str,
        request: web.BaseRequest,
        response: web.StreamResponse,
    ) -> None:
        self._keepalive_s = config.watch_keepalive_ms / 1000
        self._stall_s = config.watch_stall_ms / 1000
        self._contexts = sessions.contexts
        self._prefix = prefix
        self._request = request
        self._response = response
        self._at: VectorClock | None = None
        self._sent: VectorClock | None = None
        self._sent_at = float("-inf")

    async def begin(self) -> None:
        """The watcher knows when to ask again once it ends. Raises as `tell` does."""
        await self._send(f"retry: {_RETRY_MS}\n\n")

    async def tell(self, event: Event) -> None:
        """The watcher is sent the event, or there is room for it on its way.

        Raises ConnectionError if it has gone, TimeoutError if it does not read.
        """
        match event:
            case Begin():
                await self._send(_event("begin", {}))
            case KeyState():
                metrics.WATCH_EVENTS.inc()
                await self._send(_event("state", shown_state(event)))
            case Cut(at):
                cut: shapes.ShownCut = {"clock": at.to_dict()}
                await self._send(self._at_clock("cut", at, cut))
            case Told(write, at):
                self._at = at
                operations = [
                    operation
                    for operation in write.operations
                    if operation.key.startswith(self._prefix)
                    and not operation.key.startswith(SYSTEM)
                ]
                if operations:
                    metrics.WATCH_EVENTS.inc()
                    await self._send(self._at_clock("write", at, shown_write(write, operations)))
                else:
                    await self._keep_alive()
            case Quiet(at):
                self._at = at
                await self._keep_alive()

    async def _keep_alive(self) -> None:
        """The watcher is there, and hears now and then that the node is."""
        if self._request.transport is None:
            raise ConnectionResetError
        if asyncio.get_running_loop().time() - self._sent_at >= self._keepalive_s:
            # With how far it is: what was of no interest need not be read again when it goes on.
            is_news = self._at is not None and self._at != self._sent
            await self._send(": keep-alive\n" + (self._id() if is_news else "") + "\n")
            self._sent = self._at

    async def end(self, why: RequestError) -> None:
        """The watcher is told why there is no more, and where to go on. Raises as `tell` does."""
        await self._send(self._id() + _event("end", shown(why)))

    def abort(self) -> None:
        """The connection is closed, whatever is still to be sent."""
        if self._request.transport is not None:
            self._request.transport.abort()

    def _at_clock(self, kind: str, at: VectorClock, data: Mapping[str, Any]) -> str:
        self._at = self._sent = at
        return self._id() + _event(kind, data)

    def _id(self) -> str:
        """The line that says how far the watcher is, if it has a place."""
        return "" if self._at is None else f"id: {self._contexts.token(self._at)}\n"

    async def _send(self, text: str) -> None:
        async with asyncio.timeout(self._stall_s):
            await self._response.write(text.encode())
        self._sent_at = asyncio.get_running_loop().time()


def _event(kind: str, data: Mapping[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
