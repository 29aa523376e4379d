"""A node's state at one clock, cut into parts that travel one at a time, as values.

A *snapshot* brings a peer what the log no longer holds. It is the state of every key that the
sender holds, and a *cut*: the clock at which the state is just that. The sender reads its keys
while it goes on serving, so what it sends first may be old by the end; it then sends again what was
written meanwhile, and the last part, which carries the cut, is read in one step together with it.

Merging is by dots: a version survives if either side holds it and the other's clock does not cover
it. So nothing that the receiver wrote is lost, and nothing that was deleted returns.

Pure. Does not know how parts are read, sent or kept.

From the optimized sets of Bieniusa et al. (2012), whose states are merged by version vectors; a
fuzzy scan that is mended from the log is how ARIES makes checkpoints (Mohan et al. 1992).
"""

from dataclasses import dataclass, replace
from typing import Final

from app.vector_clock import VectorClock
from app.write import Version

BACKUP: Final = "~backup"
"""Whom a snapshot is for that is made into a backup. No node can be called so."""


@dataclass(frozen=True, slots=True)
class KeyState:
    """What a key holds: its versions, none if it is absent, and the deletes noted beside them.

    A version that has expired is one of them until it is removed: it stands for its own delete.
    """

    key: str
    versions: tuple[Version, ...]
    deletes: VectorClock

    def shown_at(self, now_us: int) -> "KeyState":
        """What readers are shown where the hybrid logical clock shows `now_us`."""
        there = tuple(version for version in self.versions if version.is_there(now_us))
        return self if len(there) == len(self.versions) else replace(self, versions=there)


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a snapshot was cut: what the sender had applied then, the last delete of each actor
    that came to a key with versions there, and the timestamp of the newest write."""

    clock: VectorClock
    deletes: VectorClock
    timestamp: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a snapshot. It follows the part that is called `after`: parts are kept in one
    order, whoever sends, and each once.

    One without a name has no keys: it asks whether to begin, and what is there already; only the
    latter, if it names one that may be there. A key may be in several parts, and the last counts.
    `total` is about how many keys there are in all. The last part has the `cut`.

    `births`, of each node the birth of its first Redis, are those of a backup that is put back: the
    dots in it are of these nodes. They stay where the part is kept, for peers are of one cluster.
    """

    snapshot: str
    name: str
    after: str
    total: int
    keys: tuple[KeyState, ...] = ()
    cut: Cut | None = None
    births: tuple[tuple[str, str], ...] = ()

    @property
    def actors(self) -> set[str]:
        """Whose writes it tells of."""
        named = {version.dot.actor for state in self.keys for version in state.versions}
        named.update(*(state.deletes.keys() for state in self.keys))
        if self.cut is not None:
            named.update(self.cut.clock.keys(), self.cut.deletes.keys())
        return named


@dataclass(frozen=True, slots=True)
class Kept:
    """Which snapshot a receiver is receiving, and the last part that it has; empty for none."""

    snapshot: str = ""
    last: str = ""


@dataclass(frozen=True, slots=True)
class Sending:
    """How far a snapshot for a peer has come, once `last` is there. Times are in microseconds since
    1970.

    `run` is the run of the sender's Redis that `cursor` is good for; `scanning` whether there is
    more to scan. What was written up to `since` has been read, or will be by the scan.
    """

    snapshot: str
    run: str
    cursor: int
    scanning: bool
    since: VectorClock
    last: str = ""
    sent: int = 0
    total: int = 0
    begun_us: int = 0
    heard_us: int = 0
