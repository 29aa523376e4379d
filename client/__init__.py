"""The client of Lightcone. Everything public is here, and nothing else is."""

from client.answers import Declared, Deleted, Transacted, Version, Written
from client.blocking_session import BlockingSession, blocking
from client.errors import (
    BadInput,
    LightconeError,
    Lost,
    LostWrites,
    MissedWrites,
    Missing,
    NotApplied,
    NotCaughtUp,
    OutcomeUnknown,
    PreconditionFailed,
    ReplicasMissing,
    TooFarBack,
    Unreachable,
)
from client.lightcone import Lightcone
from client.session import Session
from client.shapes import (
    Conflict,
    ExplainedVersion,
    ExplainedWrite,
    Explanation,
    Fault,
    Member,
    PeerStatus,
    Pending,
    PendingCount,
    PendingWrite,
    Status,
)
from client.transaction import Transaction
from client.watching import Begin, Change, Cut, KeyState, Operation, Watched

__version__ = "0.1.0"

__all__ = [
    "BadInput",
    "Begin",
    "BlockingSession",
    "Change",
    "Conflict",
    "Cut",
    "Declared",
    "Deleted",
    "ExplainedVersion",
    "ExplainedWrite",
    "Explanation",
    "Fault",
    "KeyState",
    "Lightcone",
    "LightconeError",
    "Lost",
    "LostWrites",
    "Member",
    "MissedWrites",
    "Missing",
    "NotApplied",
    "NotCaughtUp",
    "Operation",
    "OutcomeUnknown",
    "PeerStatus",
    "Pending",
    "PendingCount",
    "PendingWrite",
    "PreconditionFailed",
    "ReplicasMissing",
    "Session",
    "Status",
    "TooFarBack",
    "Transacted",
    "Transaction",
    "Unreachable",
    "Version",
    "Watched",
    "Written",
    "blocking",
]
