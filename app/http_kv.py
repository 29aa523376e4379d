"""What the node answers about keys: reading, writing and deleting one.

Assumes `http_session.py`, which waits until a request can be served. Guarantees that a request that
is refused changes nothing and is told why, what became of it, and what to do (G10).

Does not know Redis, nor how writes travel on.
"""

import asyncio
import base64
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from app import checks, errors
from app.config import Config
from app.http_session import Sessions
from app.kv_store import KVStore
from app.problems import problem
from app.write import Delete, Operation, Put, Version


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
        checks.known_parameters(request, "wait", "siblings")
        all_siblings = checks.flag(request, "siblings")
        context = await self.sessions.catch_up(request)
        reading = await self.store.read(key, context)
        seen = self.sessions.headers(context.merge(reading.context))
        if not reading.versions:
            missing = errors.NoSuchKey(f"The key {key!r} has no value at this node.")
            return problem(missing, seen)
        winner = reading.versions[0]
        headers = {
            **seen,
            "ETag": _etag(reading.versions),
            "Siblings": str(len(reading.versions)),
            "Dot": str(winner.dot),
        }
        if all_siblings:
            shown = {
                "key": key,
                "winner": str(winner.dot),
                "siblings": [_version(version) for version in reading.versions],
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
        checks.unconditional(request)
        context = await self.sessions.catch_up(request)
        # Once begun, a commit is not given up when the client goes away: its outcome is Redis'.
        committed = await asyncio.shield(self.store.commit([operation], context))
        headers = self.sessions.headers(context.with_dot(committed.dot))
        if isinstance(operation, Delete):
            return web.Response(status=204, headers=headers)
        answer = {
            "key": operation.key,
            "dot": str(committed.dot),
            "clock": committed.clock.to_dict(),
        }
        return web.json_response(answer, headers={**headers, "ETag": f'"{committed.dot}"'})


def _etag(versions: tuple[Version, ...]) -> str:
    """Changes whenever the set of siblings does: it names them."""
    return '"' + ",".join(sorted(str(version.dot) for version in versions)) + '"'


def _version(version: Version) -> dict[str, Any]:
    shown = {
        "dot": str(version.dot),
        "timestamp": version.timestamp,
        "content_type": version.content_type,
    }
    try:
        return {**shown, "text": version.value.decode()}
    except UnicodeDecodeError:
        return {**shown, "base64": base64.b64encode(version.value).decode()}
