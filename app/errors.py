"""Everything that can go wrong, by whose fault it is and what became of the request.

    LightconeError
    ├── StartupError             the node cannot start: a setting, a port, a Redis is wrong
    ├── InvariantError           a guarantee is in doubt: the node must stop, not guess
    ├── LogTrimmed               a log does not go back as far as was asked for
    ├── PeerError                an exchange with another node failed
    │   ├── PeerUnreachable
    │   │   └── PeerTooSlow      in time: a smaller batch may come through
    │   └── PeerRefused
    │       └── PeerTakesLess    the batch is larger than the peer takes
    └── RequestError             one request failed; `outcome` says whether it took effect
        ├── BadRequest           the caller's mistake, before anything was done
        │   ├── BadKey
        │   ├── BadParameter
        │   ├── BadContext       not a token of ours, or one that was altered
        │   ├── ForeignContext   a token of another cluster
        │   ├── BadBatch         a batch that no node of this version would send
        │   ├── BadBackup        a file that is no backup, or not the whole of one
        │   ├── BadFault
        │   ├── BadMember
        │   ├── BadTransaction
        │   ├── BadHttp          what came is not an HTTP request
        │   └── NoWebsocket      a request to where WebSockets are opened opens none
        ├── UnsupportedEncoding  a body that is compressed
        ├── UnsupportedHeader    a header that asks for what this version does not have
        ├── BadSignature         an inter-node call without the cluster's secret
        ├── CrossOrigin          asked for by a page of another site, in somebody's browser
        ├── UnknownPeer          a sender that is no member
        ├── SameNodeId           a sender that has our own NODE_ID
        ├── Misdirected          a batch meant for another node
        ├── OtherBase            a batch was said from a base that this node does not hold
        ├── UnknownActor         a write, or a dependency, of an actor of no member
        ├── TooLarge
        ├── NoSuchKey
        ├── NoSuchMember
        ├── LastMember           the member to remove has no other that its writes could go to
        ├── NodeRemoved          this node is no member of the cluster any more
        ├── Joining              the node is new, and has not yet what its peers had when it came
        ├── PreconditionFailed   a key holds something else than a condition wants
        ├── IdempotencyKeyReused
        ├── ReplicasMissing      a write is done, and fewer nodes hold it than was asked for
        ├── NotReady             it is not settled yet as whom the node writes
        ├── ForeignBackup        a backup of another cluster
        ├── Busy                 what is asked for is under way already
        ├── TooFarBack           the logs do not go back to where a watcher wants to go on
        ├── TooManyWatchers
        ├── Stopping             the node, or this worker of it, ends
        ├── Syncing              the node is merging a snapshot
        ├── NotCaughtUp          the patience ended before the missing writes came
        ├── UnknownWrites        a write cannot be deferred for writes that nobody is known to have
        ├── DeferredFull         as many deferred writes wait as may
        ├── NotLost              what is to be declared lost is not, as far as is known
        ├── Lost                 what is missing is lost, and will never come
        └── RedisUnavailable     Redis is down, full, read-only, loading, slow or not ours

`outcome` follows Maelstrom's definite and indefinite errors: `not_applied` is a promise that the
request did not and will not take effect; `unknown` makes no promise. `applied` says that it did,
and that something else which was asked for is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from app.lost import Loss
from app.vector_clock import Dot, VectorClock

Outcome = Literal["not_applied", "unknown", "applied"]


class LightconeError(Exception):
    """The root: any error that this package raises on purpose."""


class StartupError(LightconeError):
    """The node cannot start. The message is for people and names the setting to change."""


class InvariantError(LightconeError):
    """Something happened that the guarantees rule out. The message names the guarantee."""


class LogTrimmed(LightconeError):
    """A log does not hold what comes after a clock: it was trimmed, or begun anew after a merge."""

    def __init__(self, after: VectorClock | Dot) -> None:
        super().__init__(f"the log does not go back to {after}")


class RequestError(LightconeError):
    """One request failed. `detail` says what was wrong and what to do about it."""

    outcome: Outcome = "not_applied"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers: Mapping[str, str] = {}
        """What else the answer is to say, beside the error."""


class BadRequest(RequestError):
    """The request can never succeed as it stands."""


class BadKey(BadRequest):
    """The key is not UTF-8 of 1 to 512 bytes."""


class BadParameter(BadRequest):
    """A query parameter, a header or a body is not what the interface says."""


class BadContext(BadRequest):
    """The causal context is not a token that a node made."""


class ForeignContext(BadRequest):
    """The causal context names writes of nodes that are not members of this cluster."""


class BadBatch(BadRequest):
    """The batch is truncated, malformed, of another version, or breaks a rule of the protocol."""


class BadBackup(BadRequest):
    """The stream is no backup, or was cut short or altered."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"{detail} Nothing was changed.")


class BadFault(BadRequest):
    """The fault is not one that a link can have."""


