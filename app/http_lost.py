"""What is answered to an operator who declares lost what no node has any more.

Assumes `losses.py`, which knows whether that is so. Guarantees that nothing is declared lost that a
member has or may have, and that all nodes agree: the declaration is a write as any other, and
closes an actor where it is applied (lua/ends.inc.lua).

Does not know who waits for what is lost.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

import msgspec
from aiohttp import web

from app import checks, errors
from app.buffer import PendingBuffer
from app.http_session import Sessions
from app.keys import end_key
from app.kv_store import KVStore
from app.losses import Losses
from app.lost import Loss
from app.vector_clock import Dot, VectorClock
from app.write import Put

_MAX_BYTES: Final = 4096


class _Form(msgspec.Struct, forbid_unknown_fields=True):
    dots: list[str]


@dataclass(frozen=True, slots=True)
class LostRoutes:
    """The route of what is lost."""

    store: KVStore
    buffer: PendingBuffer
    losses: Losses
    sessions: Sessions

    def add_to(self, router: web.UrlDispatcher) -> None:
        """The router has this route."""
        router.add_post("/lost", self.declare)

    async def declare(self, request: web.Request) -> web.Response:
        """Nothing waits for these writes any more, nor for any that their actors made later."""
        checks.known_parameters(request)
        wanted = _dots(await checks.body(request, _MAX_BYTES, "declaration", None))
        clock = await self.store.clock()
        found: list[Loss] = []
        for dot in wanted.beyond(clock).dots():
            loss = await self.losses.judge(dot)
            if isinstance(loss, str):
                raise errors.NotLost(f"of {dot}, {loss}")
            if clock[loss.actor] != loss.after:
                raise errors.NotLost(
                    f"the last of {loss.actor} that a node has is {loss.actor}:{loss.after}, and "
                    "it is not applied here yet. Ask again soon, or ask another node; if it waits "
                    "(GET /pending), for something that is lost itself, declare that first"
                )
            found.append(loss)
        if found:
            puts = [Put(end_key(loss.actor), b"%d" % loss.after, "text/plain") for loss in found]
            committed = await asyncio.shield(self.store.commit(puts))
            clock = committed.clock
            await self.buffer.sweep()
        lost = [{"actor": loss.actor, "after": loss.after} for loss in found]
        headers = self.sessions.headers(clock)
        return web.json_response({"lost": lost, "clock": clock.to_dict()}, headers=headers)


def _dots(body: bytes) -> VectorClock:
    try:
        dots = [Dot.parse(text) for text in msgspec.json.decode(body, type=_Form).dots]
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise errors.BadParameter(
            f'The body is not like {{"dots": ["A:101"]}}: {error}. Nothing was done.'
        ) from None
    if not dots:
        raise errors.BadParameter("No dot is named. Nothing was done.")
    clock = VectorClock()
    for dot in dots:
        clock = clock.with_dot(dot)
    return clock
