"""Transactions: what clients send is read as a whole or refused, and is done as a whole or not."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientResponse
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis as BlockingRedis

from app import wire
from app.conditions import Condition
from app.errors import BadTransaction, TooLarge
from app.transactions import Step, Transaction, parse_transaction
from app.vector_clock import VectorClock
from app.wire import Batch
from app.write import Delete, Operation, Put
from tests.effort import effort
from tests.model import Node
from tests.one_node import Client, node_a

TEXT = "text/plain; charset=utf-8"


def parse(*ops: Any, most: int = 10, value_max: int = 100) -> Transaction:
    return parse_transaction(json.dumps({"ops": ops}).encode(), most, value_max)


# --- reading one ----------------------------------------------------------------------------------


def test_a_transaction_is_read_in_the_order_of_its_operations() -> None:
    transaction = parse(
        {"get": "a"},
        {"put": "b", "value": "é", "if": None},
        {"delete": "c", "if": '"A:1,B:2"'},
        {"put": "a", "base64": "/wA=", "content_type": "image/x", "if": "*"},
        {"put": "d", "base64": "", "ttl": 1.5},
    )
    assert transaction == Transaction(
        steps=(
            *(Step("get", "a"), Step("put", "b"), Step("delete", "c"), Step("put", "a")),
            Step("put", "d"),
        ),
        reads=("a",),
        operations=(
            *(Put("b", "é".encode(), TEXT), Delete("c"), Put("a", b"\xff\0", "image/x")),
            Put("d", b"", "application/octet-stream", 1_500_000),
        ),
        conditions=(
            *(Condition.absent("b"), Condition.matches("c", ["A:1,B:2"])),
            Condition.exists("a"),
        ),
    )


@pytest.mark.parametrize(
    ("op", "why"),
    [
        ({}, "one of get, put and delete, and has 0"),
        ({"get": "a", "put": "a", "value": "x"}, "and has 2"),
        ({"get": ""}, "1 to 512 bytes"),
        ({"get": "x" * 513}, "1 to 512 bytes"),
        ({"put": "a"}, "either a value"),
        ({"put": "a", "value": "x", "base64": "eA=="}, "either a value"),
        ({"put": "a", "base64": "%"}, "base64"),
        ({"put": "a", "value": "x", "content_type": ""}, "content type"),
        ({"put": "a", "value": "x", "content_type": "é"}, "content type"),
        ({"get": "a", "value": "x"}, "for put"),
        ({"delete": "a", "content_type": "x"}, "for put"),
        ({"get": "a", "if": "A:1"}, "an ETag"),
        ({"get": "a", "if": 1}, "ops[1].if"),
        ({"get": 1}, "ops[1].get"),
        ({"put": "a", "value": 1}, "ops[1].value"),
        ({"get": "a", "ttl": 1}, "for put"),
        ({"delete": "a", "ttl": 1}, "for put"),
        ({"put": "a", "value": "x", "ttl": 0}, "ttl is a number of seconds, more than 0"),
        ({"put": "a", "value": "x", "ttl": -1}, "more than 0"),
        ({"put": "a", "value": "x", "ttl": 1e-9}, "more than 0"),
        ({"put": "a", "value": "x", "ttl": 3153600001}, "at most 3153600000"),
        ({"put": "a", "value": "x", "ttl": 1.4316e308}, "at most 3153600000"),
        ({"put": "a", "value": "x", "ttl": "60"}, "ops[1].ttl"),
        ({"put": "a", "value": "x", "ttl": True}, "ops[1].ttl"),
        ({"put": "a", "value": "x", "ttl": None}, "ops[1].ttl"),
        ([], "ops[1]"),
        ({"put": "first", "value": "x"}, "a second time"),
        ({"delete": "first"}, "a second time"),
    ],
)
def test_an_operation_that_cannot_be_is_refused_by_its_position(op: Any, why: str) -> None:
    with pytest.raises(BadTransaction) as refusal:
        parse({"put": "first", "value": "1"}, op)
    assert why in refusal.value.detail
    assert "ops[1]" in refusal.value.detail


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'{"ops": []}', b'{"ops": {}}', b'{"ops": [{"get": "a"}], "x": 1}', b"\xff"]
    + [b'{"ops": [{"get": "\xff"}]}', b"[" * 100_000, b'{"ops": [{"get": "\\ud800"}]}'],
)
def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(BadTransaction):
        parse_transaction(body, 10, 10)


def test_a_transaction_over_its_limits_is_refused() -> None:
    assert len(parse(*({"get": f"k{n}"} for n in range(10))).reads) == 10
    with pytest.raises(TooLarge, match=r"11 operations.*TXN_MAX_OPERATIONS"):
        parse(*({"get": f"k{n}"} for n in range(11)))
    with pytest.raises(TooLarge, match=r"ops\[1\].*VALUE_MAX_BYTES"):
        parse({"get": "a"}, {"put": "a", "value": "x" * 101})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["ops", "get", "put", "delete", "value", "base64", "if", "x"]), inner
        )
    ),
    max_leaves=20,
)


@effort(200)
@given(json_values | st.builds(lambda ops: {"ops": ops}, json_values))
def test_any_json_is_read_or_refused(body: Any) -> None:
    try:
        transaction = parse_transaction(json.dumps(body).encode(), 10, 10)
    except (BadTransaction, TooLarge):
        return
    assert len(transaction.steps) == len(transaction.reads) + len(transaction.operations)


# --- carrying it out ------------------------------------------------------------------------------


@pytest.fixture
async def client(redis_socket: Path) -> AsyncIterator[Client]:
    """A client of node A, whose peers are the test."""
    with BlockingRedis(unix_socket_path=str(redis_socket)) as redis:
        redis.flushall()
    async with node_a(f"unix://{redis_socket}?db=3", txn_max_bytes=2000) as client:
        yield client


async def transact(client: Client, *ops: Any, **headers: str) -> ClientResponse:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post("/txn", json={"ops": ops}, headers=names)


async def refusal(response: ClientResponse, status: int, kind: str) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(await response.text())
    assert (response.status, fields["type"]) == (status, f"urn:lightcone:{kind}"), fields
    assert fields["outcome"] == "not_applied"
    return fields


async def receives(client: Client, author: Node, *operations: Operation) -> None:
    write = author.write(operations, 9_000_000_000_000_000)
    batch = wire.encode_batch(Batch(author.name, "A", VectorClock(), (write,)))
    assert (await client.post("/replicate", data=batch)).status == 200


async def clock_of(client: Client) -> dict[str, int]:
    clock: dict[str, int] = (await (await client.get("/status")).json())["clock"]
    return clock


async def test_writes_share_one_dot_and_reads_show_what_was_before(client: Client) -> None:
    await client.put("/kv/lunch", data=b"noon?", headers={"Content-Type": "text/plain"})
    await receives(client, Node("B"), Put("lunch", b"\xff", "x/y"))
    response = await transact(
        client,
        {"get": "lunch"},
        {"put": "lunch", "value": "one?"},
        {"delete": "tea"},
        {"get": "tea"},
    )
    assert response.status == 200
    assert response.headers["Dot"] == "A:2"
    assert response.headers["Causal-Context"] == "lc1;A:2;B:1"
    answer = await response.json()
    assert (answer["dot"], answer["clock"]) == ("A:2", {"A": 2, "B": 1})
    got, put, deleted, absent = answer["results"]
    assert (got["get"], got["etag"]) == ("lunch", '"A:1,B:1"')
    assert [version.get("text") for version in got["siblings"]] == [None, "noon?"]
    assert got["siblings"][0]["base64"] == base64.b64encode(b"\xff").decode()
    assert put == {"put": "lunch", "etag": '"A:2"'}
    assert deleted == {"delete": "tea"}
    assert absent == {"get": "tea", "etag": None, "siblings": []}
    got = await client.get("/kv/lunch")
    assert (got.headers["ETag"], got.headers["Content-Type"]) == ('"A:2"', TEXT)


async def test_a_transaction_that_only_reads_is_no_write(client: Client) -> None:
    await client.put("/kv/lunch", data=b"noon?")
    await receives(client, Node("B"), Put("tea", b"five"))
    response = await transact(client, {"get": "lunch"}, Causal_Context="lc1;")
    assert (await response.json())["dot"] is None
    assert "Dot" not in response.headers
    assert response.headers["Causal-Context"] == "lc1;A:1"
    response = await transact(client, {"get": "lunch"}, {"get": "nothing"})
    assert response.headers["Causal-Context"] == "lc1;A:1;B:1"
    assert await clock_of(client) == {"A": 1, "B": 1}


async def test_a_transaction_is_done_only_if_every_condition_holds(client: Client) -> None:
    await client.put("/kv/from", data=b"10")
    await receives(client, Node("B"), Put("from", b"11"))
    both = {"put": "to", "value": "1", "if": None}
    for condition in ('"A:1"', None):
        for op in ({"put": "from", "value": "9"}, {"get": "from"}, {"delete": "from"}):
            response = await transact(client, both, {**op, "if": condition})
            fields = await refusal(response, 412, "precondition-failed")
            assert fields["keys"] == [{"key": "from", "etag": '"A:1,B:1"', "siblings": 2}]
            assert response.headers["Causal-Context"] == "lc1;A:1;B:1"
    response = await transact(client, {"get": "from", "if": None}, {"get": "to", "if": "*"})
    fields = await refusal(response, 412, "precondition-failed")
    assert [key["key"] for key in fields["keys"]] == ["from", "to"]
    assert await clock_of(client) == {"A": 1, "B": 1}
    response = await transact(client, both, {"put": "from", "value": "9", "if": '"A:1,B:1"'})
    assert response.status == 200


async def test_a_transaction_waits_for_its_context(client: Client) -> None:
    for ops in ([{"get": "lunch"}], [{"put": "lunch", "value": "x"}]):
        response = await client.post(
            "/txn?wait=0", json={"ops": ops}, headers={"Causal-Context": "lc1;B:1"}
        )
        await refusal(response, 503, "not-caught-up")


@pytest.mark.parametrize(
    "header", ["If-Match", "If-None-Match", "If-Unmodified-Since", "Content-Range"]
)
async def test_conditions_stand_in_the_operations_and_not_in_the_head(
    client: Client, header: str
) -> None:
    response = await client.post("/txn", json={"ops": [{"delete": "a"}]}, headers={header: '"A:1"'})
    assert header in (await refusal(response, 501, "unsupported-header"))["detail"]


async def test_a_transaction_that_is_refused_changes_nothing(client: Client) -> None:
    await client.put("/kv/large", data=b"x" * 1500)
    put = {"put": "a", "value": "x"}
    await refusal(await transact(client, put, {"get": ""}), 400, "bad-transaction")
    await refusal(
        await transact(client, *[{"delete": f"{n}"} for n in range(101)]), 413, "too-large"
    )
    response = await transact(client, {"put": "a", "value": "x" * 2000})
    assert "TXN_MAX_BYTES" in (await refusal(response, 413, "too-large"))["detail"]
    for ops in ([{"get": "large"}] * 2, [put] + [{"get": "large"}] * 2):
        response = await transact(client, *ops)
        assert "TXN_MAX_BYTES" in (await refusal(response, 413, "too-large"))["detail"]
    assert (await client.post("/txn?stale=true", json={"ops": [put]})).status == 400
    assert await clock_of(client) == {"A": 1}
