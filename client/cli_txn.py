"""The command txn: several operations that are one, from JSON.

What it assumes and guarantees: the JSON is that of `POST /txn`; what it says that would be ignored
is refused, with the position of the operation. What it does not know: what the nodes refuse.
"""

import base64
import binascii
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from client.answers import Transacted
from client.cli_command import Call
from client.cli_input import everything
from client.cli_keys import (
    Deferred,
    IdempotencyKey,
    Replicas,
    described,
    later,
    preview,
)
from client.cli_output import Result, clean, moment, row, table
from client.errors import BadInput
from client.transaction import Transaction

_FIELDS = {
    "get": {"if"},
    "put": {"if", "value", "base64", "content_type", "ttl"},
    "delete": {"if"},
}


async def txn(
    call: Call,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A file of JSON; - reads stdin.", show_default=False),
    ],
    replicas: Replicas = None,
    idempotency_key: IdempotencyKey = None,
    deferred: Deferred = False,
) -> Result:
    """Do several operations as one: all of them at one instant, or none.

    The JSON is {"ops": (a list)}, or the list alone. Each operation is {"get": KEY},
    {"put": KEY, "value": TEXT} (or "base64"; and "content_type", "ttl") or {"delete": KEY}, and may
    have "if": an ETag, "*" for some value, null for none. A get shows what was there before.
    """
    ops = parsed(await everything(file))
    transaction = call.kv.txn(replicas=replicas, idempotency_key=idempotency_key, deferred=deferred)
    for position, op in enumerate(ops):
        _add(transaction, op, f"ops[{position}]")
    done = await transaction.commit()
    document = {
        **{"dot": done.dot, "clock": dict(done.clock), "node": done.node},
        **{"etags": dict(done.etags), "expires": dict(done.expires)},
        "replicas": list(done.replicas),
        **{"deferred": done.deferred, "waiting_for": list(done.waiting_for)},
        "read": {key: list(map(described, versions)) for key, versions in done.read.items()},
        "context": call.kv.context,
    }
    return Result(document, _shown(ops, done))


def parsed(data: bytes) -> list[dict[str, Any]]:
    """The operations that the JSON lists. Raises BadInput."""
    try:
        said = json.loads(data)
    except (RecursionError, ValueError) as error:
        raise BadInput(f"The transaction is not JSON: {error}. Nothing was sent.") from None
    if isinstance(said, dict) and set(said) == {"ops"}:
        said = said["ops"]
    if not isinstance(said, list) or not all(isinstance(op, dict) for op in said):
        raise BadInput(
            'A transaction is {"ops": [...]} or a list, of operations such as {"get": "key"}. '
            "Nothing was sent."
        )
    return said


def _add(transaction: Transaction, op: dict[str, Any], where: str) -> None:
    verbs = [verb for verb in _FIELDS if verb in op]
    if len(verbs) != 1:
        raise BadInput(f"{where} is not one of get, put and delete. Nothing was sent.")
    [verb] = verbs
    if unknown := sorted(set(op) - _FIELDS[verb] - {verb}):
        raise BadInput(f"{where}: a {verb} has no {unknown[0]!r}. Nothing was sent.")
    for name in (verb, "value", "base64", "content_type", "if"):
        if name in op and not isinstance(op[name], str) and (name, op[name]) != ("if", None):
            raise BadInput(f"{where}: {name!r} is no text. Nothing was sent.")
    wanted: dict[str, Any] = {}
    if "if" in op:
        wanted = {"if_none_match": "*"} if op["if"] is None else {"if_match": op["if"]}
    if verb == "put":
        value, ttl = _value(op, where), op.get("ttl")
        transaction.put(op["put"], value, op.get("content_type"), **wanted, ttl_s=ttl)
    elif verb == "get":
        transaction.get(op["get"], **wanted)
    else:
        transaction.delete(op["delete"], **wanted)


def _value(op: dict[str, Any], where: str) -> str | bytes:
    if ("value" in op) == ("base64" in op):
        raise BadInput(f"{where}: a put has 'value' or 'base64'. Nothing was sent.")
    if "value" in op:
        return str(op["value"])
    try:
        return base64.b64decode(op["base64"], validate=True)
    except (binascii.Error, ValueError):
        raise BadInput(f"{where}: 'base64' is none. Nothing was sent.") from None


def _shown(ops: list[dict[str, Any]], done: Transacted) -> Group:
    made = table("", "key", "result")
    for op in ops:
        [verb] = (verb for verb in _FIELDS if verb in op)
        result: str | Text = ""
        if verb == "get":
            winner = done.winner(op["get"])
            result = Text("no value", style="dim") if winner is None else preview(winner.value)
            if winner is not None and winner.siblings > 1:
                result = result.append(f"  ({winner.siblings} siblings)", style="yellow")
        elif verb == "put":
            result = "" if done.deferred else f"ETag {done.etags[op['put']]}"
            if op["put"] in done.expires:
                result += f", expires {moment(done.expires[op['put']])}"
        row(made, verb, op[verb], result)
    name = "Nothing was written" if done.dot is None else f"Done as {done.dot}"
    held = f", held by {', '.join(done.replicas)}" if done.replicas else ""
    if done.deferred:
        name, held = f"Accepted as {done.dot}", later(done.waiting_for)
    return Group(made, Text(clean(f"{name} at {done.node}{held}.")))
