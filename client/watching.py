"""What happens in a cluster, told as it happens, by whichever node can.

What it is: `Watcher`, and what it tells: `Begin`, `KeyState`, `Cut` and `Change`.

What it assumes and guarantees: an id of a node's event covers just what was told up to it, and any
node goes on from it. So a watcher that changes its node is told each write once, in causal order.
What it has been told is part of its session.

What it does not know: which nodes there are, and how a stream travels.

Where the idea is from: `EventSource` of the HTML standard.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from client import answers
from client.answers import STRANGE, Answer, Version
from client.context import Context, is_context
from client.errors import LightconeError, Lost, NotApplied, NotCaughtUp, TooFarBack, Unreachable
from client.failover import PAUSE_MAX_S, PAUSE_MIN_S, Route
from client.transport import Request, refusal

NOW = "now"


@dataclass(frozen=True, slots=True)
class Begin:
    """The state comes, from its beginning: what was told of it before, if anything, is void."""


@dataclass(frozen=True, slots=True)
class KeyState:
    """What a key held a moment ago: its versions, the winner first; none if it is absent.

    Of several states of one key the last counts. At the next `Cut` all of them are of one instant.
    """

    key: str
    siblings: Sequence[Version]


@dataclass(frozen=True, slots=True)
class Cut:
    """All that `clock` covers has been told, or is what the watcher begins after; from here on it
    is told every write. `context` is a place to go on from."""

    clock: Mapping[str, int]
    context: str


@dataclass(frozen=True, slots=True)
class Operation:
    """What a write did to one key. A delete has no value, and no content type. What a put gives it
    will be gone when it `expires`, in microseconds since 1970, None for never; that is not told
    again when it comes."""

    key: str
    value: bytes | None
    content_type: str | None
    expires: int | None = None

    @property
    def is_delete(self) -> bool:
        return self.value is None

    @property
    def text(self) -> str:
        """The value as text.

        Raises ValueError when it is none of the charset of its type, or there is no value.
        """
        if self.value is None or self.content_type is None:
            raise ValueError(f"{self.key!r} was deleted")
        return answers.text_of(self.value, self.content_type)


@dataclass(frozen=True, slots=True)
class Change:
    """A write, as a whole: all that it did to keys with the prefix, under one dot.

    `origin` is the id of the node that made it, `dependencies` that node's clock just before.
    `context` covers all that has been told, this included: a place to go on from, and what a
    session has to have seen that is to read it.
    """

    dot: str
    origin: str
    timestamp: int
    dependencies: Mapping[str, int]
    operations: Sequence[Operation]
    context: str


Watched = Begin | KeyState | Cut | Change


class Watcher:
    """Tells what happens after `since`; if that is empty, first the state."""

    def __init__(
        self,
        route: Route,
        context: Context,
        *,
        prefix: str,
        since: str,
        timeout_s: float,
        patience_s: float,
    ) -> None:
        self._route = route
        self._context = context
        self._prefix = prefix
        self._since = since
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._place = "" if since == NOW else since
        self._is_cut = self._has_moved = False
        self._heard_at = 0.0

    async def watch(self) -> AsyncGenerator[Watched, None]:
        """What happens, each thing once, from whichever node tells it.

        Raises BadInput, Lost; TooFarBack; and NotApplied when no node has told anything for
        `timeout_s`.
        """
        self._heard_at = asyncio.get_running_loop().time()
        pause_s = PAUSE_MIN_S
        while True:
            failures: dict[str, NotApplied | TooFarBack] = {}
            for node in self._route.order():
                self._has_moved = False
                try:
                    async with aclosing(self._told_by(node)) as told_by_node:
                        async for told in told_by_node:
                            yield told
                except (NotApplied, TooFarBack) as failure:
                    failures[node] = failure
                if self._has_moved:
                    pause_s = PAUSE_MIN_S
                    break
            else:
                await self._pause(pause_s, list(failures.values()))
                pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def _told_by(self, node: str) -> AsyncGenerator[Watched, None]:
        """What this node tells, until it does not. Always raises in the end."""
        loop = asyncio.get_running_loop()
        # What the session has seen, the state or the beginning covers; then the place says it all.
        carried = () if self._place else self._context.carried()
        request = self._request()
        stream = self._route.stream(request, node, carried, self._patience_s)
        try:
            async with aclosing(stream):
                async for event in _events(stream, node):
                    if event.kind == "end":
                        error = _why(request, event, node)
                        self._route.failed(node, error)
                        raise error
                    told = _read(event, node)
                    self._move(event, carried)
                    self._heard_at = loop.time()
                    if told is None or (self._is_cut and isinstance(told, Cut)):
                        continue  # it goes on, which is no news
                    self._is_cut = self._is_cut or isinstance(told, Cut)
                    yield told
                    self._heard_at = loop.time()  # however long that took
        except Lost as lost:
            lost.carried = (self._place,) if self._place else carried
            raise

    def _move(self, event: "_Event", carried: tuple[str, ...]) -> None:
        """The event is told: from here on it goes on, and the session has seen it."""
        if event.id and event.id != self._place:
            self._context.answered((self._place,) if self._place else carried, event.id)
            self._place = event.id
            self._has_moved = True  # which a state has not that may have to begin anew

    async def _pause(self, pause_s: float, failures: Sequence[NotApplied | TooFarBack]) -> None:
        """No node could go on: wait, or raise the failure that tells most."""
        loop = asyncio.get_running_loop()
        pause = random.uniform(pause_s / 2, pause_s)
        is_late = loop.time() + pause > self._heard_at + self._timeout_s
        if is_late or all(isinstance(failure, TooFarBack) for failure in failures):
            raise min(failures, key=lambda failure: _TELLING.index(type(failure)))
        await asyncio.sleep(pause)

    def _request(self) -> Request[None]:
        query = {"prefix": self._prefix} if self._prefix else {}
        if not self._place and self._since:
            query["since"] = self._since
        return Request(
            name=f"watch {self._prefix!r}",
            method="GET",
            path="/watch",
            query=query,
            headers={"Last-Event-ID": self._place} if self._place else {},
            read=answers.nothing,
        )


_TELLING: Sequence[type[LightconeError]] = (TooFarBack, NotCaughtUp, NotApplied, Unreachable)


@dataclass(frozen=True, slots=True)
class _Event:
    kind: str
    data: str
    id: str

    def read(self) -> dict[str, Any]:
        return answers.json_object(self.data)


async def _events(chunks: AsyncIterator[bytes], node: str) -> AsyncGenerator[_Event, None]:
    """The events in what a node streams; also those without data that only tell an id.

    Raises Unreachable for what is no text.
    """
    rest = b""
    async for chunk in chunks:
        *blocks, rest = (rest + chunk).split(b"\n\n")
        for block in blocks:
            fields = {"event": "", "data": "", "id": ""}
            try:
                lines = block.decode().split("\n")
            except UnicodeDecodeError as error:
                raise _strange(node, error) from error
            for line in lines:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            yield _Event(fields["event"], fields["data"], fields["id"])


def _why(request: Request[None], event: _Event, node: str) -> LightconeError:
    """The error that the node's stream ended with."""
    try:
        problem = event.read()
        return refusal(request, Answer(node, int(problem["status"]), {}, b""), problem)
    except STRANGE as error:
        return _strange(node, error)


