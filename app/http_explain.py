"""What the node answers when it is asked why a key holds what it holds.

Assumes the logs. Guarantees that a request reads a bounded part of them, the newest of each actor,
and says which part that was.

Does not know how writes are related (`explain.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from app import checks, contract, errors, shapes
from app.contract import JSON, Answer, Content, Route
from app.deferred import DeferredWrites
from app.explain import explained
from app.http_session import Sessions
from app.interface import Interface
from app.kv_store import KVStore
from app.replies import Reply, json_reply
from app.vector_clock import VectorClock
from app.write import Put, Write, value_bytes

SEARCHED_MAX: Final = 1000
"""Writes in the logs that one request looks through."""
SEARCHED_MAX_BYTES: Final = 16 * 1024 * 1024
FOUND_MAX: Final = 32
"""Writes about the key that an answer tells of; all are compared with all."""
DEFERRED_MAX: Final = 100
"""Deferred writes that one request looks through: the next that are to be done."""
_READ: Final = 16
"""Writes read at a time: they may all be of the largest size."""

EXPLAIN: Final = Route(
    name="explain",
    method="GET",
    path="/explain/{key}",
    group="keys",
    about="Why a key holds what it holds: its versions, the writes about it, and how these are "
    "related.\n\nA key without a value is no problem: what became of it is explained.",
    parameters=(contract.KEY, contract.WAIT, contract.STALE, contract.CONTEXT),
    answers=(
        Answer(
            200,
            "The explanation.",
            Content(
                JSON,
                shapes.Explanation,
                {
                    "key": "menu",
                    "winner": "A:1",
                    "why": "A:1 is the only version: every other one was superseded.",
                    "versions": [
                        {
                            "dot": "A:1",
                            "node": "A",
                            "timestamp": 1795379363275446,
                            "content_type": "text/plain",
                            "bytes": 4,
                            "dependencies": {},
                            "supersedes": [],
                            "concurrent_with": [],
                        }
                    ],
                    "history": [
                        {
                            "dot": "A:1",
                            "node": "A",
                            "does": "put",
                            "timestamp": 1795379363275446,
                            "dependencies": {},
                            "superseded_by": [],
                            "concurrent_with": [],
                        }
                    ],
                    "searched": {"A": {"from": 1, "to": 1}},
                    "complete": True,
                    "deferred": [
                        {"dot": "C+:1", "does": "put", "waiting_for": ["A:2"], "waiting_s": 1.255}
                    ],
                },
            ),
            (contract.SEEN, contract.IS_STALE),
        ),
    ),
    problems=(errors.BadKey, *contract.READING),
    head=True,
)


@dataclass(frozen=True, slots=True)
class ExplainRoutes:
    """The route that explains a key."""

    store: KVStore
    deferred: DeferredWrites
    sessions: Sessions
    now_us: Callable[[], int]

    def add_to(self, interface: Interface) -> None:
        """It is served."""
        interface.serve(EXPLAIN, self.explain)

    async def explain(self, request: web.BaseRequest) -> Reply:
        """Which versions there are, of which writes, and how all writes about the key are related
        that were found in the newest part of the logs."""
        key = checks.key(request)
        reader = await self.sessions.reader(request)
        reading = await self.store.read(key, reader.needs)
        clock = await self.store.clock()
        found, searched = await self._search(key, clock)
        answer: shapes.Explanation = {
            **explained(key, reading.versions, found),
            "searched": searched,
            "complete": all(part["from"] == 1 for part in searched.values()),
            "deferred": await self._deferred(key, clock),
        }
        return json_reply(answer, headers=reader.headers(reading.context))

    async def _deferred(self, key: str, clock: VectorClock) -> list[shapes.DeferredAbout]:
        """Those about the key of the first deferred writes that wait here."""
        now_us = self.now_us()
        about = [
            (waiting, operation)
            for waiting in await self.deferred.first(DEFERRED_MAX)
            for operation in waiting.operations
            if operation.key == key
        ]
        return [
            {
                "dot": str(waiting.dot),
                "does": "put" if isinstance(operation, Put) else "delete",
                "waiting_for": [
                    str(dot) for dot in self.deferred.waits_for(waiting.dot, waiting.context, clock)
                ],
                "waiting_s": round((now_us - waiting.since_us) / 1e6, 3),
            }
            for waiting, operation in about
        ]

    async def _search(
        self, key: str, clock: VectorClock
    ) -> tuple[list[Write], dict[str, shapes.Searched]]:
        """The newest writes about the key, and the part of each log in which they were looked for.

        All logs are gone back through side by side, so that none is left out for a long one. The
        first write about the key for which there is no room ends it, and was not searched.
        """
        found: list[Write] = []
        searched: dict[str, shapes.Searched] = {
            actor: {"from": clock[actor] + 1, "to": clock[actor]} for actor in clock
        }
        unread = list(clock)
        count = size = 0
        while unread and count < SEARCHED_MAX and size < SEARCHED_MAX_BYTES:
            for actor in list(unread):
                before = searched[actor]["from"]
                writes = await self.store.log.before(actor, before, _READ)
                for write in writes:
                    size += value_bytes(write.operations)
                    if any(op.key == key for op in write.operations):
                        if len(found) == FOUND_MAX:
                            return found, searched
                        found.append(write)
                    searched[actor]["from"] = write.dot.sequence
                count += len(writes)
                if not writes or searched[actor]["from"] == 1:
                    unread.remove(actor)
        return found, searched
