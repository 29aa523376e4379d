"""What the node answers about many keys: a list of them, and of those with siblings.

Assumes the index that the scripts keep (`lua/index.inc.lua`). Guarantees that a key which is there
from the first page to the last is listed once, in the order of the bytes of keys, whatever happens
meanwhile; and that a cursor holds at every node and does not age: it is the last key that was
looked at. Keys that have expired are passed over, so that a page may be short though more follow.

Does not know what the keys hold.
"""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from app import checks, contract, shapes
from app.conditions import etag
from app.contract import JSON, Answer, Content, Parameter, Route
from app.http_session import Sessions
from app.interface import Interface
from app.kv_store import KVStore
from app.replies import Reply, json_reply
from app.write import KEY_MAX_BYTES

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1000

_BEGINNING: Final = {"type": "string", "maxLength": KEY_MAX_BYTES, "default": ""}
_PAGE: Final = (
    *(contract.WAIT, contract.STALE),
    Parameter("query", "prefix", "What the keys begin with.", _BEGINNING, "user/"),
    Parameter(
        "query",
        "limit",
        "How many keys at most.",
        {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT},
        2,
    ),
    Parameter("query", "cursor", "As the page before gave it.", _BEGINNING, "user/2"),
    contract.CONTEXT,
)

KEYS: Final = Route(
    name="keys",
    method="GET",
    path="/kv",
    group="keys",
    about="The keys that have a value here, in the order of their bytes, a page at a time.\n\n"
    "A key that is there from the first page to the last is listed once, whatever happens "
    "meanwhile. A cursor does not age, and any node takes it.",
    parameters=_PAGE,
    answers=(
        Answer(
            200,
            "A page.",
            Content(JSON, shapes.KeyPage, {"keys": ["user/1", "user/2"], "cursor": "user/2"}),
            (contract.SEEN, contract.IS_STALE),
        ),
    ),
    problems=contract.READING,
    head=True,
)
CONFLICTS: Final = Route(
    name="conflicts",
    method="GET",
    path="/conflicts",
    group="keys",
    about="The keys that have siblings here, in the same form.\n\n"
    "A put or delete with `If-Match` and the `etag` settles one.",
    parameters=_PAGE,
    answers=(
        Answer(
            200,
            "A page.",
            Content(
                JSON,
                shapes.ConflictPage,
                {"keys": [{"key": "menu", "etag": '"A:4,B:2"', "siblings": 2}], "cursor": None},
            ),
            (contract.SEEN, contract.IS_STALE),
        ),
    ),
    problems=contract.READING,
    head=True,
)


@dataclass(frozen=True, slots=True)
class ListRoutes:
    """The routes that list keys."""

    store: KVStore
    sessions: Sessions

    def add_to(self, interface: Interface) -> None:
        """These routes are served."""
        interface.serve(KEYS, self.keys)
        interface.serve(CONFLICTS, self.conflicts)

    async def keys(self, request: web.BaseRequest) -> Reply:
        """The keys that have a value here, a page at a time."""
        prefix, after, limit = _page(request)
        reader = await self.sessions.reader(request)
        listing = await self.store.list_keys(prefix, after, limit, reader.needs)
        page: shapes.KeyPage = {
            "keys": list(listing.keys),
            "cursor": listing.cursor or None,
        }
        return json_reply(page, headers=reader.headers(listing.clock))

    async def conflicts(self, request: web.BaseRequest) -> Reply:
        """The keys that have siblings here, a page at a time."""
        prefix, after, limit = _page(request)
        reader = await self.sessions.reader(request)
        listing = await self.store.list_conflicts(prefix, after, limit, reader.needs)
        shown: list[shapes.Conflict] = [
            {"key": key, "etag": etag(dots), "siblings": len(dots)}
            for key, dots in listing.keys.items()
        ]
        page: shapes.ConflictPage = {
            "keys": shown,
            "cursor": listing.cursor or None,
        }
        return json_reply(page, headers=reader.headers(listing.clock))


def _page(request: web.BaseRequest) -> tuple[str, str, int]:
    """What the keys begin with, after which key the page begins, and how many it holds."""
    limit = checks.count(request, "limit", PAGE_DEFAULT, PAGE_MAX)
    return checks.text(request, "prefix"), checks.text(request, "cursor"), limit
