"""What waits at a node, as it is told. What is deferred: tests/test_deferred.py."""

from app.write import Delete, Operation, Put
from tests.model import Node
from tests.one_node import node_a, put_by, replicated


async def test_what_waits_is_shown_with_what_it_waits_for(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        assert await (await client.get("/pending")).json() == {
            **{"total": 0, "writes": []},
            **{"deferred_total": 0, "deferred": []},
        }
        b, c = Node("B"), Node("C")
        b.receive([put_by(c, "tea", b"five")])
        operations: list[Operation] = [Put("lunch", b"noon?"), Delete("dinner")]
        await replicated(client, b.write(operations, 5))
        shown = await (await client.get("/pending")).json()
        [write] = shown["writes"]
        assert shown["total"] == 1
        assert write.pop("waiting_s") >= 0
        assert write == {
            "dot": "B:1",
            "dependencies": {"C": 1},
            "waiting_for": ["C:1"],
            "could_come_from": {"C:1": ["C"]},
            "keys": ["lunch", "dinner"],
        }
