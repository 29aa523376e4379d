"""The contract as others read it: an OpenAPI 3.1 document.

Assumes that routes are declared truly (`contract.py`). Guarantees that each of them is in the
document with all that was declared of it; that every type of problem is; and that the schemas are
those of the types by which answers are made and requests are read.

Does not know who asks for the document. From the OpenAPI Specification, version 3.1.1.
"""

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from itertools import groupby
from typing import Any, Final

import msgspec

from app import __version__, errors, shapes
from app.contract import BYTES, HEADERS, Answer, Content, Parameter, Route
from app.errors import RequestError
from app.lost import Loss
from app.problems import OF_NO_ROUTE, PROBLEM, STATUS, kind, shown
from app.vector_clock import Dot, VectorClock

ABOUT: Final = """A causally consistent, active-active key-value store.

A client sends the `Causal-Context` of the last answer with its next request, to whichever node, and
is answered from a state that includes all that it has seen. Every failure is a problem (RFC 9457)
whose `type` says what was wrong, and whose `outcome` says what became of the request. An unknown or
repeated parameter is refused.

Besides what each request promises, any may be answered `not-found` or `method-not-allowed`, if
there is no such route; and `internal`, 500, which is never promised: it
is a mistake of ours. All three are among the schemas.
"""

GROUPS: Final = {
    "keys": "Keys and values",
    "node": "Looking into a node",
    "backups": "The state of a node, put away and put back",
    "members": "Who belongs to the cluster",
    "internal": "Between nodes: no part of the interface for clients, and not stable",
    "faults": "Links broken on purpose: only with `FAULTS=1`",
}

_REF: Final = "#/components/schemas/{name}"
_OUTCOMES: Final[dict[type[RequestError], Sequence[str]]] = {
    errors.RedisUnavailable: ("not_applied", "unknown")
}
_FIELDS: Final[dict[type[RequestError], dict[str, Any]]] = {
    errors.NotCaughtUp: {"missing": list[shapes.Missing]},
    errors.Lost: {"lost": list[shapes.LostWrites]},
    errors.PreconditionFailed: {"keys": list[shapes.HeldInstead]},
    errors.ReplicasMissing: {"dot": str, "nodes": list[str]},
    errors.TooFarBack: {"missed": list[shapes.MissedWrites], "go_on": str},
}
"""What some problems say beyond what all do."""
_EXAMPLES: Final[dict[type[RequestError], RequestError]] = {
    type(error): error
    for error in (
        errors.NotCaughtUp({Dot("A", 3): 1.238}, 1.0),
        errors.UnknownWrites([Dot("A", 3)]),
        errors.DeferredFull(1000, 64 * 1024 * 1024),
        errors.IdempotencyKeyReused(),
        errors.OtherBase(),
        errors.Lost([Loss("A", 95, 101)]),
        errors.PreconditionFailed([errors.Held("lunch", (Dot("A", 1),), VectorClock())]),
        errors.ReplicasMissing(Dot("A", 2), ["A"], 2),
        errors.NodeRemoved("C", Dot("A", 9)),
        errors.Joining(7),
        errors.Syncing((120, 300)),
        errors.TooFarBack([errors.Gap("A", 2, 6)], "lc1;A:6;B:1"),
        errors.TooManyWatchers(200),
        errors.Stopping(),
        errors.NotLost("of A:7, B has it"),
        errors.BadBackup("The backup lacks its last part."),
        errors.ForeignBackup("B", "whose writes are here"),
        errors.RedisUnavailable("it does not answer"),
    )
}
"""Those whose words are made of parts. The others say what is said of them in general."""


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The document, for JSON."""
    parts = _Parts()
    paths: dict[str, Any] = {}
    for route in sorted(routes, key=lambda route: route.path):
        methods = paths.setdefault(route.path, {})
        methods[route.method.lower()] = _operation(route, parts)
        if route.head:
            methods["head"] = _head(methods[route.method.lower()])
    problems = {kind(error): _problem(error, parts) for error in STATUS}
    problems |= {name: _other_problem(name, *rest) for name, rest in OF_NO_ROUTE.items()}
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Lightcone",
            "version": __version__,
            "summary": ABOUT.partition("\n")[0],
            "description": ABOUT.partition("\n\n")[2],
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": about} for name, about in GROUPS.items()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted({**parts.schemas, **problems}.items())),
            "responses": dict(sorted(parts.responses.items())),
            "examples": {kind(error): {"value": _example(error)} for error in STATUS},
        },
    }


class _Parts:
    """What several routes have in common, each made once and referred to by its name."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}
        self.responses: dict[str, Any] = {}

    def schema(self, shape: Any) -> dict[str, Any]:
        """That of a type."""
        [schema], made = msgspec.json.schema_components([shape], ref_template=_REF)
        self.schemas |= made
        return schema

    def refusal(self, raised: Sequence[type[RequestError]]) -> dict[str, Any]:
        """What is answered when one of these errors was raised, which are all of one status."""
        names = [kind(error) for error in raised]
        name = ".".join(names)
        self.responses[name] = _refusal(STATUS[raised[0]], names, raised)
        return {"$ref": f"#/components/responses/{name}"}


