"""The network of the simulation: requests in memory, and links with a weather.

What it is: `Network` carries batches between nodes (it gives each worker its `Exchange`) and
requests of clients to nodes. `call` is one HTTP request without a socket,
and a `Stream` what one answers that does not end.

What it assumes and guarantees: bodies are really encoded and handled by the node's own HTTP
handlers. Of a message each way may be late, lost, repeated, or held back until its sender has given
up; a cut link lets nothing through, and a narrow one so many bytes a second, in the order in which
they were sent. A request that reached a worker is carried on with when its
sender gives up, and ends with the worker that handles it.

What it does not know: what the bodies say.

Where the idea is from: etcd raft's rafttest network; TigerBeetle's packet simulator.
"""

import asyncio
import contextvars
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, cast

from aiohttp import HttpVersion11, streams, web
from aiohttp.http_parser import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from app import wire
from app.carriers import signed_with
from app.errors import BadBatch, PeerRefused, PeerTooSlow, PeerUnreachable
from app.interface import Interface
from app.patience import Patience
from app.peers import Bases, Exchange, Signer, raise_for
from app.wire import Answer, Batch
from tests.simulation.steps import FINE, Weather
from tests.simulation.storage import Life

BODY_MAX: Final = 2**24

LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)
"""Whose task this is; None for what is no worker's."""


