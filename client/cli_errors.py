"""What the command line says of a failure, and with which code it ends.

What it is: `Code`, the exit codes, and `Failure`, which `told` makes of an error of the client.

What it assumes and guarantees: each failure says what was wrong, what became of the request, and
what to do. The code tells a script whether it may repeat the request: after NOT_APPLIED it may,
after UNKNOWN it has to read first, after REPLICAS_MISSING it must not.

What it does not know: how a failure is shown, and which command it is of.

Where the idea is from: the tree of `client/errors.py`, a code a branch; 70, 130 and 141 are what
Unix programs have long ended with.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from client.errors import (
    BadInput,
    LightconeError,
    Lost,
    NotApplied,
    NotCaughtUp,
    OutcomeUnknown,
    PreconditionFailed,
    ReplicasMissing,
    TooFarBack,
    Unreachable,
)


class Code(IntEnum):
    """What the process ends with."""

    DONE = 0
    #: The answer is no: the key has no value, a node is not ready.
    NO = 1
    BAD_INPUT = 2
    NOT_APPLIED = 3
    UNKNOWN = 4
    PRECONDITION_FAILED = 5
    REPLICAS_MISSING = 6
    #: A file of this machine cannot be read or written.
    LOCAL = 7
    INTERNAL = 70
    INTERRUPTED = 130
    #: Whoever read the output has closed it.
    CLOSED = 141


#: What became of a request, as people say it.
BECAME = {
    "not_applied": "Nothing was changed.",
    "unknown": "It may or may not have taken effect.",
    "applied": "The write took effect, and stands.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What was wrong, what became of the request, and what to do."""

    detail: str
    outcome: str
    advice: str
    code: Code
    kind: str = ""
    problem: Mapping[str, Any] | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The failure, for programs."""
        return {
            "error": {
                "kind": self.kind,
                "detail": self.detail,
                "outcome": self.outcome,
                "advice": self.advice,
                "exit_code": int(self.code),
                "problem": dict(self.problem) if self.problem else None,
            }
        }


class LocalTrouble(Exception):
    """Raised when a file of this machine cannot be used. `outcome` is that of the request."""

    def __init__(self, detail: str, outcome: str = "not_applied") -> None:
        super().__init__(detail)
        self.outcome = outcome


def told(error: LightconeError | LocalTrouble) -> Failure:
    """The failure that the error is."""
    if isinstance(error, LocalTrouble):
        advice = "Mend that, or name another file."
        if error.outcome == "applied":
            advice = "The request itself is done. Mend that before the next one."
        return Failure(str(error), error.outcome, advice, Code.LOCAL, "local-trouble")
    advice, code = _advice(error)
    kind = error.kind or re.sub(r"(?<!^)(?=[A-Z])", "-", type(error).__name__).lower()
    return Failure(str(error), error.outcome, advice, code, kind, error.problem)


def _advice(error: LightconeError) -> tuple[str, Code]:
    match error:
        case BadInput():
            return "Correct the request; repeated as it is, it fails again.", Code.BAD_INPUT
        case PreconditionFailed():
            holds = "; ".join(
                f"{key} has no value" if etag is None else f"{key} has the ETag {etag}"
                for key, etag in error.keys.items()
            )
            return f"{holds or 'It holds something else'}. Read it, and decide anew.", (
                Code.PRECONDITION_FAILED
            )
        case ReplicasMissing():
            nodes = ", ".join(error.nodes)
            return (
                f"{error.dot} is held by {nodes}. The others get it by themselves; do not repeat "
                "it.",
                Code.REPLICAS_MISSING,
            )
        case TooFarBack():
            return (
                "Watch with --state, to miss nothing that is there now; or go on without the "
                f"writes between with --since '{error.go_on}'.",
                Code.BAD_INPUT,
            )
        case Lost():
            return (
                f"Do what has to be done about the loss. To go on without those writes, put "
                f"{error.context} in place of what the session's file holds, or after --since; to "
                "begin anew, take the file away.",
                Code.BAD_INPUT,
            )
        case OutcomeUnknown():
            return (
                "Read before you repeat it. With --idempotency-key it is safe to repeat at the "
                "same node.",
                Code.UNKNOWN,
            )
        case NotCaughtUp():
            missing = ", ".join(one.dot for one in error.missing) or "some writes"
            return (
                f"Not there yet: {missing}. Try again with a longer --wait and --timeout; `status` "
                "and `pending` show what is behind.",
                Code.NOT_APPLIED,
            )
        case Unreachable():
            return (
                "See that the nodes run and that --node (or LIGHTCONE_NODES) names them; it is "
                "safe to repeat.",
                Code.NOT_APPLIED,
            )
        case NotApplied():
            return "It is safe to repeat.", Code.NOT_APPLIED
    return "Read before you repeat it.", Code.UNKNOWN


def interrupted() -> Failure:
    """The failure of a write that a Ctrl-C ended."""
    return Failure(
        "Interrupted.", "unknown", "Read before you repeat it.", Code.INTERRUPTED, "interrupted"
    )


def unexpected(error: BaseException, *, writes: bool) -> Failure:
    """The failure of what is a mistake of ours."""
    return Failure(
        f"The client met what it does not expect: {type(error).__name__}: {error}",
        "unknown" if writes else "not_applied",
        "Please report it, with what LIGHTCONE_DEBUG=1 shows.",
        Code.INTERNAL,
        "internal",
    )