def _operation(route: Route, parts: _Parts) -> dict[str, Any]:
    summary, _, more = route.about.partition("\n\n")
    shown = {
        "operationId": route.name,
        "tags": [route.group],
        "summary": summary,
        "description": more,
        "x-internal": route.group == "internal",
        "parameters": [_parameter(parameter) for parameter in route.parameters],
        "requestBody": route.body
        and {"required": route.body.shape is not None, "content": _content(route.body, parts)},
    }
    responses = {answer.status: _answer(answer, parts) for answer in route.answers}
    declared = dict.fromkeys(route.refusals)
    for status, raised in groupby(sorted(declared, key=STATUS.__getitem__), STATUS.__getitem__):
        responses[status] = parts.refusal(sorted(raised, key=kind))
    in_order = {str(status): responses[status] for status in sorted(responses)}
    return {name: value for name, value in shown.items() if value} | {"responses": in_order}


def _head(get: dict[str, Any]) -> dict[str, Any]:
    """The same without bodies."""
    responses = {
        status: {name: value for name, value in response.items() if name != "content"}
        for status, response in get["responses"].items()
    }
    return {
        **get,
        "operationId": f"{get['operationId']}Head",
        "summary": f"As GET, without the body. {get['summary']}",
        "responses": responses,
    }


def _parameter(one: Parameter) -> dict[str, Any]:
    return {
        "name": one.name,
        "in": one.place,
        **({"required": True} if one.always else {}),
        "description": one.about,
        "schema": dict(one.schema),
        "example": one.example,
    }


def _headers(headers: Iterable[Parameter]) -> dict[str, Any]:
    return {
        one.name: {
            "description": one.about,
            **({"required": True} if one.always else {}),
            "schema": dict(one.schema),
            "example": one.example,
        }
        for one in headers
    }


def _content(content: Content, parts: _Parts) -> dict[str, Any]:
    shown = {} if content.shape is None else {"schema": parts.schema(content.shape)}
    if shown and content.media_type == BYTES:
        shown["schema"] = {"anyOf": [shown["schema"], {"description": "Any bytes."}]}
    return {
        content.media_type: shown
        if content.example is None
        else {**shown, "example": content.example}
    }


def _answer(answer: Answer, parts: _Parts) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": answer.about}
    if answer.headers:
        shown["headers"] = _headers(answer.headers)
    if answer.content is not None:
        shown["content"] = _content(answer.content, parts)
    return shown


def _refusal(
    status: int, names: Sequence[str], raised: Sequence[type[RequestError]]
) -> dict[str, Any]:
    refs = [{"$ref": _REF.format(name=name)} for name in names]
    headers = {
        header.name: header if len(raised) == 1 else header.sometimes
        for error in raised
        for header in HEADERS.get(error, ())
    }
    shown: dict[str, Any] = {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(names)}",
        "content": {
            PROBLEM: {
                "schema": refs[0] if len(refs) == 1 else {"anyOf": refs},
                "examples": {name: {"$ref": f"#/components/examples/{name}"} for name in names},
            }
        },
    }
    return {**shown, "headers": _headers(headers.values())} if headers else shown


def _problem(error: type[RequestError], parts: _Parts) -> dict[str, Any]:
    outcomes = _OUTCOMES.get(error, (error.outcome,))
    more = {name: parts.schema(shape) for name, shape in _FIELDS.get(error, {}).items()}
    return _schema_of_problem(kind(error), STATUS[error], outcomes, _about(error), more)


def _other_problem(name: str, status: int, outcomes: Sequence[str], about: str) -> dict[str, Any]:
    return _schema_of_problem(name, status, outcomes, about, {})


def _schema_of_problem(
    name: str, status: int, outcomes: Sequence[str], about: str, more: dict[str, Any]
) -> dict[str, Any]:
    fields = {
        "type": {"const": f"urn:lightcone:{name}"},
        "title": {"const": name.replace("-", " ").capitalize()},
        "status": {"const": status},
        "detail": {"type": "string"},
        "outcome": {"enum": list(outcomes)},
        **more,
    }
    return {
        "description": about,
        "type": "object",
        "properties": fields,
        "required": list(fields),
    }


def _example(error: type[RequestError]) -> dict[str, Any]:
    return shown(_EXAMPLES.get(error) or error(_about(error)))


def _about(error: type[RequestError]) -> str:
    """The first paragraph of what the code says of it."""
    return re.sub(r"\s+", " ", (error.__doc__ or "").partition("\n\n")[0]).strip()
