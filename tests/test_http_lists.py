"""Lists of keys and of conflicts, a page at a time."""

from typing import Any

import pytest

from tests.model import Node
from tests.one_node import (
    Client,
    concurrent_lunches,
    context,
    node_a,
    path_of,
    problem,
    put,
    put_by,
    replicated,
)


async def pages_of(client: Client, path: str, **query: str) -> list[Any]:
    """What all pages of a list hold."""
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        response = await client.get(path, params={**query, "cursor": cursor})
        assert response.status == 200, await response.text()
        page = await response.json()
        found += page["keys"]
        cursor = page["cursor"]
    return found


async def test_keys_are_listed_in_the_order_of_their_bytes_a_page_at_a_time(
    redis_url: str,
) -> None:
    async with node_a(redis_url) as client:
        names = ["a", "a b", "a+b", "a/1", "a/2", "a/é", "a/日本", "b", "Z", "\x01", "%2F", "🍕"]
        for name in names:
            await put(client, name, b"x")
        await put(client, "gone", b"x")
        await client.delete("/kv/gone")
        in_order = sorted(names, key=str.encode)
        assert await pages_of(client, "/kv") == in_order
        for limit in ("1", "5", "12", "1000"):
            assert await pages_of(client, "/kv", limit=limit) == in_order
        assert await pages_of(client, "/kv", prefix="a/", limit="2") == [
            "a/1",
            "a/2",
            "a/é",
            "a/日本",
        ]
        assert await pages_of(client, "/kv", prefix="a+") == ["a+b"]
        assert await pages_of(client, "/kv", prefix="nothing") == []


async def test_a_list_has_seen_all_that_is_here(redis_url: str) -> None:
    """What is not in it may be absent because it was deleted."""
    async with node_a(redis_url) as client:
        await replicated(client, put_by(Node("B"), "tea", b"five"))
        await put(client, "dinner", b"six?")
        for path in ("/kv", "/kv?prefix=x", "/conflicts"):
            response = await client.get(path, headers=context("lc1;B:1"))
            assert response.headers["Causal-Context"] == "lc1;A:1;B:1"
        response = await client.get("/kv?wait=0", headers=context("lc1;B:2"))
        await problem(response, 503, "not-caught-up")


async def test_conflicts_are_listed_until_they_are_settled(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await concurrent_lunches(client)
        await put(client, "dinner", b"six?")
        conflict = {"key": "lunch", "etag": '"A:1,B:1,C:1"', "siblings": 3}
        assert await pages_of(client, "/conflicts") == [conflict]
        assert await pages_of(client, "/conflicts", prefix="d") == []
        settled = {"If-Match": str(conflict["etag"])}
        assert (await client.put("/kv/lunch", data=b"all", headers=settled)).status == 200
        assert await pages_of(client, "/conflicts") == []


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "limit=x", "limit=", "limit=1&limit=2", "limit=1.5", "limit=-1"),
        *("prefix=%FF", "cursor=%FF", "prefix=" + "x" * 513, "other=1", "stale=true&wait=0"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(redis_url: str, query: str) -> None:
    async with node_a(redis_url) as client:
        for path in ("/kv", "/conflicts"):
            response = await client.session.get(path_of(client, f"{path}?{query}"))
            await problem(response, 400, "bad-parameter")
