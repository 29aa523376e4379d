"""What the node answers about keys: reading, writing and deleting one.

Assumes `http_session.py`, which waits until a request can be served. Guarantees that a request that
is refused changes nothing and is told why, what became of it, and what to do (G10).

Does not know Redis, nor how writes travel on.
"""

from dataclasses import dataclass

from aiohttp import web

from app import checks, errors
from app.conditions import etag
from app.config import Config
from app.http_session import Sessions
from app.http_shapes import shown_state
from app.http_write import Writing
from app.kv_store import NOTHING, KVStore
from app.problems import problem
from app.snapshot import KeyState
from app.write import Delete, Put


@dataclass(frozen=True, slots=True)
class KeyRoutes:
    """The routes under `/kv`."""

    config: Config
    store: KVStore
    sessions: Sessions
    writing: Writing

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
            shown = shown_state(KeyState(key, reading.versions, NOTHING))
            return web.json_response(shown, headers=headers)
        headers["Content-Type"] = winner.content_type
        return web.Response(body=winner.value, headers=headers)

    async def put(self, request: web.Request) -> web.Response:
        """The key has this value here, durably, if its conditions hold."""
        key = checks.key(request)
        checks.known_parameters(request, "wait", "replicas")
        content_type = checks.content_type(request)
        value = await checks.body(request, self.config.value_max_bytes, "value", "VALUE_MAX_BYTES")
        conditions = checks.conditions(request, key)
        operation = Put(key, value, content_type)
        written, context, headers = await self.writing.commit(request, [operation], conditions)
        answer = {"key": key, "dot": str(written.dot), "clock": written.clock.to_dict()}
        headers |= {**self.sessions.headers(context), "ETag": etag([written.dot])}
        return web.json_response(answer, headers=headers)

    async def delete(self, request: web.Request) -> web.Response:
        """The key has no version that this node knew of, if its conditions held."""
        key = checks.key(request)
        checks.known_parameters(request, "wait", "replicas")
        conditions = checks.conditions(request, key)
        _, context, headers = await self.writing.commit(request, [Delete(key)], conditions)
        return web.Response(status=204, headers={**headers, **self.sessions.headers(context)})
