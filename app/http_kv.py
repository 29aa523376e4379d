"""What the node answers about keys: reading, writing and deleting one.

Assumes `http_session.py`, which waits until a request can be served. Guarantees that a request that
is refused changes nothing and is told why, what became of it, and what to do (G10).

Does not know Redis, nor how writes travel on.
"""

from dataclasses import dataclass, replace
from typing import Final

from aiohttp import web

from app import checks, contract, errors, shapes
from app.conditions import etag
from app.config import Config
from app.contract import BYTES, JSON, Answer, Content, Parameter, Route
from app.http_session import Sessions
from app.http_shapes import http_date, shown_version
from app.http_write import Writing
from app.interface import Interface
from app.kv_store import KVStore
from app.problems import problem
from app.replies import Reply, json_reply
from app.write import Delete, Put, expires_us

_VERSION: Final = (
    *(contract.SEEN, contract.IS_STALE, contract.ETAG),
    Parameter(
        "header",
        "Siblings",
        "How many versions stand side by side.",
        {"type": "integer", "minimum": 1},
        2,
        always=True,
    ),
    replace(contract.DOT, about="The name of the winner."),
    replace(
        contract.EXPIRES, about="When the winner expires, rounded down to seconds, if it does."
    ),
    Parameter(
        "header",
        "Cache-Control",
        "With `Expires`: a cache asks each time, for the value may change before it expires.",
        {"const": "no-cache"},
        "no-cache",
    ),
)

GET: Final = Route(
    name="get",
    method="GET",
    path="/kv/{key}",
    group="keys",
    about="The value of a key: of all versions that stand side by side, that of the winner.",
    parameters=(
        *(contract.KEY, contract.WAIT, contract.STALE),
        Parameter(
            "query",
            "siblings",
            "Show all versions, as JSON.",
            {"type": "boolean", "default": False},
            True,
        ),
        *(contract.CONTEXT, contract.IS_KNOWN),
    ),
    answers=(
        Answer(
            200,
            "The value, with the type that it was put with; or with `siblings`, all versions.",
            Content(
                BYTES,
                shapes.Siblings,
                {
                    "key": "menu",
                    "winner": "B:2",
                    "siblings": [
                        {
                            "dot": "B:2",
                            "timestamp": 1795379363289593,
                            "content_type": "text/plain",
                            "expires": 1795379423289593,
                            "text": "salad",
                        },
                        {
                            "dot": "A:4",
                            "timestamp": 1795379363275446,
                            "content_type": "image/x",
                            "base64": "//4=",
                        },
                    ],
                },
            ),
            _VERSION,
        ),
        Answer(304, "What the client has already is what is here.", headers=_VERSION),
    ),
    problems=(errors.BadKey, errors.NoSuchKey, *contract.READING),
    head=True,
)
PUT: Final = Route(
    name="put",
    method="PUT",
    path="/kv/{key}",
    group="keys",
    about="The key has this value, durably at this node, in place of every version that the node "
    "had.\n\nWhat other nodes wrote concurrently stays beside it. With `ttl` it is gone after that "
    "time, at all nodes.",
    parameters=(
        *(contract.KEY, contract.TTL, contract.WAIT, contract.REPLICAS, contract.CONTEXT),
        *(contract.IF_MATCH, contract.IF_NONE_MATCH, contract.IDEMPOTENCY_KEY, contract.PREFER),
    ),
    body=Content(BYTES, example="noon?"),
    answers=(
        Answer(
            200,
            "It is done.",
            Content(JSON, shapes.Written, {"key": "lunch", "dot": "A:1", "clock": {"A": 1}}),
            (*contract.WRITTEN, contract.ETAG, contract.EXPIRES),
        ),
        contract.DEFERRED,
    ),
    problems=(errors.BadKey, *contract.WITH_BODY, *contract.WRITING, *contract.DEFERRING),
)
DELETE: Final = Route(
    name="delete",
    method="DELETE",
    path="/kv/{key}",
    group="keys",
    about="The key has no version that this node knew of. It need not have had any.\n\n"
    "What other nodes wrote concurrently survives.",
    parameters=(
        *(contract.KEY, contract.WAIT, contract.REPLICAS, contract.CONTEXT),
        *(contract.IF_MATCH, contract.IF_NONE_MATCH, contract.IDEMPOTENCY_KEY, contract.PREFER),
    ),
    answers=(Answer(204, "It is done.", headers=contract.WRITTEN), contract.DEFERRED),
    problems=(errors.BadKey, *contract.WRITING, *contract.DEFERRING),
)


@dataclass(frozen=True, slots=True)
class KeyRoutes:
    """The routes under `/kv`."""

    config: Config
    store: KVStore
    sessions: Sessions
    writing: Writing

    def add_to(self, interface: Interface) -> None:
        """These routes are served."""
        interface.serve(GET, self.get)
        interface.serve(PUT, self.put)
        interface.serve(DELETE, self.delete)

    async def get(self, request: web.BaseRequest) -> Reply:
        """The winner's bytes, or with `?siblings=true` all versions as JSON."""
        key = checks.key(request)
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
            "ETag": etag([version.dot for version in reading.versions]),
            "Siblings": str(len(reading.versions)),
            "Dot": str(winner.dot),
        }
        if winner.expires_us:
            headers["Expires"] = http_date(winner.expires_us)
            headers["Cache-Control"] = "no-cache"
        if checks.is_known(request, headers["ETag"]):
            return Reply(status=304, headers=headers)
        if all_siblings:
            shown: shapes.Siblings = {
                "key": key,
                "winner": str(winner.dot),
                "siblings": [shown_version(version) for version in reading.versions],
            }
            return json_reply(shown, headers=headers)
        headers["Content-Type"] = winner.content_type
        return Reply(winner.value, headers=headers)

    async def put(self, request: web.BaseRequest) -> Reply:
        """The key has this value here, durably, if its conditions hold; or will have it."""
        key = checks.key(request)
        content_type, ttl_us = checks.content_type(request), checks.ttl_us(request)
        value = await checks.body(request, self.config.value_max_bytes, "value", "VALUE_MAX_BYTES")
        conditions = checks.conditions(request, key)
        operation = Put(key, value, content_type, ttl_us)
        done = await self.writing.commit(request, [operation], conditions)
        if isinstance(done, Reply):
            return done
        written = done.committed
        answer: shapes.Written = {
            "key": key,
            "dot": str(written.dot),
            "clock": written.clock.to_dict(),
        }
        seen = self.sessions.headers(done.context)
        headers = {**done.headers, **seen, "ETag": etag([written.dot])}
        if written.timestamp and (until := expires_us(written.timestamp, operation.ttl_us)):
            headers["Expires"] = http_date(until)
        return json_reply(answer, headers=headers)

    async def delete(self, request: web.BaseRequest) -> Reply:
        """The key has no version that this node knew of, if its conditions held; or will have
        none."""
        key = checks.key(request)
        conditions = checks.conditions(request, key)
        done = await self.writing.commit(request, [Delete(key)], conditions)
        if isinstance(done, Reply):
            return done
        headers = {**done.headers, **self.sessions.headers(done.context)}
        return Reply(status=204, headers=headers)
