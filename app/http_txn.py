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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from app import checks, contract, errors, shapes
from app.commits import Committed
from app.conditions import etag
from app.config import Config
from app.contract import JSON, Answer, Content, Route
from app.http_session import Sessions
from app.http_shapes import shown_version
from app.http_write import Writing
from app.interface import Interface
from app.kv_store import KVStore, Reading, reading
from app.replies import Reply, json_reply
from app.transactions import Transaction, TransactionForm, parse_transaction
from app.vector_clock import VectorClock
from app.write import Put, expires_us

TRANSACT: Final = Route(
    name="transact",
    method="POST",
    path="/txn",
    group="keys",
    about="All reads and conditions are of one instant, and all writes are done as one; or nothing "
    "is.\n\nReads show what was there before the writes. An `Idempotency-Key` goes with writes "
    "only.",
    parameters=(
        *(contract.WAIT, contract.REPLICAS, contract.CONTEXT),
        *(contract.IDEMPOTENCY_KEY, contract.PREFER),
    ),
    body=Content(
        JSON,
        TransactionForm,
        {
            "ops": [
                {"get": "stock"},
                {"put": "order", "value": "1 pizza", "ttl": 60, "if": None},
                {"delete": "cart"},
            ]
        },
    ),
    answers=(
        Answer(
            200,
            "It is done.",
            Content(
                JSON,
                shapes.Transacted,
                {
                    "dot": "A:7",
                    "clock": {"A": 7},
                    "results": [
                        {"get": "stock", "etag": None, "siblings": []},
                        {"put": "order", "etag": '"A:7"', "expires": 1795379423289593},
                        {"delete": "cart"},
                    ],
                },
            ),
            (contract.SEEN, *(header.sometimes for header in contract.WRITTEN[1:])),
        ),
        contract.DEFERRED,
    ),
    problems=(
        errors.BadTransaction,
        *contract.WITH_BODY,
        *contract.WRITING,
        *contract.DEFERRING,
    ),
)


@dataclass(frozen=True, slots=True)
class TransactionRoutes:
    """The route of transactions."""

    config: Config
    store: KVStore
    sessions: Sessions
    writing: Writing

    def add_to(self, interface: Interface) -> None:
        """It is served."""
        interface.serve(TRANSACT, self.transact)

    async def transact(self, request: web.BaseRequest) -> Reply:
        """All reads are of one instant, and all writes are done, or nothing is; if it only writes,
        it may be done later."""
        checks.no_conditions(request)
        limit = self.config.txn_max_bytes
        body = await checks.body(request, limit, "transaction", "TXN_MAX_BYTES")
        transaction = parse_transaction(
            body, self.config.txn_max_operations, self.config.value_max_bytes
        )
        if transaction.reads:
            self._refuse_for_reading(request, transaction)
        if not transaction.operations:
            return await self._read(request, transaction)
        done = await self.writing.commit(
            request, transaction.operations, transaction.conditions, transaction.reads
        )
        if isinstance(done, Reply):
            return done
        written = done.committed
        readings = {
            key: reading(fields, written.clock, written.timestamp)
            for key, fields in zip(transaction.reads, written.before, strict=True)
        }
        return self._answer(
            transaction, readings, written.clock, done.context, done.headers, written
        )

    async def _read(self, request: web.BaseRequest, transaction: Transaction) -> Reply:
        context = await self.sessions.catch_up(request)
        try:
            readings, clock = await self.store.snapshot(
                transaction.reads, context, transaction.conditions, self.config.txn_max_bytes
            )
        except errors.PreconditionFailed as error:
            self.sessions.tell(error, context)
            raise
        return self._answer(transaction, readings, clock, context, {}, None)

    def _answer(
        self,
        transaction: Transaction,
        readings: Mapping[str, Reading],
        clock: VectorClock,
        context: VectorClock,
        headers: Mapping[str, str],
        written: Committed | None,
    ) -> Reply:
        for one in readings.values():
            context = context.merge(one.context)
        answer: shapes.Transacted = {
            "dot": None if written is None else str(written.dot),
            "clock": clock.to_dict(),
            "results": _results(transaction, readings, written),
        }
        return json_reply(answer, headers={**headers, **self.sessions.headers(context)})

    def _refuse_for_reading(self, request: web.BaseRequest, transaction: Transaction) -> None:
        """What is remembered of a request is its write, and not what it was shown."""
        if "Idempotency-Key" in request.headers:
            raise errors.BadTransaction(
                "A transaction with an Idempotency-Key does not get: repeated, it could not be "
                "given the same again. Nothing was done. Get in a transaction of its own."
            )
        if "replicas" in checks.parameters(request) and not transaction.operations:
            raise errors.BadParameter(
                "?replicas= is for writes, and this transaction only reads. Nothing was done."
            )


def _results(
    transaction: Transaction, readings: Mapping[str, Reading], written: Committed | None
) -> list[shapes.OpResult]:
    """What became of each operation, in the order of the request."""
    ttls_us = {put.key: put.ttl_us for put in transaction.operations if isinstance(put, Put)}
    written_etag = "" if written is None else etag([written.dot])
    results: list[shapes.OpResult] = []
    for step in transaction.steps:
        if step.verb == "get":
            versions = readings[step.key].versions
            results.append(
                {
                    "get": step.key,
                    "etag": etag(v.dot for v in versions) if versions else None,
                    "siblings": [shown_version(version) for version in versions],
                }
            )
        elif step.verb == "put":
            assert written is not None
            put: shapes.OpResult = {"put": step.key, "etag": written_etag}
            until = expires_us(written.timestamp, ttls_us[step.key])
            if written.timestamp and until:
                put["expires"] = until
            results.append(put)
        else:
            results.append({"delete": step.key})
    return results
