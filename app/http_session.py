"""The causal context of a request: read, waited for, and given back in the answer.

Assumes that `progress.py` is never ahead of Redis. Guarantees that a request with a causal context
is served only from a state that covers it (G7), and that no peer is asked for that (G6): what is on
its way here is waited for, as long as the request has patience. What will never come is said to be
lost, with the context to go on with: whether a session does is its client's decision.

Does not know what the request is about.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from msgspec import Struct
from multidict import istr

from app import checks, errors, lost
from app.buffer import PendingBuffer
from app.conditions import etag
from app.context import Contexts
from app.errors import listing
from app.kv_store import KVStore
from app.losses import Losses
from app.members import Members
from app.progress import Progress
from app.vector_clock import NOTHING, VectorClock

CONTEXT_HEADER: Final = "Causal-Context"
_CONTEXT: Final = istr(CONTEXT_HEADER)
"""The same, to be looked for."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """What a node has to do with the sessions of clients."""

    contexts: Contexts
    progress: Progress
    store: KVStore
    buffer: PendingBuffer
    losses: Losses
    members: Members

    def context(self, request: web.BaseRequest) -> VectorClock:
        """What the request's session has seen. Raises BadContext, TooLarge."""
        tokens = request.headers.getall(_CONTEXT, None)
        return self.contexts.parse(",".join(tokens)) if tokens else NOTHING

    def catch_up(
        self,
        request: web.BaseRequest,
        beside: VectorClock = NOTHING,
        patience_s: float | None = None,
    ) -> Awaitable[VectorClock]:
        """The request's context, and what else it has seen `beside` that, once this node, which is
        a member, covers it.

        Raises NodeRemoved; and when the patience, that of the request if it is not given, ends
        first, NotCaughtUp, or Lost, if it would never.
        """
        self.members.check()
        return self.reach(request, beside, patience_s)

    async def reach(
        self,
        request: web.BaseRequest,
        beside: VectorClock = NOTHING,
        patience_s: float | None = None,
    ) -> VectorClock:
        """The same, and the node need not be a member any more."""
        if patience_s is None:
            patience_s = checks.patience_s(request)
        if beside is NOTHING and _CONTEXT not in request.headers:
            return NOTHING  # as most have seen, as far as they say
        context = self.context(request).merge(beside)
        if context <= self.progress.clock:
            return context
        missing = await self.progress.reach(context, patience_s, self.store.clock)
        if missing:
            # Only now: the node may be new, and what names it on its way.
            self._refuse_strangers(missing)
            if losses := await self.losses.among(missing):
                error = errors.Lost(losses)
                error.headers = self.headers(lost.without(context, losses))
                raise error
            # What was asked for may be here and wait: then what it waits for is the news.
            needed = await self.buffer.missing_for(missing)
            dots = dict.fromkeys([*needed.dots(), *missing.dots()])
            known = {dot: self.progress.known_for_s(dot) for dot in dots}
            raise errors.NotCaughtUp(known, patience_s)
        return context

    def tell(self, error: errors.PreconditionFailed, context: VectorClock) -> None:
        """Whoever is refused by a condition is told what is there instead, and has seen it, after
        having seen `context`."""
        for held in error.held:
            context = context.merge(held.seen)
        headers = self.headers(context)
        if len(error.held) == 1 and (dots := error.held[0].dots):
            headers["ETag"] = etag(dots)
        error.headers = headers

    async def reader(self, request: web.BaseRequest) -> "Reader":
        """Who asked, once this node covers its context; at once, with `?stale=true`.

        Raises NotCaughtUp, Lost, BadParameter.
        """
        if not checks.flag(request, "stale"):
            return Reader(self, await self.catch_up(request))
        if "wait" in checks.parameters(request):
            raise errors.BadParameter(
                "?stale=true answers at once, and ?wait= would have no effect. Nothing was done. "
                "Leave one of them out."
            )
        self.members.check()
        context = self.context(request)
        if not context <= self.progress.clock:
            self._refuse_strangers(context)
            self.progress.advance(await self.store.clock())
        return Reader(self, context, stale=not context <= self.progress.clock)

    def headers(self, context: VectorClock) -> dict[str, str]:
        """What tells the client that this is what its session has seen now."""
        return {CONTEXT_HEADER: self.contexts.token(context)}

    def _refuse_strangers(self, context: VectorClock) -> None:
        if self.contexts.are_signed:
            return  # then it was given by this cluster
        clock = self.progress.clock
        if strangers := [a for a in context if not self.members.may_have_written(a, clock)]:
            raise errors.ForeignContext(
                f"The Causal-Context names writes of {listing(strangers)}, and this node knows no "
                "such node. Nothing was done. Was it given by another cluster? If the node has "
                "joined just now, ask again."
            )


class Reader(Struct, frozen=True):
    """Who reads, having seen `context`.

    A stale reader asked to be answered though this node lacks some of that. What it is shown is no
    part of its session: its context stays as it was.
    """

    sessions: Sessions
    context: VectorClock
    stale: bool = False

    @property
    def needs(self) -> VectorClock:
        """What the state that the reader is shown must cover."""
        return NOTHING if self.stale else self.context

    def headers(self, seen: VectorClock) -> dict[str, str]:
        """What tells the reader what its session has seen after it was shown this."""
        if self.stale:
            return {**self.sessions.headers(self.context), "Stale": "true"}
        return self.sessions.headers(self.context.merge(seen))
