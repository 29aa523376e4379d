"""The load generators, against a server of this file that knows what it was asked."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.generator import BadAnswer, Generator
from bench.load import LoadFailed, Loads
from bench.requests import Request, read_requests, write_requests

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUESTS = [Request("PUT", f"/kv/{n}", b"value\r\n\r\n" * n, {"X": "y"}) for n in range(7)]
GENEROUS_S = 30.0


@dataclass
class Server:
    """Answers each request, and remembers it."""

    answer: Callable[[int], bytes] = lambda number: OK
    pause_s: float = 0.0
    port: int = 0
    asked: list[bytes] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
                self.asked.append(head + await reader.readexactly(int(length or 0)))
                self.at_once += 1
                self.most_at_once = max(self.at_once, self.most_at_once)
                await asyncio.sleep(self.pause_s)
                self.at_once -= 1
                writer.write(self.answer(len(self.asked)))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Server]:
    listening = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


def encoded() -> list[bytes]:
    return [request.encoded() for request in REQUESTS]


async def saturated(
    server: Server, connections: int, most: int, *, sessions: bool = False
) -> Generator:
    def go() -> Generator:
        with Generator(server.port, connections, encoded(), sessions=sessions) as generator:
            generator.saturate(GENEROUS_S, most)
        return generator

    async with running(server):
        return await asyncio.to_thread(go)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_requests(REQUESTS, tmp_path / "requests")
    assert list(read_requests(tmp_path / "requests")) == encoded()


def test_a_request_on_the_wire() -> None:
    assert Request("PUT", "/kv/a", b"xyz", {"A": "b"}).encoded() == (
        b"PUT /kv/a HTTP/1.1\r\nHost: 127.0.0.1\r\nA: b\r\nContent-Length: 3\r\n\r\nxyz"
    )
    assert Request("GET", "/kv/a").encoded() == b"GET /kv/a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def test_one_connection_asks_in_order_and_begins_again() -> None:
    server = Server()
    generator = await saturated(server, 1, 10)
    assert server.asked == [*encoded(), *encoded()[:3]]
    assert len(generator.tally.times_s) == 10 and generator.tally.errors == 0


async def test_all_connections_are_busy_and_no_request_is_sent_beyond_the_last() -> None:
    server = Server(pause_s=0.05)
    generator = await saturated(server, 5, 18)
    assert len(server.asked) == len(generator.tally.times_s) == 18
    assert server.most_at_once == 5
    assert min(generator.tally.times_s) >= 0.05


async def test_fewer_requests_than_connections() -> None:
    server = Server()
    await saturated(server, 5, 2)
    assert len(server.asked) == 2


async def test_time_ends_it_too() -> None:
    server = Server(pause_s=0.01)

    def go() -> int:
        with Generator(server.port, 2, encoded(), sessions=False) as generator:
            generator.saturate(0.1, 10**9)
            return len(generator.tally.times_s)

    async with running(server):
        answered = await asyncio.to_thread(go)
    assert 2 <= answered == len(server.asked)


async def test_an_answer_that_comes_in_pieces_is_one_answer() -> None:
    body = b"x" * 200_000
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    generator = await saturated(Server(lambda _: answer), 3, 20)
    assert len(generator.tally.times_s) == 20 and generator.tally.errors == 0


async def test_what_is_not_a_2xx_is_an_error() -> None:
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    empty = b"HTTP/1.1 204 No Content\r\n\r\n"
    answers = [OK, refusal, empty]
    generator = await saturated(Server(lambda number: answers[number % 3]), 1, 9)
    assert len(generator.tally.times_s) == 9 and generator.tally.errors == 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "without Content-Length"),
        (b"", "did not come"),
    ],
)
async def test_an_answer_that_cannot_be_read_is_no_figure(
    answer: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.generator._PATIENCE_S", 0.1)
    server = Server(lambda _: answer)

    def go() -> None:
        with Generator(server.port, 1, encoded(), sessions=False) as generator:
            generator.saturate(0.1, 1)

    async with running(server):
        with pytest.raises(BadAnswer, match=said):
            await asyncio.to_thread(go)


async def test_a_session_sends_the_context_that_it_was_given_last() -> None:
    def answer(number: int) -> bytes:
        return b"HTTP/1.1 200 OK\r\nCausal-Context: c%d\r\nContent-Length: 2\r\n\r\nok" % number

    server = Server(answer)
    await saturated(server, 1, 4, sessions=True)
    assert b"Causal-Context" not in server.asked[0]
    assert [b"Causal-Context: c%d\r\n" % n in server.asked[n] for n in (1, 2, 3)] == [True] * 3
    assert server.asked[2].endswith(REQUESTS[2].body)
    await saturated(again := Server(answer), 1, 2)
    assert all(b"Causal-Context" not in request for request in again.asked)


async def test_at_a_rate_so_many_are_sent_however_slowly_the_answers_come() -> None:
    server = Server(pause_s=0.2)

    def go() -> list[float]:
        with Generator(server.port, 4, encoded(), sessions=False) as generator:
            generator.pace(0.4, 50)
            return generator.tally.times_s

    async with running(server):
        times_s = await asyncio.to_thread(go)
    assert len(times_s) == len(server.asked) == 20
    # 20 requests of 0.2 s on 4 connections take a second at least, and the last was due after 0.38:
    # the time that it waited for a connection is its own.
    assert max(times_s) >= 0.6
    assert min(times_s) >= 0.2


async def test_at_a_rate_what_is_never_answered_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.generator._PATIENCE_S", 0.5)
    server = Server(lambda number: b"" if number == 3 else OK)

    def go() -> Generator:
        with Generator(server.port, 4, encoded(), sessions=False) as generator:
            generator.pace(0.2, 50)
            return generator

    async with running(server):
        generator = await asyncio.to_thread(go)
    assert len(server.asked) == 10
    assert (len(generator.tally.times_s), generator.tally.errors) == (9, 1)


async def test_the_command_tells_what_came_of_it(tmp_path: Path) -> None:
    write_requests(REQUESTS, tmp_path / "requests")
    async with running(Server()) as server:
        told = await Loads("ours", 3).once(tmp_path / "requests", server.port, 50)
        paced = await Loads("ours", 3).pace(tmp_path / "requests", server.port, 0.2, 100)
    assert told.requests == 50 and told.errors == 0
    assert 0 < told.p50_us <= told.p99_us <= told.p999_us <= told.most_us
    assert told.cpu_s > 0 and told.seconds > 0
    assert paced.requests == 20 and paced.seconds >= 0.19


async def test_what_must_be_done_and_was_refused_is_a_failure(tmp_path: Path) -> None:
    write_requests(REQUESTS, tmp_path / "requests")
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    async with running(Server(lambda number: refusal if number == 3 else OK)) as server:
        with pytest.raises(LoadFailed, match="1 of 50 requests failed"):
            await Loads("ours", 1).once(tmp_path / "requests", server.port, 50)


async def test_nobody_there_is_a_failure_and_no_figure(tmp_path: Path) -> None:
    write_requests(REQUESTS, tmp_path / "requests")
    async with running(Server()) as server:
        pass
    with pytest.raises(LoadFailed, match="refused"):
        await Loads("ours", 3).once(tmp_path / "requests", server.port, 50)


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
async def test_wrk_sends_the_same_requests(tmp_path: Path) -> None:
    write_requests(REQUESTS, tmp_path / "requests")
    async with running(Server()) as server:
        told = await Loads("wrk", 1).saturate(tmp_path / "requests", server.port, 1)
    assert set(server.asked) == set(encoded())
    assert told.requests > 0 and told.errors == 0 and told.cpu_s > 0
    assert 0 < told.p50_us <= told.p99_us <= told.p999_us <= told.most_us
