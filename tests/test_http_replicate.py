"""What a node answers other nodes, and whoever says that it is one."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from app import wire
from app.board import Board, PeerReport
from app.carriers import SIGNATURE_HEADER, signed_with
from app.compression import packed
from app.keys import Keys
from app.peers import Signer
from app.scripts import Scripts
from app.standing import Heard, Standing
from app.vector_clock import VectorClock
from app.wire import Batch
from app.write import Delete
from tests.model import Node
from tests.one_node import SECRET, clock_of, node_a, problem, put, put_by, replicated


async def test_a_batch_is_answered_with_what_became_of_it(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        b = Node("B")
        first, _, third = (put_by(b, "lunch", b"%d" % n) for n in (1, 2, 3))
        answer = await replicated(client, first, first, third)
        became = (answer.applied, answer.duplicate, answer.pending, answer.refused)
        assert became == (1, 1, 1, 0)
        assert answer.node == "A"
        assert answer.clock == answer.received == VectorClock({"B": 1})
        assert answer.missing == VectorClock({"B": 2})
        assert answer.now_us > 1_700_000_000_000_000
        assert await (await client.get("/kv/lunch")).read() == b"1"


async def test_what_waits_without_a_gap_counts_as_received(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        b, c = Node("B"), Node("C")
        b.receive([put_by(c, "tea", b"five")])
        answer = await replicated(client, put_by(b, "lunch", b"1"), put_by(b, "lunch", b"2"))
        assert answer.clock == VectorClock()
        assert answer.received == VectorClock({"B": 2})
        assert answer.missing == VectorClock({"C": 1})


async def test_an_empty_batch_is_a_heartbeat(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        answer = await replicated(client)
        assert answer.clock == VectorClock({"A": 1})
        assert (answer.applied, answer.duplicate, answer.pending, answer.refused) == (0, 0, 0, 0)


async def test_who_asks_is_told_what_was_last_heard_of_the_others(redis_url: str) -> None:
    said, told = (
        Heard(Standing(VectorClock({"A": n}), VectorClock({"A": n + 1})), n) for n in (1, 2)
    )
    async with node_a(redis_url) as client, Redis.from_url(redis_url) as redis:
        keys = Keys()
        board = Board(redis, keys, Scripts(redis, keys), "a worker")
        batch = Batch("B", "A", VectorClock(), (), asks_hearsay=True)

        async def hearsay(batch: Batch) -> Mapping[str, Heard]:
            response = await client.post("/replicate", data=wire.encode_batch(batch))
            return wire.decode_answer(await response.read()).hearsay

        assert await hearsay(batch) == {}, "nothing of C was heard yet"
        report = PeerReport(said.standing.clock, "", said.at_us, 0, said.standing.received)
        for peer in "BC":
            await board.post_peer(peer, report)
        assert await hearsay(batch) == {"C": said}
        await board.post_hearsay({"C": told})
        assert await hearsay(batch) == {"C": told}
        assert await hearsay(replace(batch, asks_hearsay=False)) == {}


async def test_writes_are_taken_from_whichever_member_has_them(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        c = Node("C")
        answer = await replicated(client, put_by(c, "tea", b"five"), c.write([Delete("tea")], 5))
        assert answer.applied == 2
        await problem(await client.get("/kv/tea"), 404, "no-such-key")


async def test_a_full_buffer_says_so_and_loses_nothing(redis_url: str) -> None:
    async with node_a(redis_url, pending_max=1) as client:
        b = Node("B")
        first, second, third = (put_by(b, "lunch", b"%d" % n) for n in (1, 2, 3))
        answer = await replicated(client, second, third)
        assert (answer.pending, answer.refused) == (1, 1)
        answer = await replicated(client, first, second, third)
        assert answer.clock == VectorClock({"B": 3})


def raw_write(**changes: Any) -> list[Any]:
    """A write of B as it travels, with some fields changed."""
    fields: dict[str, Any] = {
        "actor": "B",
        "sequence": 1,
        "timestamp": 5,
        "dependencies": {},
        "operations": [["put", "lunch", b"noon?", "text/plain", 0]],
    }
    return list({**fields, **changes}.values())


def raw_batch(*writes: list[Any], **changes: Any) -> bytes:
    """A batch of B for A as it travels, with some fields changed."""
    fields = {"version": 4, "sender": "B", "receiver": "A", "clock": {}, "writes": list(writes)}
    return msgspec.msgpack.encode({**fields, **changes})


def put_form(key: Any = "lunch", value: Any = b"x", content_type: Any = "text/plain") -> list[Any]:
    return ["put", key, value, content_type, 0]


def raw_part(*keys: list[Any], cut: list[Any] | None = None) -> list[Any]:
    """A part of a snapshot as it travels."""
    return ["s", "p", "", 1, list(keys), cut]


GOOD = raw_batch(raw_write())
BAD_BATCHES = {
    "nothing": b"",
    "garbage": b"\xc1\xff\x00",
    "json": b'{"version": 4, "sender": "B", "receiver": "A", "clock": {}, "writes": []}',
    "truncated": GOOD[:-1],
    "truncated early": GOOD[:9],
    "something after it": GOOD + b"\0",
    "a list": msgspec.msgpack.encode([1, "B", "A", {}, []]),
    "deeply nested": b"\x91" * 100_000,
    "a later version": raw_batch(raw_write(), version=5),
    "a later version with other fields": msgspec.msgpack.encode({"version": 5, "from": "B"}),
    "version 0": raw_batch(version=0),
    "a field that is missing": msgspec.msgpack.encode({"version": 4, "sender": "B"}),
    "a field too many": raw_batch(more=1),
    "a clock with zero": raw_batch(clock={"B": 0}),
    "a clock beyond numbers": raw_batch(clock={"B": 2**53}),
    "sequence 0": raw_batch(raw_write(sequence=0)),
    "a negative sequence": raw_batch(raw_write(sequence=-1)),
    "a sequence beyond numbers": raw_batch(raw_write(sequence=2**53)),
    "a sequence that is a text": raw_batch(raw_write(sequence="1")),
    "a sequence without the one before": raw_batch(raw_write(sequence=3)),
    "a dependency on itself": raw_batch(raw_write(dependencies={"B": 1})),
    "a dependency of zero": raw_batch(raw_write(dependencies={"C": 0})),
    "a dependency of nobody": raw_batch(raw_write(dependencies={"": 1})),
    "a dependency beyond numbers": raw_batch(raw_write(dependencies={"C": 2**53})),
    "an actor that cannot be": raw_batch(raw_write(actor="B B")),
    "an actor with a line break": raw_batch(raw_write(actor="B\n")),
    "no timestamp": raw_batch(raw_write(timestamp=0)),
    "a timestamp beyond numbers": raw_batch(raw_write(timestamp=2**53)),
    "no operations": raw_batch(raw_write(operations=[])),
    "too many operations": raw_batch(
        raw_write(operations=[put_form(f"k{n}") for n in range(1001)])
    ),
    "one key twice": raw_batch(raw_write(operations=[put_form(), ["delete", "lunch"]])),
    "an unknown operation": raw_batch(raw_write(operations=[["incr", "lunch"]])),
    "an empty key": raw_batch(raw_write(operations=[put_form("")])),
    "a key too long": raw_batch(raw_write(operations=[put_form("k" * 513)])),
    "a content type with a line break": raw_batch(
        raw_write(operations=[put_form(content_type="a\nb")])
    ),
    "a value that is a number": raw_batch(raw_write(operations=[put_form(value=7)])),
    "a bad write after a good one": raw_batch(raw_write(), raw_write(sequence=0)),
    "text that is not utf-8": GOOD.replace(b"lunch", b"lunc\xff"),
}


@pytest.mark.parametrize("body", BAD_BATCHES.values(), ids=BAD_BATCHES.keys())
async def test_a_batch_that_no_node_would_send_is_refused_as_a_whole(
    redis_url: str, body: bytes
) -> None:
    async with node_a(redis_url) as client:
        response = await client.post("/replicate", data=body)
        await problem(response, 400, "bad-batch")
        assert await clock_of(client) == {}
        assert (await (await client.get("/pending")).json())["total"] == 0


async def test_a_batch_of_another_version_is_told_which_version_is_spoken(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        for name in ("a later version", "a later version with other fields"):
            response = await client.post("/replicate", data=BAD_BATCHES[name])
            detail = (await problem(response, 400, "bad-batch"))["detail"]
            assert "protocol version 5, and this node speaks 4" in detail


async def test_the_raw_batch_of_these_tests_is_good(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        response = await client.post("/replicate", data=GOOD)
        assert wire.decode_answer(await response.read()).applied == 1


@pytest.mark.parametrize(
    ("batch", "status", "kind", "named"),
    [
        (raw_batch(raw_write(actor="Z")), 422, "unknown-actor", "Z"),
        (raw_batch(raw_write(dependencies={"Z": 3})), 422, "unknown-actor", "Z"),
        (raw_batch(raw_write(), raw_write(actor="Z~1")), 422, "unknown-actor", "Z~1"),
        (
            raw_batch(part=raw_part(["lunch", [["Z", 1, 5, "text/plain", b"x"]], {}])),
            *(422, "unknown-actor", "Z"),
        ),
        (raw_batch(part=raw_part(["lunch", [], {"Z": 1}])), 422, "unknown-actor", "Z"),
        (raw_batch(part=raw_part(cut=[{"Z": 1}, {}, 5])), 422, "unknown-actor", "Z"),
        (raw_batch(part=raw_part(cut=[{}, {"Z": 1}, 5])), 422, "unknown-actor", "Z"),
        (raw_batch(raw_write(), sender="Z"), 403, "unknown-peer", "Z"),
        (raw_batch(raw_write(), sender=""), 403, "unknown-peer", "''"),
        (raw_batch(raw_write(), sender="A"), 409, "same-node-id", "NODE_ID"),
        (raw_batch(raw_write(), sender="A", receiver="B"), 409, "same-node-id", "NODE_ID"),
        (raw_batch(raw_write(), receiver="C"), 421, "misdirected", "'C'"),
        (raw_batch(raw_write(), base=b"another."), 409, "other-base", "whole clocks"),
    ],
)
async def test_a_batch_of_the_wrong_people_is_refused_as_a_whole(
    redis_url: str, batch: bytes, status: int, kind: str, named: str
) -> None:
    async with node_a(redis_url) as client:
        response = await client.post("/replicate", data=batch)
        assert named in (await problem(response, status, kind))["detail"]
        assert await clock_of(client) == {}
        assert (await (await client.get("/pending")).json())["total"] == 0


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
async def test_a_batch_over_the_limit_is_refused(redis_url: str, chunked: bool) -> None:
    limits: dict[str, Any] = {
        "value_max_bytes": 1,
        "txn_max_bytes": 1,
        "batch_max_bytes": 1,
        "replicate_max_bytes": 65_538,
    }

    async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    async with node_a(redis_url, **limits) as client:
        body = raw_batch(raw_write(operations=[put_form(value=b"x" * 65_538)]))
        response = await client.post("/replicate", data=in_chunks(body) if chunked else body)
        detail = (await problem(response, 413, "too-large"))["detail"]
        assert "REPLICATE_MAX_BYTES" in detail
        assert await clock_of(client) == {}


async def test_a_compressed_batch_is_taken_and_no_larger_than_any(redis_url: str) -> None:
    deflated = {"Content-Encoding": "deflate"}
    async with node_a(redis_url) as client:
        response = await client.post("/replicate", data=packed(GOOD), headers=deflated)
        assert wire.decode_answer(await response.read()).applied == 1
        large = packed(raw_batch(raw_write(operations=[put_form(value=bytes(20_000_000))])))
        for body, status, kind in (
            (GOOD, 400, "bad-batch"),
            (packed(b"hello"), 400, "bad-batch"),
            (large, 413, "too-large"),
        ):
            response = await client.post("/replicate", data=body, headers=deflated)
            await problem(response, status, kind)
        assert await clock_of(client) == {"B": 1}


async def test_a_signed_cluster_takes_and_gives_signed_messages_only(redis_url: str) -> None:
    signer = Signer(SECRET)
    async with node_a(redis_url, cluster_secret=SECRET) as client:
        for headers in (
            {},
            {SIGNATURE_HEADER: ""},
            {SIGNATURE_HEADER: "0" * 64},
            signed_with(Signer("another secret entirely").signature(GOOD)),
            signed_with(signer.signature(GOOD + b"x")),
        ):
            response = await client.post("/replicate", data=GOOD, headers=headers)
            await problem(response, 401, "bad-signature")
        assert await clock_of(client) == {}
        response = await client.post(
            "/replicate", data=GOOD, headers=signed_with(signer.signature(GOOD))
        )
        assert response.status == 200
        answer = await response.read()
        signer.check(answer, response.headers[SIGNATURE_HEADER])
        assert wire.decode_answer(answer).applied == 1


async def test_a_signed_message_to_a_node_without_the_secret_is_refused(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        headers = signed_with(Signer(SECRET).signature(GOOD))
        response = await client.post("/replicate", data=GOOD, headers=headers)
        assert "CLUSTER_SECRET" in (await problem(response, 401, "bad-signature"))["detail"]
        assert await clock_of(client) == {}
