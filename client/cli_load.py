"""The command load: many puts, from a file of JSON lines, with a bar that shows how far it is.

What it assumes and guarantees: however it ends, it says how many lines are in for certain. What it
does not know: how lines become requests.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from client import cli_input, loading
from client.cli_command import Call
from client.cli_errors import LocalTrouble
from client.cli_output import Result, Screen, clean
from client.errors import LightconeError


async def load(
    call: Call,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="JSON lines; - reads stdin.", show_default=False),
    ],
    skip: Annotated[
        int, typer.Option(metavar="LINES", min=0, help="Leave out the first lines.")
    ] = 0,
) -> Result:
    """Put many values, a hundred a transaction.

    Each line of FILE is {"key": KEY, "value": TEXT} (or "base64"; and "content_type", "ttl"). Of
    several lines about a key the last one holds. A load that has failed says how many lines are in;
    go on with --skip.
    """
    async with cli_input.lines(file) as lines:
        with _Bar(call.screen, file) as bar:
            try:
                left = _without(lines, skip, bar.leave_out)
                done = await loading.load(call.kv, left, bar.told, first=skip + 1)
            except (LightconeError, LocalTrouble, asyncio.CancelledError):
                call.screen.note(
                    f"The first {skip + bar.lines} lines are in, and perhaps some after them: go "
                    f"on with --skip {skip + bar.lines}."
                )
                raise
    document = {"lines": skip + done.lines, "puts": done.puts, "context": call.kv.context}
    shown = f"{done.puts} puts are done: {clean(str(file))} to line {skip + done.lines}."
    return Result(document, Text(shown))


async def _without(
    lines: AsyncIterator[list[bytes]], first: int, leave_out: Callable[[int], None]
) -> AsyncIterator[list[bytes]]:
    """The lines without so many of the first, whose sizes are told."""
    async for together in lines:
        for line in together[:first]:
            leave_out(len(line))
        yield together[first:]
        first -= min(first, len(together))


class _Bar:
    """How many bytes of the file are in, on stderr, where that is a terminal."""

    def __init__(self, screen: Screen, file: Path) -> None:
        self.lines = 0
        self._left_out = 0
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[puts]} puts"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=screen.err,
            disable=screen.as_json or not screen.err.is_terminal,
        )
        total = file.stat().st_size if file.is_file() else None
        self._task = self._progress.add_task(clean(f"Loading {file}"), total=total, puts=0)

    def leave_out(self, size: int) -> None:
        """A line of so many bytes counts as done."""
        self._left_out += size

    def told(self, progress: loading.Progress) -> None:
        """The bar shows this progress."""
        self.lines = progress.lines
        completed = self._left_out + progress.bytes
        self._progress.update(self._task, completed=completed, puts=progress.puts)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
