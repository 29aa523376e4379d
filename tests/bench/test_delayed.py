"""Links that take long: what passes, when, and what happens when an end goes."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.local_nodes import HOST, free_ports
from bench.delayed import DelayedLinks, DelayingProxy, Wire

DELAY_S = 0.05


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def proxied(wire: Wire) -> AsyncIterator[int]:
    """A port by which the wire leads to somebody who says everything again."""
    [own] = free_ports(1)
    server = await asyncio.start_server(echo, HOST, 0)
    try:
        async with DelayingProxy(own, server.sockets[0].getsockname()[1], wire):
            yield own
    finally:
        server.close()


async def said_again(port: int, text: bytes) -> tuple[bytes, float]:
    """What came back of the text and its end, and after how long."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(HOST, port)
    sent = loop.time()
    writer.write(text)
    writer.write_eof()
    answer = await reader.read()
    took_s = loop.time() - sent
    writer.close()
    return answer, took_s


async def test_much_passes_unchanged_and_in_order() -> None:
    text = bytes(range(256)) * 20_000
    async with proxied(Wire()) as port:
        assert (await said_again(port, text))[0] == text


async def test_there_and_back_takes_at_least_twice_the_delay() -> None:
    wire = Wire()
    wire.delay_s = DELAY_S
    async with proxied(wire) as port:
        answer, took_s = await said_again(port, b"hello")
    assert answer == b"hello" and took_s >= 2 * DELAY_S


async def test_a_delay_that_is_set_holds_on_connections_that_are_open() -> None:
    wire, loop = Wire(), asyncio.get_running_loop()
    async with proxied(wire) as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        wire.delay_s = DELAY_S
        sent = loop.time()
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"
        assert loop.time() - sent >= 2 * DELAY_S
        writer.close()


async def test_what_is_under_way_does_not_wait_for_what_went_before_to_arrive() -> None:
    wire, loop = Wire(), asyncio.get_running_loop()
    wire.delay_s = 1.0
    async with proxied(wire) as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        sent = loop.time()
        for number in range(10):
            writer.write(b"%d" % number)
            await asyncio.sleep(0.01)
        assert await reader.readexactly(10) == b"0123456789"
        # One after the other they would take 20 s.
        assert 2.0 <= loop.time() - sent < 20.0
        writer.close()


async def test_a_target_that_is_not_there_is_a_connection_that_ends() -> None:
    own, nobody = free_ports(2)
    async with DelayingProxy(own, nobody, Wire()):
        reader, writer = await asyncio.open_connection(HOST, own)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


async def test_when_it_ends_so_do_its_connections() -> None:
    async with proxied(Wire()) as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"a")
        await reader.readexactly(1)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()


def test_each_node_has_a_port_of_its_own_for_each_other_one() -> None:
    links = DelayedLinks("ABC", {"A": 1, "B": 2, "C": 3}, range(10, 16))
    urls = [links.url(*pair) for pair in itertools.permutations("ABC", 2)]
    assert len(set(urls)) == 6
