"""What the node answers to a transaction: reads from one causal snapshot, writes under one dot.

Assumes that a script sees one state of the node, and changes it in one step. Guarantees that all
reads and conditions of a transaction are of one instant, which covers the context of the request,
and that whoever sees one of its writes, here or at any other node, sees all of them: they travel
and are applied as one write (G1).

Reads show what was there before the transaction's own writes, in whatever order they are listed:
what it will be is known to whoever writes it, and so a get beside a put of the same key exchanges
the value.

Does not know what an operation means.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from app import checks, errors
from app.conditions import etag
from app.config import Config
from app.http_session import Sessions
from app.http_shapes import shown_version
from app.kv_store import KVStore, Reading, reading
from app.problems import problem
from app.transactions import Step, Transaction, parse_transaction
from app.vector_clock import Dot, VectorClock


@dataclass(frozen=True, slots=True)
class TransactionRoutes:
    """The route of transactions."""

    config: Config
    store: KVStore
    sessions: Sessions

    def add_to(self, router: web.UrlDispatcher) -> None:
        """The router has it."""
        router.add_post("/txn", self.transact)

    async def transact(self, request: web.Request) -> web.Response:
        """All reads are of one instant, and all writes are done, or nothing is."""
        checks.known_parameters(request, "wait")
        checks.no_conditions(request)
        limit = self.config.txn_max_bytes
        body = await checks.body(request, limit, "transaction", "TXN_MAX_BYTES")
        transaction = parse_transaction(
            body, self.config.txn_max_operations, self.config.value_max_bytes
        )
        context = await self.sessions.catch_up(request)
        try:
            return await self._carry_out(transaction, context)
        except errors.PreconditionFailed as error:
            for held in error.held:
                context = context.merge(held.seen)
            return problem(error, self.sessions.headers(context))

    async def _carry_out(self, transaction: Transaction, context: VectorClock) -> web.Response:
        most = self.config.txn_max_bytes
        if not transaction.operations:
            readings, clock = await self.store.snapshot(
                transaction.reads, context, transaction.conditions, most
            )
            dot = None
        else:
            # Once begun, a commit is not given up when the client goes away.
            committed = await asyncio.shield(
                self.store.commit(
                    transaction.operations,
                    context,
                    transaction.conditions,
                    transaction.reads,
                    most,
                )
            )
            dot, clock = committed.dot, committed.clock
            readings = {
                key: reading(fields, clock)
                for key, fields in zip(transaction.reads, committed.before, strict=True)
            }
            context = context.with_dot(dot)
        for one in readings.values():
            context = context.merge(one.context)
        answer = {
            "dot": None if dot is None else str(dot),
            "clock": clock.to_dict(),
            "results": _results(transaction.steps, readings, dot),
        }
        headers = self.sessions.headers(context)
        if dot is not None:
            headers["Dot"] = str(dot)
        return web.json_response(answer, headers=headers)


def _results(
    steps: Sequence[Step], readings: Mapping[str, Reading], dot: Dot | None
) -> list[dict[str, Any]]:
    """What became of each operation, in the order of the request."""
    results: list[dict[str, Any]] = []
    for step in steps:
        result: dict[str, Any] = {step.verb: step.key}
        if step.verb == "get":
            versions = readings[step.key].versions
            result["etag"] = etag(v.dot for v in versions) if versions else None
            result["siblings"] = [shown_version(version) for version in versions]
        elif step.verb == "put":
            assert dot is not None
            result["etag"] = etag([dot])
        results.append(result)
    return results
