"""A whole node, asked what its contract allows and much that it does not: all its answers are
declared.

Schemathesis asks each route for what fits its schemas, for what lies at their bounds, and for what
does not fit. An answer of a status that is not declared, which 500 never is, or with a head or body
of another form, or what should have been refused and was not, is a failure.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.effort import effort, time_enough

pytestmark = time_enough()

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("schemathesis.toml")
#: Some 503 are declared; and what fits the schemas may be of another cluster, or of no use.
NOT_LOOKED_AT = "not_a_server_error,positive_data_acceptance"
#: What schemathesis would read to its end, and that has none (tests/test_watching.py asks for it).
ENDLESS = "/watch"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[str]:
    """The URL of a node, as people run it, which has a peer, and on which faults are allowed."""
    options = ["--nodes", "2", "--ports", "auto", "--data-dir", str(tmp_path), "--env", "FAULTS=1"]
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


def test_whatever_a_node_is_asked_it_answers_as_its_contract_says(
    node: str, tmp_path: Path
) -> None:
    options = ["--max-examples", str(effort(10).max_examples), "--exclude-checks", NOT_LOOKED_AT]
    options += [
        "--exclude-path",
        ENDLESS,
        "--continue-on-failure",
        "--no-color",
        "--warnings",
        "off",
    ]
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
            *("run", f"{node}/openapi.json", *options),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.fuzzing.asking",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout
    asked = requests.get(f"{node}/metrics", timeout=30).text
    for path in requests.get(f"{node}/openapi.json", timeout=30).json()["paths"]:
        assert path == ENDLESS or f'route="{path}"' in asked
