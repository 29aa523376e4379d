"""A node's port: taken before anything else, and left so that no client is in doubt.

Assumes nothing. Guarantees that a port that somebody listens on is not taken; and that whoever had
connected to a port that is left can still be served. A listening socket that is closed cuts off all
whom the kernel has let in and nobody has accepted yet, though they may have sent a request already.

Does not know what is said on a connection.
"""

import asyncio
import ctypes
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from app.errors import StartupError

BACKLOG: Final = 1024
"""Connections that wait while every worker is busy or being replaced."""
_RELEASE_S: Final = 3.0
"""The workers of a supervisor that was killed need a moment until they let go of the port."""
_POLL_S: Final = 0.05
_HANDSHAKE_S: Final = 0.2
"""How long a client may take to complete the handshake that it began before the port was left."""

_SO_ATTACH_FILTER: Final = 26  # Linux; Python does not name it
_LISTENERS_QUEUE: Final = 24
"""Where TCP_INFO has the number of those who wait to be accepted (`tcpi_unacked` of a listener)."""
_NO_NEW_CONNECTION: Final = (
    (0x30, 0, 0, 13),  # the flags of the segment
    (0x54, 0, 0, 0x12),  # of them SYN and ACK
    (0x15, 0, 1, 0x02),  # with SYN alone somebody wants to connect:
    (0x06, 0, 0, 0),  # it is as if it had never come
    (0x06, 0, 0, 0xFFFFFFFF),  # all else comes in whole
)
"""A program for the kernel's packet filter, an instruction (code, jt, jf, k) each."""


async def take_port(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to all addresses of `host`; none listens yet. Raises StartupError."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartupError(f"HOST: {host} is no address: {error.strerror}") from error
    give_up = loop.time() + _RELEASE_S
    while True:
        try:
            return _bind_all(found)
        except OSError as error:
            if loop.time() > give_up:
                raise port_taken(host, port, error) from error
        await asyncio.sleep(_POLL_S)


def _bind_all(found: list[Any]) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    port: int | None = None
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            if port is not None:
                address = (address[0], port, *address[2:])
            # A bound socket does not yet show whether somebody else listens there: one that
            # listens does, and is closed again.
            with _bind(family, kind, protocol, address) as probe:
                probe.listen(1)
                address = probe.getsockname()
                port = address[1]
            sockets.append(_bind(family, kind, protocol, address))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        # Connections of the last run that are still closing must not keep the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def port_taken(host: str, port: int, error: OSError) -> StartupError:
    return StartupError(
        f"HOST, PORT: cannot listen on {host}:{port}: {error.strerror}. "
        "Choose another PORT (0 picks a free one), or end what uses this one."
    )


async def leave_port(sockets: Sequence[socket.socket]) -> None:
    """Nobody connects to these listening sockets any more, and whoever had is accepted.

    For somebody who accepts meanwhile, and closes them then: who tries to connect until then hears
    nothing, tries again after a second, and is refused.

    Where the system is not Linux this does what it can, which is nothing.
    """
    if sys.platform != "linux":
        return
    for sock in sockets:
        _refuse_newcomers(sock)
    await asyncio.sleep(_HANDSHAKE_S)
    while any(_waiting(sock) for sock in sockets):
        await asyncio.sleep(_POLL_S)


def _refuse_newcomers(sock: socket.socket) -> None:
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_NEW_CONNECTION)
    kept = ctypes.create_string_buffer(code)
    program = struct.pack("HP", len(_NO_NEW_CONNECTION), ctypes.addressof(kept))
    with suppress(OSError):  # a kernel without filters: then some may be cut off, as everywhere
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _waiting(sock: socket.socket) -> int:
    """How many have connected and were not accepted."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LISTENERS_QUEUE + 4)
    return int(struct.unpack_from("I", info, _LISTENERS_QUEUE)[0])
