"""Faults on links, set and healed over HTTP."""

from typing import Any

import pytest

from tests.one_node import Client, node_a, problem


async def test_without_faults_there_is_no_such_route(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        await problem(await client.put("/faults/B", json={"cut": True}), 404, "not-found")
        await problem(await client.delete("/faults/B"), 404, "not-found")


async def test_a_fault_is_set_shown_replaced_and_healed(redis_url: str) -> None:
    async def shown(client: Client, peer: str) -> Any:
        status = await (await client.get("/status")).json()
        return status["peers"][peer].get("faults")

    healthy = {
        **{"delay_ms": 0, "jitter_ms": 0, "drop": 0.0, "duplicate": 0.0, "reorder": 0.0},
        **{"cut": False, "no_relay": False},
    }
    async with node_a(redis_url, faults=True) as client:
        assert await shown(client, "B") is None
        response = await client.put("/faults/B", json={"delay_ms": 20, "drop": 0.5})
        assert response.status == 200
        fault = {**healthy, "delay_ms": 20, "drop": 0.5}
        assert await response.json() == fault
        assert await shown(client, "B") == fault
        assert await shown(client, "C") is None
        await client.put("/faults/B", json={"cut": True})
        assert await shown(client, "B") == {**healthy, "cut": True}
        response = await client.delete("/faults/B")
        assert response.status == 204
        assert await shown(client, "B") is None


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"cut", b"[]", b'{"cut": 1}', b'{"drop": 1.1}', b'{"drop": -0.1}', b'{"drop": "1"}'),
        *(b'{"delay_ms": -1}', b'{"delay_ms": 1.5}', b'{"explode": true}', b'{"delay_ms": 1e9}'),
        *(b"\xff", b"[" * 4000),
    ],
)
async def test_a_fault_that_cannot_be_is_refused(redis_url: str, body: bytes) -> None:
    async with node_a(redis_url, faults=True) as client:
        await problem(await client.put("/faults/B", data=body), 400, "bad-fault")


async def test_a_fault_that_is_too_large_is_refused(redis_url: str) -> None:
    async with node_a(redis_url, faults=True) as client:
        await problem(await client.put("/faults/B", data=b" " * 10_000), 413, "too-large")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("peer", ["A", "Z", "b"])
async def test_there_is_no_fault_on_a_link_that_is_not(
    redis_url: str, method: str, peer: str
) -> None:
    async with node_a(redis_url, faults=True) as client:
        response = await client.request(method, f"/faults/{peer}", json={})
        await problem(response, 403, "unknown-peer")