class BadMember(BadRequest):
    """What is to be a member has no id or URL that a node can have."""


class BadTransaction(BadRequest):
    """The transaction is not of the form that it has to have."""


class BadHttp(BadRequest):
    """What came over the connection is not a request of HTTP/1.1, or its head is too long."""


class NoWebsocket(BadRequest):
    """A request to where WebSockets are opened opens none."""


class UnsupportedEncoding(RequestError):
    """The body is encoded; a node takes it as it is to be kept."""


class UnsupportedHeader(RequestError):
    """A header makes the write depend on something that this version cannot look at."""


class BadSignature(RequestError):
    """The inter-node call does not prove knowledge of the cluster's secret."""


class CrossOrigin(RequestError):
    """A browser asks on behalf of a page of another site."""


class UnknownPeer(RequestError):
    """The peer is not one that this node was told of."""


class SameNodeId(RequestError):
    """The sender claims this node's own id."""


class Misdirected(RequestError):
    """The batch is for another node than this one."""


class OtherBase(RequestError):
    """A batch says clocks as what differs from a base that this node does not hold."""

    def __init__(self) -> None:
        super().__init__(
            "The batch leaves out what its sender takes this node to have of former incarnations, "
            "and that is not what it has. Nothing of it was applied. Send it with whole clocks."
        )


class UnknownActor(RequestError):
    """A write was made by, or depends on, an actor of no member of this cluster."""


class TooLarge(RequestError):
    """The body, or a header, is larger than its limit."""


class NoSuchKey(RequestError):
    """The key has no version here."""


class NoSuchMember(RequestError):
    """No node of that id was ever a member, as far as this one knows."""


class LastMember(RequestError):
    """The node knows no other member that what it holds could go to."""


class NodeRemoved(RequestError):
    """This node was removed from the cluster, by the write `removed`."""

    def __init__(self, node: str, removed: Dot) -> None:
        super().__init__(
            f"This node, {node}, was removed from the cluster (by {removed}). Nothing was done. "
            "Ask another node. What this one had not sent yet it goes on sending; when GET /status "
            "shows no lag and nothing deferred, it can be stopped. To take it back, POST /members "
            "at any member."
        )


class Joining(RequestError):
    """The node has a new Redis, and has not yet what its peers had when it came."""

    def __init__(self, lacking: int) -> None:
        super().__init__(
            f"This node has a new Redis, and still lacks {lacking} writes that its peers had when "
            "it came. It gets them from the members that it reaches and that know it; GET /status "
            "shows both. Until then it serves who asks it, from what it has."
        )


@dataclass(frozen=True, slots=True)
class Held:
    """What a key holds: the dots of its siblings, and all that a reader of it has seen (G7)."""

    key: str
    dots: tuple[Dot, ...]
    seen: VectorClock


class PreconditionFailed(RequestError):
    """A condition does not hold. `held` says for each such key what it holds here instead."""

    def __init__(self, held: Sequence[Held]) -> None:
        shown = listing(
            [
                f"{one.key!r} has the versions {listing(one.dots)}"
                if one.dots
                else f"{one.key!r} has no version"
                for one in held
            ]
        )
        super().__init__(
            f"A condition does not hold at this node: {shown}. Nothing was done. Read what is "
            "there, with the Causal-Context of this answer, and decide anew."
        )
        self.held = tuple(held)


class IdempotencyKeyReused(RequestError):
    """The Idempotency-Key was sent before, with another request."""

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key came before, with a request for something else. Nothing was "
            "done. Give every request a key of its own, and the same only to repeat it."
        )


class ReplicasMissing(RequestError):
    """The write is done, and the patience has ended before as many nodes held it as was asked."""

    outcome: Outcome = "applied"

    def __init__(self, dot: Dot, nodes: Sequence[str], wanted: int) -> None:
        super().__init__(
            f"The write {dot} stands, and is held durably by {listing(nodes, 20)}. That "
            f"{wanted} nodes do was not heard in time. The others get it by themselves; do not "
            "repeat it."
        )
        self.dot = dot
        self.nodes = tuple(nodes)


class NotReady(RequestError):
    """The node has a new Redis, and does not know yet under which name it may write."""


class ForeignBackup(RequestError):
    """The backup was made by a cluster whose writes have the same dots as other writes here."""

    def __init__(self, node: str, whose: str) -> None:
        super().__init__(
            f"The backup is of another cluster, or of an earlier one: its node {node} is not the "
            f"{node} of this one, {whose}, and their dots would name two writes each. Nothing was "
            "changed. Put it back while all members are up and none has written anything, and let "
            "no client write until it is in."
        )


class Busy(RequestError):
    """Only one can be done at a time, and one is."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Of `actor` the writes after `after` and up to `through`."""

    actor: str
    after: int
    through: int

    def __str__(self) -> str:
        return f"{self.actor}:{self.after + 1} to {self.actor}:{self.through}"


