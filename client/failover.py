"""One request, tried at one node after another until it is served.

What it is: `Route`, the nodes of a session in the order to ask them, and `Route.ask`.

What it assumes and guarantees: the transport tells certain failures from uncertain ones. A request
goes to the next node only after an error that is certain (`NotApplied`); anything else ends it, but
that a write with an idempotency key is repeated at the same node while its outcome is unknown.
When every node was tried there is a pause, with jitter, and then another round. Two things bound
this: a deadline over all tries, and the patience, which is the time that the request may spend,
over all nodes, on waiting for one that has seen what the session has seen.

What it does not know: what the request is, and what is in the context that it carries.

Where the idea is from: exponential backoff with jitter, as AWS describes it.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar

from client.answers import Answer
from client.context import HEADER, Context
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
)
from client.nodes import Resting
from client.transport import Request, Transport

Result = TypeVar("Result")

#: A read leaves a node that says nothing for this long, beyond the patience it was given. A write
#: stays: to leave would only make its outcome unknown earlier.
READ_TRY_S = 3.0
#: What an answer may take on its way. A node is given less patience by this, so that its refusal
#: arrives before the deadline, and nothing is tried again with less time than this: a write would
#: end with an unknown outcome for no good reason.
ANSWER_S = 0.5
#: Less patience than this is not worth another round.
PATIENCE_LEAST_S = 0.01
TRY_MIN_S = 0.001
PAUSE_MIN_S = 0.05
PAUSE_MAX_S = 1.0


class Route:
    """The nodes of a session, nearest first, those that failed lately last."""

    def __init__(self, nodes: tuple[str, ...], transport: Transport, resting: Resting) -> None:
        self.nodes = nodes
        self._transport = transport
        self._resting = resting
        # Nodes that are behind this session; another session may find them well.
        self._behind = Resting()

    def among(self, nodes: tuple[str, ...]) -> "Route":
        """Another route, to these nodes, over the same connections."""
        return Route(nodes, self._transport, self._resting)

    def order(self) -> list[str]:
        """The nodes, in the order in which to ask them now."""
        return sorted(
            self.nodes, key=lambda node: max(self._resting.until(node), self._behind.until(node))
        )

    async def ask(
        self, request: Request[Result], context: Context, *, timeout_s: float, patience_s: float
    ) -> tuple[Answer, Result]:
        """One node has served the request, and its answer is part of the context.

        Raises BadInput, NotApplied (NotCaughtUp, Unreachable) or, for a write, OutcomeUnknown.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        if not request.in_session:
            return await self._rounds(request, context, deadline, patience_s)
        try:
            async with asyncio.timeout_at(deadline):
                await context.begin()
        except TimeoutError:
            raise NotApplied(
                f"{request.name}: not sent within {timeout_s:g} s, because {context.under_way} "
                "other requests of this session were under way; use several sessions"
            ) from None
        try:
            return await self._rounds(request, context, deadline, patience_s)
        finally:
            context.end()

    async def any_serves(self, request: Request[Any], *, timeout_s: float) -> bool:
        """Whether any of the nodes serves the request at once."""
        budget_s = min(READ_TRY_S, timeout_s / len(self.nodes))
        for node in self.nodes:
            with contextlib.suppress(LightconeError):
                await self._transport.send(request, node, budget_s=budget_s)
                return True
        return False

    async def stream(
        self, request: Request[Any], node: str, carried: tuple[str, ...], wait_s: float
    ) -> AsyncGenerator[bytes, None]:
        """What the node answers, as it comes; whether it does counts for the order of the nodes.

        Raises BadInput, Lost, TooFarBack, NotApplied (NotCaughtUp, Unreachable).
        """
        try:
            chunks = self._transport.stream(
                request, node, carried=carried, wait_s=wait_s, budget_s=wait_s + READ_TRY_S
            )
            async with aclosing(chunks):
                async for chunk in chunks:
                    self._resting.answered(node)
                    self._behind.answered(node)
                    yield chunk
        except LightconeError as error:
            self.failed(node, error)
            raise

    def failed(self, node: str, error: LightconeError) -> None:
        """The node answered with this error, or not at all."""
        error.node = node
        self._note(node, error)

    async def _rounds(
        self, request: Request[Result], context: Context, deadline: float, patience_s: float
    ) -> tuple[Answer, Result]:
        loop = asyncio.get_running_loop()
        failures: dict[str, NotApplied] = {}
        pause_s = PAUSE_MIN_S
        while True:
            for node in self.order():
                started = loop.time()
                # Never 0, which aiohttp takes for no limit at all.
                budget_s = max(deadline - started, TRY_MIN_S)
                if failures and budget_s < (ANSWER_S if node in failures else 2 * TRY_MIN_S):
                    break
                wait_s = min(patience_s, max(0.0, budget_s - ANSWER_S))
                try:
                    if request.is_repeatable:
                        return await self._repeat(request, node, context, wait_s, deadline)
                    return await self._try(request, node, context, wait_s, budget_s)
                except NotCaughtUp as refusal:
                    failures[node] = refusal
                    patience_s = max(0.0, patience_s - (loop.time() - started))
                except Unreachable as silence:
                    # What a node said earlier tells more.
                    failures.setdefault(node, silence)
                except NotApplied as failure:
                    failures[node] = failure
            is_behind = any(isinstance(failure, NotCaughtUp) for failure in failures.values())
            pause = random.uniform(pause_s / 2, pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)
            is_late = loop.time() + pause + ANSWER_S > deadline
            if is_late or (is_behind and patience_s < PATIENCE_LEAST_S):
                raise _most_telling(request, failures)
            await asyncio.sleep(pause)

    async def _repeat(
        self,
        request: Request[Result],
        node: str,
        context: Context,
        wait_s: float,
        deadline: float,
    ) -> tuple[Answer, Result]:
        """The node has done the request, which it does once however often it is sent there.

        Once its outcome is unknown, it is sent again until that is known, and to no other node.
        """
        loop = asyncio.get_running_loop()
        unknown: OutcomeUnknown | None = None
        pause_s = PAUSE_MIN_S
        while True:
            budget_s = max(min(deadline - loop.time(), wait_s + READ_TRY_S), TRY_MIN_S)
            try:
                return await self._try(request, node, context, wait_s, budget_s)
            except OutcomeUnknown as error:
                unknown = unknown or error
            except (BadInput, PreconditionFailed) as error:
                # Repeated again, it is refused again; what was sent before may have been done.
                if unknown is None:
                    raise
                raise unknown from error
            except (NotApplied, Lost) as error:
                if unknown is None:
                    raise
                if isinstance(error, NotCaughtUp):
                    wait_s = max(0.0, min(wait_s, deadline - loop.time() - ANSWER_S))
            if loop.time() + pause_s + ANSWER_S > deadline:
                raise unknown
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def _try(
        self,
        request: Request[Result],
        node: str,
        context: Context,
        wait_s: float,
        budget_s: float,
    ) -> tuple[Answer, Result]:
        carried = context.carried() if request.in_session else ()
        try:
            answer, result = await self._transport.send(
                request,
                node,
                carried=carried,
                wait_s=wait_s,
                budget_s=budget_s if request.is_write else min(budget_s, wait_s + READ_TRY_S),
            )
        except LightconeError as error:
            self.failed(node, error)
            if isinstance(error, Lost):
                error.carried = carried  # to go on is for the caller to decide
            elif request.in_session and error.context:
                context.answered(carried, error.context)
            raise
        self._resting.answered(node)
        self._behind.answered(node)
        if request.in_session:
            context.answered(carried, answer.headers[HEADER])
        return answer, result

    def _note(self, node: str, error: LightconeError) -> None:
        """Remembers what the error says of the node, for the order in which to ask."""
        if isinstance(error, NotCaughtUp):
            self._behind.failed(node)
        if isinstance(error, _OF_A_WELL_NODE):
            self._resting.answered(node)
        else:
            self._resting.failed(node)


def _most_telling(request: Request[Any], failures: dict[str, NotApplied]) -> NotApplied:
    """The error that tells most, with what happened at every node.

    A node that is behind tells more than one that is unwell, and that more than one that is away.
    """
    tried = "; ".join(str(failure) for failure in failures.values())
    detail = f"{request.name}: no node could serve it. {tried}"
    telling = min(failures.values(), key=lambda failure: _TELLING.index(type(failure)))
    error = type(telling)(detail, problem=telling.problem)
    error.node = telling.node
    return error


_TELLING = (NotCaughtUp, NotApplied, Unreachable)  #: What a node says that is well.
_OF_A_WELL_NODE = (*(BadInput, Lost, NotCaughtUp, PreconditionFailed, ReplicasMissing, TooFarBack),)