class ConnectionReset(Exception):
    """Nobody answers, and nobody will: it was refused, or its worker died over it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def call(
    interface: Interface,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    stream: "Stream | None" = None,
) -> Reply:
    """The response of `interface` to one request; what it streams, if wanted, is in `stream`."""
    loop = asyncio.get_running_loop()
    protocol = cast(Any, _PROTOCOL if stream is None else stream.connection)
    payload = streams.StreamReader(protocol, BODY_MAX, loop=loop)
    payload.feed_data(body)
    payload.feed_eof()
    fields = CIMultiDict({"Host": "simulation", "Content-Length": str(len(body)), **headers})
    message = RawRequestMessage(
        *(method, path, HttpVersion11, CIMultiDictProxy(fields), ()),
        *(False, None, False, False, URL(path, encoded=True)),
    )
    task = cast(Any, asyncio.current_task())
    request = web.BaseRequest(message, payload, protocol, cast(Any, stream), task, loop)
    response = await interface.answer(request)
    content = getattr(response, "body", None)
    return Reply(response.status, response.headers, content if isinstance(content, bytes) else b"")


def _connection(**more: Any) -> SimpleNamespace:
    """As much of a connection as a request asks for."""
    return SimpleNamespace(
        ssl_context=None,
        peername=None,
        sockname=None,
        pause_reading=lambda: None,
        resume_reading=lambda **_options: None,
        **more,
    )


_PROTOCOL: Final = _connection()


class Stream:
    """An answer that comes piece by piece: to its reader `next`, to aiohttp what it writes to."""

    buffer_size = output_size = 0

    def __init__(self, life: Life) -> None:
        self.connection = _connection(transport=object())
        self._life = life
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.head: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        """The answer, if it is no stream; None if it is."""

    async def next(self) -> bytes:
        """The next piece. Raises EOFError at the end."""
        chunk = await self._chunks.get()
        if chunk is None:
            raise EOFError
        return chunk

    def close(self) -> None:
        """The reader has gone."""
        self.connection.transport = None

    def end(self, reply: Reply | None) -> None:
        """No more will come; this is the answer, if its handler came to an end."""
        if not self.head.done():
            if reply is None:
                self.head.set_exception(ConnectionReset("connection reset"))
            else:
                self.head.set_result(reply)
        self._chunks.put_nowait(None)

    # What aiohttp asks of a writer.

    def enable_chunking(self) -> None: ...

    async def write_headers(self, *_: Any) -> None:
        if not self.head.done():
            self.head.set_result(None)

    def send_headers(self) -> None: ...

    async def write(self, chunk: bytes) -> None:
        if not await self._life.goes_on() or self.connection.transport is None:
            raise ConnectionResetError
        self._chunks.put_nowait(chunk)


class Network:
    """All links between the nodes, and the workers that answer at each."""

    def __init__(self, rng_for: Callable[[str], random.Random], signer: Signer) -> None:
        self._rng_for = rng_for
        self._signer = signer
        self._weather: dict[tuple[str, str], Weather] = {}
        self._widths: dict[tuple[str, str], float] = {}
        self._free_at: dict[tuple[str, str], float] = {}
        """When all that was sent before has left, on links that are narrow."""
        self._rngs: dict[tuple[str, str], random.Random] = {}
        self._serving: dict[str, dict[Life, Interface]] = {}
        self.note: Callable[[str], None] = lambda _text: None

    # --- workers ---------------------------------------------------------------------------------

    def serve(self, life: Life, interface: Interface) -> None:
        """The worker answers requests to its node, until it dies."""
        self._serving.setdefault(life.node, {})[life] = interface

    def stop(self, life: Life) -> None:
        """The worker answers no longer."""
        self._serving.get(life.node, {}).pop(life, None)

    async def ask(
        self,
        node: str,
        rng: random.Random,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Reply:
        """What one of the node's workers answers.

        Raises ConnectionReset.
        """
        serving = self._serving.get(node)
        if not serving:
            raise ConnectionReset("connection refused")
        life, interface = rng.choice(list(serving.items()))
        # In the worker's name, and by a task of its own: it goes on when the asker gives up.
        context = contextvars.copy_context()
        context.run(LIFE.set, life)
        handling = asyncio.get_running_loop().create_task(
            self._handle(life, interface, method, path, headers, body), context=context
        )
        try:
            await asyncio.wait([handling])
            if handling.cancelled() or not life.alive:
                raise ConnectionReset("connection reset")
            return handling.result()
        finally:
            # What nobody waits for is still looked at, so that the loop does not complain.
            handling.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def stream(
        self, node: str, rng: random.Random, path: str, headers: Mapping[str, str]
    ) -> Stream:
        """What one of the node's workers streams, or else answers.

        Raises ConnectionReset.
        """
        serving = self._serving.get(node)
        if not serving:
            raise ConnectionReset("connection refused")
        life, interface = rng.choice(list(serving.items()))
        stream = Stream(life)
        context = contextvars.copy_context()
        context.run(LIFE.set, life)
        handling = asyncio.get_running_loop().create_task(
            self._handle(life, interface, "GET", path, headers, b"", stream), context=context
        )

        def end(task: "asyncio.Task[Reply]") -> None:
            failed = task.cancelled() or task.exception() or not life.alive
            stream.end(None if failed else task.result())

        handling.add_done_callback(end)
        return stream

    @staticmethod
    async def _handle(
        life: Life,
        interface: Interface,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        stream: Stream | None = None,
    ) -> Reply:
        await life.goes_on()
        reply = await call(interface, method, path, headers, body, stream)
        await life.goes_on()
        return reply

    # --- links -----------------------------------------------------------------------------------

    def set_weather(self, source: str, target: str, weather: Weather) -> None:
        """From now on what `source` sends to `target` has this weather."""
        self._weather[source, target] = weather

    def set_width(self, source: str, target: str, bytes_per_s: float) -> None:
        """No more passes from `source` to `target` than that, whatever the weather."""
        self._widths[source, target] = bytes_per_s

    def exchange(self, life: Life, timeout_s: float) -> Exchange:
        """The way of a worker to its peers."""

        bases = Bases()
        patience = Patience(timeout_s, asyncio.get_running_loop().time)

        async def exchange(url: str, batch: Batch) -> Answer:
            if not await life.goes_on():
                raise PeerUnreachable("this process is dead")
            try:
                with patience.waiting(batch) as patience_s:
                    async with asyncio.timeout(patience_s):
                        answer = await bases.exchange(batch, partial(self._carry, life, batch))
            except TimeoutError as error:
                raise PeerTooSlow(str(error)) from None
            except ConnectionReset as error:
                raise PeerUnreachable(str(error)) from None
            except BadBatch as error:
                raise PeerRefused(error.detail) from None
            if not await life.goes_on():
                raise PeerUnreachable("this process is dead")
            return answer

        return exchange

    async def _carry(self, life: Life, batch: Batch, body: bytes) -> bytes:
        there, back = (batch.sender, batch.receiver), (batch.receiver, batch.sender)
        rng = self._rng(there)
        weather = self._weather.get(there, FINE)
        what = f"{batch.sender}=>{batch.receiver} " + " ".join(str(w.dot) for w in batch.writes)
        if rng.random() < weather.repeat:
            self.note(f"{what} repeated")
            self._deliver_later(batch.receiver, body, self._delay_s(there) + rng.uniform(0, 0.5))
        if rng.random() < weather.late:
            self.note(f"{what} held back")
            self._deliver_later(batch.receiver, body, rng.uniform(0.3, 3))
            await self._never()
        await self._pass(there, what, len(body))
        reply = await self._ask(batch.receiver, body)
        if batch.part is not None and batch.part.cut is not None:
            life.has_sent_snapshot()
        await self._pass(back, f"answer to {what}", len(reply.body))
        raise_for(reply.status, reply.body)
        return reply.body

    async def _pass(self, way: tuple[str, str], what: str, size: int) -> None:
        """A message of so many bytes has come through, or else this never ends."""
        rng = self._rng(way)
        await self._squeeze(way, size)
        if self._is_lost(way):
            # Half the cuts are felt at once, the others only by silence.
            if self._weather[way].cut and rng.random() < 0.5:
                raise ConnectionReset("network is unreachable")
            self.note(f"{what} lost")
            await self._never()
        await asyncio.sleep(self._delay_s(way))
        if self._weather.get(way, FINE).cut:
            await self._never()

    async def _squeeze(self, way: tuple[str, str], size: int) -> None:
        """So many bytes have left, after those that were sent before. What is given up before that
        takes no more time."""
        if width := self._widths.get(way):
            loop = asyncio.get_running_loop()
            leaves_at = max(self._free_at.get(way, 0.0), loop.time()) + size / width
            self._free_at[way] = leaves_at
            try:
                await asyncio.sleep(leaves_at - loop.time())
            except asyncio.CancelledError:
                self._free_at[way] = loop.time()
                raise

    def _is_lost(self, way: tuple[str, str]) -> bool:
        weather = self._weather.get(way, FINE)
        return weather.cut or self._rng(way).random() < weather.loss

    def _deliver_later(self, node: str, body: bytes, delay_s: float) -> None:
        async def deliver() -> None:
            await asyncio.sleep(delay_s)
            try:
                await self._ask(node, body)
            except ConnectionReset:
                return

        context = contextvars.copy_context()
        context.run(LIFE.set, None)  # the network's own: it outlives the sender
        asyncio.get_running_loop().create_task(deliver(), context=context)

    async def _ask(self, node: str, body: bytes) -> Reply:
        headers = {"Content-Type": wire.CONTENT_TYPE, **signed_with(self._signer.signature(body))}
        return await self.ask(node, self._rng((node, "")), "POST", "/replicate", headers, body)

    async def _never(self) -> None:
        """Silence, until the one who waits gives up."""
        await asyncio.get_running_loop().create_future()

    def _delay_s(self, way: tuple[str, str]) -> float:
        weather = self._weather.get(way, FINE)
        return (weather.delay_ms + self._rng(way).uniform(0, weather.jitter_ms)) / 1000

    def _rng(self, way: tuple[str, str]) -> random.Random:
        if way not in self._rngs:
            self._rngs[way] = self._rng_for(f"link {way[0]} {way[1]}")
        return self._rngs[way]
