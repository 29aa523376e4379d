"""Operations as short lines for people, read and printed.

    alice@A put x=1 -> A:1                       a put, and the dot it was given
    bob@B get x: 1                               the winner; `nothing` if there was none
    bob@B siblings x: 2/B:1 1/A:1                all of them, winner first, with their dots
    bob@B get x: 2 /A:1 [complete]               the winner, and a sibling known by its dot alone
    carol@C delete x -> C:1 [after A:1 B:3]      with the dependencies that a log told
    dave@A txn x: 1, y: nothing, z=3, delete w -> A:2
    erin@B put x=4 [unknown]                     or [not applied]
    erin@B get x: 4 [no context]                 not ordered with the rest of erin's session
    erin@B get x: 4 [10-20]                      when, by erin's clock
    check@A siblings x: 4 [final]
    fred@A put x=5 -> A:9 [lost A:9]             of what is lost with a disk, fred had seen A:9

What it is: `parse` and `line`, each the other's inverse as far as values are plain words.

What it assumes and guarantees: `line` prints any operation; `parse` is for tests, and reads what
`history.py` would accept.

What it does not know: whether a history is good.
"""

import re
from collections.abc import Iterator

from tests.checker.history import Dot, Kind, Operation, Outcome, Read, Seen, Write

_LINE = re.compile(
    r"(?P<session>\S+)@(?P<node>\S+) (?P<kind>put|delete|get|siblings|txn) (?P<what>.*?)"
    r"(?: -> (?P<dot>\S+))?(?P<notes>(?: \[[^]]*\])*)"
)
_PLAIN = re.compile(r"[^\s,=/:\[\]\"]+")


def parse(text: str) -> list[Operation]:
    """The operations of a text, one a line. Raises ValueError for what is none."""
    return [
        _parse_line(line.strip(), number)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.strip().startswith("#")
    ]


def line(operation: Operation) -> str:
    """The operation as a line."""
    words = [f"{operation.session}@{operation.node} {operation.kind} {_what(operation)}"]
    if operation.dot:
        words.append(f"-> {operation.dot}")
    words += (f"[{note}]" for note in _notes(operation))
    return " ".join(words)


def _parse_line(text: str, number: int) -> Operation:
    match = _LINE.fullmatch(text)
    if match is None:
        raise ValueError(f"line {number}: {text!r} is no operation")
    kind: Kind = match["kind"]  # type: ignore[assignment]  # the pattern allows no other
    notes = re.findall(r"\[([^]]*)\]", match["notes"])
    parts = [part.strip() for part in match["what"].split(",") if part.strip()]
    if kind == "delete":
        parts = [f"delete {part}" for part in parts]
    reads = tuple(
        _parse_read(part, kind != "get" or "complete" in notes)
        for part in parts
        if re.match(r"\S+:( |$)", part)
    )
    writes = tuple(_parse_write(part) for part in parts if not re.match(r"\S+:( |$)", part))
    after = next((note.split()[1:] for note in notes if note.startswith("after ")), None)
    times = next((note.split("-") for note in notes if re.fullmatch(r"\d+-\d+", note)), None)
    lost = next((note.split()[1] for note in notes if note.startswith("lost ")), None)
    outcome: Outcome = (
        "unknown" if "unknown" in notes else "not_applied" if "not applied" in notes else "ok"
    )
    return Operation(
        session=match["session"],
        node=match["node"],
        kind=kind,
        reads=reads,
        writes=writes,
        dot=Dot.parse(match["dot"]) if match["dot"] else None,
        dependencies=None if after is None else _parse_clock(after),
        outcome=outcome,
        carries="no context" not in notes and "final" not in notes,
        final="final" in notes,
        lost=None if lost is None else Dot.parse(lost),
        start=int(times[0]) if times else None,
        end=int(times[1]) if times else None,
        line=number,
    )


def _parse_read(text: str, complete: bool) -> Read:
    key, _, shown = text.partition(":")
    seen = tuple(_parse_seen(word) for word in shown.split() if word != "nothing")
    return Read(key, seen, complete or not seen)


def _parse_seen(word: str) -> Seen:
    value, _, dot = word.partition("/")
    return Seen(value or None, Dot.parse(dot) if dot else None)


def _parse_write(text: str) -> Write:
    if text.startswith("delete "):
        return Write(text.removeprefix("delete "), None)
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} neither reads nor writes")
    return Write(key, value)


def _parse_clock(words: list[str]) -> dict[str, int]:
    dots = [Dot.parse(word) for word in words if word != "nothing"]
    return {dot.actor: dot.sequence for dot in dots}


def _what(operation: Operation) -> str:
    parts = []
    for read in operation.reads:
        shown = " ".join(map(_seen, read.seen)) or "nothing"
        parts.append(f"{word(read.key)}: {shown}" if operation.outcome == "ok" else word(read.key))
    for write in operation.writes:
        if write.value is not None:
            parts.append(f"{word(write.key)}={word(write.value)}")
        else:
            verb = "delete " if operation.kind == "txn" else ""
            parts.append(f"{verb}{word(write.key)}")
    return ", ".join(parts)


def _seen(seen: Seen) -> str:
    value = "" if seen.value is None else word(seen.value)
    return value if seen.dot is None else f"{value}/{seen.dot}"


def _notes(operation: Operation) -> Iterator[str]:
    if operation.kind == "get" and any(r.complete and r.seen for r in operation.reads):
        yield "complete"
    if operation.dependencies is not None:
        clock = " ".join(f"{actor}:{n}" for actor, n in sorted(operation.dependencies.items()))
        yield f"after {clock or 'nothing'}"
    if operation.outcome != "ok":
        yield operation.outcome.replace("_", " ")
    if operation.final:
        yield "final"
    elif not operation.carries:
        yield "no context"
    if operation.lost is not None:
        yield f"lost {operation.lost}"
    if operation.start is not None and operation.end is not None:
        yield f"{operation.start}-{operation.end}"


def word(text: str, length_max: int = 24) -> str:
    """A key or a value, short, and in quotes unless it is a plain word."""
    short = text if len(text) <= length_max else text[: length_max - 1] + "…"
    return short if _PLAIN.fullmatch(short) else f'"{short}"'
