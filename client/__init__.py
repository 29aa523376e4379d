"""The client of Lightcone. Everything public is here, and nothing else is."""

from client.answers import (
    Fault,
    Member,
    PeerStatus,
    Pending,
    PendingCount,
    PendingWrite,
    Status,
    Version,
    Written,
)
from client.errors import (
    BadInput,
    LightconeError,
    Missing,
    NotApplied,
    NotCaughtUp,
    OutcomeUnknown,
    Unreachable,
)
from client.lightcone import Lightcone, Session

__all__ = [
    "BadInput",
    "Fault",
    "Lightcone",
    "LightconeError",
    "Member",
    "Missing",
    "NotApplied",
    "NotCaughtUp",
    "OutcomeUnknown",
    "PeerStatus",
    "Pending",
    "PendingCount",
    "PendingWrite",
    "Session",
    "Status",
    "Unreachable",
    "Version",
    "Written",
]
