"""Clients that write to one node while its Redis is in trouble, and what Redis holds after it.

What it assumes and guarantees: every answer is kept: what was acknowledged, and what was refused.

What it does not know: which trouble that is.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.processes import until
from tests.redis_processes import RedisProcess

CLIENTS = 3
#: Between a client's writes: enough to be in the middle of one, and little to compare afterwards.
PAUSE_S = 0.02


@dataclass
class Writers:
    """Clients of one node that write for as long as they may, and keep what they were told."""

    name: str
    url: str
    http: aiohttp.ClientSession
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Key -> dot."""
    refused: set[str] = field(default_factory=set)
    """Keys of writes that were not applied."""
    problems: list[dict[str, Any]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    async def _client(self) -> None:
        while not self._stop.is_set():
            await self.write()
            await asyncio.sleep(PAUSE_S)

    def stop(self) -> None:
        self._stop.set()

    async def write(self) -> dict[str, Any]:
        """One write; the problem that it met, empty if it met none."""
        key = f"{self.name}-{next(self._numbers)}"
        async with self.http.put(f"{self.url}/kv/{key}", data=key) as response:
            answer: dict[str, Any] = json.loads(await response.text())
            if response.status == 200:
                self.acknowledged[key] = answer["dot"]
                return {}
            assert response.status == 503, answer
            if answer["outcome"] == "not_applied":
                self.refused.add(key)
            self.problems.append(answer)
            return answer

    async def more(self, count: int = 10) -> None:
        """So many more were acknowledged."""
        goal = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= goal)


@asynccontextmanager
async def writing(*all_writers: Writers) -> AsyncIterator[None]:
    """They write, and have ended after it."""
    async with asyncio.TaskGroup() as tasks:
        for writers in all_writers:
            tasks.create_task(writers.run())
        try:
            yield
        finally:
            for writers in all_writers:
                writers.stop()


async def held(redis: RedisProcess, pattern: str) -> dict[str, Any]:
    """What it holds under the pattern."""
    with redis.client() as admin:
        keys = [key for key in admin.keys(pattern) if not key.startswith(b"kv:filling-")]
        kinds = {key: admin.type(key) for key in keys}
        return {
            key.decode(): admin.xrange(key) if kinds[key] == b"stream" else admin.hgetall(key)
            for key in sorted(keys)
        }
