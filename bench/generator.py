"""A load generator: `python -m bench.generator`, a process of its own.

What it is: one loop over sockets, without asyncio, so that it costs less than whoever answers. It
either keeps all connections busy, or sends at a given rate, however slowly the answers come.

What it assumes and guarantees: answers have a Content-Length. With a rate, the time of a request
counts from the moment when it was due: one that waits for a free connection has waited, and a slow
answer does not slow down what is asked (what is called coordinated omission does not happen). It
prints a line of JSON with the names of `bench/load.py`, and its own CPU time.

What it does not know: what is asked, and who answers. With `--sessions` it knows one header more:
each connection sends the last Causal-Context that it was given.
"""

import argparse
import json
import select
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Final, Self

from bench.figures import percentile
from bench.requests import read_requests

_RECEIVE_BYTES: Final = 65536
_PATIENCE_S: Final = 10.0
"""How long the last answers are waited for."""
_LATE_S: Final = 5.0
"""With a rate: how long after the end of its time what is still due is sent."""
_CONTEXT: Final = b"\r\nCausal-Context: "


class BadAnswer(Exception):
    """What came is no answer that this generator can read."""


@dataclass(slots=True, eq=False)
class Connection:
    """One connection, and the request that it waits for an answer to."""

    socket: socket.socket
    due: float = 0.0
    received: bytes = b""
    context: bytes = b""


@dataclass(slots=True)
class Tally:
    """What came of it."""

    times_s: list[float] = field(default_factory=list)
    errors: int = 0


class Generator:
    """Connections to one port, and the requests that are sent on them."""

    def __init__(
        self, port: int, connections: int, requests: list[bytes], *, sessions: bool
    ) -> None:
        """All connections are open."""
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._requests = cycle(requests)
        self._sessions = sessions
        for _ in range(connections):
            one = socket.create_connection(("127.0.0.1", port))
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._epoll.register(one, select.EPOLLIN)
            self._connections[one.fileno()] = Connection(one)
        self.tally = Tally()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()
        for connection in self._connections.values():
            connection.socket.close()

    def saturate(self, seconds: float, most: int) -> None:
        """All connections were busy for so long, or until so many requests were sent."""
        end = time.perf_counter() + seconds
        give_up = end + _PATIENCE_S
        free, waiting, sent = list(self._connections.values()), 0, 0
        while free or waiting:
            for connection in free:
                now = time.perf_counter()
                if sent < most and now < end:
                    self._send(connection, now)
                    sent, waiting = sent + 1, waiting + 1
            left_s = give_up - time.perf_counter()
            if waiting and left_s < 0:
                raise BadAnswer(
                    f"An answer did not come for {_PATIENCE_S:.0f} s after the last one."
                )
            free = self._answered(left_s) if waiting else []
            waiting -= len(free)

    def pace(self, seconds: float, rate: float) -> None:
        """So many requests a second were sent for so long.

        What could not be sent until long after it was due, for all connections waited, is an error,
        and so is what was not answered at all: Webdis loses an answer where a connection was closed
        that waited for one, and the next has its number.
        """
        begun = time.perf_counter()
        count, sent = max(1, round(seconds * rate)), 0
        give_up = begun + seconds + _PATIENCE_S
        free = deque(self._connections.values())
        while sent < count or len(free) < len(self._connections):
            now = time.perf_counter()
            if now > begun + seconds + _LATE_S:
                self.tally.errors += count - sent
                count = sent
            while free and sent < count and begun + sent / rate <= now:
                self._send(free.popleft(), begun + sent / rate)
                sent += 1
            if now > give_up:
                self.tally.errors += len(self._connections) - len(free)
                return
            # Waiting by epoll alone would be in whole milliseconds.
            next_due = begun + sent / rate if free and sent < count else give_up
            pause_s = min(next_due - time.perf_counter(), _LATE_S)
            select.select([self._epoll], [], [], max(0.0, pause_s))
            free += self._answered(0)

    def _send(self, connection: Connection, due: float) -> None:
        request = next(self._requests)
        if connection.context:
            head, end, body = request.partition(b"\r\n\r\n")
            request = b"".join((head, _CONTEXT, connection.context, end, body))
        connection.due = due
        connection.socket.sendall(request)

    def _answered(self, wait_s: float) -> list[Connection]:
        """The connections whose answers have come whole by now; some may come so soon."""
        found = []
        for descriptor, _ in self._epoll.poll(wait_s):
            connection = self._connections[descriptor]
            if self._receive(connection):
                self.tally.times_s.append(time.perf_counter() - connection.due)
                found.append(connection)
        return found

    def _receive(self, connection: Connection) -> bool:
        data = connection.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise BadAnswer("A connection was closed before its answer came.")
        received = connection.received + data
        end = received.find(b"\r\n\r\n")
        if end < 0 or len(received) < end + 4 + _length(received[:end]):
            connection.received = received
            return False
        if received[9:10] != b"2":
            self.tally.errors += 1
        if self._sessions:
            connection.context = _field(received[:end], _CONTEXT)
        connection.received = b""
        return True


def _length(head: bytes) -> int:
    for name in (b"\r\nContent-Length: ", b"\r\ncontent-length: "):
        if value := _field(head, name):
            return int(value)
    if head[9:12] == b"204":
        return 0
    raise BadAnswer(f"An answer without Content-Length: {head[:200].decode(errors='replace')}")


def _field(head: bytes, name: bytes) -> bytes:
    start = head.find(name)
    if start < 0:
        return b""
    start += len(name)
    end = head.find(b"\r\n", start)
    return head[start:] if end < 0 else head[start:end]


def main() -> int:
    """The load was made, and what came of it is printed."""
    parser = argparse.ArgumentParser(prog="python -m bench.generator")
    parser.add_argument("requests", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, help="requests a second; as many as can be without")
    parser.add_argument("--most", type=int, default=sys.maxsize, help="requests in all")
    parser.add_argument("--sessions", action="store_true")
    options = parser.parse_args()
    requests = list(read_requests(options.requests))
    port, connections = options.port, options.connections
    with Generator(port, connections, requests, sessions=options.sessions) as generator:
        begun, cpu_before = time.perf_counter(), time.process_time()
        if options.rate is None:
            generator.saturate(options.seconds, options.most)
        else:
            generator.pace(options.seconds, options.rate)
        seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_before
    times_us = sorted(second * 1e6 for second in generator.tally.times_s)
    told = {
        "requests": len(times_us),
        "seconds": seconds,
        "errors": generator.tally.errors,
        "p50_us": percentile(times_us, 50),
        "p99_us": percentile(times_us, 99),
        "p999_us": percentile(times_us, 99.9),
        "most_us": times_us[-1],
        "cpu_s": cpu_s,
    }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
