"""What a node answers over a WebSocket, to other nodes and to whoever says that it is one."""

import asyncio
import re
from typing import Any

import msgspec
import pytest
from aiohttp import ClientWebSocketResponse, WSCloseCode, WSMsgType

from app import http_websocket, wire
from app.carriers import SignedAnswer, SignedBatch
from app.compression import packed
from app.errors import RedisUnavailable
from app.http_websocket import WebSocketRoutes
from app.interface import Interface
from app.peers import Signer
from app.vector_clock import VectorClock
from app.wire import Batch
from app.write import Write
from tests.model import Node
from tests.one_node import SECRET, clock_of, node_a, problem, put_by, serving
from tests.test_http_replicate import BAD_BATCHES


def batch(*writes: Write) -> bytes:
    return wire.encode_batch(Batch("B", "A", VectorClock(), writes))


async def send(websocket: ClientWebSocketResponse, body: bytes, **fields: Any) -> None:
    await websocket.send_bytes(msgspec.msgpack.encode(SignedBatch(body, **fields)))


async def answer(websocket: ClientWebSocketResponse) -> SignedAnswer:
    return msgspec.msgpack.decode(await websocket.receive_bytes(), type=SignedAnswer)


async def exchange(websocket: ClientWebSocketResponse, body: bytes, **fields: Any) -> SignedAnswer:
    await send(websocket, body, **fields)
    return await answer(websocket)


def told(refused: SignedAnswer) -> tuple[int, str, str]:
    """Status, type and outcome of a problem."""
    fields = msgspec.json.decode(refused.body)
    assert fields["status"] == refused.status
    return refused.status, fields["type"].removeprefix("urn:lightcone:"), fields["outcome"]


async def test_batches_are_taken_one_after_the_other(redis_url: str) -> None:
    b = Node("B")
    writes = [put_by(b, "lunch", b"%d" % n) for n in range(20)]
    async with node_a(redis_url) as client, client.ws_connect("/replicate") as websocket:
        for write in writes:
            await send(websocket, batch(write))
        for count in range(1, 21):
            answered = wire.decode_answer((await answer(websocket)).body)
            assert (answered.applied, answered.clock) == (1, VectorClock({"B": count}))
        assert await (await client.get("/kv/lunch")).read() == b"19"


async def test_what_is_wrong_with_one_batch_is_told_and_ends_nothing(redis_url: str) -> None:
    async with node_a(redis_url) as client, client.ws_connect("/replicate") as websocket:
        for body in BAD_BATCHES.values():
            status, _, outcome = told(await exchange(websocket, body))
            assert (status, outcome) == (400, "not_applied")
        assert await clock_of(client) == {}
        taken = await exchange(websocket, batch(put_by(Node("B"), "lunch", b"noon?")))
        assert wire.decode_answer(taken.body).applied == 1


@pytest.mark.parametrize(
    "message",
    [b"", b"\xc1", b"hello", msgspec.msgpack.encode([b"x", None, False, 1]), b"\x91" * 10_000]
    + [msgspec.msgpack.encode([7]), msgspec.msgpack.encode({"body": b""}), b"\x92\xc4\x00\xa1\xff"],
)
async def test_a_message_that_cannot_be_read_is_no_batch(redis_url: str, message: bytes) -> None:
    async with node_a(redis_url) as client, client.ws_connect("/replicate") as websocket:
        await websocket.send_bytes(message)
        assert told(await answer(websocket)) == (400, "bad-batch", "not_applied")
        assert (await exchange(websocket, batch())).status == 200


async def test_a_text_ends_the_websocket(redis_url: str) -> None:
    async with node_a(redis_url) as client, client.ws_connect("/replicate") as websocket:
        await websocket.send_str("hello")
        assert (await websocket.receive()).type is WSMsgType.CLOSE


async def test_a_batch_that_is_too_large_ends_the_websocket(redis_url: str) -> None:
    async with node_a(
        redis_url,
        value_max_bytes=1000,
        txn_max_bytes=1000,
        batch_max_bytes=1000,
        replicate_max_bytes=70_000,
    ) as client:
        async with client.ws_connect("/replicate") as websocket:
            assert told(await exchange(websocket, bytes(70_000)))[1] == "bad-batch"
            refused = await exchange(websocket, bytes(70_001))
            assert told(refused) == (413, "too-large", "not_applied")
            assert b"REPLICATE_MAX_BYTES" in refused.body
            await send(websocket, bytes(72_000))
            assert (await websocket.receive()).data == WSCloseCode.MESSAGE_TOO_BIG
        assert await clock_of(client) == {}


