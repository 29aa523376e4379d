"""A node in plain Python: the specification to read first, and the twin that the scripts are
tested against.

It remembers every write it has applied and works everything out from that, by definition and
without cleverness. It is slow, and nothing in it is lost or kept by accident.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.conditions import Condition
from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock
from app.write import TIMESTAMP_MAX, Operation, Put, Version, Write, expires_us, winner_first

_ENDS = "\0end/"
_DONE = "\0done/"
Outcome = Literal["applied", "duplicate", "pending", "refused"]


@dataclass
class Node:
    """One node of the model."""

    name: str
    pending_max: int = 1000
    applied: list[Write] = field(default_factory=list)
    pending: dict[Dot, Write] = field(default_factory=dict)
    deferred: dict[Dot, tuple[VectorClock, tuple[Operation, ...]]] = field(default_factory=dict)
    """Writes that are committed later, in the order of acceptance, each with what it follows."""
    removed: set[tuple[Dot, str]] = field(default_factory=set)
    """By write and key: what it has removed because it had expired."""

    # --- what it knows -------------------------------------------------------------------------

    @property
    def clock(self) -> VectorClock:
        """What is applied here: the highest sequence of each actor."""
        clock = VectorClock()
        for write in self.applied:
            clock = clock.with_dot(write.dot)
            for operation in write.operations:
                if operation.key.startswith(_ENDS):  # all that comes after is declared lost
                    ended = operation.key.removeprefix(_ENDS)
                    clock = clock.with_dot(Dot(ended, SEQUENCE_MAX))
        return clock

    @property
    def received(self) -> VectorClock:
        """What is applied or waits here, per actor up to the first gap."""
        received = self.clock
        while True:
            more = [dot for dot in self.pending if dot == received.next_dot(dot.actor)]
            if not more:
                return received
            for dot in more:
                received = received.with_dot(dot)

    @property
    def timestamp(self) -> int:
        """The timestamp of the newest write here."""
        return max((write.timestamp for write in self.applied), default=0)

    def held(self, key: str) -> list[Version]:
        """The versions of `key` that are stored, winner first.

        A version is here if its write was applied, no applied write about the same key depends on
        it, and it was not removed.
        """
        about = [write for write in self.applied if _operation(write, key)]
        return winner_first(
            [
                version
                for write in about
                if (version := _version(write, key))
                and not any(other.dependencies.covers(write.dot) for other in about)
                and (write.dot, key) not in self.removed
            ]
        )

    def versions(self, key: str, now_us: int = 0) -> list[Version]:
        """The siblings of `key`, winner first, where the wall clock shows `now_us`: those that are
        stored and have not expired."""
        now_us = max(now_us, self.timestamp)
        return [v for v in self.held(key) if not v.expires_us or now_us < v.expires_us]

    def expired(self, key: str, now_us: int) -> set[Dot]:
        """Whose versions of `key` have expired here, be they removed or not."""
        now_us = max(now_us, self.timestamp)
        versions = [version for write in self.applied if (version := _version(write, key))]
        return {
            version.dot
            for version in versions
            if (version.dot, key) in self.removed or 0 < version.expires_us <= now_us
        }

    def is_safe_context(self, key: str, context: VectorClock, now_us: int = 0) -> bool:
        """Whether a reader of `key` here who goes on with `context` can never be shown a version
        again that was replaced or deleted here already (G7).

        For each such version the context must cover a write that superseded it: then so has
        every node that serves the reader. What has expired is another matter: it may be shown where
        the clock is behind.
        """
        about = [write for write in self.applied if _operation(write, key)]
        siblings = {version.dot for version in self.versions(key, now_us)}
        expired = self.expired(key, now_us)
        return all(map(context.covers, siblings)) and all(
            any(
                other.dependencies.covers(write.dot) and context.covers(other.dot)
                for other in about
            )
            for write in about
            if isinstance(_operation(write, key), Put) and write.dot not in siblings | expired
        )

    # --- what it does --------------------------------------------------------------------------

    def holds(self, condition: Condition, now_us: int = 0) -> bool:
        """Whether the key has what is wanted, here and now."""
        versions = self.versions(condition.key, now_us)
        if condition == Condition.absent(condition.key):
            return not versions
        if condition == Condition.exists(condition.key):
            return bool(versions)
        tag = ",".join(sorted(str(version.dot) for version in versions))
        return bool(versions) and tag in condition.wanted.split(" ")

    @property
    def lane(self) -> str:
        """The actor of its deferred writes."""
        return f"{self.name}+"

    def write(self, operations: Sequence[Operation], now_us: int, actor: str = "") -> Write:
        """A write of this node's own: it depends on all that is here, and is later than all."""
        clock = self.clock
        dot = clock.next_dot(actor or self.name)
        write = Write(dot, clock, self.next_timestamp(now_us), tuple(operations))
        self.applied.append(write)
        return write

    def accept(self, operations: Sequence[Operation], context: VectorClock) -> Dot:
        """A write that is committed later has its name now: the next of the lane."""
        given = self.clock
        for dot in self.deferred:
            given = given.with_dot(dot)
        dot = given.next_dot(self.lane)
        self.deferred[dot] = context, tuple(operations)
        return dot

    def commit_deferred(self, now_us: int) -> list[Write]:
        """Those whose context is here, and all that was accepted before them, are written now. What
        has come home to the lane of an earlier name waits no more."""
        committed: list[Write] = []
        for dot, (context, operations) in list(self.deferred.items()):
            if dot == self.clock.next_dot(self.lane) and not self._lacking(context):
                committed.append(self.write(operations, now_us, self.lane))
        for write in self.applied:
            self.deferred.pop(write.dot, None)
        return committed

    def commit_former(self, lane: str, now_us: int) -> Write | None:
        """What comes next in the lane of an earlier name is written under the one that is, if its
        context is here. Before it, how far the lane is done then is written down: what is deferred
        elsewhere may follow it, and the node may be put back again. With the last the lane is
        declared to have ended. What was done by an incarnation in between waits no more."""
        done = self._done(lane)
        for dot in [d for d in self.deferred if d.actor == lane and d.sequence <= done]:
            del self.deferred[dot]
        waits, write = [dot for dot in self.deferred if dot.actor == lane], None
        if waits:
            context, operations = self.deferred[waits[0]]
            if any(actor != lane for actor in self._lacking(context)):
                return None
            name = Dot(self.name, self.clock[self.name] + 2)
            self._write_down(f"{_DONE}{lane}", f"{waits[0].sequence} {name}", now_us)
            write = self.write(operations, now_us)
            del self.deferred[waits[0]]
        if len(waits) < 2 and self.clock[lane] < SEQUENCE_MAX:
            self._write_down(f"{_ENDS}{lane}", str(self.clock[lane]), now_us)
        return write

    def _write_down(self, key: str, value: str, now_us: int) -> None:
        self.write([Put(key, value.encode(), "text/plain")], now_us)

    def _done(self, lane: str) -> int:
        """Up to where the lane is done under other names: what is written down, if the write that
        is named there is here, and else all before it."""
        notes = [version.value.decode().split(" ") for version in self.held(f"{_DONE}{lane}")]
        done = [int(s) - (not self.clock.covers(Dot.parse(name))) for s, name in notes]
        return max(done, default=0)

    def _lacking(self, context: VectorClock) -> VectorClock:
        """What the context names that is not here, nor was done under another name."""
        lacking = context.beyond(self.clock)
        return VectorClock((a, s) for a, s in lacking.items() if s > self._done(a))

    def next_timestamp(self, now_us: int) -> int:
        """The timestamp that a write gets now."""
        return min(max(now_us, self.timestamp + 1), TIMESTAMP_MAX)

    def remove_expired(self, now_us: int) -> None:
        """Nothing is stored any more that has expired."""
        keys = {operation.key for write in self.applied for operation in write.operations}
        self.removed |= {(dot, key) for key in keys for dot in self.expired(key, now_us)}

    def receive(self, writes: Iterable[Write]) -> list[Outcome]:
        """What becomes of each write when they come in this order; then the drain."""
        outcomes = [self._receive(write) for write in writes]
        while deliverable := [w for w in self.pending.values() if self.is_deliverable(w)]:
            write = deliverable[0]
            del self.pending[write.dot]
            self.applied.append(write)
        self.pending = {dot: w for dot, w in self.pending.items() if not self.clock.covers(dot)}
        return outcomes

    def merge(self, others: Iterable[Write]) -> None:
        """A snapshot of a node that has applied these writes is merged with what is here: it is as
        if all of them had been applied."""
        for write in sorted(others, key=lambda write: write.timestamp):
            if not self.clock.covers(write.dot):
                self.applied.append(write)
        self.pending = {dot: w for dot, w in self.pending.items() if not self.clock.covers(dot)}

    def is_deliverable(self, write: Write) -> bool:
        """Birman, Schiper, Stephenson (1991): the actor's next, and its past is here."""
        clock = self.clock
        return write.dot == clock.next_dot(write.dot.actor) and write.dependencies <= clock

    def _receive(self, write: Write) -> Outcome:
        if self.clock.covers(write.dot):
            return "duplicate"
        if self.is_deliverable(write):
            self.pending.pop(write.dot, None)
            self.applied.append(write)
            return "applied"
        if write.dot in self.pending:
            return "duplicate"
        if len(self.pending) >= self.pending_max:
            return "refused"
        self.pending[write.dot] = write
        return "pending"


def _version(write: Write, key: str) -> Version | None:
    """What the write put at the key."""
    put = _operation(write, key)
    if not isinstance(put, Put):
        return None
    until = expires_us(write.timestamp, put.ttl_us)
    return Version(write.dot, write.timestamp, put.content_type, put.value, until)


def _operation(write: Write, key: str) -> Operation | None:
    return next((operation for operation in write.operations if operation.key == key), None)
