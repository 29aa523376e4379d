"""What the sessions of a client did and saw, written down as a history, a line an operation.

What it is: `Recorder`, the file of one `Lightcone`; and the form of a line, for whatever checks a
store from outside.

What it assumes and guarantees: a request about keys is one line, however many nodes it was tried
at, and is written when it ends, however it ends. A line claims no more than the client knows: a
write that was cancelled has an unknown outcome. Times are monotonic microseconds, around
everything that the request had part in: so of two requests of a session, the one that started after
the other had ended carried what that one saw. No two sessions have one name. What is under way
when the process is killed, or when the `Lightcone` is closed, is left out.

What it does not know: what a store promises, and whether the caller gives every put a value of its
own, without which a reader of the history cannot tell which write was seen.

Where the idea is from: the histories of Jepsen.

Each line is a JSON object:

| field | says |
|---|---|
| `session` | whose operation it is |
| `node` | the URL of the node that answered, or else was asked last |
| `kind`, `key` | `put`, `delete`, `get` or `siblings`, and of what; or `txn` |
| `value` | what was put, as text; see `value_text` |
| `ttl` | for how many seconds it was put, if not for ever |
| `seen` | what was read: the winner with its `value` and `dot` first, then its siblings |
| `complete` | of a `get`: true, for the ETag names all siblings, though by their dots alone |
| `reads` | of a `txn`: for each key that was got, `key` and all that was `seen` of it |
| `writes` | of a `txn`: for each key that was written, `key` and `value`, or `delete`: true |
| `dot` | the name of a write |
| `dependencies` | the vector clock just before a put or a `txn`: the answer's, less that write; of
                   one that was deferred it is not known |
| `outcome` | `ok`, `not_applied`, `unknown` |
| `start`, `end` | microseconds, from a clock that only goes forward |
| `context_in`, `context_out` | the tokens that the session held before and after |
"""

import base64
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from client.answers import Deleted, Transacted, Version, Written
from client.context import Context
from client.errors import LightconeError, Outcome
from client.transport import Request

#: Begins the text of a value that is not UTF-8, and of one that begins so itself.
NOT_TEXT = "base64:"


class Served:
    """An operation that is under way, to be told how it was served."""

    def __init__(self) -> None:
        self.node = ""
        self.result: object = None

    def by(self, node: str, result: object) -> None:
        """The node at this URL has served it, and this is what the caller is given."""
        self.node, self.result = node, result


class Recorder:
    """Writes a history, from `open` to `close`; without a path it does and remembers nothing."""

    def __init__(self, path: str | Path | None) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._names: set[str] = set()
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(2))

    def open(self) -> None:
        """The file is there and empty, whatever it held before. Raises OSError."""
        if self._path is not None:
            # Each line is in the file when it is written, for the process may be killed. SIM115
            # wants a block, but it is `close` that closes it.
            self._file = Path(self._path).open("w", 1, encoding="utf-8")  # noqa: SIM115

    def close(self) -> None:
        """Everything is in the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def name(self, wanted: str) -> str:
        """A name for a session that no other has: the wanted one, if it is free."""
        if self._path is None:
            return wanted or "session"
        name, stem = wanted or "session-1", wanted or "session"
        while name in self._names:
            name = f"{stem}-{next(self._numbers[stem])}"
        self._names.add(name)
        return name

    @contextmanager
    def operation(
        self, request: Request[Any], session: str, context: Context, nodes: Sequence[str]
    ) -> Iterator[Served]:
        """A line for the request is written when the block ends, however that comes."""
        served = Served()
        if self._file is None or not (request.key or _is_transaction(request)):
            yield served
            return
        context_in, start = str(context), _now_us()
        outcome: Outcome | Literal["ok"] = "ok"
        try:
            yield served
        except BaseException as error:
            # What is cancelled may be on its way, or there already.
            outcome = "unknown" if request.is_write else "not_applied"
            served.node = nodes[0]
            if isinstance(error, LightconeError):
                outcome, served.node = error.outcome, error.node or nodes[0]
                if outcome == "applied":
                    outcome = "unknown"  # it stands, and its dependencies were not told
            raise
        finally:
            line = {
                "session": session,
                "node": served.node,
                "kind": _kind(request),
                **_asked(request),
                **(_told(request, served.result) if outcome == "ok" else {}),
                "outcome": outcome,
                "start": start,
                "end": _now_us(),
                "context_in": context_in,
                "context_out": str(context),
            }
            self._write(line)

    def _write(self, line: Mapping[str, object]) -> None:
        # A request may outlive the connections that it was made over.
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")


def value_text(value: bytes) -> str:
    """The value as text: itself if it is UTF-8, else `base64:` and its base64.

    Different values have different texts: one that begins with `base64:` itself is encoded too.
    """
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = NOT_TEXT
    if text.startswith(NOT_TEXT):
        return NOT_TEXT + base64.b64encode(value).decode()
    return text


def _is_transaction(request: Request[Any]) -> bool:
    return request.path == "/txn"


def _kind(request: Request[Any]) -> str:
    if _is_transaction(request):
        return "txn"
    if request.is_write:
        return {"PUT": "put", "DELETE": "delete"}[request.method]
    return "siblings" if "siblings" in request.query else "get"


def _asked(request: Request[Any]) -> dict[str, object]:
    """What was asked for, beyond its kind."""
    if not _is_transaction(request):
        put: dict[str, object] = {} if request.body is None else {"value": value_text(request.body)}
        if "ttl" in request.query:
            put["ttl"] = float(request.query["ttl"])
        return {"key": request.key, **put}
    ops = json.loads(request.body or b"")["ops"]
    writes: list[dict[str, object]] = []
    for op in ops:
        if "put" in op:
            value = base64.b64decode(op["base64"]) if "base64" in op else op["value"].encode()
            ttl = {"ttl": op["ttl"]} if "ttl" in op else {}
            writes.append({"key": op["put"], "value": value_text(value), **ttl})
        elif "delete" in op:
            writes.append({"key": op["delete"], "delete": True})
    return {"reads": [{"key": op["get"]} for op in ops if "get" in op], "writes": writes}


def _told(request: Request[Any], result: object) -> dict[str, object]:
    """What the answer tells beyond that it came."""
    match result:
        case Written(dot=dot, deferred=True):
            return {"dot": dot}
        case Written(dot=dot, clock=clock):
            return {"dot": dot, "dependencies": _before(dot, clock)}
        case Transacted(dot=dot, deferred=True):
            return {"reads": [], "dot": dot}
        case Transacted(dot=dot, clock=clock, read=read):
            reads = [{"key": key, "seen": [_seen(v) for v in vs]} for key, vs in read.items()]
            told = {} if dot is None else {"dot": dot, "dependencies": _before(dot, clock)}
            return {"reads": reads, **told}
        case Deleted(dot=dot):
            return {"dot": dot}
        case Version() as winner:
            others = sorted(set(winner.etag.strip('"').split(",")) - {winner.dot})
            return {"seen": [_seen(winner), *({"dot": dot} for dot in others)], "complete": True}
        case list() as versions:
            return {"seen": [_seen(version) for version in versions]}
        case _:
            return {} if request.is_write else {"seen": [], "complete": True}


def _seen(version: Version) -> dict[str, str]:
    return {"value": value_text(version.value), "dot": version.dot}


def _before(dot: str, clock: Mapping[str, int]) -> dict[str, int]:
    actor, _, sequence = dot.rpartition(":")
    before = {**clock, actor: int(sequence) - 1}
    return {actor: applied for actor, applied in before.items() if applied}


def _now_us() -> int:
    return time.monotonic_ns() // 1000
