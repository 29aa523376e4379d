"""Scenes: what has to come together for something rare to be met, brought together.

What it is: functions that make a `Scene`: some more clients, and what befalls one node, or its
links, in the order that it takes. Chance decides the rest: who, when exactly, how often, and what
else happens meanwhile.

What it assumes and guarantees: nothing of the rest of the plan; so a scene goes with every other.
Its sessions have names of their own, and put values of their own.

What it does not know: what should come of it.

Where the idea is from: chaos found in an hour what a simulation of a second never met, for it takes
five things in the right order (the table of docs/verification.md says which).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.simulation.steps import (
    FINE,
    Declaration,
    DiskLost,
    Kind,
    LinkChange,
    MemberChange,
    Request,
    Session,
    Step,
    Trouble,
    TroubleKind,
    Weather,
)

_CUT: Final = Weather(cut=True)
_TROUBLES: Final[Sequence[TroubleKind | None]] = ("slow", "late", "late", None)
_KEYS: Final = ("x", "y")
_WRITES: Final[Sequence[Kind]] = ("put", "put", "put", "delete", "puts")
_AFTER: Final[Sequence[Kind]] = ("get", "siblings", "put")
_ALL: Final[Sequence[Kind]] = ("put", "put", "get", "siblings", "gets", "puts")


@dataclass(frozen=True, slots=True)
class Scene:
    """More of a plan: it takes so long."""

    steps: Sequence[Step]
    sessions: Sequence[Session]
    ends_at: float


class _Stage:
    """A scene in the making."""

    def __init__(self, rng: random.Random, nodes: Sequence[str], name: str) -> None:
        self.rng = rng
        self.nodes = nodes
        self.victim, *self.others = rng.sample(nodes, len(nodes))
        self._name = name
        self._sessions: list[Session] = []
        self._steps: list[Step] = []

    def scene(self) -> Scene:
        """What was made."""
        ends_at = max(step.at for step in self._steps) + 0.1
        return Scene(self._steps, self._sessions, ends_at)

    def session(self, *, carries: bool = True) -> str:
        """Another client."""
        session = Session(f"{self._name}{len(self._sessions)}", carries)
        self._sessions.append(session)
        return session.name

    def asks(
        self,
        session: str,
        at: float,
        node: str,
        kind: Kind,
        *,
        wait_s: float = 0.0,
        defers: bool = False,
        repeats: bool = False,
        size: int = 0,
    ) -> None:
        """The client asks a node for something; what it puts has at least so many bytes."""
        key = self.rng.choice(_KEYS)
        others = tuple(one for one in _KEYS if one != key) if kind in ("puts", "gets") else ()
        value = f"{session}.{len(self._steps)}" if kind in ("put", "puts") else ""
        value = value.ljust(size, ".") if value else ""
        request = Request(
            *(round(at, 4), session, node, kind, key, value, wait_s, others),
            defers=defers,
            repeats=repeats,
        )
        self._steps.append(request)

    def happens(self, *steps: Step) -> None:
        """These befall it."""
        self._steps += steps

    def links(self, at: float, weather: Weather, *ways: tuple[str, str]) -> None:
        """From then on these are so."""
        self.happens(*(LinkChange(round(at, 4), a, b, weather) for a, b in ways))

    def loses(
        self, at: float, for_s: float, copied_at: float | None = None, *, only_redis: bool = False
    ) -> None:
        """The victim loses its disk, or has a copy of then."""
        at = round(at, 4)
        copied_s = 0.0 if copied_at is None else round(at - copied_at, 4)
        self.happens(DiskLost(at, self.victim, copied_s, round(for_s, 4), only_redis))

    def within(self, begins: float, ends: float) -> float:
        """Some time."""
        return self.rng.uniform(begins, ends)

    def operators(self, begins: float, ends: float) -> None:
        """Some of them come, and want what is waited for declared lost."""
        for _ in range(self.rng.choice((0, 2, 6))):
            at = round(self.within(begins, ends), 4)
            self.happens(Declaration(at, self.rng.choice(self.nodes)))

    def members_change(self, begins: float, ends: float) -> None:
        """Somebody may be removed, and be a member again: not the first, whom all can ask."""
        if len(self.nodes) > 2 and self.rng.random() < 0.15:
            member, node = self.rng.choice(self.nodes[1:]), self.nodes[0]
            at = self.within(begins, ends)
            again = at + self.within(0.1, 0.6)
            self.happens(
                MemberChange(round(at, 4), node, "remove", member),
                MemberChange(round(again, 4), node, "add", member),
            )


def put_back_with_lanes(stage: _Stage) -> None:
    """A node that hears nothing accepts deferred writes; they wait in the copy to which it is put
    back when it has done and sent some of them; and perhaps once more."""
    rng, victim, others = stage.rng, stage.victim, stage.others
    deaf_at = stage.within(0.05, 0.2)
    hears_at = deaf_at + stage.within(0.25, 0.5)
    deaf_to = others if rng.random() < 0.6 else rng.sample(others, 1)
    ways = [(other, victim) for other in deaf_to]
    if rng.random() < 0.5:
        ways += [(victim, other) for other in deaf_to]
    stage.links(deaf_at, _CUT, *ways)
    stage.links(hears_at, FINE, *ways)
    lost_at = hears_at + rng.choice((0.05, 0.15, 0.4)) * stage.within(0.5, 1.5)
    again_at = lost_at + stage.within(0.3, 1.0)
    ends_at = again_at + stage.within(0.5, 1.0)
    for _ in range(rng.randint(1, 3)):
        session = stage.session()
        at, other = deaf_at + stage.within(0.01, 0.1), rng.choice(deaf_to)
        stage.asks(session, at, other, "put")
        for _ in range(rng.randint(1, 5)):
            at += stage.within(0.01, 0.08)
            node = victim if rng.random() < 0.7 else rng.choice(others)
            kind = rng.choice(_WRITES)
            stage.asks(session, at, node, kind, defers=True, repeats=rng.random() < 0.2)
        for _ in range(rng.randint(0, 4)):
            at = max(at, lost_at) + stage.within(0.05, 0.4)
            kind = rng.choice(_AFTER)
            stage.asks(session, at, rng.choice(stage.nodes), kind, defers=kind == "put")
    copied_at = stage.within(deaf_at + 0.1, hears_at)
    down_s = stage.within(0.02, 0.2)
    for at in (lost_at, again_at) if rng.random() < 0.6 else (lost_at,):
        stage.loses(at, down_s, copied_at, only_redis=rng.random() < 0.3)
    heard = rng.choice(("by all", "by some", "with gaps", "late"))
    if heard in ("with gaps", "late"):
        out = [(victim, other) for other in others]
        lossy = Weather(delay_ms=20, jitter_ms=5, loss=0.4)
        stage.links(lost_at, lossy if heard == "with gaps" else Weather(delay_ms=250), *out)
        stage.links(again_at - 0.001, FINE, *out)
    if heard == "by some":
        other = rng.choice(others)
        some = rng.choice(([(victim, other)], [(victim, other), (other, victim)]))
        stage.links(stage.within(hears_at, lost_at), _CUT, *some)
        stage.links(stage.within(lost_at, ends_at), FINE, *some)
    stage.operators(lost_at, ends_at)
    stage.members_change(lost_at, ends_at)


def lost_beyond_a_gap(stage: _Stage) -> None:
    """What a node sends in many small batches comes to each of the others with gaps, which others
    could fill, when its disk is lost. Who has seen it all asks everywhere."""
    rng, victim, others = stage.rng, stage.victim, stage.others
    out = [(victim, other) for other in others]
    delay_ms = rng.choice((25, 50, 90))
    far = Weather(delay_ms=delay_ms, jitter_ms=2)
    stage.links(0.0, far, *out)
    # By then the links are known to be long, so that batches follow each other.
    begins = stage.within(0.5, 0.7)
    lossy = Weather(delay_ms=delay_ms, jitter_ms=rng.choice((2, 20)), loss=rng.choice((0.3, 0.6)))
    stage.links(begins, lossy, *out)
    writer, at = stage.session(), begins
    for _ in range(rng.randint(4, 12)):
        at += stage.within(0.006, 0.02)
        stage.asks(writer, at, victim, "put")
    lost_at = at + delay_ms / 1000 + stage.within(-0.02, 0.05)
    stage.links(lost_at, FINE, *out)
    down_s = stage.within(0.1, 0.2)
    copied_at = None if rng.random() < 0.5 else stage.within(0.3, begins)
    stage.loses(lost_at, down_s, copied_at)
    if rng.random() < 0.5:
        among = [(a, b) for a in others for b in others if a != b]
        stage.links(begins, Weather(delay_ms=150), *among)
    back_at = lost_at + down_s
    later = stage.session(carries=False)
    for _ in range(10):
        stage.asks(later, stage.within(back_at, back_at + 1), victim, "put")
    for _ in range(16):
        wait_s = rng.choice((0.0, 0.05))
        stage.asks(
            writer, stage.within(back_at, back_at + 1), rng.choice(others), "get", wait_s=wait_s
        )
    stage.operators(back_at, back_at + 1)


def lost_before_it_was_heard(stage: _Stage) -> None:
    """A node loses its disk before any other has what it wrote first."""
    rng, victim, others = stage.rng, stage.victim, stage.others
    out = [(victim, other) for other in others]
    stage.links(0.0, _CUT, *out)
    writer, at = stage.session(carries=rng.random() < 0.5), 0.1
    for _ in range(rng.randint(1, 3)):
        at += stage.within(0.01, 0.05)
        stage.asks(writer, at, victim, "put")
    lost_at = at + stage.within(0.03, 0.2)
    stage.links(lost_at - 0.001, FINE, *out)
    stage.loses(lost_at, down_s := stage.within(0.02, 0.2))
    again = stage.session(carries=False)
    for _ in range(4):
        stage.asks(again, lost_at + down_s + stage.within(0.05, 0.8), victim, "put", wait_s=1.0)


def put_back_under_requests(stage: _Stage) -> None:
    """A node's Redis is put back under its workers, while many ask there for what they know."""
    rng, victim, others = stage.rng, stage.victim, stage.others
    lost_at = stage.within(0.3, 0.6)
    down_s = rng.choice((0.0, 0.0, 0.004, 0.05))
    copied_at = None if rng.random() < 0.15 else lost_at - stage.within(0.01, 0.2)
    stage.loses(lost_at, down_s, copied_at, only_redis=True)
    if trouble := rng.choice(_TROUBLES):
        stage.happens(Trouble(round(lost_at - 0.1, 4), victim, trouble, 0.15))
    if rng.random() < 0.5:
        # What it has just written is nowhere else.
        out = [(victim, other) for other in others]
        stage.links(lost_at - 0.2, _CUT, *out)
        stage.links(lost_at + stage.within(0.05, 0.5), FINE, *out)
    for _ in range(rng.randint(3, 6)):
        session = stage.session(carries=rng.random() < 0.7)
        at = lost_at - stage.within(0.0, 0.15)
        if rng.random() < 0.5:
            stage.asks(session, at - 0.15, rng.choice(others), "put")
        # Behind open connections, that a lane has lost something is seen half a minute later.
        defers, repeats = down_s > 0 and rng.random() < 0.3, rng.random() < 0.4
        for _ in range(rng.randint(8, 20)):
            kind = rng.choice(_ALL)
            stage.asks(
                session,
                at,
                victim,
                kind,
                wait_s=rng.choice((0.0, 0.2)),
                defers=defers and kind == "put",
                repeats=repeats and kind in ("put", "puts"),
            )
            at += rng.expovariate(1 / 0.008)
    stage.operators(lost_at + 0.1, lost_at + 1)


