"""What a command reads: a file, or standard input where its name is `-`.

What it is: `everything`, and `lines`, as they come.

What it assumes and guarantees: a read may wait for a terminal, or for another program, as long as
these like. It is done in a thread, of those that a command's loop has and does not wait for
(`cli_threads.py`): so requests that are under way go on meanwhile, and who interrupts the command
ends it at once, whatever it waits for.

What it does not know: what is read.
"""

import asyncio
import contextlib
import select
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import IO, TextIO

from client.cli_errors import LocalTrouble
from client.errors import BadInput

#: What is read at a time; of a pipe it is what there is.
_PART_BYTES = 1 << 18
#: Where so long nothing comes, what has come is not kept waiting.
_PAUSE_S = 0.05


async def everything(file: Path) -> bytes:
    """All that is to be read there. Raises BadInput if it cannot be."""

    def read() -> bytes:
        with _opened(file) as source:
            return b"".join(iter(lambda: _part(source), b""))

    try:
        return await asyncio.to_thread(read)
    except OSError as error:
        detail = f"{_called(file)} cannot be read: {error.strerror}. Nothing was sent."
        raise BadInput(detail) from None


@contextlib.asynccontextmanager
async def lines(file: Path) -> AsyncIterator[AsyncIterator[list[bytes]]]:
    """The lines, those together that came together; none at all where there is a pause.

    Raises LocalTrouble if they cannot be read, and BadInput where there is no standard input.
    """
    with contextlib.ExitStack() as stack:
        try:
            source = await asyncio.to_thread(stack.enter_context, _opened(file))
        except OSError as error:
            detail = f"{_called(file)} cannot be read: {error.strerror}. Nothing was sent."
            raise LocalTrouble(detail) from None
        async with contextlib.aclosing(_parts(source)) as parts:
            yield _lines(parts)


async def _lines(parts: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    rest: list[bytes] = []
    async for part in parts:
        rest += [part] if part else []
        if b"\n" in part or not part:
            *whole, tail = b"".join(rest).split(b"\n")
            rest = [tail] if tail else []
            yield [line + b"\n" for line in whole]
    if rest:
        yield [b"".join(rest)]


async def _parts(source: IO[bytes]) -> AsyncGenerator[bytes, None]:
    """What is read, as it comes; nothing where there is a pause."""
    while True:
        reading = asyncio.create_task(asyncio.to_thread(_part, source))
        try:
            if not (await asyncio.wait({reading}, timeout=_PAUSE_S))[0]:
                yield b""
            part = await reading
        except OSError as error:
            detail = f"The file cannot be read any more: {error.strerror}."
            raise LocalTrouble(detail, "unknown") from None  # what was read before is in, or not
        finally:
            reading.cancel()
        if not part:
            return
        yield part


def _part(source: IO[bytes]) -> bytes:
    """What comes next; nothing at the end. Raises OSError."""
    while True:
        part: bytes | None = source.read(_PART_BYTES)
        if part is not None:
            return part
        select.select([source], [], [])  # another program that has it set it not to wait


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The file, each read of which is one of the system's. Raises OSError, and BadInput where there
    is no standard input."""
    if str(file) != "-":
        with file.open("rb", buffering=0) as source:
            yield source
        return
    stdin: TextIO | None = sys.stdin  # Python's own types say that it is always there
    if stdin is None:
        raise BadInput("Standard input is closed. Nothing was sent.")
    # Its buffer has a lock, which a thread that reads has still when the process ends.
    yield getattr(stdin.buffer, "raw", stdin.buffer)


def _called(file: Path) -> str:
    return "Standard input" if str(file) == "-" else str(file)
