"""A node in a hundred lines, for testing the client.

What it is: `FakeNode`, an aiohttp application that answers as the HTTP interface says, and can be
told to misbehave.

What it assumes and guarantees: one version a key, everything in memory. It joins all the contexts
of a request, refuses what it has not seen, and keeps a note of every request.

What it does not know: Redis, peers (a test copies one node's state to another with `learn`), time.

Where the idea is from: fakes rather than mocks; Maelstrom's errors.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

Clock = dict[str, int]
Misbehaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Seen:
    """A request, as the node saw it."""

    method: str
    path: str
    query: dict[str, str]
    context: str
    content_type: str
    body: bytes
    idempotency_key: str = ""
    prefer: str = ""


@dataclass(frozen=True)
class Stored:
    value: bytes
    content_type: str
    dot: str


def token(clock: Clock) -> str:
    return "lc1;" + ";".join(f"{actor}:{clock[actor]}" for actor in sorted(clock))


def joined(tokens: str) -> Clock:
    clock: Clock = {}
    for one in filter(None, tokens.split(",")):
        for entry in filter(None, one.strip().removeprefix("lc1;").split(";")):
            actor, _, sequence = entry.partition(":")
            clock[actor] = max(clock.get(actor, 0), int(sequence))
    return clock


def problem(kind: str, status: int, **more: object) -> web.Response:
    body = {
        "type": f"urn:lightcone:{kind}",
        "title": kind,
        "status": status,
        "detail": kind,
        **more,
    }
    return web.json_response(body, status=status, content_type="application/problem+json")


class FakeNode:
    """A node at `url`, once started."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.clock: Clock = {}
        #: The last dot of its deferred writes, which it never does.
        self.given = 0
        self.stored: dict[str, Stored] = {}
        #: Dots beside the stored one, by key: of versions that this fake cannot show.
        self.siblings_of: dict[str, list[str]] = {}
        self.seen: list[Seen] = []
        self.faults: dict[str, Any] = {}
        #: What to do with the next requests, instead of serving them.
        self.misbehaviours: deque[Misbehaviour] = deque()
        self.port = 0
        self._learned = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """It listens, after a stop on the same port as before."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Nobody can connect to it."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def learn(self, other: "FakeNode") -> None:
        """It has everything that the other has."""
        async with self._learned:
            self.stored = other.stored | self.stored
            for actor, sequence in other.clock.items():
                self.clock[actor] = max(self.clock.get(actor, 0), sequence)
            self._learned.notify_all()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(
            Seen(
                request.method,
                request.raw_path,
                dict(request.query),
                request.headers.get("Causal-Context", ""),
                request.headers.get("Content-Type", ""),
                await request.read(),
                request.headers.get("Idempotency-Key", ""),
                request.headers.get("Prefer", ""),
            )
        )
        if self.misbehaviours:
            return await self.misbehaviours.popleft()(request)
        path = request.match_info["path"]
        if path.startswith("kv/"):
            return await self._serve_key(request, path.removeprefix("kv/"))
        if path.startswith("faults/"):
            return self._serve_fault(request.method, path.removeprefix("faults/"))
        if path == "status":
            return web.json_response(self._status())
        if path == "pending":
            nothing = {"total": 0, "writes": [], "deferred_total": 0, "deferred": []}
            return web.json_response(nothing)
        if path == "readyz":
            return web.json_response({"status": "ready"})
        return problem("not-found", 404, outcome="not_applied")

    async def _serve_key(self, request: web.Request, key: str) -> web.StreamResponse:
        context = joined(request.headers.get("Causal-Context", ""))
        try:
            async with asyncio.timeout(float(request.query["wait"])), self._learned:
                await self._learned.wait_for(lambda: self._covers(context))
        except TimeoutError:
            missing = [
                {"dot": f"{actor}:{sequence}", "known_for_s": 0.5}
                for actor, sequence in context.items()
                if sequence > self.clock.get(actor, 0)
            ]
            if request.method != "GET" and request.headers.get("Prefer") == "respond-async":
                return self._accept(context, [str(one["dot"]) for one in missing])
            return problem("not-caught-up", 503, outcome="not_applied", missing=missing)
        if request.method == "GET":
            return self._read(request, key, context)
        return await self._write(request, key, context)

    def _read(self, request: web.Request, key: str, context: Clock) -> web.Response:
        stored = self.stored.get(key)
        if stored is None:
            missed = problem("no-such-key", 404, outcome="not_applied")
            missed.headers["Causal-Context"] = token(self._join(context, self.clock))
            return missed
        dots = sorted([stored.dot, *self.siblings_of.get(key, ())])
        headers = {
            "Causal-Context": token(self._join(context, joined(f"lc1;{stored.dot}"))),
            "ETag": f'"{",".join(dots)}"',
            "Siblings": str(len(dots)),
            "Dot": stored.dot,
            "Content-Type": stored.content_type,
        }
        if "siblings" not in request.query:
            return web.Response(body=stored.value, headers=headers)
        sibling = {"dot": stored.dot, "content_type": stored.content_type, "timestamp": "1"}
        try:
            sibling["text"] = stored.value.decode()
        except UnicodeDecodeError:
            # The bytes of the tests below, in base64.
            sibling["base64"] = "//4="
        body = json.dumps({"key": key, "winner": stored.dot, "siblings": [sibling]})
        headers["Content-Type"] = "application/json"
        return web.Response(text=body, headers=headers)

    async def _write(self, request: web.Request, key: str, context: Clock) -> web.Response:
        sequence = self.clock[self.name] = self.clock.get(self.name, 0) + 1
        dot = f"{self.name}:{sequence}"
        context = self._join(context, {self.name: sequence})
        headers = {"Causal-Context": token(context), "Dot": dot}
        if request.method == "DELETE":
            self.stored.pop(key, None)
            return web.Response(status=204, headers=headers)
        self.stored[key] = Stored(await request.read(), request.headers["Content-Type"], dot)
        body = {"key": key, "dot": dot, "clock": self.clock}
        return web.json_response(body, headers=headers)

    def _accept(self, context: Clock, waiting_for: list[str]) -> web.Response:
        self.given += 1
        dot = f"{self.name}+:{self.given}"
        context = self._join(context, {f"{self.name}+": self.given})
        headers = {
            **{"Causal-Context": token(context), "Dot": dot},
            "Preference-Applied": "respond-async",
        }
        body = {"dot": dot, "waiting_for": waiting_for}
        return web.json_response(body, status=202, headers=headers)

    def _status(self) -> dict[str, Any]:
        return {
            **{"node": self.name, "actor": self.name, "incarnation": None, "version": "fake"},
            **{"clock": self.clock, "timestamp": 0, "pending": {"total": 0, "by_actor": {}}},
            "deferred": {
                **{"total": 0, "bytes": 0, "next": None, "waiting_for": [], "since_s": None}
            },
            "log": {"entries": 0, "bytes": 0, "stable": {}, "held_back_by": []},
            **{"snapshot": None, "peers": {}, "removed": [], "limits": {}},
        }

    def _serve_fault(self, method: str, peer: str) -> web.Response:
        if method == "DELETE":
            self.faults.pop(peer, None)
            return web.Response(status=204)
        self.faults[peer] = json.loads(self.seen[-1].body)
        return web.json_response(self.faults[peer])

    def _covers(self, context: Clock) -> bool:
        return all(self.clock.get(actor, 0) >= sequence for actor, sequence in context.items())

    @staticmethod
    def _join(one: Clock, other: Clock) -> Clock:
        return {
            actor: max(one.get(actor, 0), other.get(actor, 0))
            for actor in one.keys() | other.keys()
        }


def refuses(kind: str, status: int, **more: object) -> Misbehaviour:
    """The node answers with this problem, having done nothing."""

    async def misbehave(request: web.Request) -> web.StreamResponse:
        return problem(kind, status, **more)

    return misbehave


def loses(actor: str, after: int) -> Misbehaviour:
    """The node says that what the request has seen of `actor` after `after` is lost."""

    async def misbehave(request: web.Request) -> web.StreamResponse:
        context = joined(request.headers["Causal-Context"])
        losses = [{"actor": actor, "after": after, "through": context[actor]}]
        refusal = problem("lost", 410, outcome="not_applied", lost=losses)
        refusal.headers["Causal-Context"] = token({**context, actor: after})
        return refusal

    return misbehave


def answers(status: int, text: str = "", **headers: str) -> Misbehaviour:
    """Something that is no node answers."""

    async def misbehave(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers=headers)

    return misbehave


async def breaks_off(request: web.Request) -> web.StreamResponse:
    """The connection ends, after the request was read and before it is answered."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


class Holds:
    """The node keeps requests waiting until they are released, then serves them."""

    def __init__(self, node: FakeNode) -> None:
        self._node = node
        self._released = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        await self._released.wait()
        return await self._node._serve_key(request, request.match_info["path"].removeprefix("kv/"))

    def release(self) -> None:
        self._released.set()
