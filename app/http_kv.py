"""What the node answers about keys: reading, writing and deleting one.

Assumes `http_session.py`, which waits until a request can be served. Guarantees that a request that
is refused changes nothing and is told why, what became of it, and what to do (G10).

Does not know Redis, nor how writes travel on.
"""

import asyncio
from dataclasses import dataclass

from aiohttp import web

from app import checks, errors
from app.conditions import etag
from app.config import Config
from app.http_session import Sessions
from app.http_shapes import shown_version
from app.kv_store import KVStore
from app.problems import problem
from app.vector_clock import VectorClock
from app.write import Delete, Operation, Put


@dataclass(frozen=True, slots=True)
class KeyRoutes:
    """The routes under `/kv`."""

    config: Config
    store: KVStore
    sessions: Sessions

    def add_to(self, router: web.UrlDispatcher) -> None:
        """The router has these routes."""
        router.add_get("/kv/{key:(?s:.*)}", self.get)  # HEAD too
        router.add_put("/kv/{key:(?s:.*)}", self.put)
        router.add_delete("/kv/{key:(?s:.*)}", self.delete)

    async def get(self, request: web.Request) -> web.Response:
        """The winner's bytes, or with `?siblings=true` all versions as JSON."""
        key = checks.key(request)
        checks.known_parameters(request, "wait", "stale", "siblings")
        all_siblings = checks.flag(request, "siblings")
        reader = await self.sessions.reader(request)
        reading = await self.store.read(key, reader.needs)
        seen = reader.headers(reading.context)
        if not reading.versions:
            missing = errors.NoSuchKey(f"The key {key!r} has no value at this node.")
            return problem(missing, seen)
        winner = reading.versions[0]
        headers = {
            **seen,
            "ETag": etag(version.dot for version in reading.versions),
            "Siblings": str(len(reading.versions)),
            "Dot": str(winner.dot),
        }
        if checks.is_known(request, headers["ETag"]):
            return web.Response(status=304, headers=headers)
        if all_siblings:
            shown = {
                "key": key,
                "winner": str(winner.dot),
                "siblings": [shown_version(version) for version in reading.versions],
            }
            return web.json_response(shown, headers=headers)
        headers["Content-Type"] = winner.content_type
        return web.Response(body=winner.value, headers=headers)

    async def put(self, request: web.Request) -> web.Response:
        """The key has this value here, durably."""
        key = checks.key(request)
        checks.known_parameters(request, "wait")
        content_type = checks.content_type(request)
        value = await checks.body(request, self.config.value_max_bytes, "value", "VALUE_MAX_BYTES")
        return await self._commit(request, Put(key, value, content_type))

    async def delete(self, request: web.Request) -> web.Response:
        """The key has no version that this node knew of."""
        key = checks.key(request)
        checks.known_parameters(request, "wait")
        return await self._commit(request, Delete(key))

    async def _commit(self, request: web.Request, operation: Operation) -> web.Response:
        conditions = checks.conditions(request, operation.key)
        context = await self.sessions.catch_up(request)
        try:
            # Once begun, a commit is not given up when the client goes away: its outcome is Redis'.
            committed = await asyncio.shield(self.store.commit([operation], context, conditions))
        except errors.PreconditionFailed as error:
            return self._failed(error, context)
        headers = {
            **self.sessions.headers(context.with_dot(committed.dot)),
            "Dot": str(committed.dot),
        }
        if isinstance(operation, Delete):
            return web.Response(status=204, headers=headers)
        answer = {
            "key": operation.key,
            "dot": str(committed.dot),
            "clock": committed.clock.to_dict(),
        }
        return web.json_response(answer, headers={**headers, "ETag": etag([committed.dot])})

    def _failed(self, error: errors.PreconditionFailed, context: VectorClock) -> web.Response:
        """The condition does not hold; whoever asked has seen what is there instead."""
        [held] = {one.key: one for one in error.held}.values()
        headers = self.sessions.headers(context.merge(held.seen))
        if held.dots:
            headers["ETag"] = etag(held.dots)
        return problem(error, headers)
