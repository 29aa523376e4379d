"""A transaction as clients send it: several operations in JSON, read and checked as a whole.

Assumes nothing of the bytes it is given. Guarantees that a `Transaction` that exists can be
carried out as it stands: its keys and values are such as may be kept, and no key is written twice.
Whatever is wrong is said with the position of the operation that it is wrong with.

Does not know how it is carried out.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from app.conditions import Condition, parse_tags
from app.errors import BadTransaction, TooLarge
from app.write import (
    KEY_MAX_BYTES,
    TTL_MAX_S,
    Delete,
    Operation,
    Put,
    content_type_problem,
    microseconds,
    ttl_problem,
    user_key_problem,
)

TEXT_TYPE: Final = "text/plain; charset=utf-8"
BYTES_TYPE: Final = "application/octet-stream"
_FORM: Final = '{"ops": [{"get": KEY}, {"put": KEY, "value": TEXT}, {"delete": KEY}]}'
_SHOWN_MAX: Final = 200
Verb = Literal["get", "put", "delete"]
Unset = msgspec.UnsetType
UNSET: Final = msgspec.UNSET


class OpForm(msgspec.Struct, forbid_unknown_fields=True):
    """One operation: get, put or delete of a key; for a put its value, as text or in base64, and
    for how many seconds it lives. `if` is an ETag that the key is to have, `*` for some version,
    null for none."""

    get: str | Unset = UNSET
    put: str | Unset = UNSET
    delete: str | Unset = UNSET
    value: str | Unset = UNSET
    base64: str | Unset = UNSET
    content_type: str | Unset = UNSET
    ttl: float | Unset = UNSET
    wanted: str | Unset | None = msgspec.field(default=UNSET, name="if")


def _has(*fields: str) -> dict[str, Any]:
    """What an operation looks like that has these fields, and may have only a condition besides."""
    others = {*OpForm.__struct_encode_fields__} - {*fields, "if"}
    key = {"minLength": 1, "maxLength": KEY_MAX_BYTES, "pattern": "^[^\\x00]"}
    properties: dict[str, Any] = {fields[0]: key}
    if "put" in fields:
        others -= {"content_type", "ttl"}
        properties["ttl"] = {"exclusiveMinimum": 0, "maximum": TTL_MAX_S}
    properties |= dict.fromkeys(sorted(others), False)
    return {"required": list(fields), "properties": properties}


# What is checked below, for those who read the contract.
_KINDS: Final = [_has("get"), _has("put", "value"), _has("put", "base64"), _has("delete")]
_Op = Annotated[OpForm, msgspec.Meta(extra_json_schema={"oneOf": _KINDS})]


class TransactionForm(msgspec.Struct, forbid_unknown_fields=True):
    """A transaction. Each key is written once at most."""

    ops: Annotated[list[_Op], msgspec.Meta(extra_json_schema={"minItems": 1})]


_decoder: Final = msgspec.json.Decoder(TransactionForm)


class Step(msgspec.Struct, frozen=True):
    """One operation of a transaction, as it is answered: what is done to which key."""

    verb: Verb
    key: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is to be read, wanted and written. `steps` has all of it in the order of the client."""

    steps: tuple[Step, ...]
    reads: tuple[str, ...]
    operations: tuple[Operation, ...]
    conditions: tuple[Condition, ...]


def parse_transaction(body: bytes, operations_max: int, value_max_bytes: int) -> Transaction:
    """The transaction in `body`.

    Raises BadTransaction, TooLarge.
    """
    try:
        ops = _decoder.decode(body).ops
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _bad(f"the body is not of the form {_FORM}: {str(error)[:_SHOWN_MAX]}") from None
    if not ops:
        raise _bad("it has no operation")
    if len(ops) > operations_max:
        raise TooLarge(
            f"The transaction has {len(ops)} operations, and this node takes {operations_max} "
            "(TXN_MAX_OPERATIONS). Nothing was done."
        )
    steps: list[Step] = []
    operations: dict[str, Operation] = {}
    conditions: list[Condition] = []
    for position, op in enumerate(ops):
        where = f"ops[{position}]"
        step = _step(where, op)
        steps.append(step)
        if op.wanted is not UNSET:
            conditions.append(_condition(where, step.key, op.wanted))
        if step.verb == "get":
            continue
        if step.key in operations:
            raise _bad(f"{where} writes {step.key!r} a second time")
        if step.verb == "delete":
            operations[step.key] = Delete(step.key)
            continue
        value, content_type = _value(where, op)
        if len(value) > value_max_bytes:
            raise TooLarge(
                f"{where}: the value is larger than this node takes: {value_max_bytes} bytes "
                "(VALUE_MAX_BYTES). Nothing was done."
            )
        operations[step.key] = Put(step.key, value, content_type, _ttl_us(where, op))
    reads = tuple(step.key for step in steps if step.verb == "get")
    return Transaction(tuple(steps), reads, tuple(operations.values()), tuple(conditions))


def _step(where: str, op: OpForm) -> Step:
    keys: dict[Verb, str | Unset] = {"get": op.get, "put": op.put, "delete": op.delete}
    named = [Step(verb, key) for verb, key in keys.items() if key is not UNSET]
    if len(named) != 1:
        raise _bad(f"{where} is to have one of get, put and delete, and has {len(named)}")
    [step] = named
    if problem := user_key_problem(step.key):
        raise _bad(f"{where}: {problem}")
    if step.verb != "put" and (op.value, op.base64, op.content_type, op.ttl) != (UNSET,) * 4:
        raise _bad(f"{where}: a value, its type, and a ttl are for put, and this is a {step.verb}")
    return step


def _value(where: str, op: OpForm) -> tuple[bytes, str]:
    if op.value is not UNSET and op.base64 is UNSET:
        value, content_type = op.value.encode(), TEXT_TYPE
    elif op.base64 is not UNSET and op.value is UNSET:
        try:
            value, content_type = base64.b64decode(op.base64, validate=True), BYTES_TYPE
        except (binascii.Error, ValueError):
            raise _bad(f"{where}: what stands under base64 is not that") from None
    else:
        raise _bad(f"{where}: a put has either a value (text) or base64 (bytes)")
    if op.content_type is not UNSET:
        content_type = op.content_type
        if problem := content_type_problem(content_type):
            raise _bad(f"{where}: {problem}")
    return value, content_type


def _ttl_us(where: str, op: OpForm) -> int:
    if op.ttl is UNSET:
        return 0
    if problem := ttl_problem(op.ttl):
        raise _bad(f"{where}: ttl {problem}, not {op.ttl:g}")
    return microseconds(op.ttl)


def _condition(where: str, key: str, wanted: str | Unset | None) -> Condition:
    assert wanted is not UNSET
    if wanted is None:
        return Condition.absent(key)
    if wanted == "*":
        return Condition.exists(key)
    tags = parse_tags(wanted)
    if tags is None:
        raise _bad(
            f'{where}: if is an ETag as it was given, in its quotes ("\\"A:4\\""), or "*" for some '
            "version, or null for none"
        )
    strong, _weak = tags
    return Condition.matches(key, strong)


def _bad(why: str) -> BadTransaction:
    return BadTransaction(f"The transaction cannot be carried out: {why}. Nothing was done.")
