"""What must be true, in words and as checks: of every Redis at every step, and of what clients saw.

What it is: `Oracle`. The cluster tells it of every command, request and answer; it tells what is
wrong as a `Violation`, with the guarantee of DESIGN.md that is broken.

What it assumes and guarantees: each node has a twin (tests/model.py) that is fed with what the
node's logs say. So what a node holds is compared, after each change, with what follows from its
applied writes by definition. What clients may see is worked out from the writes themselves and
what each session has seen, never from what the node's code says about contexts. With
`clients_only` it does not look into any Redis, save to learn which writes there are.

What it does not know: how nodes, networks and Redis bring it about.

Where the idea is from: the session guarantees of Terry et al. (1994); Jepsen's checkers; a twin
that runs beside, as in TigerBeetle's simulator.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from app import codec
from app.incarnation import is_lane
from app.keys import end_key, ended_actor
from app.lost import Loss
from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock, node_of
from app.write import SYSTEM, Delete, Operation, Put, Version, Write, expires_us, microseconds
from tests import model
from tests.simulation.promises import Broken, Promises, Seen
from tests.simulation.record import Record
from tests.simulation.steps import Request

FinalReads = Mapping[str, Sequence[tuple[Dot, str]]]
"""key -> dot and value of each version, winner first."""


class Violation(Exception):
    """A guarantee is broken."""

    def __init__(self, guarantee: str, text: str) -> None:
        super().__init__(f"{guarantee}: {text}")
        self.guarantee = guarantee


class Twin(model.Node):
    """The model, with its clock kept instead of worked out each time: it is asked so often."""

    _clock = VectorClock()
    _timestamp = 0
    _counted = 0
    _ends = VectorClock()
    stored: dict[str, set[Dot]]
    """Of each key where something expires, what was stored when it was looked at last."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.expiring: set[str] = set()
        self.stored = {}

    @property
    def clock(self) -> VectorClock:
        self._count()
        return self._clock

    @property
    def timestamp(self) -> int:
        self._count()
        return self._timestamp

    def _count(self) -> None:
        for write in self.applied[self._counted :]:
            self._clock = self._clock.with_dot(write.dot).merge(_closed(write))
            self._ends = VectorClock({**dict(_ends(write)), **self._ends})
            self._timestamp = max(self._timestamp, write.timestamp)
            puts = [operation for operation in write.operations if isinstance(operation, Put)]
            self.expiring.update(put.key for put in puts if put.ttl_us)
        self._counted = len(self.applied)

    def has(self, dot: Dot) -> bool:
        """Whether the write is applied, and not one that was declared lost."""
        is_covered = self.clock.covers(dot)
        if self.clock[dot.actor] == SEQUENCE_MAX:
            return dot.sequence <= self._ends[dot.actor]
        return is_covered

    @property
    def applied_clock(self) -> VectorClock:
        """Its clock, without what is covered since it was declared lost."""
        clock, ends = self.clock, self._ends
        return VectorClock(
            (actor, ends[actor] if sequence == SEQUENCE_MAX else sequence)
            for actor, sequence in clock.items()
        )

    def forget(self, count: int) -> None:
        """The last writes that were applied, so many, never were, and what was removed is perhaps
        there again."""
        del self.applied[len(self.applied) - count :]
        self._clock, self._timestamp, self._counted = VectorClock(), 0, 0
        self.removed.clear()
        self.stored.clear()
        self._ends = VectorClock()


@dataclass
class Answered:
    """A request of a client, and what came of it."""

    request: Request
    carries: bool
    status: int
    outcome: str
    dots: tuple[Dot, ...] = ()
    """The write's, or those of the versions that were read."""
    winner: Dot | None = None
    values: Mapping[Dot, bytes] = field(default_factory=dict)
    context: VectorClock = field(default_factory=VectorClock)
    """What the answer's token says."""
    problem: str = ""
    """The type of the problem, if it is one."""
    lost: tuple[Loss, ...] = ()
    """What it was told is lost, and goes on without."""
    reads: Sequence["Answered"] = ()
    """Of a transaction that reads: what it was shown of each key."""
    cut: VectorClock = field(default_factory=VectorClock)
    """Of such a one: the clock of the instant at which it read."""


@dataclass
class Repeated:
    """A request that is asked more than once, to be done once."""

    losses: int
    """How often its node had lost something when it was asked first: what a node has lost it may
    do again."""
    dot: Dot | None = None
    """The write that the client was told of."""


@dataclass(frozen=True, slots=True)
class Setback:
    """A node had applied so much, and then only so much."""

    had: VectorClock
    kept: VectorClock


