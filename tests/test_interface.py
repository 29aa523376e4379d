"""The routes of a node are those of its contract, and take what it says."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as BlockingRedis

from tests.one_node import Client, node_a


@pytest.fixture
async def node(redis_socket: Path) -> AsyncIterator[Client]:
    with BlockingRedis(unix_socket_path=str(redis_socket)) as redis:
        redis.flushall()
    async with node_a(f"unix://{redis_socket}?db=6") as node:
        yield node


async def contract(node: Client) -> dict[str, Any]:
    async with node.get("/openapi.json") as answer:
        assert answer.status == 200 and answer.content_type == "application/json"
        found: dict[str, Any] = await answer.json()
        return found


async def test_a_node_tells_of_the_routes_that_it_has_and_of_no_other(
    node: Client, redis_socket: Path
) -> None:
    paths = (await contract(node))["paths"]
    assert {"/kv/{key}", "/replicate", "/openapi.json"} <= set(paths)
    assert "/faults/{peer}" not in paths
    async with node_a(f"unix://{redis_socket}?db=7", faults=True) as other:
        assert set((await contract(other))["paths"]) == {*paths, "/faults/{peer}"}


async def test_each_route_refuses_what_it_does_not_take_and_says_what_it_takes(
    node: Client,
) -> None:
    for path, methods in (await contract(node))["paths"].items():
        for method, promised in methods.items():
            taken = [one["name"] for one in promised.get("parameters", []) if one["in"] == "query"]
            url = path.replace("{key}", "k").replace("{id}", "B")
            async with node.request(method, url, params={"nonsense": "1"}) as answer:
                assert answer.status == 400, (method, path)
                if method != "head":
                    problem = await answer.json()
                    assert problem["type"] == "urn:lightcone:bad-parameter"
                    says = ", ".join(taken) if taken else "none"
                    assert f"this request takes {says}. " in problem["detail"]


@pytest.mark.parametrize("target", ["/kv/a#b", "/kv/a#", "/kv/a?ttl=1#b"])
async def test_a_target_with_a_fragment_is_refused(node: Client, target: str) -> None:
    """Without what follows it would be another key."""
    url = node.make_url("/")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"PUT {target} HTTP/1.1\r\nHost: n\r\nContent-Length: 1\r\n\r\nx".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    writer.close()
    async with node.get("/kv/a") as answer:
        assert answer.status == 404


async def test_who_waits_for_leave_to_send_its_body_has_it(node: Client) -> None:
    async with node.put("/kv/x", data=b"1", expect100=True) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("expected", [["miracles"], ["100-continue", "miracles"]])
async def test_who_expects_anything_else_is_refused_with_a_problem(
    node: Client, expected: list[str]
) -> None:
    headers = [("Expect", each) for each in expected]
    async with node.put("/kv/x", data=b"1", headers=headers) as answer:
        assert (answer.status, answer.content_type) == (400, "application/problem+json")
        assert "100-continue" in (await answer.json())["detail"]
    async with node.get("/kv/x") as answer:
        assert answer.status == 404


async def test_a_client_of_http_1_0_is_not_told_to_go_on(node: Client) -> None:
    url = node.make_url("/")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"GET /healthz HTTP/1.0\r\nExpect: 100-continue\r\n\r\n")
    assert (await reader.readline()).endswith(b" 200 OK\r\n")
    writer.close()
    await writer.wait_closed()
