"""The client's scenario against the compose cluster, killing whole nodes of it."""

import sys

import pytest

from tests.docker.compose import ComposeCluster, run

pytestmark = pytest.mark.timeout(600)


async def test_the_scenario_passes_against_the_compose_cluster(cluster: ComposeCluster) -> None:
    told = await run(
        *(sys.executable, "-m", "client.test_scenario"),
        *(f"{node}={url}" for node, url in cluster.urls.items()),
        *("--kill", "tools/compose-node kill {node}"),
        *("--start", "tools/compose-node start {node}"),
        env=cluster.env,
        max_s=400,
    )
    assert "6 of 6 steps passed, 0 skipped, 0 failed" in told