@dataclass(frozen=True, slots=True)
class Before:
    """Where a node stood when it was asked for something: what it had applied, what its hybrid
    logical clock showed, and how often it had lost something. It has `lost` since what it had."""

    clock: VectorClock
    now_us: int
    losses: int
    lost: VectorClock = field(default_factory=VectorClock)

    def after(self, setbacks: Sequence[Setback]) -> "Before":
        """The same, when these came while it was asked: the answer may be of before or after."""
        if not setbacks:
            return self
        clock, lost = self.clock, self.lost
        for one in setbacks:
            clock = VectorClock((a, min(s, one.kept[a])) for a, s in clock.items())
            lost = lost.merge(one.had)
        return replace(self, clock=clock, now_us=0, lost=lost)


class Oracle:
    """Knows every write there is, and what each node and each session has seen of them."""

    def __init__(
        self,
        nodes: tuple[str, ...],
        record: Record,
        log_cap: int,
        latest_us: Callable[[str], int],
        *,
        clients_only: bool = False,
    ) -> None:
        """`latest_us` gives the latest time that a node's wall clock has ever shown."""
        self._record = record
        self._clients_only = clients_only
        self.twins = {node: Twin(node) for node in nodes}
        self.writes: dict[Dot, Write] = {}
        self._pasts: dict[Dot, VectorClock] = {}
        self._firsts: dict[str, dict[str, int]] = {node: {} for node in nodes}
        """Where each log began when it was looked at last."""
        self._had = {node: VectorClock() for node in nodes}
        """What each node had applied when it lost its disk. Others heard of that, and not of the
        loss: so they may cut it off, and have to send a snapshot."""
        self._log_cap = log_cap
        self._waiting: dict[str, set[tuple[str, bytes]]] = {node: set() for node in nodes}
        self._seen: dict[tuple[str, str], Seen] = {}
        self._acknowledged: dict[Dot, Request] = {}
        self._not_applied: dict[str, Request] = {}
        self._repeated: dict[Request, Repeated] = {}
        self.promises = Promises(self._past_at)
        self.told: set[Dot] = set()
        """What watchers were told."""
        self._latest_us = latest_us
        self._removed: set[tuple[Dot, str]] = set()
        """By write and key: what some node has removed since it had expired there."""
        self._setbacks: dict[str, list[Setback]] = {node: [] for node in nodes}
        self._gone: set[Dot] = set()
        """What was lost with a disk, and what no node had then. It may have been on its way."""
        self._stuck: set[Dot] = set()
        """Of these, what may be somewhere, and waits there for what is gone."""

    # --- nodes -----------------------------------------------------------------------------------

    def redis_changed(self, node: str, data: Mapping[bytes, Any], *, is_full: bool = False) -> None:
        """What the node's Redis holds now follows from the writes in its logs, in causal order; one
        that is full has taken none.

        Raises Violation.
        """
        if _is_merging(data):
            return  # nobody is shown what is there
        twin = self.twins[node]
        clock = codec.unpack_clock(_fields(data, b"clock"))
        fresh: list[Write] = []
        for key, value in data.items():
            if key.startswith(b"log:"):
                actor = key[4:].decode()
                self._check_log(node, actor, _end(data, actor, clock[actor]), value)
                new = [id_ for id_ in value._ids if _sequence(id_) > twin.clock[actor]]
                fresh += [_log_entry(actor, id_, value) for id_ in new]
        if fresh and is_full:
            raise Violation("G9", f"the Redis of {node} is full, and has taken {fresh[0].dot}")
        logged = twin.clock
        for write in fresh:
            logged = logged.with_dot(write.dot).merge(_closed(write))
        if merged := clock.beyond(logged):
            self._merge(twin, clock)
            self._record.note("merged", node, f"     {node} merges a snapshot up to {merged}")
        self._note_waiting(node, data)
        if self._clients_only:
            for write in fresh:
                self._note_entry(twin, write)
            twin.applied += fresh
            self.promises.waits.clear()
            return
        if fresh:
            # One after the other: of its own it may have made several at once.
            for write in sorted(fresh, key=lambda write: write.timestamp):
                self._check_entry(twin, write)
                self._note_entry(twin, write)
                twin.receive([write])
            if twin.pending:
                write = min(twin.pending.values(), key=lambda write: write.timestamp)
                lacks = write.dependencies.beyond(twin.clock)
                raise Violation("G1", f"{node} applied {write.dot} before {lacks.entries_text()}")
        with _violations():
            renamed = self.promises.look(node, twin, data, fresh)
        for dot, name in renamed.items():
            text = f"     {node} does {dot} under another name, {name}"
            self._record.note("renamed", node, text, str(name), f"{dot} is {name}")
        about = fresh if not merged else twin.applied
        keys = {o.key for write in about for o in write.operations}
        self._check_state(twin, data, keys | self._note_removed(twin, data, keys))

    def _note_removed(self, twin: Twin, data: Mapping[bytes, Any], changed: set[str]) -> set[str]:
        """The keys of which something is not stored any more that has expired.

        A node may also learn by a snapshot that something has expired elsewhere, where the clock is
        ahead. `changed` are the keys that something was written to.
        Raises Violation if anything else is missing that might have expired one day.
        """
        keys = set()
        for key in sorted(twin.expiring):
            stored = {v.dot for v in codec.unpack_versions(_fields(data, b"kv:" + key.encode()))}
            if key not in changed and stored == twin.stored.get(key):
                continue
            twin.stored[key] = stored
            for version in twin.held(key):
                if version.expires_us and version.dot not in stored:
                    if not (
                        version.expires_us <= self._now_us(twin.name)
                        or (version.dot, key) in self._removed
                    ):
                        text = f"{twin.name} has {version.dot} of {key} no more, and it lives"
                        raise Violation("G8", text)
                    twin.removed.add((version.dot, key))
                    self._removed.add((version.dot, key))
                    keys.add(key)
                    text = f"     {twin.name} removes {version.dot} of {key}"
                    self._record.note("expired", twin.name, text)
        return keys

    def _now_us(self, node: str) -> int:
        """What the node's hybrid logical clock has shown at most."""
        return max(self._latest_us(node), self.twins[node].timestamp)

    def may_have_expired(self, version: Version) -> bool:
        """Whether that may have expired by the clock of any node."""
        latest = max(map(self._now_us, self.twins))
        return 0 < version.expires_us <= latest

    def _check_log(self, node: str, actor: str, last: int, stream: Any) -> None:
        """The log ends where the clock does, has no gap, and lacks at its beginning only what all
        have, or what was more than the cap."""
        ids = [_sequence(id_) for id_ in stream._ids]
        if ids and ids != list(range(ids[0], last + 1)):
            raise Violation("G3", f"log:{actor} of {node} is {ids}, and its clock says {last}")
        begins = ids[0] if ids else last + 1
        began = self._firsts[node].get(actor, begins)
        self._firsts[node][actor] = begins
        lacking = [
            name
            for name, twin in self.twins.items()
            if max(twin.clock[actor], self._had[name][actor]) < begins - 1
        ]
        if begins > began and len(ids) < self._log_cap and lacking:
            raise Violation("G8", f"{node} cut {actor}:{begins - 1} off, which {lacking[0]} lacks")

    def _merge(self, twin: Twin, clock: VectorClock) -> None:
        """The twin has applied all that the clock covers: the node has merged a snapshot."""
        for actor in clock.beyond(twin.clock):
            self._firsts[twin.name][actor] = clock[actor] + 1
        twin.merge(w for w in self.living() if clock.covers(w.dot))
        # The snapshot was whole here when its sender lost its disk, and with it what nobody had.
        came_home = clock.beyond(twin.clock)
        twin.merge(
            self.writes[dot]
            for dot in sorted(self._gone)
            if came_home.covers(dot) and dot in self.writes and not twin.clock.covers(dot)
        )
        if twin.clock != clock:
            raise Violation("G4", f"{twin.name} merged up to {clock}, which nobody wrote")

    def went_back(self, node: str, data: Mapping[bytes, Any]) -> VectorClock:
        """The node's Redis has lost what it did last, and holds this now.

        Nobody was ever told of what is lost: no client had an answer that said it, and no other
        node has it. So it may be forgotten, and its dots may be given again. What had come home
        after a loss of the disk is others' like what they wrote themselves. Returns what is lost.
        Raises Violation.
        """
        twin = self.twins[node]
        had, kept = twin.clock, codec.unpack_clock(_fields(data, b"clock"))
        lost = [write for write in twin.applied if not kept.covers(write.dot)]
        for write in lost:
            came_home = self._had[node].covers(write.dot)
            if node_of(write.dot.actor) == node and not came_home:
                self._forget(node, write.dot)
        twin.forget(len(lost))
        self._setbacks[node].append(Setback(had, kept))
        self._firsts[node].clear()
        self._note_waiting(node, data)
        with _violations():
            self.promises.went_back(node, twin, data, self._gone)
        if not self._clients_only and not _is_merging(data):
            keys = {operation.key for write in lost for operation in write.operations}
            self._check_state(twin, data, keys | self._note_removed(twin, data, keys))
        return VectorClock((write.dot.actor, write.dot.sequence) for write in lost)

    def lost_disk(self, node: str, data: Mapping[bytes, Any]) -> VectorClock:
        """The node's Redis holds this now, and no more; anything of it may be lost for good.

        What was lost was acknowledged, and may have been seen. So its names are used up, and what
        others have of it must come home. Returns what no other node has.
        """
        kept = codec.unpack_clock(_fields(data, b"clock"))
        twin = self.twins[node]
        lost = [write.dot for write in twin.applied if not kept.covers(write.dot)]
        self._note_gaps(node)
        self._had[node] = self._had[node].merge(twin.clock)
        self._setbacks[node].append(Setback(twin.clock, kept))
        twin.forget(len(lost))
        self._firsts[node].clear()
        self._note_waiting(node, data)
        lost += self.promises.lost_disk(node, self.twins.values(), data)
        gone = [dot for dot in lost if not self._has_somebody(dot)]
        self._stuck |= self._overtook(gone)
        self._gone |= self._stuck.union(gone)
        for at in [at for at in self._seen if at[1] == node]:
            del self._seen[at]  # without a context nobody is promised anything beyond this
        return VectorClock(gone)

    def _note_gaps(self, node: str) -> None:
        """What others hold of the node's writes beyond a gap that one of them can fill."""
        held = {name: self._held(name) for name in self.twins if name != node}
        for name, twin in self.twins.items():
            for actor, _ in sorted(self._waiting[name]) if name != node else ():
                lacks = held[name].next_dot(actor)
                has_more = not self._is_waiting(name, lacks) and not twin.has(lacks)
                fillable = any(one.covers(lacks) for one in held.values())
                if node_of(actor) == node and has_more and fillable:
                    self._record.note("trouble", name, f"gap at {name}: others have {lacks}")

    def _held(self, node: str) -> VectorClock:
        """What is applied or waits at the node, of each actor up to the first gap."""
        held = self.twins[node].clock
        for actor in {actor for actor, _ in self._waiting[node]}:
            while self._is_waiting(node, held.next_dot(actor)):
                held = held.with_dot(held.next_dot(actor))
        return held

    def _is_waiting(self, node: str, dot: Dot) -> bool:
        return (dot.actor, str(dot.sequence).encode()) in self._waiting[node]

    def _overtook(self, gone: Sequence[Dot]) -> set[Dot]:
        """What follows these, and is applied nowhere: it waits for them in vain, wherever it is."""
        return {
            dot
            for dot, past in self._pasts.items()
            if any(past.covers(lost) for lost in gone if lost != dot)
            and not any(twin.has(dot) for twin in self.twins.values())
        }

    def is_gone(self, dot: Dot) -> bool:
        """Whether it was lost with a disk, and nobody has it."""
        return dot in self._gone and not self._has_somebody(dot)

    def _has_somebody(self, dot: Dot) -> bool:
        return any(
            twin.has(dot) or (self._is_waiting(node, dot) and dot not in self._stuck)
            for node, twin in self.twins.items()
        )

    def living(self) -> list[Write]:
        """The writes that are not lost."""
        return [
            write
            for dot, write in self.writes.items()
            if dot not in self._gone or self._has_somebody(dot)
        ]

    def _forget(self, node: str, dot: Dot) -> None:
        if dot in self._acknowledged:
            raise Violation("G3", f"{dot} was acknowledged, and lost in a power cut of {node}")
        if dot not in self.promises.made and any(
            seen.past.covers(dot) for seen in self._seen.values()
        ):
            raise Violation("G3", f"{dot} was shown, and lost in a power cut of {node}")
        if dot in self.told:
            raise Violation("G3", f"{dot} was told to a watcher, and lost in a power cut of {node}")
        for other, twin in self.twins.items():
            if other != node and (self._is_waiting(other, dot) or twin.clock.covers(dot)):
                raise Violation("G4", f"{dot} is at {other}, and {node}, which lost it, reuses it")
        del self.writes[dot], self._pasts[dot]

    def _note_waiting(self, node: str, data: Mapping[bytes, Any]) -> None:
        waiting = {
            (key[8:].decode(), field)
            for key, value in data.items()
            if key.startswith(b"pending:")
            for field, _ in value.items()
        }
        for actor, number in sorted(waiting - self._waiting[node]):
            dot = f"{actor}:{number.decode()}"
            self._record.note("waits", node, f"     {node} keeps {dot} waiting", dot, f"~ {dot}")
        self._waiting[node] = waiting

    def _check_entry(self, twin: Twin, write: Write) -> None:
        known = self.writes.get(write.dot)
        if known is not None and known != write:
            raise Violation("G4", f"{write.dot} names two writes: {known} and {write}")
        if twin.clock.covers(write.dot):
            raise Violation("G2", f"{twin.name} applied {write.dot} again")
        if known is None:
            self._check_birth(twin, write)

    def _note_entry(self, twin: Twin, write: Write) -> None:
        is_own = node_of(write.dot.actor) == twin.name
        if write.dot not in self.writes:
            self.writes[write.dot] = write
            self._pasts[write.dot] = write.dependencies.with_dot(write.dot)
        self._record.note(
            "own" if is_own else "applied",
            twin.name,
            f"     {twin.name} applies {write.dot}",
            str(write.dot),
            f"{'*' if is_own else '<'} {write.dot}",
        )

    def _check_birth(self, twin: Twin, write: Write) -> None:
        if node_of(write.dot.actor) != twin.name:
            raise Violation("G4", f"{twin.name} applied {write.dot}, which nobody made")
        if is_lane(write.dot.actor):
            with _violations():
                self.promises.check_birth(twin.name, write)
        if write.dependencies != twin.clock or write.dot != twin.clock.next_dot(write.dot.actor):
            raise Violation(
                "G1", f"{write.dot} depends on {write.dependencies}, and {twin.clock} is applied"
            )
        if write.timestamp <= twin.timestamp:
            raise Violation("G5", f"the timestamp of {write.dot} is not after its causal past")

    def _check_state(self, twin: Twin, data: Mapping[bytes, Any], keys: set[str]) -> None:
        clock = codec.unpack_clock(_fields(data, b"clock"))
        if clock != twin.clock:
            raise Violation("G3", f"{twin.name}'s clock is {clock}, and its logs say {twin.clock}")
        for key in sorted(keys):
            fields = _fields(data, b"kv:" + key.encode())
            versions = sorted(codec.unpack_versions(fields), key=_order, reverse=True)
            if versions != sorted(twin.held(key), key=_order, reverse=True):
                raise Violation(
                    "G5",
                    f"{twin.name} holds {_dots(versions)} of {key}, and what it applied makes "
                    f"{_dots(twin.held(key))}",
                )
            listed = [key.encode() in data.get(index, ()) for index in (b"keys:", b"conflicts")]
            expected = [bool(versions), len(versions) > 1]
            if listed != ([False, False] if key.startswith(SYSTEM) else expected):
                raise Violation(
                    "G5", f"{twin.name}'s index says {listed} of {key}, which has {_dots(versions)}"
                )
            due = min((v.expires_us for v in versions if v.expires_us), default=None)
            if b"expiring" in data or due:
                noted = (
                    dict(data[b"expiring"].items()).get(key.encode())
                    if b"expiring" in data
                    else None
                )
                if noted != due:
                    raise Violation(
                        "G9",
                        f"{twin.name} looks at {key} again at {noted}, and it expires at {due}",
                    )
            context = clock
            if versions:
                context = codec.unpack_deletes(fields)
                for version in versions:
                    context = context.with_dot(version.dot)
            if not twin.is_safe_context(key, context, self._now_us(twin.name)):
                raise Violation(
                    "G7", f"{twin.name}'s context for {key}, {context}, says too little"
                )

    # --- clients ---------------------------------------------------------------------------------

    def clock_of(self, node: str) -> VectorClock:
        """What the node has applied."""
        return self.twins[node].clock

    def before(self, node: str, wall_us: int) -> Before:
        """Where the node stands, whose wall clock shows `wall_us`."""
        twin = self.twins[node]
        return Before(twin.applied_clock, max(wall_us, twin.timestamp), len(self._setbacks[node]))

    def answered(self, answer: Answered, asked: Before) -> None:
        """What the client was told is what it may be told.

        `asked` is where the node stood when it was asked; its clock has not shown less since than
        it says, unless something was lost. Raises Violation.
        """
        request = answer.request
        asked = asked.after(self._setbacks[request.node][asked.losses :])
        if answer.lost:
            self._check_lost(answer)
        if request.kind in ("put", "delete", "puts"):
            self._check_write(answer, asked)
        elif answer.outcome == "ok" and request.kind == "gets":
            self._check_cut(answer)
            for one in answer.reads:
                self._check_read(one, asked)
        elif answer.outcome == "ok":
            self._check_read(answer, asked)
        if asked.lost and not answer.carries:  # it may tell of what was lost since
            self._seen.pop((request.session, request.node), None)

    def _expires_us(self, write: Write, key: str) -> int:
        """When what the write put at the key expires; 0 for never."""
        put = _put(write, key)
        return expires_us(write.timestamp, put.ttl_us) if put else 0

    def _has_perhaps_expired(self, write: Write, key: str, node: str) -> bool:
        """Whether what the write put at the key may have expired where the node stands."""
        until = self._expires_us(write, key)
        return (write.dot, key) in self._removed or 0 < until <= self._now_us(node)

    def _seen_by(self, answer: Answered) -> Seen:
        """Without a context, a session is promised something only at one node."""
        at = "" if answer.carries else answer.request.node
        seen = self._seen.setdefault((answer.request.session, at), Seen())
        self._give_up(seen, self.twins[answer.request.node])
        return seen

    def _give_up(self, seen: Seen, twin: Twin) -> None:
        """What was declared lost is covered where that is applied: who has seen it is served as if
        it had not, nor what it was in the past of that alone."""
        given_up = {dot for dot in seen.dots if self._is_given_up(dot, twin.name)}
        if given_up:
            seen.dots -= given_up
            seen.past = VectorClock()
            for dot in seen.dots:
                past = self._pasts.get(self.promises.done.get(dot, dot), VectorClock())
                seen.past = seen.past.merge(past).with_dot(dot)
            seen.gone.clear()  # what it had replaced is back

    def _past_at(self, node: str, seen: Seen) -> VectorClock:
        self._give_up(seen, self.twins[node])
        return seen.past

    def _is_given_up(self, dot: Dot, node: str) -> bool:
        """Whether it is covered there, and was applied under no name."""
        names = self.promises.once.get(dot, ())
        return self._is_only_covered(dot, node) and not any(map(self.twins[node].has, names))

    def _is_only_covered(self, dot: Dot, node: str) -> bool:
        """Whether it is covered there, and was not applied: it was declared lost, or its lane has
        ended and it was done under another name, which is a write of its own."""
        twin = self.twins[node]
        return twin.clock.covers(dot) and not twin.has(dot)

    def _check_lost(self, answer: Answered) -> None:
        """What a session is told is lost was lost with a disk, and nobody has it.

        What it goes on with is no more than the context says: of what the lost writes followed
        nobody knows any more, unless the session saw that itself.
        """
        who = f"{answer.request.session} at {answer.request.node}"
        self.check_losses(who, answer.lost)
        seen = self._seen_by(answer)
        seen.past = answer.context
        seen.dots = {dot for dot in seen.dots if answer.context.covers(dot)}
        for dot in answer.context.dots():
            name = self.promises.done.get(dot, dot)
            if not self.is_gone(name):  # else what it followed need not be there any more either
                seen.past = seen.past.merge(self._pasts.get(name, VectorClock()))
        seen.gone.clear()  # what the lost writes had replaced is back

    def check_losses(self, who: str, losses: Sequence[Loss]) -> None:
        """What somebody is told is lost was lost with a disk, and nobody has it.

        Raises Violation.
        """
        for loss in losses:
            for sequence in range(loss.after + 1, loss.through + 1):
                dot = Dot(loss.actor, sequence)
                # What waits when its lane has ended is done under another name: this one is lost.
                if dot not in self._gone and dot not in self.promises.former:
                    raise Violation("G8", f"{who}: told that {dot} is lost, and no disk was")
                if self._has_somebody(dot):
                    raise Violation("G8", f"{who}: told that {dot} is lost, and a node has it")

    def _check_write(self, answer: Answered, asked: Before) -> None:
        request = answer.request
        who = f"{request.session} {request.kind} {request.key} at {request.node}"
        is_again = request in self._repeated
        if answer.outcome != "not_applied":
            self._not_applied.pop(request.value, None)
        elif request.kind != "delete" and not is_again:
            self._not_applied[request.value] = request
        if request.repeats and self._is_known(who, answer, asked):
            return
        if answer.outcome == "accepted":
            self._check_promise(who, answer, asked)
            return
        if answer.outcome != "ok" or not answer.dots:
            return
        [dot] = answer.dots
        write = self.writes.get(dot)
        if write is None or not self._had_since(asked, request.node).covers(dot):
            raise Violation("G3", f"{who}: {dot} was acknowledged and is not in Redis")
        if dot in self._acknowledged:
            raise Violation("G4", f"{who}: {dot} was acknowledged before, for another request")
        if not _says(write, request):
            raise Violation("G4", f"{who}: {dot} was acknowledged, and it is {write.operations}")
        seen = self._seen_by(answer)
        if not seen.past <= write.dependencies:
            lacks = seen.past.beyond(write.dependencies)
            raise Violation("G7", f"{who}: {dot} does not follow {lacks}, which its session saw")
        self._acknowledged[dot] = request
        seen.past = seen.past.merge(self._pasts[dot])
        seen.dots.add(dot)

    def _is_known(self, who: str, answer: Answered, asked: Before) -> bool:
        """Whether the client was told of this write before, for the same request."""
        repeated = self._repeated.setdefault(answer.request, Repeated(asked.losses))
        if answer.outcome not in ("ok", "accepted"):
            return False
        [dot], known = answer.dots, repeated.dot
        repeated.dot = dot
        if known is None:
            return False
        if dot in (known, self.promises.done.get(known)):
            return True
        if len(self._setbacks[answer.request.node]) == repeated.losses:
            raise Violation("G2", f"{who}: done as {known}, and asked for again as {dot}, too")
        return False

    def _had_since(self, asked: Before, node: str) -> VectorClock:
        """What the node has had at some time since it was asked."""
        return self.twins[node].clock.merge(asked.lost)

    def _check_promise(self, who: str, answer: Answered, asked: Before) -> None:
        """What is accepted is kept, and will be done after what its session has seen."""
        [dot] = answer.dots
        seen, write = self._seen_by(answer), self.writes.get(dot)
        if not answer.context.covers(dot):
            raise Violation("G7", f"{who}: {dot} was accepted, and its context is {answer.context}")
        with _violations():
            self.promises.made_to(answer.request, dot, seen)
        name = self.promises.done.get(dot, dot)
        waits = dot in self.promises.waits.get(answer.request.node, ())
        is_here = waits or name in self.writes or len(asked.lost) > 0
        if not is_here and not self._clients_only:
            raise Violation("G3", f"{who}: {dot} was accepted and is not in Redis")
        if write is not None and not _says(write, answer.request):
            raise Violation("G4", f"{who}: {dot} was accepted, and it is {write.operations}")
        if write is not None and not seen.past <= write.dependencies:
            raise Violation("G7", f"{who}: {dot} does not follow what its session saw")
        seen.past = seen.past.with_dot(dot)
        seen.dots.add(dot)

    def _check_cut(self, answer: Answered) -> None:
        """All keys are shown as they are where just what the cut covers has been applied: so of no
        transaction a part is seen without the rest."""
        request, seen = answer.request, self._seen_by(answer)
        who = f"{request.session} {request.kind} {' '.join(request.keys)} at {request.node}"
        if not seen.past <= answer.cut:
            lacks = seen.past.beyond(answer.cut)
            raise Violation("G7", f"{who}: served without {lacks}, which it saw")
        for one in answer.reads:
            key = one.request.key
            about = [
                write
                for write in self.writes.values()
                if _about(write, key)
                and answer.cut.covers(write.dot)
                and not self._is_only_covered(write.dot, request.node)
            ]
            expected = {
                w.dot
                for w in about
                if _put(w, key) and not any(o.dependencies.covers(w.dot) for o in about)
            }
            perhaps = {w.dot for w in about if self._has_perhaps_expired(w, key, one.request.node)}
            if not expected - perhaps <= set(one.dots) <= expected:
                shown = " ".join(map(str, one.dots)) or "nothing"
                there = " ".join(map(str, sorted(expected))) or "nothing"
                raise Violation("G7", f"{who}: at {answer.cut}, {key} is {there}, not {shown}")

    def _check_read(self, answer: Answered, asked: Before) -> None:
        before = asked.clock
        request, seen = answer.request, self._seen_by(answer)
        who = f"{request.session} {request.kind} {request.key} at {request.node}"
        versions = set(answer.dots)
        for dot in answer.dots:
            write = self.writes.get(dot)
            put = write and _put(write, request.key)
            if not put:
                raise Violation("G4", f"{who}: was shown {dot}, which is no put of {request.key}")
            if dot in answer.values and answer.values[dot] != put.value:
                raise Violation("G4", f"{who}: was shown {dot} with another value")
            if write and 0 < self._expires_us(write, request.key) <= asked.now_us:
                raise Violation("G5", f"{who}: was shown {dot}, which had expired")
        about = [w for w in self.writes.values() if _about(w, request.key)]
        expired = {w.dot for w in about if self._has_perhaps_expired(w, request.key, request.node)}
        if versions:
            best = max(versions, key=lambda dot: (self.writes[dot].timestamp, dot.actor))
            if answer.winner != best:
                raise Violation("G5", f"{who}: {answer.winner} won, and {best} is later")
        # What its session saw, its causes included, is here; or else what replaced it is.
        here = self._had_since(asked, request.node)
        if not seen.past <= here and not self._clients_only:
            raise Violation("G7", f"{who}: served without {seen.past.beyond(here)}, which it saw")
        for other in about:
            if not seen.past.covers(other.dot) or self._is_only_covered(other.dot, request.node):
                continue
            for dot in sorted(versions):
                if other.dependencies.covers(dot):
                    raise Violation("G7", f"{who}: was shown {dot}, which {other.dot} replaced")
            replaced = any(w.dependencies.covers(other.dot) for w in about)
            if _put(other, request.key) and other.dot not in versions | expired and not replaced:
                raise Violation("G7", f"{who}: was not shown {other.dot}, which it knows of")
        if not self._clients_only:
            about_it = [w for w in about if w.dot not in expired]
            self._check_context(who, answer, about, about_it, before)
        gone = seen.gone.setdefault(request.key, set())
        if back := sorted(versions & gone):
            raise Violation("G7", f"{who}: was shown {back[0]}, which it had seen replaced")
        gone |= {
            w.dot
            for w in about
            if _put(w, request.key) and before.covers(w.dot) and w.dot not in versions | expired
        }
        for dot in answer.dots:
            seen.past = seen.past.merge(self._pasts[dot])
        seen.dots.update(answer.dots)

    def _check_context(
        self,
        who: str,
        answer: Answered,
        about: list[Write],
        not_expired: list[Write],
        before: VectorClock,
    ) -> None:
        """With its new context the reader is never shown again what was replaced here already."""
        for dot in answer.dots:
            if not answer.context.covers(dot):
                raise Violation("G7", f"{who}: saw {dot}, and its context is {answer.context}")
        for write in not_expired:
            if (
                before.covers(write.dot)
                and _put(write, answer.request.key)
                and write.dot not in answer.dots
                and not any(
                    other.dependencies.covers(write.dot) and answer.context.covers(other.dot)
                    for other in about
                )
            ):
                raise Violation(
                    "G7",
                    f"{who}: did not see {write.dot} any more, and its context {answer.context} "
                    "lets it be shown again",
                )

    # --- the end ---------------------------------------------------------------------------------

    def check_memory(self, node: str, data: Mapping[bytes, Any]) -> None:
        """Nothing is stored that had expired long before. Raises Violation."""
        for key in sorted(self.twins[node].expiring):
            for version in codec.unpack_versions(_fields(data, b"kv:" + key.encode())):
                if self.may_have_expired(version):
                    raise Violation("G9", f"{node} still stores {version.dot} of {key}")

    def finish(self, pending: Mapping[str, int], reads: Mapping[str, FinalReads]) -> None:
        """All is healed and quiet: the nodes are equal, and nothing acknowledged is lost.

        `reads` is what each node answers of each key. Raises Violation.
        """
        everything = VectorClock()
        living = self.living()
        gone = self._gone - {write.dot for write in living}
        for write in living:
            everything = everything.with_dot(write.dot).merge(_closed(write))
        for node, twin in self.twins.items():
            if twin.clock != everything:
                lacks = everything.beyond(twin.clock)
                raise Violation("G8", f"{node} never got {lacks}, though all is healed")
            if pending[node]:
                raise Violation("G9", f"{pending[node]} writes still wait at {node}")
        first, *others = self.twins
        for node in others:
            for key, shown in reads[node].items():
                if shown != reads[first][key]:
                    there, here = (
                        " ".join(str(dot) for dot, _ in r) for r in (reads[first][key], shown)
                    )
                    raise Violation("G5", f"{key} is {there} at {first} and {here} at {node}")
        promised = {
            self.promises.done.get(dot, dot): promise.request
            for dot, promise in self.promises.made.items()
        }
        for dot, request in {**promised, **self._acknowledged}.items():
            if dot in gone:
                continue
            if dot not in self.writes:
                raise Violation("G8", f"{dot} was acknowledged and is nowhere")
            for key in request.keys if request.kind != "delete" else ():
                if dot in dict(reads[first][key]):
                    continue
                about = [w for w in self.writes.values() if _about(w, key)]
                if self._has_perhaps_expired(self.writes[dot], key, first):
                    continue
                if not any(other.dependencies.covers(dot) for other in about):
                    raise Violation("G8", f"{dot} is lost: nothing that replaced it had seen it")
        made: dict[str, Dot] = {}
        again = {
            request.value
            for request, repeated in self._repeated.items()
            if len(self._setbacks[request.node]) != repeated.losses
        }
        for write in living:
            for operation in write.operations:
                if isinstance(operation, Put) and not operation.key.startswith(SYSTEM):
                    value = operation.value.decode()
                    if value in self._not_applied:
                        who = self._not_applied[value].session
                        raise Violation("G10", f"{write.dot} was `not_applied` for {who}")
                    if made.get(value, write.dot) != write.dot and value not in again:
                        raise Violation("G2", f"one put is {made[value]} and {write.dot}, too")
                    made[value] = write.dot