async def test_a_compressed_batch_is_unpacked(redis_url: str) -> None:
    async with node_a(redis_url) as client, client.ws_connect("/replicate") as websocket:
        body = batch(put_by(Node("B"), "lunch", b"x" * 1000))
        taken = await exchange(websocket, packed(body), compressed=True)
        assert wire.decode_answer(taken.body).applied == 1
        assert told(await exchange(websocket, body, compressed=True))[0] == 400


async def test_a_signed_cluster_takes_and_gives_signed_messages_only(redis_url: str) -> None:
    signer = Signer(SECRET)
    body = batch(put_by(Node("B"), "lunch", b"noon?"))
    settings = {"cluster_secret": SECRET}
    async with (
        node_a(redis_url, **settings) as client,
        client.ws_connect("/replicate") as websocket,
    ):
        for signature in (None, "", "0" * 64, Signer("another secret").signature(body)):
            refused = await exchange(websocket, body, signature=signature)
            assert told(refused) == (401, "bad-signature", "not_applied")
        assert await clock_of(client) == {}
        taken = await exchange(websocket, body, signature=signer.signature(body))
        signer.check(taken.body, taken.signature)
        assert wire.decode_answer(taken.body).applied == 1


async def test_batches_over_websockets_are_counted(redis_url: str) -> None:
    async with node_a(redis_url) as client, client.ws_connect("/replicate") as websocket:
        text = 'lightcone_request_duration_seconds_count{method="GET",route="/replicate",status='

        async def counts() -> list[float]:
            lines = (await (await client.get("/metrics")).text()).splitlines()
            found = {line[:-4]: line for line in lines if line.startswith(text)}
            return [
                float(next((line.split()[-1] for line in found.values() if s in line), "0"))
                for s in ('status="200"', 'status="400"')
            ]

        before = await counts()
        await exchange(websocket, batch())
        await exchange(websocket, batch())
        await exchange(websocket, b"")
        assert await counts() == [before[0] + 2, before[1] + 1]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upgrade": "websocket"},
        {"Upgrade": "h2c", "Connection": "Upgrade"},
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "1"},
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
        {
            **{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
            **{"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "chat"},
        },
    ],
)
async def test_a_request_that_opens_none_is_told_what_begins_here(
    redis_url: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async with node_a(redis_url) as client:
        fields = await problem(await client.get("/replicate", headers=headers), 400, "no-websocket")
        assert re.search(r"[^.]\. Nothing was done\. .*POST", fields["detail"])
    assert not caplog.records, "anybody could fill the log"


class Slow:
    """Takes batches, each once it is told to."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.fails: Exception | None = None

    async def __call__(self, signed: SignedBatch) -> SignedAnswer:
        self.begun.set()
        await self.may_end.wait()
        if self.fails is not None:
            raise self.fails
        return SignedAnswer(200, b"took " + signed.body)


def slow() -> tuple[Slow, Interface]:
    take, interface = Slow(), Interface()
    WebSocketRoutes(take, 1000).add_to(interface)
    return take, interface


async def test_when_a_node_ends_what_it_has_begun_is_answered_and_nothing_else() -> None:
    take, interface = slow()
    async with serving(interface.answer) as client:
        idle, busy = await client.ws_connect("/replicate"), await client.ws_connect("/replicate")
        for name in (b"one", b"two"):
            await send(busy, name)
        await take.begun.wait()
        interface.end()
        assert (await idle.receive()).data == WSCloseCode.GOING_AWAY
        take.may_end.set()
        assert (await answer(busy)).body == b"took one"
        assert (await busy.receive()).data == WSCloseCode.GOING_AWAY


async def test_what_nobody_foresaw_is_told_as_such_and_ends_nothing() -> None:
    take, interface = slow()
    take.may_end.set()
    async with serving(interface.answer) as client, client.ws_connect("/replicate") as websocket:
        take.fails = ZeroDivisionError()
        assert told(await exchange(websocket, b"one")) == (500, "internal", "unknown")
        take.fails = RedisUnavailable("it is away")
        assert told(await exchange(websocket, b"two"))[:2] == (503, "redis-unavailable")
        take.fails = None
        assert (await exchange(websocket, b"three")).body == b"took three"


async def test_a_peer_that_goes_while_its_batch_is_taken_leaves_nothing_behind() -> None:
    take, interface = slow()
    async with serving(interface.answer) as client:
        before = asyncio.all_tasks()
        websocket = await client.ws_connect("/replicate")
        await send(websocket, b"one")
        await take.begun.wait()
        transport = websocket._conn.transport if websocket._conn else None
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
        take.may_end.set()
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.01)
        await websocket.close()


async def test_a_connection_that_is_silent_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_websocket, "SILENCE_S", 0.05)
    _, interface = slow()
    async with serving(interface.answer) as client, client.ws_connect("/replicate") as websocket:
        assert (await websocket.receive()).data == WSCloseCode.GOING_AWAY