def _strange(node: str, error: Exception) -> Unreachable:
    return Unreachable(f"{node} does not tell as a Lightcone node does ({error!r})")


def _read(event: _Event, node: str) -> Watched | None:
    """What the event tells, if anything.

    Raises Unreachable for what no node says.
    """
    try:
        if event.id and not is_context(event.id):
            raise ValueError("an id that is no context")
        match event.kind:
            case "begin":
                return Begin()
            case "state":
                said = event.read()
                etag = str(said["etag"] or "")
                versions = answers.shown_versions(said["key"], said["siblings"], etag, node)
                return KeyState(str(said["key"]), versions)
            case "cut":
                return Cut(dict(event.read()["clock"]), event.id)
            case "write":
                said = event.read()
                return Change(
                    dot=str(said["dot"]),
                    origin=str(said["node"]),
                    timestamp=int(said["timestamp"]),
                    dependencies=dict(said["dependencies"]),
                    operations=tuple(map(_operation, said["operations"])),
                    context=event.id,
                )
            case _:
                return None
    except STRANGE as error:
        raise _strange(node, error) from error


def _operation(said: Mapping[str, Any]) -> Operation:
    if "delete" in said:
        return Operation(str(said["delete"]), None, None)
    value, expires = answers.shown_value(said), answers.shown_expiry(said)
    return Operation(str(said["put"]), value, str(said["content_type"]), expires)