def _ends(write: Write) -> list[tuple[str, int]]:
    """The actors whose end the write declares, and after which of their writes."""
    return [
        (actor, int(operation.value))
        for operation in write.operations
        if isinstance(operation, Put) and (actor := ended_actor(operation.key))
    ]


def _closed(write: Write) -> VectorClock:
    """What is covered where the write is applied, for nobody has it."""
    return VectorClock((actor, SEQUENCE_MAX) for actor, _ in _ends(write))


def _end(data: Mapping[bytes, Any], actor: str, sequence: int) -> int:
    """Up to where the log of an actor goes that has this entry in the clock."""
    if sequence < SEQUENCE_MAX:
        return sequence
    versions = codec.unpack_versions(_fields(data, b"kv:" + end_key(actor).encode()))
    return min((int(version.value) for version in versions), default=SEQUENCE_MAX)


@contextmanager
def _violations() -> Iterator[None]:
    """A promise that is broken is a guarantee that is."""
    try:
        yield
    except Broken as broken:
        raise Violation(broken.guarantee, str(broken)) from None


def _log_entry(actor: str, id_: Any, stream: Any) -> Write:
    flat = stream._values_dict[id_]
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    [write] = codec.unpack_log_entries(actor, [(id_.encode(), fields)])
    return write


