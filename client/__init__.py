"""The client of Lightcone. Everything public is here, and nothing else is."""

from client.answers import (
    Conflict,
    Declared,
    Deleted,
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
    Transacted,
    Version,
    Written,
)
from client.blocking_session import BlockingSession, blocking
from client.errors import (
    BadInput,
    LightconeError,
    Lost,
    LostWrites,
    Missing,
    NotApplied,
    NotCaughtUp,
    OutcomeUnknown,
    PreconditionFailed,
    ReplicasMissing,
    Unreachable,
)
from client.lightcone import Lightcone, Session
from client.transaction import Transaction

__version__ = "0.1.0"

__all__ = [
    "BadInput",
    "BlockingSession",
    "Conflict",
    "Declared",
    "Deleted",
    "ExplainedVersion",
    "ExplainedWrite",
    "Explanation",
    "Fault",
    "Lightcone",
    "LightconeError",
    "Lost",
    "LostWrites",
    "Member",
    "Missing",
    "NotApplied",
    "NotCaughtUp",
    "OutcomeUnknown",
    "PeerStatus",
    "Pending",
    "PendingCount",
    "PendingWrite",
    "PreconditionFailed",
    "ReplicasMissing",
    "Session",
    "Status",
    "Transacted",
    "Transaction",
    "Unreachable",
    "Version",
    "Written",
    "blocking",
]
