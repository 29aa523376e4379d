"""Looks whether answers are such as the contract promises.

What it is: `Contract`, a document by which answers are judged, and `keeping_to`, which judges all
that a node answers.

What it assumes and guarantees: the document is OpenAPI. An answer is as promised if its status is
declared for its route, its headers and body fit what was declared for it, and it has no header or
field that was not.

What it does not know: what is the right answer to a request.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any, Final

import jsonschema_rs
from aiohttp import web

from app.interface import Interface
from app.replies import Handler, Reply, Response
from tools.contract_page import PAGE

#: Of HTTP itself, and so in no contract.
_PLAIN_HEADERS: Final = {
    *("content-type", "content-length", "date", "server", "connection", "transfer-encoding"),
    *("upgrade", "sec-websocket-accept"),
}
_OF_NO_ROUTE: Final = {404: "not-found", 405: "method-not-allowed", 500: "internal"}
_JSON: Final = ("application/json", "application/problem+json")
_MARK: Final = "#/components/"


class Contract:
    """What is promised, by an OpenAPI document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        # What a client may not rely on must not be answered without being declared, either.
        self._document = _closed(document)

    def broken(
        self, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes | None
    ) -> str | None:
        """How an answer on this path breaks the contract, or None. No body is one not looked at."""
        promised = self._document["paths"].get(path, {}).get(method.lower())
        if promised is None:
            return "the route is not declared"
        if str(status) not in promised["responses"]:
            return f"the status {status} is not declared"
        answer = self._resolved(promised["responses"][str(status)])
        declared = {name.lower(): header for name, header in answer.get("headers", {}).items()}
        found = {name.lower(): value for name, value in headers.items()}
        if undeclared := set(found) - set(declared) - _PLAIN_HEADERS:
            return f"the headers {undeclared} are not declared"
        for name, header in declared.items():
            if name in found:
                kind = header["schema"].get("type")
                value = int(found[name]) if kind == "integer" else found[name]
                if problem := self.problem(header["schema"], value):
                    return f"the header {name}: {problem}"
            elif header.get("required"):
                return f"the header {name} is missing"
        if body is None or method == "HEAD":
            return None
        contents = answer.get("content", {})
        if not contents:
            return f"there is a body, {body!r}" if body else None
        media_type = found.get("content-type", "").partition(";")[0]
        content = contents.get(media_type, contents.get("*/*"))
        if content is None:
            return f"the type {media_type} is not declared"
        if "schema" in content and media_type in contents and media_type in _JSON:
            return self.problem(content["schema"], json.loads(body))
        return None

    def broken_beside_routes(self, status: int, body: bytes) -> str | None:
        """The same for a request that no route is for."""
        name = _OF_NO_ROUTE.get(status)
        if name is None:
            return f"the status {status} is not declared"
        return self.problem({"$ref": f"#/components/schemas/{name}"}, json.loads(body))

    def _resolved(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in part:
            return part
        kind, name = part["$ref"].removeprefix(_MARK).split("/")
        found: Mapping[str, Any] = self._document["components"][kind][name]
        return found

    def problem(self, schema: Mapping[str, Any], value: object) -> str | None:
        """What is wrong with a value by a schema of the contract, or None."""
        error = next(self._validator(json.dumps(schema)).iter_errors(value), None)
        return None if error is None else f"{value!r:.500}: {error.message}"

    @functools.cache  # noqa: B019 (there are few contracts, and they live as long as the tests)
    def _validator(self, schema: str) -> jsonschema_rs.Draft202012Validator:
        components = {"components": {"schemas": self._document["components"]["schemas"]}}
        return jsonschema_rs.Draft202012Validator({**json.loads(schema), **components})


def keeping_to(contract: Contract, interface: Interface, broken: list[str]) -> Handler:
    """What answers as the interface does, and adds to `broken` what is not as promised."""

    async def judge(request: web.BaseRequest) -> Response:
        response = await interface.answer(request)
        body = response.body if isinstance(response, Reply) else None  # that of a stream is gone
        path = interface.path_of(request)
        if path is None or response.status == 500:
            problem = contract.broken_beside_routes(response.status, body or b"{}")
        else:
            problem = contract.broken(request.method, path, response.status, response.headers, body)
        if problem is not None:
            broken.append(f"{request.method} {request.path}: {problem}")
        return response

    return judge


def _closed(part: Any) -> Any:
    """The same document, in which objects have no other fields than those that are named."""
    if isinstance(part, list):
        return [_closed(one) for one in part]
    if not isinstance(part, Mapping):
        return part
    closed = {name: _closed(one) for name, one in part.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


#: What all nodes promise, in its form for others.
PROMISED: Final = Contract(json.loads(PAGE.read_text()))
