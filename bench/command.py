"""A measurement as a command: run, shown, written down, and an exit code.

What it assumes and guarantees: as `bench/__main__.py`: 0 when it has measured, whatever the figures
are, and 2 when it could not; then nothing is written. Whoever ends it leaves no process behind.

What it does not know: what is measured.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from app import log
from app.errors import StartupError
from bench.accounting import ProcessGone
from bench.findings import Outcome
from bench.options import count

EXIT_NO_RUN: Final = 2
_DIRECTORY: Final = Path("data/bench")
_WIDTH_MIN: Final = 150

Tell = Callable[[str], None]
"""Is told what is being done."""
Measure = Callable[[argparse.Namespace, Tell], Awaitable[Outcome]]
"""Raises StartupError, ProcessGone, OSError."""


def parser(
    name: str, description: str, *, rounds: int | None, syncs: bool = True
) -> argparse.ArgumentParser:
    """The options that all measurements have, but for what one does not: there are no `rounds`, or
    no Redis that `syncs` its file."""
    made = argparse.ArgumentParser(
        prog=f"python -m bench.{name}", description=description, allow_abbrev=False
    )
    if rounds is not None:
        made.add_argument("--rounds", type=count, default=rounds, help=f"how many ({rounds})")
    if syncs:
        made.add_argument(
            "--fsync",
            choices=("always", "everysec"),
            default="always",
            help="of every Redis (always)",
        )
    made.add_argument(
        "--directory", type=Path, default=_DIRECTORY, help=f"where it is written ({_DIRECTORY})"
    )
    return made


def run(
    name: str,
    parser: argparse.ArgumentParser,
    measure: Measure,
    arguments: Sequence[str] | None = None,
) -> int:
    """It was measured, shown, and written to `name`.json; the result is the exit code."""
    options = parser.parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    log.configure("warning", "text", node=name)

    async def work() -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await measure(options, console.print)

    try:
        outcome = asyncio.run(work())
    except (StartupError, ProcessGone, OSError) as error:
        notes = getattr(error, "__notes__", [])
        print("\n".join([f"{name}: {error}", *notes]), file=sys.stderr)
        return EXIT_NO_RUN
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"{name}: ended before it was done; nothing was written.", file=sys.stderr)
        return EXIT_NO_RUN
    outcome.show(Console(highlight=False, width=max(console.width, _WIDTH_MIN)))
    options.directory.mkdir(parents=True, exist_ok=True)
    path = options.directory / f"{name}.json"
    settings = {key: value for key, value in vars(options).items() if key != "directory"}
    path.write_text(json.dumps({"settings": settings, **outcome.to_json()}, indent=1))
    console.print(f"The figures: {path}")
    return 0