def _sequence(entry_id: Any) -> int:
    return int(entry_id.encode().partition(b"-")[0])


def _is_merging(data: Mapping[bytes, Any]) -> bool:
    """Whether the node merges a snapshot. Nobody is shown what it holds then."""
    return b"merging" in _fields(data, b"meta")


def _fields(data: Mapping[bytes, Any], key: bytes) -> dict[bytes, bytes]:
    return dict(data[key].items()) if key in data else {}


def _order(version: Version) -> tuple[int, str]:
    return version.timestamp, version.dot.actor


def _dots(versions: list[Version]) -> str:
    return " ".join(str(version.dot) for version in versions) or "nothing"


def _about(write: Write, key: str) -> Operation | None:
    return next((operation for operation in write.operations if operation.key == key), None)


def _put(write: Write, key: str) -> Put | None:
    operation = _about(write, key)
    return operation if isinstance(operation, Put) else None


def _says(write: Write, request: Request) -> bool:
    """Whether the write is what was asked for."""
    if request.kind == "delete":
        return write.operations == (Delete(request.key),)
    puts = [operation for operation in write.operations if isinstance(operation, Put)]
    return [(put.key, put.value, put.ttl_us) for put in puts] == [
        (key, request.value.encode(), microseconds(request.ttl_s)) for key in request.keys
    ]
