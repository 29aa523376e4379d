"""Many puts at once: a file of JSON lines goes into a cluster, a hundred lines a transaction.

What it is: `load`, and `read`, the form of a line: `{"key": "lunch", "value": "noon?"}`, or
`"base64"` for bytes, with `"content_type"` if one is wanted, and `"ttl"`, in seconds, if it is to
expire.

What it assumes and guarantees: of several lines about one key the last one holds, as if they were
put one after the other. The first `Progress.lines` are all in; of those that follow some may be,
when it fails. Each batch is one transaction with an Idempotency-Key of its own, so it is done once
however often it is tried.

What it does not know: what the values are about.

Where the idea is from: Redis' mass insertion, and the bulk loaders of databases.
"""

import asyncio
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from client import checks
from client.errors import BadInput, LightconeError
from client.session import Session

BATCH_LINES = 100
BATCH_BYTES = 500_000
"""Of lines. A node takes a transaction of four mebibytes, unless it was told otherwise."""
AT_ONCE = 8
"""Batches that are under way together."""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One put, as its line says it: either `value` or `base64`."""

    key: str
    value: str | UnsetType = UNSET
    base64: bytes | UnsetType = UNSET
    content_type: str | None = None
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: the first so many lines are in, empty ones included, which are so many bytes,
    and of them so many were puts."""

    lines: int = 0
    bytes: int = 0
    puts: int = 0


_line: Final = msgspec.json.Decoder(Line).decode


def read(text: bytes, number: int) -> Line | None:
    """The put in a line; None if it is empty. Raises BadInput, which names the line's number."""
    if not text.strip():
        return None
    try:
        line = _line(text)
        if (line.value is UNSET) == (line.base64 is UNSET):
            raise ValueError("it has `value`, which is text, or `base64`, and not both")
        checks.key(line.key)
        checks.content_type(line.content_type)
        checks.ttl(line.ttl, "`ttl`")
    except BadInput as error:
        raise _no_put(number, str(error).removesuffix("; nothing was sent.")) from None
    except (ValueError, RecursionError) as error:  # what msgspec raises is a ValueError
        raise _no_put(number, str(error)) from None
    return line


def _no_put(number: int, why: str) -> BadInput:
    return BadInput(f"Line {number} is no put: {why}. It was not sent.")


async def load(
    session: Session,
    lines: AsyncIterable[Sequence[bytes]],
    tell: Callable[[Progress], None] = lambda _: None,
    *,
    first: int = 1,
) -> Progress:
    """All lines are in, at the nodes of the session; `tell` hears how far it is.

    They come as many together as there are; none at all says that there are no more for now, so
    that those before need not wait. `first` is what the first line is called in an error.

    Raises what `Session.txn` does, what is raised where the lines are from, and BadInput for a line
    that is no put; what was under way then has ended, and `tell` has heard how far it came. The
    outcome is that of all lines: `unknown` where some are in, whatever became of the one that
    failed.
    """
    loading = _Loading(session, tell)
    async with asyncio.TaskGroup() as group:
        loading.begin(group, _batches(lines, first))
    if loading.error is not None:
        if loading.has_put and isinstance(loading.error, LightconeError):
            loading.error.outcome = "unknown"
        raise loading.error
    return loading.progress


@dataclass(frozen=True, slots=True)
class _Batch:
    """Lines that belong together; the last of the file may be empty ones only."""

    number: int
    puts: Sequence[Line]
    lines: int
    bytes: int


class _Loading:
    def __init__(self, session: Session, tell: Callable[[Progress], None]) -> None:
        self.progress = Progress()
        self.error: Exception | None = None
        self._session = session
        self._tell = tell
        self._name = uuid.uuid4().hex
        self._done: dict[int, _Batch] = {}
        self._last: dict[str, asyncio.Future[None]] = {}
        self._next = 0
        self._places = asyncio.Semaphore(AT_ONCE)

    @property
    def has_put(self) -> bool:
        """Whether any line is in."""
        return bool(self.progress.puts or self._done)

    def begin(self, group: asyncio.TaskGroup, batches: AsyncIterator[_Batch]) -> None:
        """Tasks of the group send one batch after the other, until there is none, or one has
        failed."""
        self._reading = group.create_task(self._read(group, batches))

    async def _read(self, group: asyncio.TaskGroup, batches: AsyncIterator[_Batch]) -> None:
        try:
            async for batch in batches:
                await self._places.acquire()
                group.create_task(self._work(batch))
        except Exception as error:
            for _ in range(AT_ONCE):
                await self._places.acquire()  # what came before is sent all the same
            self.error = self.error or error

    async def _work(self, batch: _Batch) -> None:
        try:
            if await self._in_turn(batch):
                self._note(batch)
        except Exception as error:
            self.error = self.error or error
            self._reading.cancel()  # it may wait for the next lines, for as long as these like
        finally:
            self._places.release()

    async def _in_turn(self, batch: _Batch) -> bool:
        """The batch is sent after all earlier ones that are about a key of it. Whether it was: not
        if one of them failed."""
        keys = {line.key for line in batch.puts}
        earlier = {self._last[key] for key in keys if key in self._last}
        sent = asyncio.get_running_loop().create_future()
        self._last |= dict.fromkeys(keys, sent)
        try:
            await asyncio.gather(*earlier)
            if self.error is not None:
                return False
            await self._send(batch)
            return True
        finally:
            sent.set_result(None)
            for key in keys:
                if self._last.get(key) is sent:
                    del self._last[key]

    async def _send(self, batch: _Batch) -> None:
        if not batch.puts:
            return
        async with self._session.txn(idempotency_key=f"{self._name}-{batch.number}") as txn:
            # A transaction writes a key once: of several lines about it, the last one counts.
            for line in {line.key: line for line in batch.puts}.values():
                value = line.base64 if line.value is UNSET else line.value
                assert value is not UNSET
                txn.put(line.key, value, line.content_type, ttl_s=line.ttl)

    def _note(self, batch: _Batch) -> None:
        self._done[batch.number] = batch
        while done := self._done.pop(self._next, None):
            self._next += 1
            before = self.progress
            self.progress = Progress(
                before.lines + done.lines, before.bytes + done.bytes, before.puts + len(done.puts)
            )
        self._tell(self.progress)


async def _batches(lines: AsyncIterable[Sequence[bytes]], first: int) -> AsyncIterator[_Batch]:
    """The lines in batches: full ones, and what there is at a pause. Raises BadInput, when what
    came before the bad line has been given."""
    batch = _Gathering()
    number = first
    async for together in lines:
        for text in together:
            try:
                line = read(text, number)
            except BadInput:
                if batch.lines:
                    yield batch.ended()
                raise
            number += 1
            batch.add(line, len(text))
            if batch.is_full:
                yield batch.ended()
        if batch.lines and not together:
            yield batch.ended()
    if batch.lines:
        yield batch.ended()


class _Gathering:
    """The lines that will be a batch."""

    def __init__(self) -> None:
        self.lines = 0
        self._number = 0
        self._bytes = 0
        self._puts: list[Line] = []

    @property
    def is_full(self) -> bool:
        return len(self._puts) == BATCH_LINES or self._bytes >= BATCH_BYTES

    def add(self, line: Line | None, size: int) -> None:
        self.lines, self._bytes = self.lines + 1, self._bytes + size
        self._puts += [] if line is None else [line]

    def ended(self) -> _Batch:
        """The batch; the lines that are added from now on are the next one's."""
        batch = _Batch(self._number, tuple(self._puts), self.lines, self._bytes)
        self._number += 1
        self.lines, self._bytes, self._puts = 0, 0, []
        return batch
