"""Counting what a worker does: the worker without sockets, and what follows from two counts."""

from pathlib import Path

import pytest

from bench import work
from bench.contenders import own_redis
from bench.in_memory import SERVERS, Client, run
from bench.results import OPERATIONS
from bench.samples import Operation


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("server", SERVERS)
async def test_each_request_is_answered(
    server: str, operation: Operation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    ask = Client.ask

    async def noted(client: Client, request: bytes) -> None:
        await ask(client, request)
        asked.append(request)

    monkeypatch.setattr(Client, "ask", noted)
    async with own_redis(tmp_path, "everysec") as redis:
        await run(server, operation, 3, 5, redis.url)
    assert len(asked) == 256 + 3 * 5
    assert all(request.startswith(operation.encode()) for request in asked[256:])


async def test_an_answer_that_is_no_good_is_an_error(tmp_path: Path) -> None:
    async with own_redis(tmp_path, "everysec") as redis, SERVERS["alone"](redis.url) as make:
        client = Client(make())
        with pytest.raises(RuntimeError, match=r"was answered b'HTTP/1\.1 404"):
            await client.ask(b"GET /kv/nothing HTTP/1.1\r\nHost: n\r\n\r\n")
        client.close()


async def test_what_more_requests_took_is_shared_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def executed(server: str, operation: Operation, connections: int, each: int) -> int:
        return 5_000_000 + connections * each * 300

    monkeypatch.setattr(work, "_executed", executed)
    assert (await work.counted("alone", "PUT", 7, 1000)).each == 300
