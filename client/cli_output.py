"""What a command shows: tables and colour for people, one JSON document for programs.

What it is: `Result`, what a command has to say, and `Screen`, which says it.

What it assumes and guarantees: on stdout there is the result and nothing else; with JSON it is one
document, also after a failure. Notes and failures for people go to stderr. Colour only on a
terminal, and not with NO_COLOR; what is no terminal is not wrapped. Nothing that a node sent can
move the cursor or speak to the terminal: all text goes through `clean`, and a value that a terminal
cannot show is not sent to one.

What it does not know: what the result is about.

Where the idea is from: curl for values on terminals, and git for stdout and stderr.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import TextIOWrapper
from typing import IO, Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from client.cli_errors import BECAME, Code, Failure

#: Output that goes to a file or a pipe is as wide as it needs to be.
UNWRAPPED = 10_000


@dataclass(frozen=True, slots=True)
class Result:
    """What a command has to say: to programs, to people, and beside the result.

    One that has said it all already, a line at a time, has no document.
    """

    document: Mapping[str, Any] | None
    shown: RenderableType | bytes | None = None
    note: str = ""
    code: Code = Code.DONE


class Screen:
    """Where results and failures are shown."""

    def __init__(self, *, as_json: bool, in_lines: bool = False) -> None:
        self.as_json = as_json
        self._indent = None if in_lines else 2
        if isinstance(sys.stdout, TextIOWrapper):  # what its encoding lacks is shown as an escape
            sys.stdout.reconfigure(errors="backslashreplace")
        self.out = _console(sys.stdout)
        self.err = _console(sys.stderr)

    def show(self, result: Result) -> Code:
        """The result is on stdout. Returns the code to end with."""
        code = result.code
        if self.as_json:
            if result.document is not None:
                self._document(result.document)
        elif isinstance(result.shown, bytes):
            code = self._raw(result.shown, code)
        elif result.shown is not None:
            self.out.print(result.shown, soft_wrap=isinstance(result.shown, Text))
        if result.note and not self.as_json:
            self.note(result.note)
        sys.stdout.flush()
        return code

    def line(self, document: Mapping[str, Any], *texts: Text) -> None:
        """One of many results is on stdout: as one line of JSON, or as these lines."""
        if self.as_json:
            self._document(document)
        else:
            for text in texts:
                self.out.print(text, soft_wrap=True)

    def note(self, text: str) -> None:
        """The text is on stderr, for people."""
        self.err.print(Text(clean(text), style="dim"), soft_wrap=True)

    def fail(self, failure: Failure, *, with_document: bool = True) -> Code:
        """The failure is on stderr, and on stdout for programs. Returns the code to end with."""
        if self.as_json and with_document:
            self._document(failure.document)
        became = "" if failure.code == Code.LOCAL else BECAME[failure.outcome]
        for label, text, style in (
            ("error: ", failure.detail, "bold red"),
            ("outcome: ", became, "bold"),
            ("what to do: ", failure.advice, "bold"),
        ):
            if text:
                line = Text(label, style=style).append(clean(text), style="not bold default")
                self.err.print(line, soft_wrap=True)
        return failure.code

    def _document(self, document: Mapping[str, Any]) -> None:
        # ASCII: any terminal and any locale can show it.
        print(json.dumps(document, indent=self._indent), flush=True)

    def _raw(self, value: bytes, code: Code) -> Code:
        if not sys.stdout.isatty():
            sys.stdout.buffer.write(value)
            return code
        text = value.decode(errors="replace")
        if "\ufffd" in text or clean(text, keep="\n\t") != text:
            self.note(
                f"Not shown: {len(value)} bytes that a terminal cannot show. "
                "Use -o FILE, or a pipe."
            )
            return Code.BAD_INPUT
        print(text, end="" if text.endswith("\n") else "\n")
        return code


class _Console(Console):
    """A console that says of its own stream that it is closed, and ends no process."""

    def on_broken_pipe(self) -> None:
        if self.stderr:
            self.quiet = True
        else:
            raise BrokenPipeError


def _console(stream: IO[str]) -> Console:
    # COLUMNS is how people say how wide they want it.
    is_free = not stream.isatty() and "COLUMNS" not in os.environ
    return _Console(
        file=stream,
        stderr=stream is sys.stderr,
        highlight=False,
        width=UNWRAPPED if is_free else None,
    )


def clean(text: str, keep: str = "") -> str:
    """The text, with all that is not plainly printable written as an escape."""
    return "".join(
        char
        if char.isprintable() or char in keep
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def table(*columns: str, title: str = "") -> Table:
    """An empty table. A column whose name ends in `#` is one of numbers."""
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        header_style="bold",
        pad_edge=False,
        show_edge=False,
    )
    for column in columns:
        is_number = column.endswith("#")
        made.add_column(
            column.rstrip("#"), justify="right" if is_number else "left", overflow="fold"
        )
    return made


def row(made: Table, *cells: str | Text) -> None:
    """The table has this row. Texts that are no `Text` are taken as they are, never as markup."""
    made.add_row(
        *(Text(clean(cell, keep="\n")) if isinstance(cell, str) else cell for cell in cells)
    )


def clock(clock: Mapping[str, int] | None) -> str:
    """A vector clock, as people read it: `A:3 B:1`."""
    if clock is None:
        return "not known"
    return " ".join(f"{actor}:{clock[actor]}" for actor in sorted(clock)) or "-"


def moment(timestamp_us: int) -> str:
    """A timestamp, as people read it, in UTC."""
    try:
        at = datetime.fromtimestamp(timestamp_us / 1e6, UTC)
    except (OverflowError, OSError, ValueError):
        return str(timestamp_us)
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def size(count: float) -> str:
    """A number of bytes, as people read it: `2.2 kB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float | None) -> str:
    """A time, as people read it: `1.5 s`, `3 min`."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
