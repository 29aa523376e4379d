"""What `GET /watch` streams, read as the events that it is, for tests.

What it is: `Event`, and `watching`, a stream of them. What it assumes and guarantees: it reads as
the HTML standard says, and knows nothing of the client of this project. What it does not know: what
the events mean.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass(frozen=True)
class Event:
    """One event, and the last id that there was when it came."""

    kind: str
    data: dict[str, Any]
    id: str


@dataclass
class Stream:
    """The events of one answer. `id` is the last one that came, also with no event."""

    response: aiohttp.ClientResponse
    id: str = ""
    comments: int = 0
    _ready: list[Event] = field(default_factory=list)
    _rest: bytes = b""

    async def next(self, within_s: float = 20) -> Event:
        """The next event. Raises EOFError at the end of the stream."""
        async with asyncio.timeout(within_s):
            while not self._ready:
                chunk = await self.response.content.readany()
                if not chunk:
                    raise EOFError
                self._feed(chunk)
        return self._ready.pop(0)

    async def take(self, count: int) -> list[Event]:
        return [await self.next() for _ in range(count)]

    async def until(self, kind: str) -> list[Event]:
        """The events up to the next of this kind, which is the last of them."""
        events = [await self.next()]
        while events[-1].kind != kind:
            events.append(await self.next())
        return events

    async def until_comment(self) -> None:
        """A comment has come, and no event."""
        seen = self.comments
        async with asyncio.timeout(20):
            while self.comments == seen:
                self._feed(await self.response.content.readany())
        assert not self._ready

    def _feed(self, chunk: bytes) -> None:
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        for block in blocks:
            fields: dict[str, str] = {}
            for line in block.decode().split("\n"):
                name, _, value = line.partition(":")
                if not name:
                    self.comments += 1
                fields[name] = value.removeprefix(" ")
            self.id = fields.get("id", self.id)
            if "data" in fields:
                self._ready.append(Event(fields["event"], json.loads(fields["data"]), self.id))


@asynccontextmanager
async def watching(http: Any, url: Any, last_id: str = "", **headers: str) -> AsyncIterator[Stream]:
    """The stream at this URL, which was not refused."""
    if last_id:
        headers["Last-Event-ID"] = last_id
    # A test says itself how long it waits.
    timeout = aiohttp.ClientTimeout(total=None)
    async with http.get(url, headers=headers, timeout=timeout) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield Stream(response, last_id)


def dots(events: list[Event]) -> list[str]:
    """The writes that were told."""
    return [event.data["dot"] for event in events if event.kind == "write"]
