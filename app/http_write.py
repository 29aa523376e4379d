"""A write for a request: what all writing requests have in common.

Assumes `http_session.py`, which waits until a request can be served. Guarantees that a write is
done after the context of its request, once for each `Idempotency-Key`, and that the answer covers
it; with `?replicas=n`, that so many nodes hold it, or that the client is told which ones do. Who
prefers not to wait (`Prefer: respond-async`) has the write accepted instead, and done later.

Does not know what is written, nor what the answer says of it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web
from msgspec import Struct

from app import checks, contract, errors, shapes
from app.commits import Accepted, Committed
from app.conditions import Condition
from app.config import Config
from app.deferred import DeferredWrites
from app.existence import Existence
from app.http_session import Sessions
from app.kv_store import KVStore
from app.replicas import Replicas
from app.replies import Reply, json_reply
from app.vector_clock import VectorClock
from app.write import Operation


class Done(Struct, frozen=True):
    """A write that is done; the context of its request, and the headers that every answer to a
    write has but for the context."""

    committed: Committed
    context: VectorClock
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Writing:
    """What a node has to do with the writes of clients."""

    config: Config
    store: KVStore
    sessions: Sessions
    replicas: Replicas
    deferred: DeferredWrites
    existence: Existence

    async def commit(
        self,
        request: web.BaseRequest,
        operations: Sequence[Operation],
        conditions: Sequence[Condition],
        reads: Sequence[str] = (),
    ) -> Done | Reply:
        """The write is done as the request asks; or it is accepted, and this is the answer.

        Raises, before anything is done, what `checks`, `Sessions.catch_up`, `KVStore.commit` and
        `DeferredWrites.accept` raise; and ReplicasMissing when it is done, and too few nodes hold
        it.
        """
        idempotency_key = checks.idempotency_key(request)
        patience_s = checks.patience_s(request)
        parameters = checks.parameters(request)
        wanted, deadline, told_holders = 1, 0.0, "replicas" in parameters
        if told_holders:
            deadline = asyncio.get_running_loop().time() + patience_s
            members = 1 + len(self.sessions.members.others)
            wanted = checks.count(request, "replicas", 1, members)
        # What is decided by the state at the write, or shows it, has no answer before the write.
        preference = checks.preference(request)
        with_state = bool(conditions or reads or told_holders)
        may_defer = preference.respond_async and not with_state
        if may_defer and "wait" not in parameters:
            patience_s = preference.wait_s
        try:
            context = await self.sessions.catch_up(request, patience_s=patience_s)
        except errors.NotCaughtUp:
            if not may_defer:
                raise
            return await self._defer(request, operations, idempotency_key)
        if wanted > 1:
            await self.replicas.expect(patience_s)
        try:
            committed = await self.store.commit(
                operations,
                context,
                conditions,
                reads,
                self.config.txn_max_bytes,
                idempotency_key,
            )
        except errors.PreconditionFailed as error:
            self.sessions.tell(error, context)
            raise
        if isinstance(committed, Accepted):
            return self._answer(committed, context)
        context = context.with_dot(committed.dot)
        headers = {"Dot": str(committed.dot)}
        if committed.replayed:
            headers["Idempotent-Replayed"] = "true"
        if told_holders:
            others = await self.replicas.holders(committed.dot, wanted - 1, deadline)
            holders = [self.config.node_id, *others]
            if len(holders) < wanted:
                missing = errors.ReplicasMissing(committed.dot, holders, wanted)
                missing.headers = {**headers, **self.sessions.headers(context)}
                raise missing
            headers["Replicas"] = ", ".join(holders)
        return Done(committed, context, headers)

    async def _defer(
        self, request: web.BaseRequest, operations: Sequence[Operation], idempotency_key: str
    ) -> Done | Reply:
        """The write is accepted, and done once this node covers the context of the request."""
        context = self.sessions.context(request)
        if not self.sessions.contexts.are_signed:
            missing = context.beyond(self.sessions.progress.clock)
            if unknown := await self.existence.unknown(missing):
                raise errors.UnknownWrites(unknown)
        # Once begun, it is not given up when the client goes away: its outcome is Redis'.
        accepted = await asyncio.shield(self.deferred.accept(operations, context, idempotency_key))
        if isinstance(accepted, Accepted):
            return self._answer(accepted, context)
        # For the same request, before.
        headers = {"Dot": str(accepted.dot), "Idempotent-Replayed": "true"}
        return Done(accepted, context.with_dot(accepted.dot), headers)

    def _answer(self, accepted: Accepted, context: VectorClock) -> Reply:
        """What is answered to a write that is deferred."""
        waits = self.deferred.waits_for(accepted.dot, context, accepted.clock)
        answer: shapes.Deferred = {
            "dot": str(accepted.dot),
            "waiting_for": [str(dot) for dot in waits],
        }
        headers = {
            "Dot": str(accepted.dot),
            contract.APPLIED.name: contract.APPLIED.example,
            **self.sessions.headers(context.with_dot(accepted.dot)),
        }
        if accepted.replayed:
            headers["Idempotent-Replayed"] = "true"
        return json_reply(answer, status=202, headers=headers)
