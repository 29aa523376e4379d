"""Wires between two little servers: whole, slow, cut, and mended."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.local_nodes import HOST
from tests.chaos.proxy import Network
from tests.processes import until

A_TO_B, B_TO_A = ("A", "B"), ("B", "A")


class Echo:
    """A server that answers each line with itself, and keeps what it was told."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, HOST, limit=2**23)
        return f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        # Broken off now, and gone with the next turn of the loop.
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        while line := await reader.readline():
            self.heard.append(line)
            writer.write(line)
        writer.close()


@pytest.fixture
async def b() -> AsyncIterator[Echo]:
    echo = Echo()
    yield echo
    await echo.stop()


@pytest.fixture
async def network(b: Echo) -> AsyncIterator[Network]:
    network = Network({"A": f"http://{HOST}:1", "B": await b.start()})
    await network.open()
    yield network
    await network.close()


async def connect(network: Network) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As A connects to B."""
    return await asyncio.open_connection(HOST, int(network.url(*A_TO_B).rpartition(":")[2]))


async def say(network: Network, line: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await connect(network)
    writer.write(line)
    return reader, writer


async def test_what_is_sent_arrives_unchanged_and_is_answered(network: Network, b: Echo) -> None:
    long = bytes(range(11, 256)) * 10_000 + b"\n"
    reader, writer = await say(network, long)
    answer = await reader.readexactly(len(long))
    writer.close()
    assert answer == long and b.heard == [long]


async def test_the_end_of_what_is_sent_arrives_too(network: Network, b: Echo) -> None:
    reader, writer = await say(network, b"last\n")
    writer.write_eof()
    assert await reader.read() == b"last\n"
    writer.close()


async def test_each_direction_takes_its_delay(network: Network, b: Echo) -> None:
    network.wires[A_TO_B].delay_s, network.wires[B_TO_A].delay_s = 0.2, 0.1
    began = asyncio.get_running_loop().time()
    reader, writer = await say(network, b"slowly\n")
    assert await reader.readline() == b"slowly\n"
    # At least: a timer is never early by more than a tick.
    assert asyncio.get_running_loop().time() - began > 0.29
    writer.close()


async def test_a_cut_holds_what_is_sent_until_it_is_mended(network: Network, b: Echo) -> None:
    reader, writer = await say(network, b"before\n")
    assert await reader.readline() == b"before\n"
    await network.cut([A_TO_B])
    writer.write(b"held\n")
    await until(lambda: network.wires[A_TO_B].held)
    assert b.heard == [b"before\n"]
    await network.mend([A_TO_B])
    assert await reader.readline() == b"held\n"
    writer.close()


async def test_what_was_held_arrives_even_when_its_sender_has_gone(
    network: Network, b: Echo
) -> None:
    await network.cut([A_TO_B])
    _, writer = await say(network, b"too late\n")
    writer.close()
    await writer.wait_closed()
    await until(lambda: network.wires[A_TO_B].held)
    await network.mend([A_TO_B])
    await until(lambda: b.heard == [b"too late\n"])


async def test_with_one_direction_cut_requests_arrive_and_answers_do_not(
    network: Network, b: Echo
) -> None:
    await network.cut([B_TO_A])
    reader, writer = await say(network, b"asked\n")
    await until(lambda: network.wires[B_TO_A].held)
    assert b.heard == [b"asked\n"] and not network.wires[A_TO_B].held
    await network.mend([B_TO_A])
    assert await reader.readline() == b"asked\n"
    writer.close()


async def test_a_link_that_refuses_breaks_off_what_was_open(network: Network, b: Echo) -> None:
    reader, writer = await say(network, b"before\n")
    assert await reader.readline() == b"before\n"
    assert not network.refuses("A", "B")
    await network.cut([A_TO_B, B_TO_A], refuses=True)
    assert network.refuses("A", "B")
    with pytest.raises(ConnectionRefusedError):
        await connect(network)
    with pytest.raises(ConnectionError):
        if not await reader.read():
            raise ConnectionResetError
    writer.close()
    await network.mend([A_TO_B, B_TO_A], refuses=True)
    assert not network.refuses("A", "B")
    reader, writer = await say(network, b"after\n")
    assert await reader.readline() == b"after\n"
    writer.close()


async def test_a_wire_that_was_cut_twice_is_mended_twice(network: Network) -> None:
    wire = network.wires[A_TO_B]
    for refuses in (True, False):
        await network.cut([A_TO_B], refuses=True)
        await network.cut([A_TO_B], refuses=refuses)
        await network.mend([A_TO_B], refuses=refuses)
        assert wire.is_cut
        await network.mend([A_TO_B], refuses=True)
        assert not wire.is_cut


async def test_where_nobody_listens_connections_break_off(network: Network) -> None:
    port = int(network.url(*B_TO_A).rpartition(":")[2])
    reader, writer = await asyncio.open_connection(HOST, port)
    with pytest.raises(ConnectionError):
        if not await reader.read():
            raise ConnectionResetError
    writer.close()
