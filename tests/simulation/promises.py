"""What nodes have accepted and not yet done: each is done once, after what it follows, or was lost
with a disk.

What it is: `Promises`. The oracle tells it of each change of a Redis and of each answer 202.

What it assumes and guarantees: what waits is read from Redis, so that an entry which goes away is
missed at once: it must have become a write in that step, or have come home. What a session had seen
when its write was accepted, and what the past of that is, it knows from the oracle, and not from
the node.

What it does not know: which node should do what when.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from app import codec
from app.vector_clock import Dot, VectorClock, node_of
from app.write import Write
from tests.simulation.steps import Request

_STEM = b"deferred:"


class Broken(Exception):
    """A promise is broken: the guarantee, and what happened."""

    def __init__(self, guarantee: str, text: str) -> None:
        super().__init__(text)
        self.guarantee = guarantee


class Holder(Protocol):
    """Who has applied writes."""

    def has(self, dot: Dot) -> bool: ...


@dataclass
class Seen:
    """What a session has seen, all of it or at one node."""

    past: VectorClock = field(default_factory=VectorClock)
    dots: set[Dot] = field(default_factory=set)
    """What it was told of or shown itself; the rest of its past these depend on."""
    gone: dict[str, set[Dot]] = field(default_factory=dict)
    """Versions of a key that had been applied where it was read, and were not there any more."""


@dataclass(frozen=True)
class Promise:
    """The request that was accepted, and what its session had seen then."""

    request: Request
    past: VectorClock
    dots: frozenset[Dot]

    @property
    def seen(self) -> Seen:
        """That, as it was then."""
        return Seen(self.past, set(self.dots))


@dataclass
class Promises:
    """All that was promised, by dot."""

    past_at: Callable[[str, Seen], VectorClock]
    """What a node must have that does what follows from this: all that was seen, but what was
    declared lost there."""
    made: dict[Dot, Promise] = field(default_factory=dict)
    done: dict[Dot, Dot] = field(default_factory=dict)
    """What was done under another name than that which it was promised under."""
    waits: dict[str, dict[Dot, codec.Deferred]] = field(default_factory=dict)
    former: set[Dot] = field(default_factory=set)
    """What waited when its lane had ended."""
    once: dict[Dot, set[Dot]] = field(default_factory=dict)
    """All names under which it was ever done: one may come home when it waits again."""

    def made_to(self, request: Request, dot: Dot, seen: Seen) -> None:
        """The client was told so, whose session has seen this. Raises Broken."""
        if dot in self.made:
            raise Broken("G4", f"{dot} was promised before, to another")
        self.made[dot] = Promise(request, seen.past, frozenset(seen.dots))

    def look(
        self, node: str, holder: Holder, data: Mapping[bytes, Any], fresh: Sequence[Write]
    ) -> dict[Dot, Dot]:
        """The node holds this now, and has just applied the `fresh` writes. What it has done under
        another name, and that name. Raises Broken."""
        renamed: dict[Dot, Dot] = {}
        before, now = self.waits.get(node, {}), _waiting(data)
        for dot in now.keys() - before.keys():
            if holder.has(dot):
                raise Broken("G4", f"{dot} was given again by {node}")
        for dot in now.keys() & before.keys():
            if now[dot] != before[dot]:
                raise Broken("G4", f"{dot} was given to two writes by {node}")
        for dot in sorted(before.keys() - now.keys()):
            if not holder.has(dot):
                renamed[dot] = self._done_as(node, holder, before[dot], fresh)
                self.once.setdefault(dot, set()).add(renamed[dot])
        self.done |= renamed
        for write in fresh:
            if write.dot in before:
                self._check(node, write.dot, before[write.dot], write)
        self._note(node, data, now)
        return renamed

    def check_birth(self, node: str, write: Write) -> None:
        """The node has made this write in a lane, and it was waiting there. Raises Broken."""
        if write.dot not in self.waits.get(node, {}):
            raise Broken("G4", f"{node} made {write.dot}, which nobody was promised")

    def went_back(
        self, node: str, holder: Holder, data: Mapping[bytes, Any], gone: Container[Dot]
    ) -> None:
        """The node has lost what nobody was told of; what is `gone` it lost before, with its disk.

        Raises Broken.
        """
        self._forget(node, data)
        for dot in self._of(node):
            if dot not in gone and not self._is_kept(dot, [holder]):
                raise Broken("G3", f"{dot} was accepted, and lost in a power cut of {node}")

    def lost_disk(
        self, node: str, holders: Iterable[Holder], data: Mapping[bytes, Any]
    ) -> list[Dot]:
        """The node holds this now, and no more: what is lost for good of what waited there."""
        before = {*self.waits.get(node, {}), *self._of(node)}
        self._forget(node, data)
        holders = list(holders)
        return [dot for dot in sorted(before) if not self._is_kept(dot, holders)]

    def _of(self, node: str) -> list[Dot]:
        return [dot for dot in self.made if node_of(dot.actor) == node]

    def _is_kept(self, dot: Dot, holders: Iterable[Holder]) -> bool:
        name = self.done.get(dot, dot)
        waits = any(dot in waiting for waiting in self.waits.values())
        return waits or any(holder.has(name) for holder in holders)

    def _forget(self, node: str, data: Mapping[bytes, Any]) -> None:
        now = _waiting(data)
        for dot in now:
            self.done.pop(dot, None)
        self._note(node, data, now)

    def _note(self, node: str, data: Mapping[bytes, Any], now: dict[Dot, codec.Deferred]) -> None:
        self.waits[node] = now
        actor = (data[b"meta"].get(b"actor") or b"").decode() if b"meta" in data else ""
        self.former |= {dot for dot in now if dot.actor != f"{actor}+"}

    def _done_as(
        self, node: str, holder: Holder, waited: codec.Deferred, fresh: Sequence[Write]
    ) -> Dot:
        """Under which name it was done, now or before a loss."""
        for write in fresh:
            if write.operations == waited.operations and waited.dot in self.former:
                self._check(node, waited.dot, waited, write)
                return write.dot
        for name in sorted(self.once.get(waited.dot, ())):
            if holder.has(name):
                return name
        raise Broken("G8", f"{waited.dot} was accepted by {node}, and is gone")

    def _check(self, node: str, dot: Dot, waited: codec.Deferred, write: Write) -> None:
        """It was done after what it follows. Of its own lane it follows what came before it."""
        if write.operations != waited.operations:
            raise Broken("G4", f"{write.dot} is not what was accepted as {dot}")
        needs = [waited.context]
        if dot in self.made:
            needs.append(self.past_at(node, self.made[dot].seen))
        for need in needs:
            beyond = need.beyond(write.dependencies).dots()
            # What was done under another name is there under that.
            here = {d for d in beyond if any(map(write.dependencies.covers, self.once.get(d, ())))}
            lacks = [d for d in beyond if d.actor != dot.actor and d not in here]
            if lacks:
                raise Broken("G1", f"{write.dot} was accepted after {lacks[0]}, and done before it")


def _waiting(data: Mapping[bytes, Any]) -> dict[Dot, codec.Deferred]:
    found = {}
    for key, value in data.items():
        if key.startswith(_STEM):
            lane = key.removeprefix(_STEM).decode()
            for sequence, packed in value.items():
                one = codec.unpack_deferred(lane, int(sequence), packed)
                found[one.dot] = one
    return found
