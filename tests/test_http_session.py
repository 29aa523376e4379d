"""Contexts: what a session has seen it finds again, or is told what is missing."""

import asyncio
import re

import pytest

from app.vector_clock import VectorClock
from tests.model import Node
from tests.one_node import (
    SECRET,
    clock_of,
    context,
    node_a,
    problem,
    put,
    put_by,
    replicate,
    replicated,
    token_of,
)


async def test_a_token_grows_by_what_its_session_writes_and_reads(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await replicated(client, put_by(Node("B"), "tea", b"five"))
        await put(client, "dinner", b"six?")
        mine = await put(client, "lunch", b"noon?")
        assert mine == "lc1;A:2"
        mine = await token_of(client, "tea", **context(mine))
        assert mine == "lc1;A:2;B:1"
        mine = await token_of(client, "dinner", **context(mine))
        assert mine == "lc1;A:2;B:1"
        mine = await put(client, "lunch", b"one?", headers=context(mine))
        assert mine == "lc1;A:3;B:1"
        response = await client.delete("/kv/lunch", headers=context(mine))
        assert response.headers["Causal-Context"] == "lc1;A:4;B:1"


async def test_several_tokens_are_joined(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        b, c = Node("B"), Node("C")
        writes = [put_by(b, "tea", b"1"), put_by(b, "tea", b"2"), put_by(c, "soup", b"3")]
        await replicated(client, *writes)
        await put(client, "lunch", b"noon?")
        joined = await token_of(client, "lunch", **context("lc1;B:1;C:1", "lc1;B:2", "lc1;"))
        assert joined == "lc1;A:1;B:2;C:1"
        headers = [("Causal-Context", "lc1;B:2"), ("Causal-Context", "lc1;C:1")]
        response = await client.put("/kv/lunch", data=b"one?", headers=headers)
        assert response.headers["Causal-Context"] == "lc1;A:2;B:2;C:1"


@pytest.mark.parametrize("empty", ["", " ", ",", "lc1;", "lc1;, lc1;"])
async def test_an_empty_context_asks_for_nothing(redis_url: str, empty: str) -> None:
    async with node_a(redis_url) as client:
        response = await client.put("/kv/lunch", data=b"x", headers={"Causal-Context": empty})
        assert response.headers["Causal-Context"] == "lc1;A:1"


async def test_a_session_reads_its_own_writes_of_another_node_once_they_have_come(
    redis_url: str,
) -> None:
    async with node_a(redis_url) as client:
        question = put_by(Node("B"), "lunch", b"noon?")
        waiting = asyncio.create_task(
            client.get("/kv/lunch?wait=30", headers=context("lc1;B:1")).__aenter__()
        )
        await problem(
            await client.get("/kv/lunch?wait=0", headers=context("lc1;B:1")), 503, "not-caught-up"
        )
        assert not waiting.done()
        await replicated(client, question)
        response = await waiting
        assert response.status == 200
        assert await response.read() == b"noon?"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_what_the_patience_ends_for_is_named_and_nothing_is_done(
    redis_url: str, method: str
) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"noon?")
        asked = context("lc1;A:1;B:4;C:2")
        response = await client.request(method, "/kv/lunch?wait=0", headers=asked)
        assert response.status == 503
        if method != "HEAD":
            fields = await problem(response, 503, "not-caught-up")
            assert {"B:4", "C:2"} <= {missing["dot"] for missing in fields["missing"]}
            assert "A:1" not in {missing["dot"] for missing in fields["missing"]}
            assert all(missing["known_for_s"] >= 0 for missing in fields["missing"])
            assert "B:4" in fields["detail"]
        assert await clock_of(client) == {"A": 1}
        assert await (await client.get("/kv/lunch")).read() == b"noon?"


async def test_a_refusal_names_what_the_asked_for_write_waits_for(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        b, c = Node("B"), Node("C")
        b.receive([put_by(c, "tea", b"five")])
        await replicated(client, put_by(b, "lunch", b"noon?"))
        response = await client.get("/kv/lunch?wait=0", headers=context("lc1;B:1"))
        fields = await problem(response, 503, "not-caught-up")
        assert "C:1" in [missing["dot"] for missing in fields["missing"]]
        assert "C:1" in fields["detail"]


async def test_a_refusal_names_the_gap_that_the_asked_for_write_waits_behind(
    redis_url: str,
) -> None:
    """B:3 is here and waits; what is missing, and what to look for, is B:2."""
    async with node_a(redis_url) as client:
        b = Node("B")
        first, _, third = (put_by(b, "lunch", b"%d" % n) for n in (1, 2, 3))
        await replicated(client, first, third)
        response = await client.get("/kv/lunch?wait=0", headers=context("lc1;B:3"))
        fields = await problem(response, 503, "not-caught-up")
        assert "B:2" in [missing["dot"] for missing in fields["missing"]]


async def test_how_long_a_write_is_missed_counts_from_when_it_was_heard_of(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        response = await replicate(client, clock=VectorClock({"B": 1}))
        assert response.status == 200
        ages = []
        for _ in range(2):
            response = await client.get("/kv/lunch?wait=0.01", headers=context("lc1;B:1"))
            [missing] = (await problem(response, 503, "not-caught-up"))["missing"]
            assert missing["dot"] == "B:1"
            ages.append(missing["known_for_s"])
        assert 0 < ages[0] < ages[1]


async def test_a_context_of_another_cluster_is_refused(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        for method in ("GET", "PUT", "DELETE"):
            response = await client.request(method, "/kv/x", headers=context("lc1;A:1;Z:1"))
            assert "Z" in (await problem(response, 400, "foreign-context"))["detail"]
        assert await clock_of(client) == {}


@pytest.mark.parametrize("stranger", ["lc1;B:1", "lc1;B~x1:1", "lc1;C.3:1"])
async def test_a_context_of_a_member_is_none_of_another_cluster(
    redis_url: str, stranger: str
) -> None:
    async with node_a(redis_url) as client:
        response = await client.get("/kv/x?wait=0", headers=context(stranger))
        await problem(response, 503, "not-caught-up")


@pytest.mark.parametrize(
    "token",
    [
        *("B:1", "lc2;B:1", "lc1;B", "lc1;B:", "lc1;B:0", "lc1;B:-1", "lc1;B:01", "lc1;B:x"),
        *("lc1;B:1;B:2", "lc1;:1", "lc1;B:9007199254740992", "lc1;B:1;s=abc", "LC1;B:1", "null"),
        *("lc1;B:1,rubbish", "lc1;B:\u0661", "lc1;" + "B" * 65 + ":1"),
    ],
)
async def test_a_context_that_no_node_made_is_refused(redis_url: str, token: str) -> None:
    async with node_a(redis_url) as client:
        response = await client.put("/kv/lunch", data=b"x", headers=context(token))
        await problem(response, 400, "bad-context")
        assert await clock_of(client) == {}


async def test_a_context_over_the_limit_is_refused(redis_url: str) -> None:
    async with node_a(redis_url, context_max_bytes=100) as client:
        asked = context(*["lc1;B:1"] * 20)
        detail = (await problem(await client.get("/kv/x", headers=asked), 413, "too-large"))[
            "detail"
        ]
        assert "CONTEXT_MAX_BYTES" in detail


async def test_in_a_signed_cluster_a_token_is_taken_only_as_it_was_given(redis_url: str) -> None:
    async with node_a(redis_url, cluster_secret=SECRET) as client:
        mine = await put(client, "lunch", b"noon?")
        assert re.fullmatch(r"lc1;A:1;s=[\w-]+", mine)
        assert await token_of(client, "lunch", **context(mine)) == mine
        joined = await token_of(client, "absent", **context(mine, mine))
        assert joined == mine
        forged = [mine.replace("A:1", "A:2"), mine[:-1], mine.partition(";s=")[0], "lc1;"]
        for token in [*forged, mine.swapcase(), mine + "x"]:
            response = await client.get("/kv/lunch", headers=context(token))
            await problem(response, 400, "bad-context")


async def test_a_token_of_another_secret_is_refused(redis_url: str) -> None:
    async with node_a(redis_url, cluster_secret="another secret entirely") as client:
        theirs = await put(client, "lunch", b"noon?")
    async with node_a(redis_url, cluster_secret=SECRET) as client:
        await problem(await client.get("/kv/x", headers=context(theirs)), 400, "bad-context")
    async with node_a(redis_url) as client:
        await problem(await client.get("/kv/x", headers=context(theirs)), 400, "bad-context")
