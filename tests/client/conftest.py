"""Nodes, fake and real, started and stopped around each test, and clients."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from client import Lightcone
from tests.client.fake_node import FakeNode
from tests.one_node import Client, node_a


@pytest.fixture
async def a() -> AsyncIterator[FakeNode]:
    node = FakeNode("A")
    await node.start()
    yield node
    await node.stop()


@pytest.fixture
async def b() -> AsyncIterator[FakeNode]:
    node = FakeNode("B")
    await node.start()
    yield node
    await node.stop()


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Client]:
    """A real node A, alone, and empty."""
    async with node_a(redis_url) as node:
        yield node


@pytest.fixture
async def kv(node: Client) -> AsyncIterator[Lightcone]:
    """A session at the real node."""
    async with Lightcone([str(node.make_url("/"))]) as kv:
        yield kv


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits for a condition, up to a generous deadline."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    return wait
