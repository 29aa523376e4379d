"""Bytes on the socket of a real node that are bad HTTP, or none: no worker ends by them.

The node is a process with one worker, which must be the same one afterwards, must have answered
nothing with 5xx, and must have logged no error. What stands in a body must never be taken for a
request of its own: each attempt at that carries a PUT to the key `smuggled`.
"""

import asyncio
import contextlib
import errno
import re
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.local_nodes import HOST, LocalCluster
from tests.effort import effort, time_enough
from tests.fuzzing.damage import changed_bytes
from tests.fuzzing.test_replicate import BODIES

pytestmark = time_enough()

DEADLINE_S: Final = 40.0
MEMORY_MAX_KB: Final = 400_000
"""Far more than a worker takes, and far less than what some of this asks it to take."""


class RunningNode:
    """A node, by what can be seen of it from outside."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self.port = int(cluster.urls["A"].rpartition(":")[2])
        self.workers = cluster.worker_pids("A")

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), timeout=DEADLINE_S)

    def say(self, raw: bytes, patience_s: float) -> bytes:
        """All that is answered to these bytes, before the client has no more patience and after."""
        reply = b""
        with self.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(raw)
            connection.settimeout(patience_s)
            with contextlib.suppress(TimeoutError):
                while some := connection.recv(65536):
                    reply += some
            connection.settimeout(DEADLINE_S)
            _end_sending(connection)
            while some := connection.recv(65536):
                reply += some
        return reply

    def status_of(self, request_line: str) -> int:
        """What a well-formed request is answered with."""
        with self.connect() as connection:
            head = f"{request_line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
            reply = b""
            while some := connection.recv(65536):
                reply += some
        return int(reply.split(b" ", 2)[1])

    def assert_unharmed(self) -> None:
        assert self.status_of("GET /readyz") == 200
        assert self._cluster.worker_pids("A") == self.workers, "a worker has ended"
        log = (self._cluster.data_dir / "A.log").read_text()
        assert not re.findall(r"\[(error|critical) |Traceback", log), log
        assert self.memory_kb() < MEMORY_MAX_KB

    def memory_kb(self) -> int:
        """The most memory that the worker ever had."""
        [worker] = self.workers
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{worker}/status").read_text(), re.M)
        assert found
        return int(found[1])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with asyncio.Runner() as runner:
        cluster = LocalCluster(tmp_path_factory.mktemp("node"), nodes=1)
        runner.run(cluster.start("A"))
        try:
            yield RunningNode(cluster)
        finally:
            runner.run(cluster.stop_all())


def _end_sending(connection: socket.socket) -> None:
    """No more is sent. Raises ConnectionError if the node has broken off the connection."""
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno == errno.ENOTCONN:  # as it is called once what broke it off has come
            raise ConnectionResetError from error
        raise


def statuses(reply: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", reply)]


# --- the classics ---------------------------------------------------------------------------------


def bomb(megabytes: int) -> bytes:
    """So many megabytes of zeros, compressed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1024 * 1024)
    return b"".join(packer.compress(zeros) for _ in range(megabytes)) + packer.flush()


def put(headers: bytes, body: bytes = b"") -> bytes:
    return b"PUT /kv/classic HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n\r\n" + body


