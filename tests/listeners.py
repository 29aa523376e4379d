"""Workers, as far as they listen to what their node applies."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.conftest import Store


@asynccontextmanager
async def listeners(store: Store, count: int) -> AsyncIterator["Listener"]:
    """So many workers listen; the result is what one of them hears."""
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(store.redis.pubsub()) for _ in range(count)]
        for channel in channels:
            await channel.subscribe(store.keys.applied_channel)
            assert (await channel.get_message(timeout=20))["type"] == "subscribe"
        yield Listener(store, channels[0])


class Listener:
    """What one worker hears."""

    def __init__(self, store: Store, channel: Any) -> None:
        self._store = store
        self._channel = channel

    async def hears(self) -> list[bytes]:
        """All that it was told, and had not heard before."""
        await self._store.redis.publish(self._store.keys.applied_channel, "so far")
        said: list[bytes] = []
        while not said or said[-1] != b"so far":
            said.append((await self._channel.get_message(timeout=20))["data"])
        return said[:-1]
