"""A write for a request: what all writing requests have in common.

Assumes `http_session.py`, which waits until a request can be served. Guarantees that a write is
done after the context of its request, once for each `Idempotency-Key`, and that the answer covers
it; with `?replicas=n`, that so many nodes hold it, or that the client is told which ones do.

Does not know what is written, nor what the answer says of it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from app import checks, errors
from app.commits import Committed
from app.conditions import Condition
from app.config import Config
from app.http_session import Sessions
from app.kv_store import KVStore
from app.replicas import Replicas
from app.vector_clock import VectorClock
from app.write import Operation


@dataclass(frozen=True, slots=True)
class Writing:
    """What a node has to do with the writes of clients."""

    config: Config
    store: KVStore
    sessions: Sessions
    replicas: Replicas

    async def commit(
        self,
        request: web.Request,
        operations: Sequence[Operation],
        conditions: Sequence[Condition],
        reads: Sequence[str] = (),
    ) -> tuple[Committed, VectorClock, dict[str, str]]:
        """The write is done as the request asks; and the context of the request, and the headers
        that every answer to a write has but for the context.

        Raises, before anything is done, what `checks`, `Sessions.catch_up` and `KVStore.commit`
        raise; and ReplicasMissing when it is done, and too few nodes hold it.
        """
        wanted = checks.count(request, "replicas", 1, 1 + len(self.sessions.members.others))
        idempotency_key = checks.idempotency_key(request)
        patience_s = checks.patience_s(request)
        deadline = asyncio.get_running_loop().time() + patience_s
        context = await self.sessions.catch_up(request)
        if wanted > 1:
            await self.replicas.expect(patience_s)
        with self.sessions.told(context):
            committed = await self.store.commit(
                operations,
                context,
                conditions,
                reads,
                self.config.txn_max_bytes,
                idempotency_key,
            )
        context = context.with_dot(committed.dot)
        headers = {"Dot": str(committed.dot)}
        if committed.replayed:
            headers["Idempotent-Replayed"] = "true"
        if "replicas" in request.query:
            others = await self.replicas.holders(committed.dot, wanted - 1, deadline)
            holders = [self.config.node_id, *others]
            if len(holders) < wanted:
                missing = errors.ReplicasMissing(committed.dot, holders, wanted)
                missing.headers = {**headers, **self.sessions.headers(context)}
                raise missing
            headers["Replicas"] = ", ".join(holders)
        return committed, context, headers
