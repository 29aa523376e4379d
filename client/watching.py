"""What happens in a cluster, told as it happens, by whichever node can.

What it is: `watch`, and what it tells: `Begin`, `KeyState`, `Cut` and `Change`.

What it assumes and guarantees: an id of a node's event covers just what was told up to it, and any
node goes on from it. So a watcher that changes its node is told each write once, in causal order.
What it has been told is part of its session.

What it does not know: which nodes there are, and how a stream travels.

Where the idea is from: `EventSource` of the HTML standard.
"""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from client import answers
from client.answers import Answer, Version
from client.context import Context
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
    """What a write did to one key. A delete has no value, and no content type."""

    key: str
    value: bytes | None
    content_type: str | None

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


async def watch(
    route: Route,
    context: Context,
    *,
    prefix: str,
    since: str,
    timeout_s: float,
    patience_s: float,
) -> AsyncGenerator[Watched, None]:
    """What happens after `since`; if that is empty, first the state.

    Raises BadInput, Lost, TooFarBack; NotApplied once no node has told anything for `timeout_s`.
    """
    loop = asyncio.get_running_loop()
    place = "" if since == NOW else since
    is_cut = False
    failures: dict[str, NotApplied | TooFarBack] = {}
    told_at, pause_s = loop.time(), PAUSE_MIN_S
    while True:
        is_told = False
        for node in route.order():
            carried = () if place else context.carried()
            request = _request(prefix, since, place)
            try:
                stream = route.stream(request, node, carried, patience_s)
                async with aclosing(stream):
                    async for event in _events(stream):
                        if event.kind == "end":
                            error = _why(request, event, node)
                            route.failed(node, error)
                            raise error
                        is_new = event.kind in ("state", "write")
                        if event.id and event.id != place:
                            context.answered((place,) if place else carried, event.id)
                            place, is_new = event.id, True
                        if is_new:
                            is_told, pause_s = True, PAUSE_MIN_S
                            failures.clear()
                        told_at = loop.time()
                        if (told := _read(event, node)) and not (is_cut and isinstance(told, Cut)):
                            is_cut = is_cut or isinstance(told, Cut)
                            yield told
                            told_at = loop.time()
            except Lost as lost:
                lost.carried = (place,) if place else carried
                raise
            except (NotApplied, TooFarBack) as failure:
                failures[node] = failure
            if is_told:
                break
        if is_told:
            continue
        pause = random.uniform(pause_s / 2, pause_s)
        pause_s = min(2 * pause_s, PAUSE_MAX_S)
        is_late = loop.time() + pause > told_at + timeout_s
        if is_late or all(isinstance(failure, TooFarBack) for failure in failures.values()):
            raise min(failures.values(), key=lambda failure: _TELLING.index(type(failure)))
        await asyncio.sleep(pause)


_TELLING: Sequence[type[LightconeError]] = (TooFarBack, NotCaughtUp, NotApplied, Unreachable)


@dataclass(frozen=True, slots=True)
class _Event:
    kind: str
    data: str
    id: str

    def read(self) -> dict[str, Any]:
        read = json.loads(self.data)
        if not isinstance(read, dict):
            raise ValueError("not a JSON object")
        return read


def _request(prefix: str, since: str, place: str) -> Request[None]:
    query = {"prefix": prefix} if prefix else {}
    if not place and since:
        query["since"] = since
    return Request(
        name=f"watch {prefix!r}",
        method="GET",
        path="/watch",
        query=query,
        headers={"Last-Event-ID": place} if place else {},
        read=answers.nothing,
    )


async def _events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[_Event, None]:
    """The events in what a node streams; also those without data that only tell an id."""
    rest = b""
    async for chunk in chunks:
        *blocks, rest = (rest + chunk).split(b"\n\n")
        for block in blocks:
            fields = {"event": "", "data": "", "id": ""}
            for line in block.decode().split("\n"):
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            yield _Event(fields["event"], fields["data"], fields["id"])


def _why(request: Request[None], event: _Event, node: str) -> LightconeError:
    """The error that the node's stream ended with."""
    try:
        problem = event.read()
        return refusal(request, Answer(node, int(problem["status"]), {}, b""), problem)
    except (LookupError, TypeError, ValueError) as error:
        return _strange(node, error)


def _strange(node: str, error: Exception) -> Unreachable:
    return Unreachable(f"{node} does not tell as a Lightcone node does ({error!r})")


def _read(event: _Event, node: str) -> Watched | None:
    """What the event tells, if anything.

    Raises Unreachable for what no node says.
    """
    try:
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
    except (LookupError, TypeError, ValueError) as error:
        raise _strange(node, error) from error


def _operation(said: Mapping[str, Any]) -> Operation:
    if "delete" in said:
        return Operation(str(said["delete"]), None, None)
    return Operation(str(said["put"]), answers.shown_value(said), str(said["content_type"]))
