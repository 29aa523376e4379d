"""The commands backup and restore, with a bar that shows how far they have come.

What it assumes and guarantees: one node is asked, the first that is named, and said which. What it
does not know: what is in a backup.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from client import backups
from client.cli_command import Call
from client.cli_errors import LocalTrouble
from client.cli_output import Result, Screen, clean, clock, size
from client.errors import BadInput


async def backup(
    call: Call,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where the backup will be.", show_default=False)
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Also in place of a file that is there.")
    ] = False,
) -> Result:
    """Write the whole state of a node, at one clock, to FILE.

    The first --node is asked. FILE is there only once the backup is whole.
    """
    node = call.kv.nodes[0]
    try:
        if file.exists() and not force:
            raise BadInput(
                f"{file} is there already; give --force to replace it. Nothing was changed."
            )
        with Bar(call.screen, f"Backup of {node}") as bar:
            made = await backups.backup(node, file, bar.told)
            bar.told(made)
    except OSError as error:
        raise LocalTrouble(f"{file} cannot be written: {error.strerror}.") from None
    document = {"node": node, "file": str(file), "bytes": made.bytes, "keys": made.keys}
    shown = f"{file} is a backup of {node}: {made.keys} keys, {size(made.bytes)}."
    return Result(document, Text(clean(shown)))


async def restore(
    call: Call,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.", show_default=False)],
) -> Result:
    """Merge the backup in FILE with what a node has; from there it goes to the others.

    The first --node is asked. What was written since the backup stays.
    """
    node = call.kv.nodes[0]
    with Bar(call.screen, f"Restore to {node}") as bar:
        restored = await backups.restore(node, file, bar.told)
    document = {"node": node, "file": str(file), "keys": restored.keys, "cut": restored.cut}
    shown = f"{node} has what {file} holds: {restored.keys} keys, as of {clock(restored.cut)}."
    return Result(document, Text(clean(shown)))


class Bar:
    """How far a backup has come, on stderr, where that is a terminal."""

    def __init__(self, screen: Screen, title: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("keys"),
            TextColumn("{task.fields[bytes]}"),
            TimeElapsedColumn(),
            console=screen.err,
            disable=screen.as_json or not screen.err.is_terminal,
        )
        self._task = self._progress.add_task(clean(title), total=None, bytes="")

    def told(self, progress: backups.Progress) -> None:
        """The bar shows this progress."""
        self._progress.update(
            self._task,
            completed=progress.keys,
            # An estimate: there may be more in the end.
            total=max(progress.total_keys, progress.keys) or None,
            bytes=size(progress.bytes),
        )

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
