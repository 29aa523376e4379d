"""What an error looks like in HTTP: a problem (RFC 9457) that says what became of the request.

Assumes that whatever goes wrong in a handler is raised. Guarantees that every failure is answered
with `type`, `title`, `status`, `detail` and `outcome`, a wait that failed also with `missing`, one
that would never end with `lost`, and a condition that failed with `keys` (G10). An error that
nobody foresaw is logged, and answered as `internal`.

Does not know what the requests are about.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from aiohttp import web

from app import errors
from app.conditions import etag
from app.errors import RequestError
from app.log import get_logger

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
    errors.BadSignature: 401,
    errors.UnknownPeer: 403,
    errors.NoSuchKey: 404,
    errors.NoSuchMember: 404,
    errors.SameNodeId: 409,
    errors.ForeignBackup: 409,
    errors.Busy: 409,
    errors.LastMember: 409,
    errors.NodeRemoved: 410,
    errors.NotLost: 409,
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
    errors.TooManyWatchers: 503,
    errors.Stopping: 503,
    errors.RedisUnavailable: 503,
    errors.ReplicasMissing: 504,
}
"""What each error is in HTTP. Its name, in lower case with hyphens, is the problem type."""


def problem(error: RequestError, headers: dict[str, str] | None = None) -> web.Response:
    """An RFC 9457 problem for `error`."""
    return _response(shown(error), {**error.headers, **(headers or {})})


def shown(error: RequestError) -> dict[str, Any]:
    """The fields of the problem for `error`."""
    name = type(error).__name__
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)
    fields: dict[str, Any] = {"outcome": error.outcome}
    if isinstance(error, errors.NotCaughtUp):
        fields["missing"] = [
            {"dot": str(dot), "known_for_s": round(known_for_s, 3)}
            for dot, known_for_s in error.missing.items()
        ]
    if isinstance(error, errors.Lost):
        fields["lost"] = [asdict(loss) for loss in error.losses]
    if isinstance(error, errors.PreconditionFailed):
        fields["keys"] = [
            {
                "key": held.key,
                "etag": etag(held.dots) if held.dots else None,
                "siblings": len(held.dots),
            }
            for held in error.held
        ]
    if isinstance(error, errors.ReplicasMissing):
        fields |= {"dot": str(error.dot), "nodes": list(error.nodes)}
    if isinstance(error, errors.TooFarBack):
        fields |= {"missed": [asdict(gap) for gap in error.missed], "go_on": error.go_on}
    return _fields(STATUS[type(error)], words.strip(), error.detail, fields)


def _fields(status: int, title: str, detail: str, more: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "urn:lightcone:" + title.replace(" ", "-"),
        "title": title.capitalize(),
        "status": status,
        "detail": detail,
        **more,
    }


def _response(fields: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        text=json.dumps(fields),
        status=fields["status"],
        content_type="application/problem+json",
        headers=headers,
    )


@web.middleware
async def problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every failure is a problem that says what became of the request."""
    try:
        return await handler(request)
    except RequestError as error:
        return problem(error)
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        title = {404: "not found", 405: "method not allowed"}.get(error.status, error.reason)
        detail = f"{request.method} {request.path}: {error.reason}. Nothing was done."
        more = {"outcome": "not_applied"}
        return _response(_fields(error.status, title.lower(), detail, more), headers)
    except Exception as error:
        log.critical("request failed", method=request.method, path=request.path, exc_info=error)
        detail = "The node met a state that it does not expect, and logged it."
        outcome = "not_applied" if request.method in ("GET", "HEAD") else "unknown"
        return _response(_fields(500, "internal", detail, {"outcome": outcome}))
