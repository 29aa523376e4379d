"""The commands about nodes: status, pending, ready. Each asks all nodes, side by side.

What it assumes and guarantees: a node that does not answer is a line of the answer, not the end of
it; the command fails only if none answers. What it does not know: how a status is shown.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from client.cli_command import Call
from client.cli_errors import Code
from client.cli_output import Result, clean, clock, duration, row, table
from client.cli_status import shown
from client.errors import BadInput, LightconeError
from client.shapes import DeferredWrite, Pending, PendingWrite

Answered = TypeVar("Answered")


async def status(
    call: Call,
    watch: Annotated[
        bool, typer.Option("--watch", help="Ask again and again, until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How often, with --watch.")
    ] = 1.0,
) -> Result:
    """Show where the nodes stand, and how far each sees its peers.

    Ends with 3 if no node answers.
    """
    if not watch:
        answers = await each(call, call.kv.status)
        return Result(_document(answers), shown(answers))
    if call.screen.as_json:
        raise BadInput("--watch is for people: --json gives one document. Nothing was sent.")
    out = call.screen.out
    if not out.is_terminal:  # there each table is told, for none takes the place of another
        return await _again(call, interval, out.print)
    with Live(console=out, auto_refresh=False, screen=True) as live:
        return await _again(call, interval, lambda tables: live.update(tables, refresh=True))


async def _again(call: Call, interval: float, tell: Callable[[Group], None]) -> NoReturn:
    """The status is told again and again."""
    while True:
        tell(shown(await asked(call, call.kv.status)))
        await asyncio.sleep(interval)


async def pending(call: Call) -> Result:
    """List the writes that came too early to the nodes, and those that the nodes have deferred, and
    what each waits for.

    Ends with 3 if no node answers.
    """
    answers = await each(call, call.kv.pending)
    made = table("at", "write", "keys", "after", "waits for", "could come from", "since#")
    for node, answer in answers.items():
        if isinstance(answer, LightconeError):
            row(made, node, Text(clean(str(answer)), style="red"))
            continue
        for one in answer["writes"]:
            _add_waiting(made, node, one, one["dependencies"])
        for later in answer["deferred"]:
            _add_waiting(made, node, later, later["context"])
    return Result(_document(answers), made if made.row_count else None, _unlisted(answers))


def _add_waiting(
    made: Table, node: str, one: PendingWrite | DeferredWrite, after: Mapping[str, int]
) -> None:
    sources = one["could_come_from"].items()
    row(
        made,
        node,
        one["dot"],
        " ".join(one["keys"]),
        clock(after),
        Text(clean(" ".join(one["waiting_for"])), style="yellow"),
        "\n".join(f"{dot} from {', '.join(nodes) or 'nobody'}" for dot, nodes in sources),
        duration(one["waiting_s"]),
    )


async def ready(
    call: Call,
    any_of: Annotated[
        bool, typer.Option("--any", help="One node that is ready is enough.")
    ] = False,
) -> Result:
    """Tell which nodes can serve.

    Ends with 0 if all can, else with 1.
    """
    oks = dict(
        zip(call.kv.nodes, await asyncio.gather(*map(call.kv.ready, call.kv.nodes)), strict=True)
    )
    made = table("node", "")
    for node, ok in oks.items():
        row(made, node, Text("ready", style="green") if ok else Text("not ready", style="red"))
    is_enough = any(oks.values()) if any_of else all(oks.values())
    document = {"ready": is_enough, "nodes": oks}
    return Result(document, made, code=Code.DONE if is_enough else Code.NO)


async def asked(
    call: Call, question: Callable[[str], Awaitable[Answered]]
) -> dict[str, Answered | LightconeError]:
    """What each node answers to the question, or why it does not."""

    async def one(node: str) -> Answered | LightconeError:
        try:
            return await question(node)
        except LightconeError as error:
            return error

    nodes = call.kv.nodes
    return dict(zip(nodes, await asyncio.gather(*map(one, nodes)), strict=True))


async def each(
    call: Call, question: Callable[[str], Awaitable[Answered]]
) -> dict[str, Answered | LightconeError]:
    """The same, but if no node answers, the error of the first is raised."""
    answers = await asked(call, question)
    errors = [answer for answer in answers.values() if isinstance(answer, LightconeError)]
    if len(errors) == len(answers):
        raise errors[0]
    return answers


def _document(answers: dict[str, Any]) -> dict[str, Any]:
    return {
        "nodes": {
            node: {"error": str(answer)} if isinstance(answer, LightconeError) else answer
            for node, answer in answers.items()
        }
    }


def _unlisted(answers: dict[str, Pending | LightconeError]) -> str:
    told = {n: a for n, a in answers.items() if not isinstance(a, LightconeError)}
    total = {node: answer["total"] + answer["deferred_total"] for node, answer in told.items()}
    listed = {node: len(answer["writes"] + answer["deferred"]) for node, answer in told.items()}
    if not any(total.values()):
        return "No writes wait."
    return "\n".join(
        f"{node}: {total[node] - listed[node]} more wait."
        for node in told
        if total[node] > listed[node]
    )
