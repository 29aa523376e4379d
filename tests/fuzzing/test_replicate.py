"""`/replicate`, fed with damaged batches: refused whole, or taken as the twin takes it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from app import wire
from app.buffer import pieces
from app.carriers import SignedAnswer, SignedBatch
from app.compression import unpacked
from app.vector_clock import Dot, VectorClock, node_of
from app.wire import Batch
from app.write import Delete, Put, Write, write_problem
from tests.effort import effort, time_enough
from tests.fuzzing.damage import damaged
from tests.model import Node
from tests.one_node import Client, contents, node_a
from tests.pair import Pair

pytestmark = time_enough()

PENDING_MAX, DRAIN_MAX = 4, 2
LAST: Final = "A~zzzzzzzzzzzz"
"""Who writes at the node: an incarnation that nobody can know more of, or a later one than. The
writes of A are those that it lost in its first life."""


def a_conversation() -> list[Write]:
    """Eight writes of three nodes: answers, a delete, several operations, a later incarnation."""
    a, b, c = Node("A"), Node("B"), Node("C")
    question = b.write([Put("lunch", b"noon?", "text/plain")], 10)
    c.receive([question])
    answer = c.write([Put("lunch", b"yes", "text/plain"), Put("table", b"\0\xff")], 20)
    gone = c.write([Delete("lunch")], 5)
    again = b.write([Put("lunch", b"one?", "text/plain"), Delete("table")], 2**53 - 9)
    a.receive([question, answer])
    theirs = a.write([Put("lunch", b"as you like", "text/plain")], 30)
    b.receive([answer, gone, theirs])
    last = b.write([Put("dinner", b"", "text/plain")], 1)
    reborn = Node("B~x1", applied=[question])
    return [
        question,
        answer,
        gone,
        again,
        theirs,
        last,
        *(reborn.write([Put("lunch", b"%d" % n)], 40) for n in range(2)),
    ]


WRITES: Final = a_conversation()
BODIES: Final = [
    wire.encode_batch(Batch(sender, "A", VectorClock({"B": 3, "C": 2}), tuple(writes)))
    for sender, writes in (
        ("B", WRITES[:1]),
        ("C", WRITES[1:3]),
        ("B", WRITES[3:5]),
        ("B", WRITES[5:]),
        ("C", WRITES),
        ("B", []),
    )
]
good = st.builds(
    lambda sender, which: wire.encode_batch(
        Batch(sender, "A", VectorClock(), tuple(WRITES[index] for index in which))
    ),
    st.sampled_from(("B", "C")),
    st.lists(st.integers(0, len(WRITES) - 1), max_size=5),
)


# --- the node -------------------------------------------------------------------------------------


#: Bodies that come one after the other, each with whether it is good for sure.
steps = st.lists(
    good.map(lambda body: (True, body)) | damaged(BODIES).map(lambda body: (False, body)),
    min_size=1,
    max_size=12,
)


_encode = msgspec.msgpack.encode

#: The same as messages, of which some are damaged as such.
messages = st.lists(
    good.map(lambda body: (True, _encode(SignedBatch(body))))
    | damaged(BODIES).map(lambda body: (False, _encode(SignedBatch(body))))
    | damaged([_encode(SignedBatch(body)) for body in BODIES]).map(lambda damage: (False, damage)),
    min_size=1,
    max_size=12,
)

Ask = Callable[[bytes], Awaitable[tuple[int, bytes, bytes]]]
"""Sends what was made up; the result is the status, what was answered, and the batch in it."""


@asynccontextmanager
async def posting(client: Client) -> AsyncIterator[Ask]:
    async def ask(body: bytes) -> tuple[int, bytes, bytes]:
        async with client.post("/replicate", data=body) as response:
            is_problem = response.content_type == "application/problem+json"
            assert is_problem == (response.status != 200)
            return response.status, await response.read(), body

    yield ask


@asynccontextmanager
async def over_a_websocket(client: Client) -> AsyncIterator[Ask]:
    async with client.ws_connect("/replicate") as websocket:

        async def ask(message: bytes) -> tuple[int, bytes, bytes]:
            await websocket.send_bytes(message)
            answer = msgspec.msgpack.decode(await websocket.receive_bytes(), type=SignedAnswer)
            if answer.status != 200:
                return answer.status, answer.body, b""
            sent = msgspec.msgpack.decode(message, type=SignedBatch)
            return 200, answer.body, unpacked(sent.body, 2**20) if sent.compressed else sent.body

        yield ask


async def send(
    ask: Ask, blocking: BlockingRedis, pair: Pair, is_good: bool, made_up: bytes
) -> None:
    before = contents(blocking)
    status, reply, body = await ask(made_up)
    if status != 200:
        assert 400 <= status < 500, reply
        assert not is_good, reply
        fields = msgspec.json.decode(reply)
        assert fields["outcome"] == "not_applied"
        assert len(fields["detail"]) < 2000
        assert contents(blocking) == before
        return

    batch, answer = wire.decode_batch(body), wire.decode_answer(reply)
    asks_only = batch.birth and not batch.writes
    assert (batch.sender in ("B", "C") or asks_only) and batch.receiver == "A"
    assert not any(map(write_problem, batch.writes))
    actors = {write.dot.actor for write in batch.writes}
    actors.update(*(write.dependencies for write in batch.writes))
    assert {node_of(actor) for actor in actors} <= {*"ABC", *map(node_of, batch.clock)}
    outcomes = [
        outcome for piece in pieces(batch.writes, DRAIN_MAX) for outcome in pair.twin.receive(piece)
    ]
    assert answer.applied == outcomes.count("applied")
    assert answer.duplicate == outcomes.count("duplicate")
    assert answer.pending == outcomes.count("pending")
    assert answer.refused == outcomes.count("refused")
    assert answer.clock == pair.twin.clock
    assert answer.received <= pair.twin.received
    assert answer.node == "A"
    written = [*pair.twin.applied, *pair.twin.pending.values()]
    await pair.check(sorted({operation.key for write in written for operation in write.operations}))


async def run(
    url: str,
    made_up: list[tuple[bool, bytes]],
    way: Callable[[Client], AbstractAsyncContextManager[Ask]] = posting,
) -> None:
    with BlockingRedis.from_url(url) as blocking:
        blocking.flushdb()
        async with (
            # What a damaged batch lets expire stays, for the twin to hold it as well.
            node_a(
                url,
                actor=LAST,
                pending_max=PENDING_MAX,
                drain_max=DRAIN_MAX,
                expiry_ms=3_600_000,
            ) as client,
            way(client) as ask,
            Redis.from_url(url) as redis,
        ):
            pair = Pair("A", redis, PENDING_MAX, DRAIN_MAX)
            for is_good, body in made_up:
                await send(ask, blocking, pair, is_good, body)


def test_a_damaged_batch_is_refused_whole_or_taken_as_the_twin_takes_it(
    redis_socket: Path,
) -> None:
    @effort(200)
    @given(steps)
    def hold(bodies: list[tuple[bool, bytes]]) -> None:
        asyncio.run(run(f"unix://{redis_socket}?db=4", bodies))

    hold()


def test_so_it_is_with_a_message_over_a_websocket(redis_socket: Path) -> None:
    @effort(100)
    @given(messages)
    def hold(made_up: list[tuple[bool, bytes]]) -> None:
        asyncio.run(run(f"unix://{redis_socket}?db=4", made_up, over_a_websocket))

    hold()


def test_the_batches_that_are_damaged_are_good_before(redis_socket: Path) -> None:
    bodies = [(True, body) for body in BODIES]
    asyncio.run(run(f"unix://{redis_socket}?db=4", bodies))
    assert {write.dot for write in WRITES} >= {Dot("A", 1), Dot("B~x1", 2), Dot("C", 2)}
