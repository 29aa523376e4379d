"""Fake nodes, started and stopped around each test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.client.fake_node import FakeNode


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
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits for a condition, up to a generous deadline."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    return wait
