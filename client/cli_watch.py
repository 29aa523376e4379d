"""The command watch: what happens, a line at a time, until Ctrl-C.

What it assumes and guarantees: a line is on stdout before the next event is looked at. What it does
not know: which node tells it.
"""

from contextlib import aclosing
from typing import Annotated, Any

import typer
from rich.text import Text

from client.cli_command import Call
from client.cli_keys import described, preview, shown_expiry, shown_value
from client.cli_output import Result, clean, moment
from client.errors import BadInput
from client.watching import NOW, Begin, Change, Cut, KeyState, Operation, Watched


async def watch(
    call: Call,
    prefix: Annotated[
        str,
        typer.Argument(metavar="[PREFIX]", help="What the keys begin with.", show_default=False),
    ] = "",
    state: Annotated[
        bool, typer.Option("--state", help="First what the keys hold now, then what changes.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="CONTEXT", help="What comes after the `context` of a line of JSON."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="End after N writes.")
    ] = None,
) -> Result:
    """Tell what is written, from now on, as it happens.

    Each write is told once, and after all that it depends on, whichever nodes fail meanwhile; a
    transaction as one. With --json there is one document a line. Ctrl-C ends it.
    """
    if state and since is not None:
        raise BadInput("Give --state or --since, not both. Nothing was sent.")
    begins = "" if state else NOW if since is None else since
    written = 0
    async with aclosing(call.kv.watch(prefix, since=begins)) as told:
        async for one in told:
            call.screen.line(_document(one), *_lines(one))
            written += isinstance(one, Change)
            if written == limit:
                break
    return Result(None)


def _document(told: Watched) -> dict[str, Any]:
    match told:
        case Begin():
            return {"event": "begin"}
        case KeyState():
            etag = told.siblings[0].etag if told.siblings else None
            siblings = [described(version) for version in told.siblings]
            return {"event": "state", "key": told.key, "etag": etag, "siblings": siblings}
        case Cut():
            return {"event": "cut", "clock": dict(told.clock), "context": told.context}
        case Change():
            return {
                "event": "write",
                "dot": told.dot,
                "node": told.origin,
                "timestamp": told.timestamp,
                "dependencies": dict(told.dependencies),
                "operations": [_operation(operation) for operation in told.operations],
                "context": told.context,
            }


def _operation(operation: Operation) -> dict[str, Any]:
    if operation.value is None:
        return {"delete": operation.key}
    return {
        "put": operation.key,
        "content_type": operation.content_type,
        **shown_expiry(operation.expires),
        **shown_value(operation.value),
    }


def _lines(told: Watched) -> list[Text]:
    match told:
        case Begin():
            return []
        case KeyState() if told.siblings:
            winner, count = told.siblings[0], len(told.siblings)
            more = f" and {count - 1} more" if count > 1 else ""
            return [_line("", f"{winner.dot}{more}", "has", told.key, preview(winner.value))]
        case KeyState():
            return [_line("", "", "has not", told.key, Text())]
        case Cut():
            return []
        case Change():
            time = moment(told.timestamp)
            return [
                _line(time, told.dot, "del", operation.key, Text())
                if operation.value is None
                else _line(time, told.dot, "put", operation.key, preview(operation.value))
                for operation in told.operations
            ]


def _line(time: str, dot: str, did: str, key: str, value: Text) -> Text:
    head = f"{clean(time)} " if time else ""
    line = Text(head, style="dim").append(f"{clean(dot)} {did} ", style="not dim")
    line.append(clean(key), style="bold not dim")
    return line.append(" ").append_text(value) if value else line
