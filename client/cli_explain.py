"""The commands that tell of concurrent writes: explain and conflicts.

What it assumes and guarantees: what a node could not find in its logs is shown as not known, never
as nothing. What it does not know: how writes come to be related.
"""

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from client.cli_command import Call
from client.cli_keys import Key, page, taken
from client.cli_output import Result, clean, clock, duration, moment, row, table
from client.shapes import DeferredAbout, ExplainedVersion, ExplainedWrite, Explanation


async def explain(call: Call, key: Key) -> Result:
    """Tell why KEY holds what it holds.

    Which versions there are, who wrote them and after what, which writes took the place of which,
    which are concurrent, and why the winner wins; and what the node has deferred of it. As far as
    its logs tell.
    """
    explanation = await call.kv.explain(key)
    return Result({**explanation, "context": call.kv.context}, _explained(explanation))


async def conflicts(
    call: Call,
    prefix: Annotated[
        str,
        typer.Argument(metavar="[PREFIX]", help="What the keys begin with.", show_default=False),
    ] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="List N keys at most.")
    ] = None,
) -> Result:
    """List the keys that have siblings: versions that were written concurrently.

    A put or del with --if-match and the ETag settles one.
    """
    found, more = await taken(call.kv.conflicts(prefix, page=page(limit)), limit)
    document = {"conflicts": found, "more": more, "context": call.kv.context}
    if not found:
        return Result(document, note="No conflicts.")
    made = table("key", "siblings#", "etag")
    for conflict in found:
        row(made, conflict["key"], str(conflict["siblings"]), conflict["etag"])
    return Result(document, made, f"There are more than {limit}." if more else "")


def _explained(explanation: Explanation) -> Group:
    key, winner = clean(explanation["key"]), explanation["winner"]
    head = Text(key, style="bold").append(
        " has no value. " if winner is None else f" is {clean(winner)}. ", style="not bold"
    )
    parts: list[RenderableType] = [head.append(clean(explanation["why"]), style="not bold")]
    if explanation["versions"]:
        parts += [Text(""), _versions(explanation["versions"], winner)]
    if explanation["deferred"]:
        parts += [Text(""), _deferred(explanation["deferred"])]
    if explanation["history"]:
        parts += [Text(""), _history(explanation["history"])]
    searched = ", ".join(
        f"{actor}:{part['from']} to {actor}:{part['to']}"
        for actor, part in sorted(explanation["searched"].items())
    )
    whole = "all writes ever made" if explanation["complete"] else "older ones were not looked at"
    parts += [Text(""), Text(clean(f"Looked at {searched or 'no writes'}: {whole}."), style="dim")]
    return Group(*parts)


def _versions(versions: list[ExplainedVersion], winner: str | None) -> RenderableType:
    made = table(
        *(
            "",
            "dot",
            "written",
            "expires",
            "content type",
            "bytes#",
            "after",
            "in place of",
            "concurrent with",
        ),
        title="Versions",
    )
    for one in versions:
        after, replaced = one["dependencies"], one["supersedes"]
        row(
            made,
            Text("wins", style="green") if one["dot"] == winner else "",
            one["dot"],
            moment(one["timestamp"]),
            _expires(one),
            one["content_type"],
            str(one["bytes"]),
            clock(after),
            "not known" if replaced is None else _dots(replaced),
            Text(clean(_dots(one["concurrent_with"])), style="yellow"),
        )
    return made


def _history(history: list[ExplainedWrite]) -> RenderableType:
    made = table(
        *("dot", "did", "written", "expires", "after", "replaced by", "concurrent with"),
        title="History, newest first",
    )
    for one in history:
        row(
            made,
            one["dot"],
            one["does"],
            moment(one["timestamp"]),
            _expires(one),
            clock(one["dependencies"]),
            _dots(one["superseded_by"]),
            Text(clean(_dots(one["concurrent_with"])), style="yellow"),
        )
    return made


def _deferred(deferred: list[DeferredAbout]) -> RenderableType:
    made = table("dot", "does", "waits for", "since#", title="Deferred, in order")
    for one in deferred:
        waits_for = Text(clean(" ".join(one["waiting_for"])), style="yellow")
        row(made, one["dot"], one["does"], waits_for, duration(one["waiting_s"]))
    return made


def _expires(one: ExplainedVersion | ExplainedWrite) -> str:
    return moment(one["expires"]) if "expires" in one else "-"


def _dots(dots: list[str]) -> str:
    return " ".join(dots) or "-"
