"""What an error looks like in HTTP: a problem (RFC 9457) that says what became of the request.

Assumes that whatever goes wrong in a handler is raised. Guarantees that every failure is answered
with `type`, `title`, `status`, `detail` and `outcome`, a wait that failed also with `missing`, one
that would never end with `lost`, and a condition that failed with `keys` (G10). An error that
nobody foresaw is logged, and answered as `internal`.

Does not know what the requests are about.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

from aiohttp import web

from app import errors, shapes
from app.conditions import etag
from app.errors import RequestError
from app.log import get_logger
from app.replies import Reply

log = get_logger(__name__)

STATUS: Final[dict[type[RequestError], int]] = {
    errors.BadKey: 400,
    errors.BadParameter: 400,
    errors.BadContext: 400,
    errors.ForeignContext: 400,
    errors.BadBatch: 400,
    errors.BadBackup: 400,
    errors.BadFault: 400,
    errors.BadMember: 400,
    errors.BadTransaction: 400,
    errors.BadHttp: 400,
    errors.NoWebsocket: 400,
    errors.BadSignature: 401,
    errors.CrossOrigin: 403,
    errors.UnknownPeer: 403,
    errors.NoSuchKey: 404,
    errors.NoSuchMember: 404,
    errors.SameNodeId: 409,
    errors.ForeignBackup: 409,
    errors.Busy: 409,
    errors.LastMember: 409,
    errors.NodeRemoved: 410,
    errors.NotLost: 409,
    errors.OtherBase: 409,
    errors.Lost: 410,
    errors.TooFarBack: 410,
    errors.PreconditionFailed: 412,
    errors.TooLarge: 413,
    errors.UnsupportedEncoding: 415,
    errors.Misdirected: 421,
    errors.UnknownActor: 422,
    errors.IdempotencyKeyReused: 422,
    errors.UnsupportedHeader: 501,
    errors.NotReady: 503,
    errors.Joining: 503,
    errors.Syncing: 503,
    errors.NotCaughtUp: 503,
    errors.UnknownWrites: 503,
    errors.DeferredFull: 503,
    errors.TooManyWatchers: 503,
    errors.Stopping: 503,
    errors.RedisUnavailable: 503,
    errors.ReplicasMissing: 504,
}
"""What each error is in HTTP."""

PROBLEM: Final = "application/problem+json"

OF_NO_ROUTE: Final[dict[str, tuple[int, tuple[str, ...], str]]] = {
    "not-found": (404, ("not_applied",), "There is no such route."),
    "method-not-allowed": (405, ("not_applied",), "The route has other methods: see Allow."),
    "internal": (
        *(500, ("unknown", "not_applied")),
        "The node met a state that it does not expect, and logged it.",
    ),
}
"""Problems that no route promises: their status, possible outcomes, and what they say."""


def kind(error: type[RequestError]) -> str:
    """The name of the problem that it is, such as `bad-key`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", error.__name__).lower()


def shown(error: RequestError) -> dict[str, Any]:
    """The error as it stands in an answer."""
    fields: dict[str, Any] = {"outcome": error.outcome}
    if isinstance(error, errors.NotCaughtUp):
        missing: list[shapes.Missing] = [
            {"dot": str(dot), "known_for_s": round(known_for_s, 3)}
            for dot, known_for_s in error.missing.items()
        ]
        fields["missing"] = missing
    if isinstance(error, errors.Lost):
        fields["lost"] = [asdict(loss) for loss in error.losses]
    if isinstance(error, errors.PreconditionFailed):
        keys: list[shapes.HeldInstead] = [
            {
                "key": held.key,
                "etag": etag(held.dots) if held.dots else None,
                "siblings": len(held.dots),
            }
            for held in error.held
        ]
        fields["keys"] = keys
    if isinstance(error, errors.ReplicasMissing):
        fields |= {"dot": str(error.dot), "nodes": list(error.nodes)}
    if isinstance(error, errors.TooFarBack):
        missed: list[shapes.MissedWrites] = [
            {"actor": gap.actor, "after": gap.after, "through": gap.through} for gap in error.missed
        ]
        fields |= {"missed": missed, "go_on": error.go_on}
    return _fields(kind(type(error)), STATUS[type(error)], error.detail, fields)


def problem(error: RequestError, headers: dict[str, str] | None = None) -> Reply:
    """An RFC 9457 problem for `error`."""
    return _response(shown(error), {**error.headers, **(headers or {})})


def _fields(name: str, status: int, detail: str, more: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": f"urn:lightcone:{name}",
        "title": name.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        **more,
    }


def _response(fields: dict[str, Any], headers: dict[str, str] | None = None) -> Reply:
    typed = {**(headers or {}), "Content-Type": f"{PROBLEM}; charset=utf-8"}
    return Reply(json.dumps(fields).encode(), status=fields["status"], headers=typed)


def refusal(error: Exception, method: str, path: str) -> Reply:
    """What is answered to a request that failed: a problem that says what became of it."""
    if isinstance(error, RequestError):
        return problem(error)
    log.critical("request failed", method=method, path=path, exc_info=error)
    status, _, detail = OF_NO_ROUTE["internal"]
    outcome = "not_applied" if method in ("GET", "HEAD") else "unknown"
    return _response(_fields("internal", status, detail, {"outcome": outcome}))


def no_such_route(request: web.BaseRequest) -> Reply:
    """What is answered to a request for a path that there is not."""
    # As it came: `/kv%2Fx` is none, and would look like `/kv/x`, which is one.
    path = request.raw_path.partition("?")[0]
    return _of_no_route("not-found", f"{request.method} {path}: Not Found.")


def no_such_method(request: web.BaseRequest, methods: Iterable[str]) -> Reply:
    """What is answered to a request for a path that has other methods."""
    said = f"{request.method} {request.path}: Method Not Allowed."
    return _of_no_route("method-not-allowed", said, {"Allow": ",".join(sorted(methods))})


def _of_no_route(name: str, said: str, headers: dict[str, str] | None = None) -> Reply:
    status, (outcome,), _ = OF_NO_ROUTE[name]
    return _response(
        _fields(name, status, f"{said} Nothing was done.", {"outcome": outcome}), headers
    )
