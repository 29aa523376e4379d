"""Deferred writes: accepted at once though the node lacks what their clients have seen, and done
once that has come."""

import asyncio
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from aiohttp import ClientResponse

from app import wire
from app.carriers import signed_with
from app.context import Contexts
from app.peers import Signer
from app.vector_clock import VectorClock
from app.wire import Batch
from app.write import Put, Write
from tests.model import Node
from tests.one_node import (
    SECRET,
    Client,
    clock_of,
    context,
    kv,
    node_a,
    problem,
    put,
    put_by,
    replicated,
)
from tests.processes import until
from tests.test_losses import Peers
from tests.test_losses import node_a as node_a_with

ASYNC = {"Prefer": "respond-async"}
SIGNED = {"cluster_secret": SECRET}


def seen(clock: str) -> dict[str, str]:
    """The signed context of who has seen so much, and prefers not to wait."""
    return {**ASYNC, **context(Contexts(SECRET, 8192).token(VectorClock.parse(clock)))}


def clock_in(response: ClientResponse) -> VectorClock:
    """What the context of the answer covers."""
    return Contexts(SECRET, 8192).parse(response.headers["Causal-Context"])


async def accepted(response: ClientResponse) -> dict[str, Any]:
    assert response.status == 202, await response.text()
    assert response.headers["Preference-Applied"] == "respond-async"
    fields: dict[str, Any] = await response.json()
    assert response.headers["Dot"] == fields["dot"]
    return fields


async def pending(client: Client) -> dict[str, Any]:
    fields: dict[str, Any] = await (await client.get("/pending")).json()
    return fields


async def comes_from_b(client: Client, *writes: Write) -> None:
    """B, which has the secret, sends these writes."""
    body = wire.encode_batch(Batch("B", "A", VectorClock(), tuple(writes)))
    signed = signed_with(Signer(SECRET).signature(body))
    response = await client.post("/replicate", data=body, headers=signed)
    assert response.status == 200, await response.text()


# --- accepted, and done later --------------------------------------------------------------------


async def test_a_write_whose_context_is_not_here_is_accepted_and_done_once_it_is(
    redis_url: str,
) -> None:
    async with node_a(redis_url, **SIGNED) as client:
        response = await client.put("/kv/reply", data="yes", headers=seen("B:1"))
        assert await accepted(response) == {"dot": "A+:1", "waiting_for": ["B:1"]}
        assert clock_in(response) == VectorClock.parse("A+:1 B:1")
        assert (await client.get("/kv/reply")).status == 404
        reads = client.session.get(kv(client, "reply", "?wait=30"), headers=seen("A+:1 B:1"))
        reading = asyncio.ensure_future(reads)
        await comes_from_b(client, put_by(Node("B"), "lunch", b"noon?"))
        shown = await reading
        assert (shown.status, await shown.text()) == (200, "yes")
        assert shown.headers["Dot"] == "A+:1"
        assert await clock_of(client) == {"A+": 1, "B": 1}


