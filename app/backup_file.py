"""The form of a backup: a snapshot as one stream of bytes, checked as a whole.

    lightcone-backup 2 {"node": "A", ...}           a line of text that says what it is
    <length, 4 bytes> <keys, 4 bytes> <part>        again and again; the last part has the cut
    <0, 4 bytes> <0, 4 bytes> <SHA-256, 32 bytes>   of all that came before

Lengths are in bytes, big-endian; a part is what nodes send each other (`codec.py`).

Assumes nothing of the bytes it is given. Guarantees that a stream which was cut short or altered
anywhere is noticed before its last part is given out, and with it the cut that makes a snapshot
of parts.

Pure. Does not know where the bytes come from or go.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from app import part_forms
from app.errors import BadBackup, BadBatch
from app.snapshot import Part

CONTENT_TYPE: Final = "application/vnd.lightcone.backup"
VERSION: Final = 2
_READ: Final = ("1", str(VERSION))
"""The versions that can be put back. In those of version 1 nothing expires."""
_MAGIC: Final = "lightcone-backup"
_HEADER_MAX_BYTES: Final = 64 * 1024
_FRAME: Final = struct.Struct(">II")
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Header:
    """What a backup says of itself: the node that made it, when (microseconds since 1970), about
    how many keys it has, and of each node the birth of its first Redis, as far as it was known."""

    node: str
    made_us: int
    total: int
    births: Mapping[str, str]


class Writer:
    """Turns a snapshot into the bytes of a backup."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def header(self, header: Header) -> bytes:
        """The first line."""
        about = msgspec.json.encode(header).decode()
        return self._noted(f"{_MAGIC} {VERSION} {about}\n".encode())

    def part(self, part: Part) -> bytes:
        """One part."""
        packed = part_forms.encode(part)
        return self._noted(_FRAME.pack(len(packed), len(part.keys)) + packed)

    def end(self) -> bytes:
        """What proves that nothing is missing."""
        return _FRAME.pack(0, 0) + self._digest.digest()

    def _noted(self, data: bytes) -> bytes:
        self._digest.update(data)
        return data


class Reader:
    """Turns the bytes of a backup, as they come, into its header and parts."""

    def __init__(self, part_max_bytes: int) -> None:
        """A part of more than `part_max_bytes` is refused."""
        self._part_max_bytes = part_max_bytes
        self._digest = hashlib.sha256()
        self._rest = bytearray()
        self._last: Part | None = None
        self.header: Header | None = None
        """What the backup says of itself, once its first line is there."""
        self.is_whole = False
        """Whether all of it came, unaltered."""

    def feed(self, data: bytes) -> list[Part]:
        """The parts that are certain after these bytes: the last one only with the end.

        Raises BadBackup.
        """
        self._rest += data
        found: list[Part] = []
        while (more := self._next()) is not None:
            found += more
        return found

    def _next(self) -> list[Part] | None:
        """The parts that the next piece makes certain; None if it is not all there yet."""
        if self.is_whole:
            if self._rest:
                raise BadBackup("The backup goes on after its end.")
            return None
        if self.header is None:
            return self._read_header()
        if len(self._rest) < _FRAME.size:
            return None
        length, _keys = _FRAME.unpack_from(self._rest)
        if length > self._part_max_bytes:
            raise BadBackup(
                f"A part of the backup is said to have {length} bytes, and this node takes "
                f"{self._part_max_bytes} (REPLICATE_MAX_BYTES)."
            )
        if length == 0:
            return self._read_end()
        if len(self._rest) < _FRAME.size + length:
            return None
        if self._last is not None and self._last.cut is not None:
            raise BadBackup("The backup has more parts after its last.")
        taken = self._take(_FRAME.size + length)
        try:
            part = part_forms.decode(taken[_FRAME.size :])
        except BadBatch as error:
            raise BadBackup(error.detail) from None
        before, self._last = self._last, part
        return [] if before is None else [before]

    def _read_header(self) -> list[Part] | None:
        end = self._rest.find(b"\n")
        if end < 0:
            if len(self._rest) > _HEADER_MAX_BYTES or not _MAGIC.encode().startswith(
                bytes(self._rest[: len(_MAGIC)])
            ):
                raise BadBackup("This is no backup of Lightcone.")
            return None
        magic, _, rest = self._take(end + 1).decode(errors="replace").partition(" ")
        version, _, about = rest.partition(" ")
        if magic != _MAGIC:
            raise BadBackup("This is no backup of Lightcone.")
        if version not in _READ:
            raise BadBackup(
                f"The backup has the form {version[:20]!r}, and this release reads "
                f"{' and '.join(_READ)}."
            )
        try:
            self.header = msgspec.json.decode(about, type=Header)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadBackup(f"The first line of the backup cannot be read: {error}.") from None
        return []

    def _read_end(self) -> list[Part] | None:
        if len(self._rest) < _FRAME.size + _DIGEST_BYTES:
            return None
        found = bytes(self._rest[: _FRAME.size + _DIGEST_BYTES])
        if found != _FRAME.pack(0, 0) + self._digest.digest():
            raise BadBackup("The backup was altered: its checksum is another.")
        if self._last is None or self._last.cut is None:
            raise BadBackup("The backup lacks its last part.")
        del self._rest[: _FRAME.size + _DIGEST_BYTES]
        self.is_whole = True
        return [self._last]

    def _take(self, count: int) -> bytes:
        taken = bytes(self._rest[:count])
        del self._rest[:count]
        self._digest.update(taken)
        return taken
