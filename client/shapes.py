"""The shapes of JSON that nodes answer, as types.

What it is: what a node says of itself (`Status`, `Pending`), of the cluster (`Member`) and of keys
(`Conflict`, `Explanation`), as dictionaries whose fields have names.

What it assumes and guarantees: what a node says is handed on as it came: these types name the
fields, they do not check them. A test holds the names against those of the nodes.

What it does not know: how an answer came.

Where the idea is from: the HTTP interface of the nodes, word for word.
"""

from typing import Any, NotRequired, TypedDict


class Conflict(TypedDict):
    """A key that has siblings."""

    key: str
    etag: str
    siblings: int


class ExplainedVersion(TypedDict):
    """A version of a key, and how it came to be."""

    dot: str
    node: str
    timestamp: int
    content_type: str
    expires: NotRequired[int]
    bytes: int
    dependencies: dict[str, int] | None
    supersedes: list[str] | None
    concurrent_with: list[str]


class ExplainedWrite(TypedDict):
    """A write about a key, and how it is related to the others."""

    dot: str
    node: str
    does: str
    timestamp: int
    expires: NotRequired[int]
    dependencies: dict[str, int]
    superseded_by: list[str]
    concurrent_with: list[str]


class DeferredAbout(TypedDict):
    """A write about a key that a node has accepted, and has not done yet."""

    dot: str
    does: str
    waiting_for: list[str]
    waiting_s: float


class Explanation(TypedDict):
    """Why a key holds what it holds, as far as a node's logs tell."""

    key: str
    winner: str | None
    why: str
    versions: list[ExplainedVersion]
    history: list[ExplainedWrite]
    searched: dict[str, dict[str, int]]
    complete: bool
    deferred: list[DeferredAbout]


class PendingCount(TypedDict):
    """How many writes wait in a node's buffer."""

    total: int
    by_actor: dict[str, int]


class DeferredCount(TypedDict):
    """How many deferred writes wait at a node; which is the next, what for, and since when."""

    total: int
    bytes: int
    next: str | None
    waiting_for: list[str]
    since_s: float | None


class Fault(TypedDict, total=False):
    """What is wrong, on purpose, with the link from a node to one peer."""

    delay_ms: int
    jitter_ms: int
    drop: float
    duplicate: float
    reorder: float
    cut: bool
    no_relay: bool


class SentSnapshot(TypedDict):
    """How far a snapshot is that a node sends to a peer."""

    sent_keys: int
    total_keys: int
    since_s: float


class PeerStatus(TypedDict):
    """A node's view of one of its peers."""

    url: str | None
    reachable: bool
    clock: dict[str, int] | None
    lag_writes: int | None
    lag_s: float
    skew_ms: float | None
    last_contact_s: float | None
    snapshot: SentSnapshot | None
    error: str | None
    faults: Fault | None


class Member(TypedDict):
    """One node of the cluster, as a node knows it. `state` is `member` or `removed`."""

    id: str
    url: str | None
    source: str
    state: str
    reachable: bool | None


class Incarnation(TypedDict):
    """Since when, in microseconds since 1970, and why a node writes under another name."""

    since: int
    reason: str


class HeldBack(TypedDict):
    """How many writes a peer lacks, and how old the oldest of them is."""

    peer: str
    writes: int
    since_s: float


class LogStatus(TypedDict):
    """How long all logs of a node are together, what every node has, and who lacks most."""

    entries: int
    bytes: int
    stable: dict[str, int]
    held_back_by: list[HeldBack]


#: `from` is a word of Python, so this cannot be a class.
SnapshotStatus = TypedDict(
    "SnapshotStatus",
    {
        "from": str,
        "phase": str,
        "received_keys": int,
        "merged_keys": int,
        "total_keys": int,
        "since_s": float,
    },
)
"""The snapshot that a node receives."""


class Status(TypedDict):
    """A node's view of itself and of its peers. `actor` is None until it is known who writes."""

    node: str
    actor: str | None
    incarnation: Incarnation | None
    version: str
    clock: dict[str, int]
    timestamp: object
    pending: PendingCount
    deferred: DeferredCount
    log: LogStatus
    snapshot: SnapshotStatus | None
    peers: dict[str, PeerStatus]
    removed: list[str]
    limits: dict[str, Any]


class PendingWrite(TypedDict):
    """A write that came too early, and exactly which writes it waits for."""

    dot: str
    dependencies: dict[str, int]
    waiting_for: list[str]
    could_come_from: dict[str, list[str]]
    waiting_s: float
    keys: list[str]


class DeferredWrite(TypedDict):
    """A write that a node has accepted and will do, and exactly which writes it waits for."""

    dot: str
    context: dict[str, int]
    waiting_for: list[str]
    could_come_from: dict[str, list[str]]
    waiting_s: float
    keys: list[str]


class Pending(TypedDict):
    """The pending buffer of a node, and its deferred writes."""

    total: int
    writes: list[PendingWrite]
    deferred_total: int
    deferred: list[DeferredWrite]
