"""A whole node, asked what its contract allows and much that it does not: all its answers are
declared.

Each route is asked with what fits its schemas, with what lies at their bounds, and with what does
not fit. An answer of a status that is not declared, which 500 never is, or with a head or body of
another form, or what should have been refused and was not, is a failure.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from schemathesis import Case, SerializationContext
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.effort import effort, time_enough
from tools.contract_page import PAGE

pytestmark = time_enough()

CONTRACT = schemathesis.openapi.from_path(PAGE)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a node, as people run it, which has a peer, and on which faults are allowed."""
    data = str(tmp_path_factory.mktemp("data"))
    options = ["--nodes", "2", "--ports", "auto", "--data-dir", data, "--env", "FAULTS=1"]
    with subprocess.Popen(
        [sys.executable, "-m", "app.local_cluster", "--json", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as cluster:
        assert cluster.stdin is not None and cluster.stdout is not None
        url = json.loads(cluster.stdout.readline())["nodes"]["A"]["url"]
        for key in ("lunch", "user/1", "user/2", "user/3"):  # those of the examples
            assert requests.put(f"{url}/kv/{key}", data=b"x", timeout=30).ok
        yield url
        cluster.communicate(b"quit\n")


@schemathesis.serializer("application/vnd.msgpack", "application/vnd.lightcone.backup", "*/*")
def as_bytes(context: SerializationContext, value: Any) -> bytes:
    """Anything. What is nearly a batch or a backup, other tests send."""
    return json.dumps(value).encode()


@CONTRACT.parametrize()
@effort(8)
def test_whatever_a_node_is_asked_it_answers_as_its_contract_says(
    case: Case[Any], node: str
) -> None:
    # Nobody waits for what never comes: where the patience is good, it is short.
    if re.fullmatch(r"[0-9.]+", str(case.query.get("wait"))) and float(case.query["wait"]) <= 30:
        case.query["wait"] = 0.01
    case.call_and_validate(
        base_url=node,
        # Some 503 are declared, and what fits the schemas may be of another cluster, or of no use.
        excluded_checks=[not_a_server_error, positive_data_acceptance],
    )
