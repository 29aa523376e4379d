"""What is explained of a key is what its writes say of each other."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis import Redis as BlockingRedis

from app import wire
from app.explain import explained
from app.vector_clock import VectorClock
from app.wire import Batch
from app.write import Delete, Operation, Put, Write
from tests.model import Node
from tests.one_node import Client, node_a


def history() -> tuple[Node, list[Write]]:
    """A wrote lunch, B and C answered without knowing of each other, and A has all three."""
    a, b, c = Node("A"), Node("B"), Node("C")
    first = a.write([Put("lunch", b"noon?")], 5)
    b.receive([first])
    c.receive([first])
    writes = [first, b.write([Put("lunch", b"one")], 7), c.write([Put("lunch", b"two")], 7)]
    a.receive(writes)
    return a, writes


def test_siblings_are_concurrent_and_the_winner_is_said_to_be_it_for_a_reason() -> None:
    a, writes = history()
    told = explained("lunch", a.versions("lunch"), writes)
    assert told["winner"] == "C:1"
    assert "greatest actor" in told["why"]
    of_c, of_b = told["versions"]
    assert (of_c["dot"], of_c["concurrent_with"]) == ("C:1", ["B:1"])
    assert (of_b["supersedes"], of_b["dependencies"]) == (["A:1"], {"A": 1})
    by_dot = {entry["dot"]: entry for entry in told["history"]}
    assert by_dot["A:1"]["superseded_by"] == ["B:1", "C:1"]
    assert by_dot["B:1"]["concurrent_with"] == ["C:1"]


def test_a_write_supersedes_what_it_directly_follows() -> None:
    a, writes = history()
    last = a.write([Put("lunch", b"both")], 9)
    gone = a.write([Delete("lunch")], 10)
    told = explained("lunch", a.versions("lunch"), [*writes, last, gone])
    assert (told["winner"], told["versions"]) == (None, [])
    assert "A:3" in told["why"]
    by_dot = {entry["dot"]: entry for entry in told["history"]}
    assert list(by_dot) == ["A:3", "A:2", "C:1", "B:1", "A:1"]
    assert by_dot["B:1"]["superseded_by"] == ["A:2"]
    assert by_dot["A:2"]["superseded_by"] == ["A:3"]
    assert by_dot["A:3"]["does"] == "delete"


def test_what_the_log_no_longer_has_is_not_made_up() -> None:
    a, _ = history()
    told = explained("lunch", a.versions("lunch"), [])
    assert [v["dependencies"] for v in told["versions"]] == [None, None]
    assert told["history"] == []


@pytest.fixture
async def client(redis_socket: Path) -> AsyncIterator[Client]:
    with BlockingRedis(unix_socket_path=str(redis_socket)) as redis:
        redis.flushall()
    async with node_a(f"unix://{redis_socket}?db=3") as client:
        yield client


async def receives(client: Client, author: Node, *operations: Operation) -> None:
    write = author.write(operations, 9_000_000_000_000_000)
    batch = wire.encode_batch(Batch(author.name, "A", VectorClock(), (write,)))
    assert (await client.post("/replicate", data=batch)).status == 200


async def explanation(client: Client, key: str) -> dict[str, Any]:
    response = await client.get(f"/explain/{quote(key, safe='')}")
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


async def test_a_node_explains_a_key_from_its_logs(client: Client) -> None:
    await client.put("/kv/a/b", data=b"1")
    await receives(client, Node("B"), Put("a/b", b"2", "text/plain"), Put("other", b"3"))
    response = await client.get("/explain/a/b")
    assert response.headers["Causal-Context"] == "lc1;A:1;B:1"
    told = await explanation(client, "a/b")
    assert (told["key"], told["winner"], told["complete"]) == ("a/b", "B:1", True)
    assert "greatest timestamp" in told["why"]
    assert told["versions"][0]["bytes"] == 1
    assert told["searched"] == {"A": {"from": 1, "to": 1}, "B": {"from": 1, "to": 1}}
    absent = await explanation(client, "nothing")
    assert (absent["winner"], absent["history"]) == (None, [])


async def test_a_bounded_part_of_the_logs_is_searched(client: Client) -> None:
    await client.put("/kv/first", data=b"1")
    for start in range(0, 1100, 100):
        for number in range(start, start + 100):
            await client.put(f"/kv/{number % 7}", data=b"x")
    told = await explanation(client, "first")
    assert not told["complete"]
    assert told["searched"]["A"]["from"] > 1
    assert told["winner"] == "A:1"
    assert told["versions"][0]["dependencies"] is None
    told = await explanation(client, "3")
    assert len(told["history"]) == 32


async def test_what_was_searched_has_been_told(client: Client) -> None:
    b = Node("B")
    for _ in range(16):
        await client.put("/kv/x", data=b"1")
        await receives(client, b, Put("x", b"2"))
    told = await explanation(client, "x")
    assert (len(told["history"]), told["complete"]) == (32, True)
    for _ in range(15):
        await client.put("/kv/x", data=b"1")
    await client.put("/kv/other", data=b"1")
    told = await explanation(client, "x")
    assert (len(told["history"]), told["complete"]) == (32, False)
    searched = {
        f"{actor}:{number}"
        for actor, part in told["searched"].items()
        for number in range(part["from"], part["to"] + 1)
    }
    assert searched == {write["dot"] for write in told["history"]} | {"A:32"}
