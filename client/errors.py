"""Everything the client raises, by what became of the request.

    LightconeError
    ├── BadInput            the request is wrong; it took no effect, and repeating it is useless
    ├── Lost                the session has seen writes that are lost; the request took no effect
    ├── PreconditionFailed  a key holds something else than was wanted; the request took no effect
    ├── ReplicasMissing     a write took effect, and fewer nodes hold it than was asked for
    ├── TooFarBack          no node can tell a watcher what comes next
    ├── NotApplied          the request took no effect; it is safe to repeat
    │   ├── NotCaughtUp     no node has seen yet what this session has seen
    │   └── Unreachable     no node could be talked to
    └── OutcomeUnknown      a write may or may not have taken effect: read before you repeat it

    try:
        await kv.put("lunch", "noon?")
    except OutcomeUnknown:
        ...  # look whether it is there
    except NotApplied:
        ...  # it is not there; try again later

What it assumes and guarantees: `outcome` is `not_applied` only when it is certain that the request
did not and never will take effect. In doubt it is `unknown`. A read changes nothing, so a read that
failed is always `not_applied`. `applied` is certain, too: the write stands.

What it does not know: how an answer travels, or which request is repeated where.

Where the idea is from: Maelstrom's definite and indefinite errors; the tree at the top is httpx's
habit. It mirrors the tree of the nodes, which this package does not import.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["not_applied", "unknown", "applied"]


class LightconeError(Exception):
    """The root. `outcome` says what became of the request; `problem` is the node's own account.

    `problem` is the body of the node's `application/problem+json`, and empty when no node sent one.
    `node` is the URL of the node where the request ended, and empty when none was asked.
    `context` is the token that came with the refusal, if one did.
    """

    outcome: Outcome = "not_applied"
    node: str = ""
    context: str = ""

    def __init__(self, detail: str, *, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.problem: Mapping[str, Any] = {} if problem is None else problem

    @property
    def kind(self) -> str:
        """The name of the problem, such as `bad-key`; empty when no node gave one."""
        return problem_kind(self.problem)


class BadInput(LightconeError, ValueError):
    """Raised when the request can never succeed as it stands: a bad key, value, URL or setting."""


class PreconditionFailed(LightconeError):
    """Raised when a key does not hold, at the node that was asked, what the request wants of it.

    `keys` says what each such key holds instead: its ETag (None if it has no version) and how many
    siblings. The session has seen that, so it may read the key at any node, and decide anew.
    """

    @property
    def keys(self) -> Mapping[str, str | None]:
        """The ETag of each key that does not hold what was wanted."""
        return {str(one["key"]): one["etag"] for one in _entries(self, "keys", "key", "etag")}


class Lost(LightconeError):
    """Raised when the session has seen writes that no node has, nor ever will: a disk was lost.

    `writes` says which. No node serves the session until it goes on without them, which is for you
    to decide, since what they did is undone: `session.go_on(error)`, after what had to be done
    about them, is done. The request took no effect, and may then be made again.
    """

    #: What the session had seen when the request was made, as tokens.
    carried: tuple[str, ...] = ()

    @property
    def writes(self) -> "Sequence[LostWrites]":
        return tuple(LostWrites(**one) for one in _entries(self, "lost", *_SPAN))


class ReplicasMissing(LightconeError):
    """Raised when a write is done, and fewer nodes than asked for were heard to hold it in time.

    `dot` is its name, `nodes` are the ids of those that hold it. Do not repeat it.
    """

    outcome = "applied"

    @property
    def dot(self) -> str:
        return str(self.problem.get("dot", ""))

    @property
    def nodes(self) -> Sequence[str]:
        nodes = self.problem.get("nodes")
        return tuple(map(str, nodes)) if isinstance(nodes, list) else ()


class TooFarBack(LightconeError):
    """Raised when a watcher was away for so long that the logs lack what it is to be told next.

    `missed` says which writes the node that was asked last does not have in its logs. To miss
    nothing, watch from the state; with `since=error.go_on` a watcher goes on without them.
    """

    @property
    def missed(self) -> "Sequence[MissedWrites]":
        return tuple(MissedWrites(**one) for one in _entries(self, "missed", *_SPAN))

    @property
    def go_on(self) -> str:
        return str(self.problem.get("go_on", ""))


class NotApplied(LightconeError):
    """Raised when no node could serve the request now, and it certainly took no effect."""


class NotCaughtUp(NotApplied):
    """Raised when the patience ended before any node had seen what this session has seen.

    `missing` says what the last node that was asked still lacked.
    """

    def __init__(self, detail: str, *, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail, problem=problem)
        self.missing: Sequence[Missing] = _missing(self.problem.get("missing"))


class Unreachable(NotApplied):
    """Raised when no node of the session could be talked to at all."""


class OutcomeUnknown(LightconeError):
    """Raised when a write was sent and no clear answer came, so that it may have taken effect."""

    outcome = "unknown"


@dataclass(frozen=True, slots=True)
class LostWrites:
    """Of an actor all writes after `after` are lost; the session has seen those up to `through`."""

    actor: str
    after: int
    through: int


@dataclass(frozen=True, slots=True)
class MissedWrites:
    """Of an actor the writes after `after` and up to `through`."""

    actor: str
    after: int
    through: int


@dataclass(frozen=True, slots=True)
class Missing:
    """A write that a node lacked, and for how many seconds it has known that it lacks it."""

    dot: str
    known_for_s: float | None


def problem_kind(problem: Mapping[str, Any]) -> str:
    """The last part of the problem's type: `urn:lightcone:bad-key` is `bad-key`."""
    return str(problem.get("type", "")).rpartition(":")[2]


#: The fields of `LostWrites` and `MissedWrites`.
_SPAN = ("actor", "after", "through")


def _entries(error: LightconeError, name: str, *fields: str) -> Iterator[dict[str, Any]]:
    """The fields of each entry that the problem lists under this name; not of what has others."""
    listed = error.problem.get(name)
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict) and one.keys() >= set(fields):
            yield {field: one[field] for field in fields}


def _missing(listed: object) -> tuple[Missing, ...]:
    if not isinstance(listed, list):
        return ()
    return tuple(
        Missing(str(entry["dot"]), known if isinstance(known, int | float) else None)
        for entry in listed
        if isinstance(entry, dict) and "dot" in entry
        for known in [entry.get("known_for_s")]
    )
