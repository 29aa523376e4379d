"""One compose cluster for all tests of containers. They run only when this folder is asked for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from client import Lightcone
from tests.docker.compose import ComposeCluster, why_no_engine
from tests.load import Load

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make test` does without containers; `make test-docker` names this folder."""
    named = [
        (config.invocation_params.dir / arg.partition("::")[0]).resolve() for arg in config.args
    ]
    return None if any(path.is_relative_to(HERE) for path in named) else True


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """A Docker engine answers; else everything here is skipped, and says why."""
    if reason := why_no_engine():
        pytest.skip(reason)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running(engine: None) -> AsyncIterator[ComposeCluster]:
    """Nodes A, B and C, as deploy/docker-compose.yml has them."""
    cluster = ComposeCluster()
    try:
        await cluster.build()
        await cluster.up()
        yield cluster
    finally:
        await cluster.down()


@pytest.fixture
async def cluster(running: ComposeCluster) -> AsyncIterator[ComposeCluster]:
    """The cluster, whole; and made whole again after a test that failed half-way."""
    await running.mend()
    yield running
    await running.mend()


@pytest.fixture
async def kv(cluster: ComposeCluster) -> AsyncIterator[Lightcone]:
    async with Lightcone(list(cluster.urls.values()), timeout_s=30, patience_s=20) as kv:
        yield kv


@pytest.fixture
def load(cluster: ComposeCluster, kv: Lightcone, request: pytest.FixtureRequest) -> Load:
    """Clients that have not begun yet, with keys of this test's own."""
    return Load(kv, cluster.urls, request.node.name)
