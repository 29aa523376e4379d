"""A measurement as a command: run, shown, written down, and an exit code.

What it assumes and guarantees: as `bench/__main__.py`: 0 when it has measured, whatever the figures
are, and 2 when it could not; then nothing is written. Whoever ends it leaves no process behind.

What it does not know: what is measured.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from rich.console import Console
from rich.table import Table

from app import log
from app.errors import StartupError
from bench.accounting import ProcessGone
from bench.findings import Findings
from bench.options import count

EXIT_NO_RUN: Final = 2
_DIRECTORY: Final = Path("data/bench")
_WIDTH: Final = 150

Measured = TypeVar("Measured")
Tell = Callable[[str], None]
"""Is told what is being done."""


def parser(name: str, description: str, *, rounds: int) -> argparse.ArgumentParser:
    """The options that all measurements have."""
    made = argparse.ArgumentParser(
        prog=f"python -m bench.{name}", description=description, allow_abbrev=False
    )
    made.add_argument("--rounds", type=count, default=rounds, help=f"how many ({rounds})")
    made.add_argument(
        "--fsync", choices=("always", "everysec"), default="always", help="of every Redis (always)"
    )
    made.add_argument(
        "--directory", type=Path, default=_DIRECTORY, help=f"where it is written ({_DIRECTORY})"
    )
    return made


def run(
    name: str,
    directory: Path,
    measure: Callable[[Tell], Awaitable[Measured]],
    findings: Callable[[Measured], Findings],
    tables: Callable[[Measured], Iterable[Table]],
) -> int:
    """It was measured, shown and written down; the result is the exit code."""
    console = Console(stderr=True, highlight=False)
    log.configure("warning", "text", node=name)

    async def work() -> Measured:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await measure(console.print)

    try:
        measured = asyncio.run(work())
    except (StartupError, ProcessGone, OSError) as error:
        notes = getattr(error, "__notes__", [])
        print("\n".join([f"{name}: {error}", *notes]), file=sys.stderr)
        return EXIT_NO_RUN
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"{name}: ended before it was done; nothing was written.", file=sys.stderr)
        return EXIT_NO_RUN
    found = findings(measured)
    shown = Console(highlight=False, width=max(console.width, _WIDTH))
    for table in tables(measured):
        shown.print(table)
    found.show(shown)
    console.print(f"The figures: {found.write(directory)}")
    return 0
