"""The port of a node, as the kernel sees it."""

import asyncio
import socket
import sys

import pytest

from app.port import leave_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what the kernel does is Linux's")


async def test_a_port_that_is_left_takes_nobody_new_and_keeps_whoever_had_connected() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = listener.getsockname()
        early = [socket.create_connection(address) for _ in range(3)]
        leaving = asyncio.create_task(leave_port([listener]))
        await asyncio.sleep(0)  # it has begun
        late = asyncio.create_task(asyncio.open_connection(*address))
        for number, client in enumerate(early):
            assert not leaving.done(), "somebody is still to be accepted"
            client.sendall(b"%d" % number)
            accepted, _ = await loop.sock_accept(listener)
            with accepted, client:
                assert accepted.recv(1) == b"%d" % number
        await leaving
        assert not late.done()
    with pytest.raises(ConnectionRefusedError):
        await late
