"""Backups of a node, kept in files, and put back into a node.

What it is: `backup` and `restore`, each one long request to one node.

What it assumes and guarantees: a backup that is there under its name is whole: it is written beside
it first, and its checksum is looked at. A restore that fails has changed nothing, or says that this
is not known.

What it does not know: what is in a backup, but for its frame.
"""

import asyncio
import hashlib
import os
import stat
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from client.answers import STRANGE, json_object
from client.errors import BadInput, NotApplied, OutcomeUnknown
from client.files import replaced

Told = Callable[["Progress"], None]

_FRAME = struct.Struct(">II")
_DIGEST_BYTES = 32
_CHUNK_BYTES = 256 * 1024
_HEADER_MAX_BYTES = 64 * 1024
#: A node that says nothing for so long is gone.
_SILENCE_S = 600.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backup has come. `total_keys` is about how many there are."""

    bytes: int = 0
    keys: int = 0
    total_keys: int = 0


@dataclass(frozen=True, slots=True)
class Restored:
    """How many keys a backup had, and the clock that it was cut at."""

    keys: int
    cut: dict[str, int]


async def backup(node: str, file: Path, told: Told = lambda _: None) -> Progress:
    """`file` is a backup of the node at this URL: its whole state at one clock.

    Raises NotApplied if the node gives none, OSError if it cannot be written; a file of that name
    is as it was then.
    """
    with replaced(file) as out:
        return await _download(node, out, told)


async def restore(node: str, file: Path, told: Told = lambda _: None) -> Restored:
    """What the backup holds is merged with what the node at this URL has, and goes to its peers.

    Raises BadInput if the file is no whole backup, NotApplied if the node refuses, and
    OutcomeUnknown if its answer was lost, or is not a node's.
    """
    # In a thread, for a large file takes seconds, in which other requests go on.
    whole = await asyncio.to_thread(check, file)
    try:
        async with (
            _http() as http,
            http.post(
                f"{node}/restore",
                data=_sent(file, whole, told),
                headers={"Content-Length": str(whole.bytes)},
                allow_redirects=False,
            ) as answer,
        ):
            said = await _said(answer)
            if answer.status == 200:
                return Restored(int(said["keys"]), {a: int(n) for a, n in said["cut"].items()})
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise NotApplied(f"{node} cannot be reached: {error}") from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise OutcomeUnknown(f"the answer of {node} was lost: {error!r}") from error
    except STRANGE as error:
        raise OutcomeUnknown(f"{node} answered, but not as a node does: {error!r}") from error
    refusal = _refusal(node, answer, said)
    # A proxy says nothing of the outcome, and the node behind it may be at work yet.
    otherwise = "not_applied" if 400 <= answer.status < 500 else "unknown"
    if said.get("outcome", otherwise) == "not_applied":
        raise NotApplied(refusal)
    raise OutcomeUnknown(refusal)


def check(file: Path) -> Progress:
    """How large the backup in `file` is, which is whole.

    Raises BadInput if it is none, or was cut short or altered.
    """
    try:
        with file.open("rb") as data:
            if not stat.S_ISREG(os.fstat(data.fileno()).st_mode):
                raise BadInput(f"{file} cannot be used: it is read twice, so give it as a file")
            return _Frames().read_all(data, file)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from error


class _Frames:
    """Goes through the bytes of a backup as they come, and sees whether it is whole."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._rest = bytearray()
        self._has_header = False
        self.is_whole = False
        self.keys = 0
        self.total = 0
        self.bytes = 0

    def feed(self, data: bytes) -> None:
        """Raises ValueError if it is no backup."""
        self._rest += data
        self.bytes += len(data)
        if self.is_whole:
            raise ValueError("it goes on after its end")
        if not self._has_header:
            end = self._rest.find(b"\n")
            if end < 0 and len(self._rest) < _HEADER_MAX_BYTES:
                return
            if end < 0 or not self._rest.startswith(b"lightcone-backup "):
                raise ValueError("it is no backup")
            self._has_header = True
            self.total = _total(bytes(self._rest[:end]))
            self._take(end + 1)
        while len(self._rest) >= _FRAME.size:
            length, keys = _FRAME.unpack_from(self._rest)
            if length == 0:
                self._end()
                return
            if len(self._rest) < _FRAME.size + length:
                return
            self._take(_FRAME.size + length)
            self.keys += keys

    def read_all(self, data: Any, file: Path) -> Progress:
        try:
            while chunk := data.read(_CHUNK_BYTES):
                self.feed(chunk)
        except ValueError as error:
            raise BadInput(f"{file} cannot be used: {error}") from None
        if not self.is_whole:
            raise BadInput(f"{file} is not a whole backup: it was cut short")
        return Progress(self.bytes, self.keys, self.keys)

    def _end(self) -> None:
        if len(self._rest) < _FRAME.size + _DIGEST_BYTES:
            return
        if bytes(self._rest) != _FRAME.pack(0, 0) + self._digest.digest():
            raise ValueError("its checksum is another: it was altered, or goes on after its end")
        self.is_whole = True

    def _take(self, count: int) -> None:
        self._digest.update(self._rest[:count])
        del self._rest[:count]


def _total(header: bytes) -> int:
    """The number of keys in the first line of a backup. Raises ValueError if it names none."""
    try:
        return int(json_object(header.split(b" ", 2)[2])["total"])
    except STRANGE as error:
        raise ValueError(f"its first line is none of a backup ({error!r})") from None


async def _download(node: str, out: Any, told: Told) -> Progress:
    frames = _Frames()
    async with aclosing(_received(node)) as chunks:
        async for chunk in chunks:
            try:
                frames.feed(chunk)
            except ValueError as error:
                raise NotApplied(f"the backup of {node} cannot be used: {error}") from error
            out.write(chunk)
            told(Progress(frames.bytes, frames.keys, frames.total))
    if not frames.is_whole:
        raise NotApplied(f"the backup of {node} broke off; its log says why")
    return Progress(frames.bytes, frames.keys, frames.keys)


async def _received(node: str) -> AsyncGenerator[bytes, None]:
    """What the node sends. What fails here is the node or the way to it: not the disk here, which
    is written between the chunks."""
    try:
        async with _http() as http, http.get(f"{node}/backup", allow_redirects=False) as answer:
            if answer.status != 200:
                raise NotApplied(_refusal(node, answer, await _said(answer)))
            async for chunk in answer.content.iter_any():
                yield chunk
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise NotApplied(f"the backup of {node} broke off: {error}") from error


async def _sent(file: Path, whole: Progress, told: Told) -> AsyncIterator[bytes]:
    sent = 0
    with file.open("rb") as data:
        while chunk := data.read(_CHUNK_BYTES):
            yield chunk
            sent += len(chunk)
            told(Progress(sent, whole.keys * sent // whole.bytes, whole.keys))
    if sent < whole.bytes:  # or the node would wait for the rest
        raise OSError(f"{file} has become shorter")


def _http() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_SILENCE_S)
    return aiohttp.ClientSession(timeout=timeout)


async def _said(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """What the answer says; nothing, if it is no node's."""
    try:
        return json_object(await answer.read())
    except ValueError:
        return {}


def _refusal(node: str, answer: aiohttp.ClientResponse, said: dict[str, Any]) -> str:
    return f"{node} answered {answer.status}: {said.get('detail') or said or 'no reason given'}"
