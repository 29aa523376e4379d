"""A client history: operations as values, and their JSON lines.

What it is: `Operation` with its `Read`s and `Write`s, and `read_history`.

What it assumes and guarantees: what is returned is well formed, and each operation knows its line.
Whatever is not gets a BadHistory that names the line, the field and what is allowed there.

What it does not know: what an operation means for others. That starts in `order.py`.

Where the idea is from: Jepsen's histories, without invocations and completions as separate lines.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast, get_args

Kind = Literal["put", "delete", "get", "siblings", "txn"]
Outcome = Literal["ok", "not_applied", "unknown"]

_COMMON: Final = {
    *("session", "node", "kind", "outcome", "carries", "lost", "start", "end"),
    *("context_in", "context_out"),
}
_OF_WRITES: Final = {"dot", "dependencies"}
_FIELDS: Final[dict[Kind, set[str]]] = {
    "put": {"key", "value", *_OF_WRITES},
    "delete": {"key", *_OF_WRITES},
    "get": {"key", "seen", "complete", "final"},
    "siblings": {"key", "seen", "final"},
    "txn": {"reads", "writes", "final", *_OF_WRITES},
}


class BadHistory(Exception):
    """The history cannot be checked as it is; nothing is said about the store."""


@dataclass(frozen=True, slots=True)
class Dot:
    """The name of a write: actor and sequence."""

    actor: str
    sequence: int

    @classmethod
    def parse(cls, text: str) -> "Dot":
        """The dot that prints as `text`. Raises ValueError if there is none."""
        actor, colon, sequence = text.rpartition(":")
        if not (actor and colon and sequence.isdecimal() and int(sequence) > 0):
            raise ValueError(f"{text!r} is not a dot such as A:7")
        return cls(actor, int(sequence))

    def __str__(self) -> str:
        return f"{self.actor}:{self.sequence}"


@dataclass(frozen=True, slots=True)
class Seen:
    """One version that a read showed, by its value, its dot, or both."""

    value: str | None = None
    dot: Dot | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """What was shown of a key, winner first. Unless `complete`, the winner's siblings are not."""

    key: str
    seen: tuple[Seen, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Write:
    """A put, or a delete: then without a value."""

    key: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of a client and what came of it."""

    session: str
    node: str
    kind: Kind
    reads: tuple[Read, ...] = ()
    writes: tuple[Write, ...] = ()
    dot: Dot | None = None
    dependencies: Mapping[str, int] | None = None
    outcome: Outcome = "ok"
    carries: bool = True
    final: bool = False
    lost: Dot | None = None
    start: int | None = None
    end: int | None = None
    line: int = field(default=0, compare=False)


def read_history(lines: Iterable[str]) -> list[Operation]:
    """The operations, one a line; empty lines are skipped. Raises BadHistory."""
    operations = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            operations.append(_operation(json.loads(line), number))
        except ValueError as error:
            raise BadHistory(f"Line {number}: {error}. Nothing was checked.") from None
    return operations


def to_json(operation: Operation) -> str:
    """The operation as a line that `read_history` reads."""
    record: dict[str, Any] = {
        "session": operation.session,
        "node": operation.node,
        "kind": operation.kind,
    }
    if operation.kind == "txn":
        record["reads"] = [
            {"key": read.key, "seen": _seen_json(read), "complete": read.complete}
            for read in operation.reads
        ]
        record["writes"] = [
            {"key": write.key} | ({"delete": True} if write.value is None else _value_json(write))
            for write in operation.writes
        ]
    elif operation.reads:
        [read] = operation.reads
        record |= {"key": read.key, "seen": _seen_json(read)}
        if operation.kind == "get":
            record["complete"] = read.complete
    else:
        [write] = operation.writes
        record |= {"key": write.key}
        record |= _value_json(write) if operation.kind == "put" else {}
    optional = {
        "dot": None if operation.dot is None else str(operation.dot),
        "dependencies": operation.dependencies and dict(operation.dependencies),
        "lost": None if operation.lost is None else str(operation.lost),
        "start": operation.start,
        "end": operation.end,
    }
    record |= {name: value for name, value in optional.items() if value is not None}
    record["outcome"] = operation.outcome
    if not operation.carries:
        record["carries"] = False
    if operation.final:
        record["final"] = True
    return json.dumps(record)


def _value_json(write: Write) -> dict[str, Any]:
    return {"value": write.value}


def _seen_json(read: Read) -> list[dict[str, str]]:
    return [
        ({} if seen.value is None else {"value": seen.value})
        | ({} if seen.dot is None else {"dot": str(seen.dot)})
        for seen in read.seen
    ]


def _objects(listed: object) -> list[dict[str, Any]]:
    """Those things in a list that are objects."""
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _operation(record: object, line: int) -> Operation:
    fields = _object(record, "an operation")
    kind = cast(Kind, _one_of(fields, "kind", get_args(Kind)))
    if any("ttl" in write for write in (fields, *_objects(fields.get("writes")))):
        raise ValueError("it puts what expires, and no operation says when that is gone")
    if unknown := fields.keys() - _COMMON - _FIELDS[kind]:
        raise ValueError(f"a {kind} has no field {', '.join(sorted(unknown))}")
    outcome = cast(Outcome, _one_of(fields, "outcome", get_args(Outcome), "ok"))
    reads, writes = _content(fields, kind, outcome)
    start, end = _optional_int(fields, "start"), _optional_int(fields, "end")
    if start is not None and end is not None and end < start:
        raise ValueError("the operation ended before it started")
    final = _bool(fields, "final", False)
    if final and writes:
        raise ValueError("a final operation only reads")
    dot, lost = _optional_dot(fields, "dot"), _optional_dot(fields, "lost")
    if final and lost:
        raise ValueError("a final operation has seen nothing that is lost")
    dependencies = _dependencies(fields)
    if dot and dependencies and dependencies.get(dot.actor, 0) >= dot.sequence:
        raise ValueError(f"dependencies are what was applied before {dot}, and these cover it")
    return Operation(
        session=_text(fields, "session"),
        node=_text(fields, "node"),
        kind=kind,
        reads=reads,
        writes=writes,
        dot=dot,
        dependencies=dependencies,
        outcome=outcome,
        # A final read comes after everything, and hands nothing on.
        carries=not final and _bool(fields, "carries", True),
        final=final,
        lost=lost,
        start=start,
        end=end,
        line=line,
    )


def _content(
    fields: Mapping[str, Any], kind: Kind, outcome: Outcome
) -> tuple[tuple[Read, ...], tuple[Write, ...]]:
    if kind == "put":
        return (), (Write(_text(fields, "key"), _text(fields, "value")),)
    if kind == "delete":
        return (), (Write(_text(fields, "key"), None),)
    if kind in ("get", "siblings"):
        read = _read(fields, kind == "siblings" or _bool(fields, "complete", False), outcome)
        return (read,), ()
    reads = [_object(read, "a read") for read in _list(fields, "reads", [])]
    writes = [_object(write, "a write") for write in _list(fields, "writes", [])]
    for keys in ([read.get("key") for read in reads], [write.get("key") for write in writes]):
        if len(keys) != len(set(map(str, keys))):
            raise ValueError("a transaction reads a key once at most, and writes it once at most")
    return (
        tuple(_read(read, _bool(read, "complete", True), outcome) for read in reads),
        tuple(
            Write(
                _text(write, "key"),
                None if _bool(write, "delete", False) else _text(write, "value"),
            )
            for write in writes
        ),
    )


def _read(fields: Mapping[str, Any], complete: bool, outcome: Outcome) -> Read:
    # What a failed read would have shown is not known, and need not be recorded.
    seen = tuple(map(_seen, _list(fields, "seen", None if outcome == "ok" else [])))
    # To see no winner is to see that there is nothing.
    return Read(_text(fields, "key"), seen, complete or not seen)


def _seen(record: object) -> Seen:
    fields = _object(record, "a version in seen")
    if not fields or fields.keys() - {"value", "dot"}:
        raise ValueError("a version in seen has value, dot or both, and nothing else")
    return Seen(
        _text(fields, "value") if "value" in fields else None,
        Dot.parse(_text(fields, "dot")) if "dot" in fields else None,
    )


def _dependencies(fields: Mapping[str, Any]) -> Mapping[str, int] | None:
    if fields.get("dependencies") is None:
        return None
    clock = _object(fields["dependencies"], "dependencies")
    for actor, sequence in clock.items():
        if type(sequence) is not int or sequence < 0:
            raise ValueError(f"dependencies[{actor!r}] is a whole number from 0")
    return {actor: sequence for actor, sequence in clock.items() if sequence}


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a JSON object")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is missing, or is not text")
    return value


def _one_of(
    fields: Mapping[str, Any], name: str, allowed: tuple[str, ...], default: str = ""
) -> str:
    value = fields.get(name, default)
    if value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(allowed)}, not {value!r}")
    return str(value)


def _bool(fields: Mapping[str, Any], name: str, default: bool) -> bool:
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is true or false")
    return value


def _optional_dot(fields: Mapping[str, Any], name: str) -> Dot | None:
    return None if fields.get(name) is None else Dot.parse(_text(fields, name))


def _optional_int(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is not None and type(value) is not int:
        raise ValueError(f"{name} is a whole number of microseconds")
    return value


def _list(fields: Mapping[str, Any], name: str, default: list[Any] | None) -> list[Any]:
    value = fields.get(name, default)
    if not isinstance(value, list):
        raise ValueError(f"{name} is missing, or is not a list")
    return value