def put_back_after_repeats(stage: _Stage) -> None:
    """Some write in step with each other, and some of them repeat what they asked for; and before
    what Redis published of that has come, it is put back to where it was in the middle of it."""
    victim = stage.victim
    begins = stage.within(0.3, 0.6)
    lost_at = begins + stage.within(0.008, 0.03)
    stage.happens(Trouble(round(begins - 0.02, 4), victim, "late", 0.3))
    stage.links(begins - 0.02, _CUT, *((victim, other) for other in stage.others))
    stage.links(lost_at + 0.2, FINE, *((victim, other) for other in stage.others))
    stage.loses(lost_at, 0.0, begins + stage.within(0.001, 0.007), only_redis=True)
    for repeats in (True,) * 5 + (False,):
        session = stage.session()
        for _ in range(1 if repeats else 2):
            stage.asks(session, begins, victim, "put", repeats=repeats)
    after = stage.session(carries=False)
    for _ in range(3):
        stage.asks(after, lost_at + stage.within(0.001, 0.1), victim, "put")


def failing_now_and_then(stage: _Stage) -> None:
    """Connections to all Redis break now and then, for a while."""
    begins = stage.within(0.1, 0.5)
    for node in stage.nodes:
        stage.happens(Trouble(round(begins, 4), node, "flaky", round(stage.within(0.3, 1.0), 4)))


