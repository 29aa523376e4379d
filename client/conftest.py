"""The stage for the scenario's steps, when pytest runs them.

The cluster is one of its own for the whole module, or the running one that SCENARIO_NODES names
(`A=http://...,B=...`); SCENARIO_KILL and SCENARIO_START are then the commands for the crash step.
"""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from rich.console import Console

from client.scenario_cluster import Cluster, OwnCluster, RunningCluster
from client.scenario_stage import Stage
from client.test_scenario import named_nodes


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes or more, ready."""
    if running := os.environ.get("SCENARIO_NODES"):
        kill, start = (os.environ.get(f"SCENARIO_{verb}", "") for verb in ("KILL", "START"))
        yield RunningCluster(named_nodes(running.split(",")), kill, start)
    else:
        # A directory of pytest's, which is kept for a while in case a step fails.
        cluster = OwnCluster(tmp_path_factory.mktemp("cluster"))
        yield cluster
        cluster.stop()


@pytest.fixture
async def stage(cluster: Cluster) -> AsyncIterator[Stage]:
    """A run of its own over the cluster."""
    async with Stage(cluster, Console()) as stage:
        await stage.check_names()
        yield stage
