"""The requests that a measurement sends, as bytes in a file that load generators read.

Assumes that every generator sends them in their order, and begins again at the end. Guarantees that
all generators, in whatever language, send the same bytes. In the file each request is the number of
its bytes, a newline, and the bytes.

Does not know who answers.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """As it is on the wire."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.method != "GET":
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def write_requests(requests: Iterable[Request], path: Path) -> None:
    """The file has these requests."""
    with path.open("wb") as file:
        for request in requests:
            encoded = request.encoded()
            file.write(b"%d\n%b" % (len(encoded), encoded))


def read_requests(path: Path) -> Iterator[bytes]:
    """The requests in the file, as they are on the wire."""
    with path.open("rb") as file:
        while length := file.readline():
            yield file.read(int(length))