def crowd(stage: _Stage) -> None:
    """Many ask one node at the same time, over and over."""
    rng, victim = stage.rng, stage.victim
    begins = stage.within(0.1, 0.5)
    for number in range(rng.randint(2, 4)):
        session, at = stage.session(carries=rng.random() < 0.5), begins
        kinds: tuple[Kind, ...] = ("puts",) if number == 0 else ("gets", "gets", "put")
        for _ in range(8):
            kind = rng.choice(kinds)
            stage.asks(session, at, victim, kind, repeats=kind != "gets" and rng.random() < 0.4)
            at += stage.within(0.0, 0.003)


def backlog(stage: _Stage) -> None:
    """One node is cut off, and many write meanwhile."""
    rng, victim, others = stage.rng, stage.victim, stage.others
    ways = [(victim, other) for other in others]
    ways += [(other, victim) for other in others]
    cut_at = stage.within(0.1, 0.3)
    stage.links(cut_at, _CUT, *ways)
    stage.links(cut_at + stage.within(0.3, 0.6), FINE, *ways)
    for node in stage.nodes:
        session, at = stage.session(), cut_at
        for _ in range(rng.randint(5, 15)):
            size = rng.choice((0, 0, 0, 0, 0, 0, 300, 1000))
            stage.asks(session, at, node, "put", size=size)
            at += stage.within(0.0, 0.05)


def scene(
    make: Callable[[_Stage], None], rng: random.Random, nodes: Sequence[str], name: str
) -> Scene:
    """The scene, among these nodes; its sessions' names begin with `name`."""
    stage = _Stage(rng, nodes, name)
    make(stage)
    return stage.scene()