SMUGGLED: Final = b"PUT /kv/smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
CHUNKED: Final = b"Transfer-Encoding: chunked"
GET: Final = b"GET /kv/classic HTTP/1.1\r\nHost: a\r\n"
LIES: Final = {
    "nothing": b"",
    "a line break": b"\r\n",
    "zeros": bytes(10_000),
    "a greeting of TLS": bytes.fromhex("16030100c8010000c403") + bytes(range(200)),
    "a greeting of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64),
    "a command of Redis": b"*1\r\n$8\r\nFLUSHALL\r\n",
    "a header of the PROXY protocol": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + GET + b"\r\n",
    "a line without a version": b"GET /kv/classic\r\n\r\n",
    "a version of the future": b"GET /kv/classic HTTP/9.9\r\n\r\n",
    "no host": b"GET /kv/classic HTTP/1.1\r\n\r\n",
    "a method that is none": b"F{}O /kv/classic HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method without end": b"A" * 1_000_000,
    "a path without end": b"GET /kv/" + b"x" * 1_000_000,
    "a path of raw bytes": b"GET /kv/\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    "an address that is none": b"GET http://[::1/kv/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + bytes(100),
    "an upgrade": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
    "headers without end": GET + b"X: y\r\n" * 200_000,
    "a header without end": GET + b"X: " + b"y" * 2_000_000,
    "a header that breaks off": GET + b"Causal-Con",
    "a header of raw bytes": GET + b"Causal-Context: \xff\xfe\xfd\r\n\r\n",
    "a header with a zero": GET + b"Causal-Context: lc1;\0\r\n\r\n",
    "a header that is folded": GET + b"Causal-Context: lc1;\r\n A:1\r\n\r\n",
    "a header without a name": GET + b": y\r\n\r\n",
    "line breaks of Unix": b"GET /kv/classic HTTP/1.1\nHost: a\n\n",
    "an expectation of something else": put(b"Expect: 200-ok\r\nContent-Length: 1", b"x"),
    "many requests and then garbage": (GET + b"\r\n") * 100 + bytes(range(256)) * 8,
    "a body shorter than its length": put(b"Content-Length: 1000", b"x"),
    "a body longer than its length": put(b"Content-Length: 1", b"xGET GET GET\r\n\r\n"),
    "a length without a body": put(b"Content-Length: 1000"),
    "a length beyond numbers": put(b"Content-Length: " + b"9" * 400, b"x"),
    "a length beyond limits": put(b"Content-Length: 99999999999", b"x"),
    "a negative length": put(b"Content-Length: -1", b"x"),
    "a length with a sign": put(b"Content-Length: +1", b"x"),
    "a length in hexadecimal": put(b"Content-Length: 0x1", b"x"),
    "a chunk of no size": put(CHUNKED, b"zz\r\nx\r\n0\r\n\r\n"),
    "a chunk of negative size": put(CHUNKED, b"-1\r\nx\r\n0\r\n\r\n"),
    "a chunk beyond numbers": put(CHUNKED, b"f" * 400 + b"\r\nx"),
    "a chunk longer than its size": put(CHUNKED, b"1\r\nxxxxx\r\n0\r\n\r\n"),
    "a chunk shorter than its size": put(CHUNKED, b"ff\r\nx"),
    "a chunk with words without end": put(CHUNKED, b"1;" + b"y" * 1_000_000),
    "chunks without end": put(CHUNKED, b"1\r\nx\r\n" * 300_000),
    "trailers without end": put(CHUNKED, b"0\r\n" + b"X: y\r\n" * 200_000),
    "zeros in plenty": put(CHUNKED + b"\r\nContent-Encoding: gzip", b"%x\r\n" % 2**20 + bomb(1000)),
    "gzip that is none": put(b"Content-Encoding: gzip\r\nContent-Length: 5", b"hello"),
    "deflate that is none": put(b"Content-Encoding: deflate\r\nContent-Length: 5", b"hello"),
}
SMUGGLERS: Final = {
    "a length and chunks": put(b"Content-Length: 6\r\n" + CHUNKED, b"0\r\n\r\n" + SMUGGLED),
    "chunks and a length": put(CHUNKED + b"\r\nContent-Length: 5", b"0\r\n\r\n" + SMUGGLED),
    "two lengths": put(b"Content-Length: 0\r\nContent-Length: 71", SMUGGLED),
    "a list of lengths": put(b"Content-Length: 0, 71", SMUGGLED),
    "two codings": put(CHUNKED + b"\r\nTransfer-Encoding: identity", b"0\r\n\r\n" + SMUGGLED),
    "a coding that is none": put(b"Transfer-Encoding: xchunked\r\nContent-Length: 71", SMUGGLED),
    "a coding with a blank": put(b"Transfer-Encoding : chunked", b"0\r\n\r\n" + SMUGGLED),
    "a coding on a second line": put(b"Transfer-Encoding:\r\n chunked", b"0\r\n\r\n" + SMUGGLED),
    "a coding with a tab": put(b"Transfer-Encoding: \x0bchunked", b"0\r\n\r\n" + SMUGGLED),
    "a length that hides in a name": put(b"X: y\rContent-Length: 71", SMUGGLED),
    "a chunk that ends with half a line": put(CHUNKED, b"0\n\n" + SMUGGLED),
}


@pytest.mark.parametrize("name", LIES)
def test_no_lie_on_the_socket_harms_a_node(node: RunningNode, name: str) -> None:
    assert not [status for status in statuses(node.say(LIES[name], 0.1)) if status >= 500]
    node.assert_unharmed()


@pytest.mark.parametrize("name", SMUGGLERS)
def test_no_request_is_smuggled_in_by_another(node: RunningNode, name: str) -> None:
    assert statuses(node.say(SMUGGLERS[name], 0.5)) in ([], [400])
    assert node.status_of("GET /kv/smuggled") == 404
    node.assert_unharmed()


def test_a_request_is_served_behind_another_if_both_are_good(node: RunningNode) -> None:
    """Or nothing would be smuggled in for no good reason."""
    behind = SMUGGLED.replace(b"smuggled", b"behind").replace(b"Host", b"Connection: close\r\nHost")
    reply = node.say(put(b"Content-Length: 1", b"x") + behind, DEADLINE_S)
    assert statuses(reply) == [200, 200]
    assert node.status_of("GET /kv/behind") == 200


def test_clients_that_never_come_to_an_end_do_not_keep_others_out(node: RunningNode) -> None:
    begun = (b"", b"G", GET, put(b"Content-Length: 9", b"x"), put(CHUNKED, b"9\r\nx"))
    open_ones = [node.connect() for _ in range(200)]
    try:
        for number, connection in enumerate(open_ones):
            connection.sendall(begun[number % len(begun)])
        node.assert_unharmed()
    finally:
        for connection in open_ones:
            connection.close()
    node.assert_unharmed()


# --- anything -------------------------------------------------------------------------------------

REQUESTS: Final = [
    GET + b"Causal-Context: lc1;A:1\r\n\r\n",
    put(b"Content-Length: 5\r\nContent-Type: text/plain", b"hello"),
    put(CHUNKED, b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    b"DELETE /kv/a%2Fb?wait=0 HTTP/1.1\r\nHost: a\r\n\r\n",
    *(
        b"POST /replicate HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        for body in BODIES[:2]
    ),
    b'PUT /faults/B HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{"cut": true}',
]
HTTP_MARKERS: Final = (
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"%",
        b"%00",
        b"%zz",
        b"?",
        b"#",
        b"//",
        b"..",
    ),
    *(b"Content-Length: 7\r\n", CHUNKED + b"\r\n", b"Expect: 100-continue\r\n", b"Host: [\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"Connection: close\r\n", b"Connection: Upgrade\r\n"),
    *(b"HTTP/1.0", b"ffffffff\r\n", b"0\r\n\r\n", b"x" * 10_000, b"X: y\r\n" * 200),
)


def test_no_random_bytes_harm_a_node(node: RunningNode) -> None:
    @effort(300)
    @given(changed_bytes(REQUESTS, HTTP_MARKERS) | st.binary(max_size=200))
    def check(raw: bytes) -> None:
        assert not [status for status in statuses(node.say(raw, 0.02)) if status >= 500]

    check()
    node.assert_unharmed()
