"""Everything the client raises, by what became of the request.

    LightconeError
    ├── BadInput            the request is wrong; it took no effect, and repeating it is useless
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
failed is always `not_applied`.

What it does not know: how an answer travels, or which request is repeated where.

Where the idea is from: Maelstrom's definite and indefinite errors; the tree at the top is httpx's
habit. It mirrors the tree of the nodes, which this package does not import.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["not_applied", "unknown"]


class LightconeError(Exception):
    """The root. `outcome` says what became of the request; `problem` is the node's own account.

    `problem` is the body of the node's `application/problem+json`, and empty when no node sent one.
    `node` is the URL of the node where the request ended, and empty when none was asked.
    """

    outcome: Outcome = "not_applied"
    node: str = ""

    def __init__(self, detail: str, *, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.problem: Mapping[str, Any] = {} if problem is None else problem

    @property
    def kind(self) -> str:
        """The name of the problem, such as `bad-key`; empty when no node gave one."""
        return problem_kind(self.problem)


class BadInput(LightconeError, ValueError):
    """Raised when the request can never succeed as it stands: a bad key, value, URL or setting."""


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
class Missing:
    """A write that a node lacked, and for how many seconds it has known that it lacks it."""

    dot: str
    known_for_s: float | None


def problem_kind(problem: Mapping[str, Any]) -> str:
    """The last part of the problem's type: `urn:lightcone:bad-key` is `bad-key`."""
    return str(problem.get("type", "")).rpartition(":")[2]


def _missing(listed: object) -> tuple[Missing, ...]:
    if not isinstance(listed, list):
        return ()
    return tuple(
        Missing(str(entry["dot"]), known if isinstance(known, int | float) else None)
        for entry in listed
        if isinstance(entry, dict) and "dot" in entry
        for known in [entry.get("known_for_s")]
    )
