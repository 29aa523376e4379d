"""The command by which an operator declares lost what no node has any more.

What it assumes and guarantees: the nodes agree only if none of them has it, or may have it, so
there is nothing to be asked twice. What it does not know: what follows from a declaration.
"""

from typing import Annotated

import typer
from rich.text import Text

from client.cli_command import Call
from client.cli_output import Result, clean


async def declare_lost(
    call: Call,
    dots: Annotated[
        list[str],
        typer.Argument(
            metavar="DOT...", help="Writes, such as A:101, as `pending` shows.", show_default=False
        ),
    ],
) -> Result:
    """Declare writes lost that no node has any more, since a disk was lost.

    With a write all later ones of its actor are declared lost. What waits for them is applied then,
    at every node. It cannot be taken back, and is done only if all nodes say that they lack them.
    """
    declared = await call.kv.declare_lost(dots)
    document = {
        **{"lost": dict(declared.lost), "clock": dict(declared.clock), "node": declared.node},
        "context": declared.context,
    }
    if not declared.lost:
        return Result(document, note="It was all declared lost before.")
    lines = [f"Lost: all of {actor} after {actor}:{n}." for actor, n in declared.lost.items()]
    return Result(document, Text(clean("\n".join(lines), keep="\n")))
