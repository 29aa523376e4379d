"""The contract as a document: it is whole, it is true of the code, and it is OpenAPI."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from app import errors, shapes
from app.problems import OF_NO_ROUTE, STATUS, kind
from client import shapes as read_by_client
from tests.contract import PROMISED
from tools import contract_page

INTERFACE = contract_page.interface()
DOCUMENT = INTERFACE.document()


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each method of each path, and what is promised of it."""
    for path, methods in DOCUMENT["paths"].items():
        for method, promised in methods.items():
            yield method.upper(), path, promised


def test_it_is_openapi() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_the_file_is_what_the_code_says() -> None:
    assert contract_page.PAGE.read_text() == contract_page.text(), "make docs writes it anew"


def test_each_route_is_in_the_contract_and_nothing_else_is() -> None:
    promised = [(method, path) for method, path, _ in operations()]
    assert sorted(INTERFACE.served()) == sorted(promised)


def test_each_type_of_problem_is_in_the_contract_and_some_route_promises_it() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for error, status in STATUS.items():
        fields = schemas[kind(error)]["properties"]
        assert fields["type"] == {"const": f"urn:lightcone:{kind(error)}"}
        assert fields["status"] == {"const": status}
    assert set(OF_NO_ROUTE) <= set(schemas)
    refusals = [name.split(".") for name in DOCUMENT["components"]["responses"]]
    assert {name for names in refusals for name in names} == {kind(error) for error in STATUS}


def leaves(error: type[errors.RequestError]) -> Iterator[type[errors.RequestError]]:
    if not error.__subclasses__():
        yield error
    for below in error.__subclasses__():
        yield from leaves(below)


def test_each_error_of_a_request_has_a_status() -> None:
    assert set(leaves(errors.RequestError)) == set(STATUS)


def test_what_is_in_a_path_is_a_parameter_and_is_required() -> None:
    for _, path, promised in operations():
        parameters = promised.get("parameters", [])
        declared = {one["name"] for one in parameters if one["in"] == "path" and one["required"]}
        assert declared == set(re.findall(r"{(\w+)}", path))


def examples() -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Each example that stands beside a schema."""
    for method, path, promised in operations():
        where = f"{method} {path}"
        for one in promised.get("parameters", []):
            yield f"{where} {one['name']}", one["schema"], one["example"]
        bodies = [promised.get("requestBody", {}), *promised["responses"].values()]
        for body in bodies:
            for header in body.get("headers", {}).values():
                yield where, header["schema"], header["example"]
            for content in body.get("content", {}).values():
                if "schema" in content and "example" in content:
                    yield where, content["schema"], content["example"]
    for name, example in DOCUMENT["components"]["examples"].items():
        yield name, {"$ref": f"#/components/schemas/{name}"}, example["value"]


def test_each_example_fits_its_schema() -> None:
    found = list(examples())
    assert len(found) > 100
    for where, schema, example in found:
        assert PROMISED.problem(schema, example) is None, where


def test_each_answer_in_json_has_an_example() -> None:
    for method, path, promised in operations():
        for status, answer in promised["responses"].items():
            content = answer.get("content", {}).get("application/json")
            assert content is None or "example" in content or path == "/openapi.json", (
                method,
                path,
                status,
            )


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (shapes.Status, read_by_client.Status),
        (shapes.PeerStatus, read_by_client.PeerStatus),
        (shapes.LogStatus, read_by_client.LogStatus),
        (shapes.SnapshotStatus, read_by_client.SnapshotStatus),
        (shapes.SentSnapshot, read_by_client.SentSnapshot),
        (shapes.ShownFault, read_by_client.Fault),
        (shapes.Pending, read_by_client.Pending),
        (shapes.PendingWrite, read_by_client.PendingWrite),
        (shapes.ShownMember, read_by_client.Member),
        (shapes.Conflict, read_by_client.Conflict),
        (shapes.Explanation, read_by_client.Explanation),
        (shapes.ExplainedVersion, read_by_client.ExplainedVersion),
        (shapes.ExplainedWrite, read_by_client.ExplainedWrite),
    ],
)
def test_the_python_client_names_the_same_fields(said: Any, read: Any) -> None:
    assert set(said.__annotations__) == set(read.__annotations__)


def test_it_can_be_written_and_read() -> None:
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT
