"""The commands about keys and values: get, put, del, ls.

What it assumes and guarantees: a value goes from bytes to bytes, and a file is written as a whole
or not at all. What it does not know: how results and failures are shown.
"""

import base64
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from client.answers import Deleted, Version, Written
from client.cli_command import Call
from client.cli_errors import Code, LocalTrouble
from client.cli_input import everything
from client.cli_output import Result, clean, moment, row, size, table
from client.errors import BadInput
from client.files import replaced
from client.session import PAGE

#: Of a value in a table.
SHOWN_CHARS = 60

Key = Annotated[
    str, typer.Argument(metavar="KEY", help="The key: 1 to 512 bytes of UTF-8.", show_default=False)
]
IfMatch = Annotated[
    str | None,
    typer.Option(
        metavar="ETAG",
        help='Only if the key has just the versions that this ETag names (A:4,B:2 or "A:4,B:2"); '
        "* stands for some.",
    ),
]
IfNoneMatch = Annotated[bool, typer.Option("--if-none-match", help="Only if the key has no value.")]
Replicas = Annotated[
    int | None,
    typer.Option(metavar="N", help="Answer when N nodes hold it durably; --wait is the patience."),
]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="However often the request is sent to the node with this text, it is done once. "
        "Every request needs another one.",
    ),
]
Deferred = Annotated[
    bool,
    typer.Option(
        "--deferred",
        help="If the node lacks what the session has seen, it is not waited for that: the node "
        "accepts the write, and does it once that has come.",
    ),
]


async def get(
    call: Call,
    key: Key,
    siblings: Annotated[
        bool, typer.Option("--siblings", help="A table of all versions that stand side by side.")
    ] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="At once, from what the node has, even if it is behind.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the value to FILE."),
    ] = None,
) -> Result:
    """Write the value of KEY to stdout, byte for byte.

    Ends with 1 if the key has no value.
    """
    if siblings and (stale or output is not None):
        raise BadInput("--siblings goes with neither --stale nor --output. Nothing was sent.")
    if siblings:
        versions = await call.kv.siblings(key)
        document = {"key": key, "found": bool(versions), "siblings": list(map(described, versions))}
        if not versions:
            return _absent(call, key)
        document |= {"etag": versions[0].etag, "context": call.kv.context}
        return Result(document, _versions_table(versions))
    version = await call.kv.get(key, stale=stale)
    if version is None:
        return _absent(call, key)
    document = {"key": key, "found": True, **described(version)}
    document |= {"etag": version.etag, "siblings": version.siblings, "node": version.node}
    document |= {"stale": version.stale, "context": call.kv.context}
    notes = []
    if version.siblings > 1:
        notes.append(
            f"{key} has {version.siblings} versions side by side, and this is the winner, "
            f"{version.dot}; --siblings shows all."
        )
    if version.expires is not None:
        notes.append(f"Expires {moment(version.expires)}.")
    if version.stale:
        notes.append("Stale: the node lacks some of what this session has seen.")
    if output is None:
        return Result(document, version.value, "\n".join(notes))
    _write_file(output, version.value)
    for field in ("text", "base64"):
        document.pop(field, None)
    document["file"] = str(output)
    notes.append(f"Wrote {size(len(version.value))} to {output}.")
    return Result(document, note="\n".join(notes))


async def put(
    call: Call,
    key: Key,
    value: Annotated[
        str | None,
        typer.Argument(
            metavar="[VALUE]", help="The value, as text; - reads stdin.", show_default=False
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="The value is what FILE holds.")
    ] = None,
    content_type: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Kept with the value. By default text/plain; charset=utf-8 for a VALUE, and "
            "application/octet-stream for files and stdin.",
            show_default=False,
        ),
    ] = None,
    ttl: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="The value is gone after so long, at all nodes. By default it stays, whatever "
            "was there before.",
            show_default=False,
        ),
    ] = None,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = False,
    replicas: Replicas = None,
    idempotency_key: IdempotencyKey = None,
    deferred: Deferred = False,
) -> Result:
    """Give KEY a value, in place of every version that the node has.

    A VALUE that begins with - comes after --, as in: put -- temperature -5
    """
    given = await _given_value(value, file)
    written = await call.kv.put(
        key,
        given,
        content_type,
        **conditions(if_match, if_none_match),
        ttl_s=ttl,
        replicas=replicas,
        idempotency_key=idempotency_key,
        deferred=deferred,
    )
    document = {
        **{"key": written.key, "dot": written.dot, "etag": written.etag, "node": written.node},
        **{"clock": dict(written.clock), "replicas": list(written.replicas)},
        **shown_expiry(written.expires),
        **{"deferred": written.deferred, "waiting_for": list(written.waiting_for)},
        "context": call.kv.context,
    }
    note = "" if written.expires is None else f"Expires {moment(written.expires)}."
    return Result(document, _done(written), note)


async def delete(
    call: Call,
    key: Key,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = False,
    replicas: Replicas = None,
    idempotency_key: IdempotencyKey = None,
    deferred: Deferred = False,
) -> Result:
    """Take away the versions of KEY that the node has.

    It is done also if there are none. What was written elsewhere at the same time survives.
    """
    deleted = await call.kv.delete(
        key,
        **conditions(if_match, if_none_match),
        replicas=replicas,
        idempotency_key=idempotency_key,
        deferred=deferred,
    )
    document = {
        **{"key": key, "deleted": not deleted.deferred, "dot": deleted.dot, "node": deleted.node},
        **{"replicas": list(deleted.replicas)},
        **{"deferred": deleted.deferred, "waiting_for": list(deleted.waiting_for)},
        "context": call.kv.context,
    }
    return Result(document, _done(deleted))


async def ls(
    call: Call,
    prefix: Annotated[
        str,
        typer.Argument(metavar="[PREFIX]", help="What the keys begin with.", show_default=False),
    ] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="List N keys at most.")
    ] = None,
) -> Result:
    """List the keys that have a value, one a line, in the order of their bytes.

    What cannot be printed is written as an escape; --json has the keys as they are.
    """
    keys, more = await taken(call.kv.list(prefix, page=page(limit)), limit)
    document = {"keys": keys, "more": more, "context": call.kv.context}
    shown = Text("\n".join(map(clean, keys))) if keys else None
    note = f"There are more than {limit}." if more else "" if keys else "No keys."
    return Result(document, shown, note)


def page(limit: int | None) -> int:
    """How many to ask for at a time: one more than wanted, to know whether there are more."""
    return PAGE if limit is None else min(PAGE, limit + 1)


async def taken(items: Any, limit: int | None) -> tuple[list[Any], bool]:
    """The first `limit` of them, and whether there are more."""
    found: list[Any] = []
    async with contextlib.aclosing(items):
        async for item in items:
            if len(found) == limit:
                return found, True
            found.append(item)
    return found, False


def conditions(if_match: str | None, if_none_match: bool) -> dict[str, Any]:
    """The conditions as the client wants them. An ETag may come without its quotes."""
    if if_match is not None and if_none_match:
        raise BadInput("Give --if-match or --if-none-match, not both. Nothing was sent.")
    if if_match is not None and not (if_match == "*" or '"' in if_match):
        if_match = f'"{if_match}"'
    return {"if_match": if_match, "if_none_match": "*" if if_none_match else None}


def described(version: Version) -> dict[str, Any]:
    """A version, for programs: the value is `text` if it is UTF-8, else `base64`."""
    return {
        "dot": version.dot,
        "content_type": version.content_type,
        **shown_expiry(version.expires),
        **shown_value(version.value),
    }


def shown_expiry(expires: int | None) -> dict[str, int]:
    """When something expires, for programs; nothing if it does not."""
    return {} if expires is None else {"expires": expires}


def shown_value(value: bytes) -> dict[str, str]:
    """The value, for programs."""
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def preview(value: bytes) -> Text:
    """The beginning of a value, on one line."""
    text = value[: 4 * SHOWN_CHARS].decode(errors="replace")
    if "\ufffd" in text[:SHOWN_CHARS]:
        return Text(f"{size(len(value))} of binary", style="dim")
    shown = clean(text)
    return Text(shown if len(shown) <= SHOWN_CHARS else f"{shown[: SHOWN_CHARS - 1]}…")


def later(waiting_for: Sequence[str]) -> str:
    """That a write is deferred, and what for."""
    return f", deferred until it has {', '.join(waiting_for) or 'what the session has seen'}"


def _done(write: Written | Deleted) -> Text:
    held = f", held by {', '.join(write.replicas)}" if write.replicas else ""
    held = later(write.waiting_for) if write.deferred else held
    return Text(clean(f"{write.dot} at {write.node}{held}"))


def _versions_table(versions: list[Version]) -> Group:
    made = table("", "dot", "content type", "bytes#", "expires", "value")
    for number, version in enumerate(versions):
        mark = Text("wins", style="green") if number == 0 else Text("")
        length = str(len(version.value))
        expires = "never" if version.expires is None else moment(version.expires)
        row(made, mark, version.dot, version.content_type, length, expires, preview(version.value))
    return Group(made, Text(f"ETag {clean(versions[0].etag)}", style="dim"))


def _absent(call: Call, key: str) -> Result:
    document = {"key": key, "found": False, "context": call.kv.context}
    return Result(document, note=f"{key} has no value.", code=Code.NO)


async def _given_value(value: str | None, file: Path | None) -> bytes | str:
    if (value is None) == (file is None):
        raise BadInput(
            "Give a VALUE, or - for stdin, or --file FILE: one of them. Nothing was sent."
        )
    if value == "-":
        return await everything(Path("-"))
    if file is not None:
        return await everything(file)
    assert value is not None
    try:
        value.encode()
    except UnicodeEncodeError:
        # What is no UTF-8 on a command line comes as it was typed.
        return os.fsencode(value)
    return value


def _write_file(file: Path, value: bytes) -> None:
    try:
        with replaced(file) as out:
            out.write(value)
    except OSError as error:
        raise LocalTrouble(f"{file} cannot be written: {error.strerror}.") from None
