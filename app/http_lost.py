"""What is answered to an operator who declares lost what no node has any more.

Assumes `losses.py`, which knows whether that is so. Guarantees that nothing is declared lost that a
member has or may have, and that all nodes agree: the declaration is a write as any other, and
closes an actor where it is applied (lua/ends.inc.lua).

Does not know who waits for what is lost.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Annotated, Final

import msgspec
from aiohttp import web

from app import checks, contract, errors, shapes
from app.buffer import PendingBuffer
from app.contract import JSON, Answer, Content, Route
from app.http_session import Sessions
from app.interface import Interface
from app.keys import end_key
from app.kv_store import KVStore
from app.losses import Losses
from app.lost import Loss
from app.replies import Reply, json_reply
from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock
from app.write import Put

_MAX_BYTES: Final = 4096


# What is checked below, for those who read the contract.
_A_DOT: Final = msgspec.Meta(extra_json_schema={"pattern": "^[A-Za-z0-9~+_-]+:[1-9][0-9]*$"})


class LostForm(msgspec.Struct, forbid_unknown_fields=True):
    """Writes that are to be declared lost, by their dots."""

    dots: Annotated[list[Annotated[str, _A_DOT]], msgspec.Meta(extra_json_schema={"minItems": 1})]


DECLARE_LOST: Final = Route(
    name="declareLost",
    method="POST",
    path="/lost",
    group="node",
    about="For operators: nothing waits any more for these writes, which no node has, nor for any "
    "that their actors made later.\n\nIt cannot be taken back.",
    parameters=(
        replace(
            contract.CONTEXT,
            about="What the client has seen, which may be what is lost. It is not waited for, and "
            "is in that of the answer.",
        ),
    ),
    body=Content(JSON, LostForm, {"dots": ["A:101"]}),
    answers=(
        Answer(
            200,
            "They are declared lost.",
            Content(
                JSON,
                shapes.DeclaredLost,
                {
                    "lost": [{"actor": "A", "after": 95}],
                    "clock": {"A": 9007199254740991, "A~miencp3k": 4, "B": 8},
                },
            ),
            (contract.SEEN,),
        ),
    ),
    problems=(
        *contract.WITH_BODY,
        *(errors.BadContext, errors.NotLost, errors.NotReady),
        *(errors.Syncing, errors.RedisUnavailable),
    ),
)


@dataclass(frozen=True, slots=True)
class LostRoutes:
    """The route of what is lost."""

    store: KVStore
    buffer: PendingBuffer
    losses: Losses
    sessions: Sessions

    def add_to(self, interface: Interface) -> None:
        """It is served."""
        interface.serve(DECLARE_LOST, self.declare)

    async def declare(self, request: web.BaseRequest) -> Reply:
        """Nothing waits for these writes any more, nor for any that their actors made later."""
        wanted = _dots(await checks.body(request, _MAX_BYTES, "declaration", None))
        # Who waits for what is lost would be refused for just that.
        context = self.sessions.context(request)
        clock = await self.store.clock()
        found: list[Loss] = []
        for dot in wanted.dots():
            if clock[dot.actor] == SEQUENCE_MAX:  # it was declared so before
                continue
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
        answer: shapes.DeclaredLost = {
            "lost": [{"actor": loss.actor, "after": loss.after} for loss in found],
            "clock": clock.to_dict(),
        }
        return json_reply(answer, headers=self.sessions.headers(context.merge(clock)))


def _dots(body: bytes) -> VectorClock:
    try:
        dots = [Dot.parse(text) for text in msgspec.json.decode(body, type=LostForm).dots]
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