async def test_what_is_here_already_is_written_at_once(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        for number, headers in enumerate((ASYNC, {**ASYNC, **context("lc1;A:1")}), 1):
            response = await client.put("/kv/lunch", data="x", headers=headers)
            assert (response.status, response.headers["Dot"]) == (200, f"A:{number}")
            assert "Preference-Applied" not in response.headers


async def test_deletes_and_transactions_are_accepted_as_well(redis_url: str) -> None:
    async with node_a(redis_url, **SIGNED) as client:
        await put(client, "lunch", "noon?")
        await put(client, "tea", "five")
        response = await client.delete("/kv/lunch", headers=seen("B:1"))
        assert await accepted(response) == {"dot": "A+:1", "waiting_for": ["B:1"]}
        ops = {"ops": [{"put": "x", "value": "1"}, {"delete": "tea"}]}
        response = await client.post("/txn", json=ops, headers=seen("B:1"))
        assert await accepted(response) == {"dot": "A+:2", "waiting_for": ["A+:1", "B:1"]}
        assert (await client.get("/kv/lunch")).status == 200
        await comes_from_b(client, put_by(Node("B"), "y", b"2"))
        response = await client.session.get(kv(client, "x", "?wait=30"), headers=seen("A+:2"))
        assert (response.status, response.headers["Dot"]) == (200, "A+:2")
        for key in ("lunch", "tea"):
            assert (await client.get(f"/kv/{key}")).status == 404


async def test_other_clients_write_at_once_meanwhile(redis_url: str) -> None:
    async with node_a(redis_url, **SIGNED) as client:
        await accepted(await client.put("/kv/reply", data="yes", headers=seen("B:1")))
        await put(client, "lunch", "noon?")
        assert await clock_of(client) == {"A": 1}


async def test_a_session_goes_on_with_what_it_was_given(redis_url: str) -> None:
    """Its next write follows the one that waits; without the preference it is told to wait."""
    async with node_a(redis_url, **SIGNED) as client:
        first = await client.put("/kv/x", data="1", headers=seen("B:1"))
        mine = context(first.headers["Causal-Context"])
        refused = await client.put("/kv/x?wait=0", data="2", headers=mine)
        fields = await problem(refused, 503, "not-caught-up")
        assert {one["dot"] for one in fields["missing"]} == {"A+:1", "B:1"}
        second = await client.put("/kv/x", data="2", headers={**ASYNC, **mine})
        assert (await accepted(second))["dot"] == "A+:2"
        await comes_from_b(client, put_by(Node("B"), "y", b"2"))
        last = await client.session.get(
            kv(client, "x", "?wait=30"), headers=context(second.headers["Causal-Context"])
        )
        assert (await last.text(), last.headers["Dot"]) == ("2", "A+:2")


@pytest.mark.parametrize(
    ("query", "prefer"), [("?wait=30", "respond-async"), ("", "wait=30, respond-async")]
)
async def test_it_waits_first_for_as_long_as_it_is_told(
    redis_url: str, query: str, prefer: str
) -> None:
    async with node_a(redis_url, **SIGNED) as client:
        headers = {**seen("B:1"), "Prefer": prefer}
        writing = asyncio.ensure_future(
            client.session.put(kv(client, "reply", query), data="yes", headers=headers)
        )
        await asyncio.sleep(0)
        await comes_from_b(client, put_by(Node("B"), "lunch", b"noon?"))
        response = await writing
        assert (response.status, response.headers["Dot"]) == (200, "A:1")


@pytest.mark.parametrize("prefer", ["respond-later", "wait=0", "wait=x", "return=minimal", ""])
async def test_other_preferences_are_not_heeded(redis_url: str, prefer: str) -> None:
    async with node_a(redis_url, **SIGNED) as client:
        headers = {**seen("B:1"), "Prefer": prefer}
        response = await client.put("/kv/x?wait=0", data="1", headers=headers)
        await problem(response, 503, "not-caught-up")


@pytest.mark.parametrize(
    "prefer",
    [
        *("Respond-Async", "return=minimal, respond-async", "respond-async; x=y"),
        *("respond-async,wait=nonsense", 'respond-async, wait="0"'),
    ],
)
async def test_the_preference_is_read_as_its_standard_says(redis_url: str, prefer: str) -> None:
    async with node_a(redis_url, **SIGNED) as client:
        headers = {**seen("B:1"), "Prefer": prefer}
        await accepted(await client.put("/kv/x", data="1", headers=headers))


async def test_it_is_not_heeded_where_the_state_at_the_write_decides(redis_url: str) -> None:
    async with node_a(redis_url, **SIGNED) as client:
        headers = seen("B:1")
        for query, more in (
            ("?wait=0", {"If-None-Match": "*"}),
            ("?wait=0", {"If-Match": '"A:1"'}),
            ("?wait=0&replicas=2", {}),
            ("?wait=0&replicas=1", {}),
        ):
            response = await client.session.put(
                kv(client, "x", query), data="1", headers={**headers, **more}
            )
            await problem(response, 503, "not-caught-up")
        for one in ({"get": "x"}, {"put": "x", "value": "1", "if": None}):
            ops = {"ops": [one, {"put": "y", "value": "1"}]}
            response = await client.post("/txn?wait=0", json=ops, headers=headers)
            await problem(response, 503, "not-caught-up")
        assert (await pending(client))["deferred_total"] == 0


async def test_a_request_that_is_repeated_is_accepted_once(redis_url: str) -> None:
    async with node_a(redis_url, **SIGNED) as client:
        headers = {**seen("B:1"), "Idempotency-Key": "r"}
        first = await client.put("/kv/x", data="1", headers=headers)
        again = await client.put("/kv/x", data="1", headers=headers)
        assert await accepted(first) == await accepted(again)
        assert "Idempotent-Replayed" not in first.headers
        assert again.headers["Idempotent-Replayed"] == "true"
        await problem(
            await client.put("/kv/x", data="2", headers=headers), 422, "idempotency-key-reused"
        )
        await comes_from_b(client, put_by(Node("B"), "y", b"2"))
        await client.session.get(kv(client, "x", "?wait=30"), headers=seen("A+:1"))
        done = await client.put("/kv/x", data="1", headers=headers)
        assert (done.status, done.headers["Dot"]) == (200, "A+:1")
        assert done.headers["Idempotent-Replayed"] == "true"
        assert await clock_of(client) == {"A+": 1, "B": 1}


async def test_a_ttl_counts_from_when_it_is_done(redis_url: str) -> None:
    async with node_a(redis_url, **SIGNED) as client:
        headers = {**seen("B:1"), "Idempotency-Key": "r"}
        put_x = client.session.put(kv(client, "x", "?ttl=1000"), data="1", headers=headers)
        response = await put_x
        await accepted(response)
        assert "Expires" not in response.headers
        far = Node("B").write([Put("y", b"2")], 4_000_000_000_000_000)
        await comes_from_b(client, far)
        shown = await client.session.get(kv(client, "x", "?wait=30"), headers=seen("A+:1"))
        assert shown.status == 200
        again = await client.session.put(kv(client, "x", "?ttl=1000"), data="1", headers=headers)
        assert again.headers["Expires"] == shown.headers["Expires"]
        assert parsedate_to_datetime(shown.headers["Expires"]).timestamp() == 4_000_001_000


async def test_no_more_are_accepted_than_may_wait(redis_url: str) -> None:
    async with node_a(redis_url, deferred_max=1, **SIGNED) as client:
        await accepted(await client.put("/kv/x", data="1", headers=seen("B:1")))
        response = await client.put("/kv/x", data="2", headers=seen("B:1"))
        fields = await problem(response, 503, "deferred-full")
        assert "DEFERRED_MAX" in fields["detail"]
        await put(client, "y", "others write")


async def test_what_waits_is_still_there_when_the_node_is_started_again(redis_url: str) -> None:
    async with node_a(redis_url, **SIGNED) as client:
        await accepted(await client.put("/kv/x", data="1", headers=seen("B:1")))
    async with node_a(redis_url, **SIGNED) as client:
        assert (await pending(client))["deferred_total"] == 1
        await accepted(await client.put("/kv/x", data="2", headers=seen("B:1")))
        await comes_from_b(client, put_by(Node("B"), "y", b"2"))
        await client.session.get(kv(client, "x", "?wait=30"), headers=seen("A+:2"))
        assert await clock_of(client) == {"A+": 2, "B": 1}


async def test_who_was_given_a_dot_that_redis_does_not_know_costs_the_node_its_name(
    redis_url: str,
) -> None:
    """The Redis was put back to an older state, and would give the dot again (G4)."""
    async with node_a(redis_url, **SIGNED) as client:
        response = await client.put("/kv/x", data="1", headers=seen("A+:3"))
        dot = (await accepted(response))["dot"]
        assert dot.startswith("A~") and dot.endswith("+:1")
        status = await (await client.get("/status")).json()
        assert status["incarnation"]["reason"] == (
            "Redis has lost deferred writes: A+:3 was accepted"
        )


# --- without signatures --------------------------------------------------------------------------


async def test_an_unsigned_context_is_taken_only_for_writes_that_somebody_has(
    redis_url: str,
) -> None:
    """Anybody could invent it, and so hold up the lane for ever."""
    async with node_a(redis_url) as client:
        response = await client.put("/kv/x", data="1", headers={**ASYNC, **context("lc1;B:3;C:1")})
        fields = await problem(response, 503, "unknown-writes")
        assert "B:3" in fields["detail"] and "C:1" in fields["detail"]
        b = Node("B")
        first, second, third = (put_by(b, "y", b"%d" % number) for number in range(3))
        await replicated(client, third)
        for name in ("B:3", "B:2"):
            response = await client.put(
                "/kv/x", data="1", headers={**ASYNC, **context(f"lc1;{name}")}
            )
            await accepted(response)
        response = await client.put("/kv/x", data="1", headers={**ASYNC, **context("lc1;B:4")})
        await problem(response, 503, "unknown-writes")
        response = await client.put("/kv/x", data="1", headers={**ASYNC, **context("lc1;A+:2")})
        assert (await accepted(response))["dot"] == "A+:3"
        response = await client.put("/kv/x", data="1", headers={**ASYNC, **context("lc1;A+:9")})
        await problem(response, 503, "unknown-writes")
        await replicated(client, first, second)
        await client.session.get(kv(client, "x", "?wait=30"), headers=context("lc1;A+:3"))
        assert await clock_of(client) == {"A+": 3, "B": 3}


async def test_or_that_a_peer_says_it_has(redis_url: str) -> None:
    peers = Peers()
    peers.say("B", "B:1 C:7", "B:3")
    async with node_a_with(redis_url, peers) as client:

        async def is_accepted(name: str) -> bool:
            headers = {**ASYNC, **context(f"lc1;{name}")}
            response = await client.put("/kv/x", data="1", headers=headers)
            return response.status == 202

        await until(lambda: is_accepted("B:3;C:7"))
        assert not await is_accepted("B:4")
        assert not await is_accepted("C:8")


async def test_a_context_of_strangers_is_refused_as_ever(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        response = await client.put("/kv/x", data="1", headers={**ASYNC, **context("lc1;X:1")})
        await problem(response, 400, "foreign-context")


# --- looking in ----------------------------------------------------------------------------------


async def test_what_is_deferred_is_shown_with_what_it_waits_for(redis_url: str) -> None:
    async with node_a(redis_url, **SIGNED) as client:
        status = await (await client.get("/status")).json()
        assert status["deferred"] == {
            **{"total": 0, "bytes": 0, "next": None, "waiting_for": [], "since_s": None}
        }
        await client.put("/kv/x", data="1", headers=seen("B:1 C:2"))
        await client.delete("/kv/y", headers=seen("B:1"))
        await comes_from_b(client, put_by(Node("B"), "lunch", b"noon?"))
        shown = await pending(client)
        assert (shown["total"], shown["deferred_total"]) == (0, 2)
        first, second = shown["deferred"]
        assert first.pop("waiting_s") >= 0 and second.pop("waiting_s") >= 0
        assert first == {
            **{"dot": "A+:1", "context": {"B": 1, "C": 2}, "waiting_for": ["C:2"]},
            **{"could_come_from": {"C:2": ["C"]}, "keys": ["x"]},
        }
        assert second == {
            **{"dot": "A+:2", "context": {"B": 1}, "waiting_for": ["A+:1"]},
            **{"could_come_from": {}, "keys": ["y"]},
        }
        status = (await (await client.get("/status")).json())["deferred"]
        assert status.pop("since_s") >= 0 and status.pop("bytes") > 0
        assert status == {"total": 2, "next": "A+:1", "waiting_for": ["C:2"]}
        text = await (await client.get("/metrics")).text()
        assert "lightcone_deferred_writes 2.0" in text
        assert 'lightcone_writes_total{outcome="deferred"} ' in text
        about = (await (await client.get("/explain/y")).json())["deferred"]
        assert about.pop(0).pop("waiting_s") >= 0
        about = (await (await client.get("/explain/x")).json())["deferred"]
        assert [(one["dot"], one["does"], one["waiting_for"]) for one in about] == [
            ("A+:1", "put", ["C:2"])
        ]


async def test_a_watcher_is_told_of_it_when_it_is_done(redis_url: str) -> None:
    async with node_a(redis_url, **SIGNED) as client:
        await accepted(await client.put("/kv/reply", data="yes", headers=seen("B:1")))
        await comes_from_b(client, put_by(Node("B"), "lunch", b"noon?"))
        async with client.session.get(
            str(client.make_url("/watch")), params={"prefix": "reply", "since": ""}
        ) as response:
            async for line in response.content:
                if line.startswith(b"data:") and b'"A+:1"' in line:
                    break
            assert response.status == 200


# --- what is lost --------------------------------------------------------------------------------


async def test_a_context_that_names_what_is_lost_is_not_waited_for(redis_url: str) -> None:
    peers = Peers()
    async with node_a_with(redis_url, peers) as client:
        again = Node("B~x").write([Put("y", b"2")], 5)
        await replicated(client, again)
        for peer in ("B", "C"):
            peers.say(peer, "B~x:1")

        async def is_lost() -> bool:
            headers = {**ASYNC, **context("lc1;B:1")}
            response = await client.put("/kv/x", data="1", headers=headers)
            return response.status == 410

        await until(is_lost)
        assert (await pending(client))["deferred_total"] == 0


async def test_what_waits_for_a_write_that_is_declared_lost_is_done(redis_url: str) -> None:
    peers = Peers()
    peers.say("B", "B:1")
    async with node_a_with(redis_url, peers) as client:

        async def is_accepted() -> bool:
            headers = {**ASYNC, **context("lc1;B:1")}
            response = await client.put("/kv/x", data="1", headers=headers)
            return response.status == 202

        await until(is_accepted)
        await replicated(client, Node("B~x").write([Put("y", b"2")], 5))
        for peer in ("B", "C"):
            peers.say(peer, "B~x:1")

        async def is_declared() -> bool:
            return (await client.post("/lost", json={"dots": ["B:1"]})).status == 200

        await until(is_declared)
        response = await client.session.get(
            kv(client, "x", "?wait=30"), headers=context("lc1;A+:1")
        )
        assert (response.status, response.headers["Dot"]) == (200, "A+:1")
