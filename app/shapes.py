"""The shapes of all that nodes answer in JSON, as types.

Assumes nothing. Guarantees that what handlers answer and what the contract says are one: handlers
are checked against these by the type checker, and `openapi.py` makes schemas of them.

Does not know when which of them is answered. Fields ending in `_s` are seconds, in `_ms`
milliseconds; timestamps are microseconds since 1970; a clock maps actors to sequences.
"""

from typing import Literal, NotRequired, TypedDict

Clock = dict[str, int]

# --- keys and values ------------------------------------------------------------------------------


class Written(TypedDict):
    """A put that is done, and the node's clock right after it."""

    key: str
    dot: str
    clock: Clock


class Deferred(TypedDict):
    """A write that is accepted, and what it waits for."""

    dot: str
    waiting_for: list[str]


class ShownValue(TypedDict):
    """A value: `text` if it is UTF-8, else `base64`."""

    text: NotRequired[str]
    base64: NotRequired[str]


class ShownExpiry(TypedDict):
    """When something expires; absent if it does not."""

    expires: NotRequired[int]


def shown_expiry(expires_us: int) -> ShownExpiry:
    """That something expires then; nothing if it does not, which is 0."""
    return {"expires": expires_us} if expires_us else {}


class ShownVersion(ShownValue, ShownExpiry):
    """A version: its value is `text` if it is UTF-8, else `base64`."""

    dot: str
    timestamp: int
    content_type: str


class Siblings(TypedDict):
    """All versions of a key that stand side by side, the winner first."""

    key: str
    winner: str
    siblings: list[ShownVersion]


class KeyPage(TypedDict):
    """Some keys, in the order of their bytes, and the cursor for the next page, if there is one."""

    keys: list[str]
    cursor: str | None


class Conflict(TypedDict):
    """A key that has siblings."""

    key: str
    etag: str
    siblings: int


class ConflictPage(TypedDict):
    """Some keys that have siblings; `cursor` is as for a page of keys."""

    keys: list[Conflict]
    cursor: str | None


class OpResult(ShownExpiry):
    """What became of one operation. A get has `etag` and `siblings`, as before the writes."""

    get: NotRequired[str]
    put: NotRequired[str]
    delete: NotRequired[str]
    etag: NotRequired[str | None]
    siblings: NotRequired[list[ShownVersion]]


class Transacted(TypedDict):
    """A transaction that is done. `dot` is null if it wrote nothing."""

    dot: str | None
    clock: Clock
    results: list[OpResult]


class ExplainedVersion(ShownExpiry):
    """A version of a key, and how it came to be; null is what is not in the logs any more."""

    dot: str
    node: str
    timestamp: int
    content_type: str
    bytes: int
    dependencies: Clock | None
    supersedes: list[str] | None
    concurrent_with: list[str]


class ExplainedWrite(ShownExpiry):
    """A write about a key, and how it is related to the others."""

    dot: str
    node: str
    does: Literal["put", "delete"]
    timestamp: int
    dependencies: Clock
    superseded_by: list[str]
    concurrent_with: list[str]


# `from` is a word of Python, so this cannot be a class.
Searched = TypedDict("Searched", {"from": int, "to": int})
"""Which of an actor's writes were looked at."""


class Explained(TypedDict):
    """Why a key holds what it holds."""

    key: str
    winner: str | None
    why: str
    versions: list[ExplainedVersion]
    history: list[ExplainedWrite]


class DeferredAbout(TypedDict):
    """A write about a key that was accepted here, and is not done yet."""

    dot: str
    does: Literal["put", "delete"]
    waiting_for: list[str]
    waiting_s: float


class Explanation(Explained):
    """Why a key holds what it holds, and which part of the logs was looked at; `complete` says that
    it is all that was ever written. `deferred` will be done."""

    deferred: list[DeferredAbout]
    searched: dict[str, Searched]
    complete: bool


# --- watching -------------------------------------------------------------------------------------


class ShownState(TypedDict):
    """What a key holds: all its versions, the winner first; null and none if it is absent."""

    key: str
    winner: str | None
    siblings: list[ShownVersion]
    etag: str | None


class ShownPut(ShownValue, ShownExpiry):
    """That a write gave a key a value."""

    put: str
    content_type: str


class ShownDelete(TypedDict):
    """That a write deleted a key."""

    delete: str


class ShownWrite(TypedDict):
    """A write: the node that made it, that node's clock just before, and what it did."""

    dot: str
    node: str
    timestamp: int
    dependencies: Clock
    operations: list[ShownPut | ShownDelete]


class ShownCut(TypedDict):
    """The clock of all that was told."""

    clock: Clock


