"""What the node answers about many keys: a list of them, and of those with siblings.

Assumes the index that the scripts keep (`lua/index.inc.lua`). Guarantees that a key which is there
from the first page to the last is listed once, in the order of the bytes of keys, whatever happens
meanwhile; and that a cursor holds at every node and does not age: it is the last key that was
listed.

Does not know what the keys hold.
"""

from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from app import checks
from app.conditions import etag
from app.http_session import Sessions
from app.kv_store import KVStore

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class ListRoutes:
    """The routes that list keys."""

    store: KVStore
    sessions: Sessions

    def add_to(self, router: web.UrlDispatcher) -> None:
        """The router has these routes."""
        router.add_get("/kv", self.keys)
        router.add_get("/conflicts", self.conflicts)

    async def keys(self, request: web.Request) -> web.Response:
        """The keys that have a value here, a page at a time."""
        prefix, after, limit = _page(request)
        reader = await self.sessions.reader(request)
        listing = await self.store.list_keys(prefix, after, limit, reader.needs)
        page = {
            "keys": list(listing.keys),
            "cursor": next(reversed(listing.keys)) if listing.more else None,
        }
        return web.json_response(page, headers=reader.headers(listing.clock))

    async def conflicts(self, request: web.Request) -> web.Response:
        """The keys that have siblings here, a page at a time."""
        prefix, after, limit = _page(request)
        reader = await self.sessions.reader(request)
        listing = await self.store.list_conflicts(prefix, after, limit, reader.needs)
        shown: list[dict[str, Any]] = [
            {"key": key, "etag": etag(dots), "siblings": len(dots)}
            for key, dots in listing.keys.items()
        ]
        page = {"keys": shown, "cursor": shown[-1]["key"] if listing.more else None}
        return web.json_response(page, headers=reader.headers(listing.clock))


def _page(request: web.Request) -> tuple[str, str, int]:
    """What the keys begin with, after which key the page begins, and how many it holds."""
    checks.known_parameters(request, "wait", "stale", "prefix", "limit", "cursor")
    limit = checks.count(request, "limit", PAGE_DEFAULT, PAGE_MAX)
    return checks.text(request, "prefix"), checks.text(request, "cursor"), limit