class TooFarBack(RequestError):
    """The logs of this node do not hold what a watcher is to be told next.

    `missed` is what they do not hold. Who has the context `go_on` can be told what comes then.
    """

    def __init__(self, missed: Sequence[Gap], go_on: str) -> None:
        super().__init__(
            "The logs of this node do not go back to where the watcher was: they begin after "
            f"{listing(missed)}. To miss nothing, watch anew from the state (without ?since= and "
            "Last-Event-ID); another node's logs may go back further. To go on without those "
            "writes, watch from the context that comes with this."
        )
        self.missed = tuple(missed)
        self.go_on = go_on


class TooManyWatchers(RequestError):
    """This worker tells as many watchers as it may."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"This node tells {most} watchers already (WATCHERS_MAX). Nothing was done. Try "
            "again, or watch at another node."
        )


class Stopping(RequestError):
    """This worker ends, and what it streams ends with it."""

    def __init__(self) -> None:
        super().__init__("This node is being stopped. Go on from the last id, here or elsewhere.")


class Syncing(RequestError):
    """The node merges a snapshot with what it holds: until that is done, its keys are no state that
    could be read or written. `merged` says how many of its keys are in, of about how many."""

    def __init__(self, merged: tuple[int, int] | None = None) -> None:
        so_far = "GET /status says how far it has come"
        if merged is not None:
            so_far = f"{merged[0]} of {merged[1]} keys are in"
        super().__init__(
            f"This node is merging a snapshot from a peer, for it was away for long; {so_far}. "
            "Nothing was done. Try again soon, or at another node."
        )


class NotCaughtUp(RequestError):
    """This node has not applied what the causal context asks for, and the patience has ended.

    `missing` maps each dot that is missing to the seconds for which this node has known of it.
    """

    def __init__(self, missing: Mapping[Dot, float], waited_s: float) -> None:
        names = ", ".join(map(str, missing))
        super().__init__(
            f"This node has not applied {names} yet, and waited {waited_s:g} s for it. Nothing was "
            "done. Ask again, with more ?wait=, or ask the node that wrote it."
        )
        self.missing = dict(missing)


class UnknownWrites(RequestError):
    """A write is to be deferred until others have come, whose names nobody vouches for."""

    def __init__(self, unknown: Sequence[Dot]) -> None:
        super().__init__(
            f"No node has been heard to have {listing(unknown)}, which the Causal-Context names. "
            "Contexts are not signed here (CLUSTER_SECRET), so it may be invented; and what is "
            "deferred for a write that does not exist would hold up all that is deferred after it. "
            "Nothing was done. Ask again later, or ask the node that wrote it."
        )


class DeferredFull(RequestError):
    """No more deferred writes may wait."""

    def __init__(self, most: int, most_bytes: int) -> None:
        super().__init__(
            f"As many deferred writes wait at this node as may: {most} (DEFERRED_MAX), or "
            f"{most_bytes} bytes of them (DEFERRED_MAX_BYTES). Nothing was done. GET /pending says "
            "what they wait for. Ask again later, or another node."
        )


class Lost(RequestError):
    """The causal context names writes that are lost: no node has them, and none ever will."""

    def __init__(self, losses: Sequence[Loss]) -> None:
        super().__init__(
            f"The Causal-Context names writes that were lost with a node's disk before any other "
            f"node had them: {listing(losses)}. Nothing was done. What they did is undone. To go "
            "on without them, use the Causal-Context of this answer instead."
        )
        self.losses = tuple(losses)


class NotLost(RequestError):
    """Writes are to be declared lost, and a node has them or may have them."""

    def __init__(self, why: str) -> None:
        super().__init__(f"Nothing was declared lost: {why}.")


class RedisUnavailable(RequestError):
    """Redis did not do what was asked. `cause` is its own word for why."""

    def __init__(self, cause: str, *, outcome: Outcome = "not_applied") -> None:
        became = (
            "Nothing was changed."
            if outcome == "not_applied"
            else "Whether the write was applied is not known: read the key before writing again."
        )
        said = cause.removesuffix(".")
        super().__init__(f"This node's Redis cannot serve the request: {said}. {became}")
        self.cause = cause
        self.outcome = outcome


class PeerError(LightconeError):
    """An exchange failed; whether the peer took the batch is not known, and need not be."""


class PeerUnreachable(PeerError):
    """The peer did not answer: down, cut off, or too slow."""


class PeerTooSlow(PeerUnreachable):
    """The peer did not answer in time. It may be there, and a smaller batch come through."""


class PeerRefused(PeerError):
    """The peer answered, and did not take the batch: the message says why."""


class PeerTakesLess(PeerRefused):
    """The batch has more bytes than the peer takes: it would never take it."""


def listing(names: Sequence[object], most: int = 5) -> str:
    """`names` as a phrase, cut after `most` of them."""
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