# --- the node -------------------------------------------------------------------------------------


class Incarnation(TypedDict):
    """Since when, and why, the node writes under another name than its id."""

    since: int
    reason: str


class PendingCount(TypedDict):
    """How many writes wait."""

    total: int
    by_actor: dict[str, int]


class DeferredCount(TypedDict):
    """How many deferred writes wait; the next one, what it waits for, and since when; null if there
    is none."""

    total: int
    bytes: int
    next: str | None
    waiting_for: list[str]
    since_s: float | None


class HeldBack(TypedDict):
    """How many writes a peer lacks, and how old the oldest of them is."""

    peer: str
    writes: int
    since_s: float


class LogStatus(TypedDict):
    """How long all logs are, what every member has, and who lacks most."""

    entries: int
    bytes: int
    stable: Clock
    held_back_by: list[HeldBack]


SnapshotStatus = TypedDict(
    "SnapshotStatus",
    {
        "from": str,
        "phase": Literal["receiving", "merging"],
        "received_keys": int,
        "merged_keys": int,
        "total_keys": int,
        "since_s": float,
    },
)
"""How far a snapshot is that the node receives. While it merges, it serves nobody."""


class SentSnapshot(TypedDict):
    """How far a snapshot is that is sent to a peer."""

    sent_keys: int
    total_keys: int
    since_s: float


class ShownFault(TypedDict):
    """What is wrong, on purpose, with the link to a peer."""

    delay_ms: int
    jitter_ms: int
    drop: float
    duplicate: float
    reorder: float
    cut: bool
    no_relay: bool


class PeerStatus(TypedDict):
    """How the node sees a peer; null is what was never heard."""

    url: str | None
    reachable: bool
    error: str | None
    clock: Clock | None
    lag_writes: int
    lag_s: float
    skew_ms: float | None
    last_contact_s: float | None
    snapshot: SentSnapshot | None
    faults: ShownFault | None


class Status(TypedDict):
    """Where the node stands. `actor` is null until it is settled under which name it writes."""

    node: str
    actor: str | None
    incarnation: Incarnation | None
    version: str
    clock: Clock
    timestamp: int
    pending: PendingCount
    deferred: DeferredCount
    log: LogStatus
    snapshot: SnapshotStatus | None
    peers: dict[str, PeerStatus]
    removed: list[str]
    limits: dict[str, int]


class PendingWrite(TypedDict):
    """A write that came too early: for which it waits, and from whom each could come."""

    dot: str
    dependencies: Clock
    waiting_for: list[str]
    could_come_from: dict[str, list[str]]
    waiting_s: float
    keys: list[str]


class DeferredWrite(TypedDict):
    """A write of this node that is done once its context has come, and what was accepted before
    it is done."""

    dot: str
    context: Clock
    waiting_for: list[str]
    could_come_from: dict[str, list[str]]
    waiting_s: float
    keys: list[str]


class Pending(TypedDict):
    """The pending buffer, and the deferred writes. The totals are exact, also where not all are
    listed."""

    total: int
    writes: list[PendingWrite]
    deferred_total: int
    deferred: list[DeferredWrite]


class Alive(TypedDict):
    """The worker runs."""

    status: Literal["alive"]


class Ready(TypedDict):
    """The node can serve."""

    status: Literal["ready"]


class ShownMember(TypedDict):
    """A node of the cluster; `url` is null if nobody said, `reachable` once it was removed."""

    id: str
    url: str | None
    source: Literal["self", "settings", "learned"]
    state: Literal["member", "removed"]
    reachable: bool | None


class ShownMembers(TypedDict):
    """All nodes that this one knows, those that were removed included."""

    members: list[ShownMember]


class Restored(TypedDict):
    """What a backup held, and the clock that it was cut at."""

    keys: int
    cut: Clock


class Declared(TypedDict):
    """That all writes of an actor after this one are lost."""

    actor: str
    after: int


class DeclaredLost(TypedDict):
    """What was declared lost; empty, if all of it was so before."""

    lost: list[Declared]
    clock: Clock


# --- problems -------------------------------------------------------------------------------------


class Missing(TypedDict):
    """A write that the node lacks, and for how long it has known of it."""

    dot: str
    known_for_s: float


class LostWrites(TypedDict):
    """All of an actor's writes after `after` are lost; the context named those up to `through`."""

    actor: str
    after: int
    through: int


class MissedWrites(TypedDict):
    """An actor's writes after `after` and up to `through`."""

    actor: str
    after: int
    through: int


class HeldInstead(TypedDict):
    """What a key holds instead of what was wanted: `etag` is null if it has no version."""

    key: str
    etag: str | None
    siblings: int
