"""One request to one node, and what became of it.

What it is: `Request`, something to ask of a node, and `Transport`, which asks it over a shared pool
of connections and turns whatever happens into an `Answer` or an error of the right kind.

What it assumes and guarantees: a request is sent at most once. When a write fails here, the error
says for certain whether it can have taken effect: `NotApplied` when no connection was made or the
node itself said so, and `OutcomeUnknown` in every other case.

What it does not know: which node to ask next, how often, and what the session has seen.

Where the idea is from: Maelstrom's definite and indefinite errors. "When in doubt, indefinite is
always safe."
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import aiohttp
from yarl import URL

from client.answers import STRANGE, Answer
from client.context import HEADER, is_context
from client.errors import (
    BadInput,
    LightconeError,
    Lost,
    NotApplied,
    NotCaughtUp,
    OutcomeUnknown,
    PreconditionFailed,
    ReplicasMissing,
    TooFarBack,
    Unreachable,
    problem_kind,
)

Result = TypeVar("Result")

#: A connection that takes longer than this will not come: distant sites are 0.3 s apart.
CONNECT_S = 2.0
#: A node that streams says something every 20 seconds at least.
SILENCE_S = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Generic[Result]):
    """Something to ask of any node, and how to read its answer."""

    name: str
    method: str
    path: str
    read: Callable[[Answer], Result]
    #: The key that it is about, if any.
    key: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    #: Whether repeating it could change something a second time.
    is_write: bool = False
    #: Whether it may be repeated at one node and is done once: it has an Idempotency-Key.
    is_repeatable: bool = False
    #: Whether it is part of a session: it carries the context, and its answer brings one.
    in_session: bool = True
    #: Whether a node, in a session, may wait until it has what the session has seen.
    may_wait: bool = True


class Transport:
    """A pool of connections to all nodes, between `open` and `close`."""

    def __init__(self) -> None:
        self._http: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Requests can be sent. To be called where the event loop runs, once."""
        if self._http is not None:
            raise RuntimeError("this Lightcone is open, or was: make another one")
        # A session limits what it has under way, so the pool need not.
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=[_never_repeat],
        )

    async def close(self) -> None:
        """All connections are closed."""
        if self._http is not None:
            await self._http.close()

    async def send(
        self,
        request: Request[Result],
        node: str,
        *,
        carried: tuple[str, ...] = (),
        wait_s: float = 0.0,
        budget_s: float,
    ) -> tuple[Answer, Result]:
        """The node has served the request.

        Raises BadInput, NotApplied (NotCaughtUp, Unreachable) or, for a write, OutcomeUnknown.
        """
        answer = await self._exchange(request, node, carried, wait_s, budget_s)
        if not _is_served(answer):
            raise _refusal(request, answer)
        try:
            if request.in_session and not is_context(answer.headers.get(HEADER, "")):
                raise LookupError(HEADER)
            return answer, request.read(answer)
        except STRANGE as error:
            raise _failure(
                request,
                f"{node} answered {answer.status}, but not as a Lightcone node does ({error!r})",
            ) from error

    async def stream(
        self,
        request: Request[Any],
        node: str,
        *,
        carried: tuple[str, ...] = (),
        wait_s: float = 0.0,
        budget_s: float,
    ) -> AsyncGenerator[bytes, None]:
        """What the node answers, as it comes. It begins within `budget_s`.

        Raises as `send` does; Unreachable also when it ends, for it does so only when it is broken
        off.
        """
        http, url, headers = self._addressed(request, node, carried, wait_s)
        timeout = aiohttp.ClientTimeout(connect=min(CONNECT_S, budget_s / 2), sock_read=SILENCE_S)
        try:
            async with asyncio.timeout(budget_s):
                response = await http.request(
                    request.method, url, headers=headers, allow_redirects=False, timeout=timeout
                )
                answer = Answer(node, response.status, response.headers, b"")
                if not _is_served(answer):
                    raise _refusal(request, replace(answer, body=await response.read()))
            with contextlib.closing(response):
                async for chunk in response.content.iter_any():
                    yield chunk
        except TimeoutError as error:
            raise Unreachable(f"{request.name}: {node} says nothing") from error
        except aiohttp.ClientError as error:
            raise Unreachable(f"{request.name}: {node}: {_reason(error)}") from error
        raise Unreachable(f"{request.name}: {node} broke off")

    async def _exchange(
        self,
        request: Request[Any],
        node: str,
        carried: tuple[str, ...],
        wait_s: float,
        budget_s: float,
    ) -> Answer:
        http, url, headers = self._addressed(request, node, carried, wait_s)
        # Shorter than the whole, so that a connection that never came is known to be just that.
        timeout = aiohttp.ClientTimeout(total=budget_s, connect=min(CONNECT_S, budget_s / 2))
        try:
            async with http.request(
                request.method,
                url,
                headers=headers,
                data=request.body,
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                body = await response.read()
                return Answer(node, response.status, response.headers, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreachable(f"{node} cannot be reached: {_reason(error)}") from error
        except TimeoutError as error:
            raise _failure(request, f"{node} did not answer within {budget_s:.1f} s") from error
        except aiohttp.ClientError as error:
            raise _failure(request, f"{node} broke off: {_reason(error)}") from error

    def _addressed(
        self, request: Request[Any], node: str, carried: tuple[str, ...], wait_s: float
    ) -> tuple[aiohttp.ClientSession, URL, dict[str, str]]:
        """Who sends the request, where it goes, and the head of it."""
        query, headers = dict(request.query), dict(request.headers)
        if request.in_session:
            if request.may_wait:
                query["wait"] = f"{wait_s:.3f}"
            if carried:
                headers[HEADER] = ",".join(carried)
        if self._http is None or self._http.closed:
            raise RuntimeError("not open: use it inside `async with Lightcone([...]) as kv:`")
        # Keys are quoted already: yarl must not tidy up a key such as `..`.
        return self._http, URL(node + request.path, encoded=True).with_query(query), headers


class _BrokeOff(aiohttp.ClientError):
    """The connection ended after the request may have been read."""


async def _never_repeat(
    request: aiohttp.ClientRequest,
    handler: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]],
) -> aiohttp.ClientResponse:
    """aiohttp is kept from sending a PUT or DELETE again when its connection breaks.

    Here that would be a second write, perhaps over somebody else's. Such a failure is turned into
    one that aiohttp hands on.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            raise
        raise _BrokeOff(_reason(error)) from error


def _is_served(answer: Answer) -> bool:
    if answer.status == 404:
        # A key that is not there is an answer; a path that is not there is not.
        return problem_kind(_problem(answer)) == "no-such-key"
    return answer.status in (200, 201, 202, 204)


def _problem(answer: Answer) -> Mapping[str, Any]:
    try:
        return answer.json()
    except ValueError:
        return {}


def _refusal(request: Request[Any], answer: Answer) -> LightconeError:
    """The error that says what the node said, with the context that came with it."""
    error = refusal(request, answer, _problem(answer))
    context = answer.headers.get(HEADER, "")
    error.context = context if is_context(context) else ""
    return error


def refusal(request: Request[Any], answer: Answer, problem: Mapping[str, Any]) -> LightconeError:
    """The error that is this problem, with which a node answered."""
    said = problem.get("detail") or problem.get("title") or "no reason given"
    detail = f"{request.name}: {answer.node} answered {answer.status}: {said}"
    outcome = problem.get("outcome")
    if problem_kind(problem) == "not-caught-up" and outcome != "unknown":
        return NotCaughtUp(detail, problem=problem)
    if problem_kind(problem) == "node-removed" and outcome != "unknown":
        return NotApplied(detail, problem=problem)  # any other node will serve it
    if problem_kind(problem) == "not-lost":
        return NotApplied(detail, problem=problem)  # as far as that node knows, by now
    if problem_kind(problem) == "lost":
        return Lost(detail, problem=problem)
    if problem_kind(problem) == "precondition-failed":
        return PreconditionFailed(detail, problem=problem)
    if problem_kind(problem) == "too-far-back":
        return TooFarBack(detail, problem=problem)
    if problem_kind(problem) == "replicas-missing" and outcome == "applied":
        return ReplicasMissing(detail, problem=problem)
    if 400 <= answer.status < 500 and outcome != "unknown":
        return BadInput(detail, problem=problem)
    if outcome == "not_applied" or not request.is_write:
        return NotApplied(detail, problem=problem)
    return OutcomeUnknown(f"{detail}. {_LOOK_FIRST}", problem=problem)


def _failure(request: Request[Any], what: str) -> LightconeError:
    """The error for a request that was sent and got no answer that means anything."""
    if request.is_write:
        return OutcomeUnknown(f"{request.name}: {what}. {_LOOK_FIRST}")
    return Unreachable(f"{request.name}: {what}")


_LOOK_FIRST = "The write may have taken effect: read the key before repeating it"


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
