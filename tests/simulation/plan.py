"""What is going to happen in one simulation, all of it decided beforehand by a seed.

What it is: a `Plan`: the cluster, the weather on its links, and a list of `Step`s in time: requests
of clients and troubles. `plan_for(seed, profile)` makes one.

What it assumes and guarantees: plain values only, so a plan can be cut down and printed. The same
seed and profile give the same plan for ever after, on this version of the file.

What it does not know: how any of it is carried out, nor what should come of it.

Where the idea is from: the workload matters more than the faults. Few keys, sessions that stay at
one node, and one slow link find a missing dependency check at once; a storm of faults on healthy
links does not. What even so is met too seldom has scenes (scenes.py).
"""

import random
from dataclasses import dataclass, field, replace
from itertools import pairwise, permutations
from typing import Final

from tests.simulation import scenes
from tests.simulation.steps import (
    FINE,
    LONG_S,
    TTLS_S,
    ClockJump,
    Crash,
    DiskLost,
    Kind,
    LinkChange,
    MemberChange,
    MergeCrash,
    Pause,
    PowerCut,
    Request,
    SenderCrash,
    Session,
    Step,
    Trouble,
    TroubleKind,
    Weather,
)

PROFILES: Final = (
    *("calm", "storm", "crash", "partition", "storage", "skew", "limits", "power", "disk", "trim"),
    *("members", "mix", "lanes", "gaps", "setbacks", "narrow"),
)
_BY_CHANCE: Final = PROFILES[:-4]
"""Of which a mix has some."""
_SCENES: Final = {
    "lanes": (scenes.put_back_with_lanes,),
    "gaps": (scenes.lost_beyond_a_gap,),
    "setbacks": (
        *(scenes.put_back_under_requests,) * 2,
        scenes.put_back_after_repeats,
    ),
}
"""What those profiles are about that are nothing but a scene."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One simulation. At `heal_at` all trouble ends, except the links that are `severed` for good:
    those that remain still connect all nodes. A node that `joins` knows the first one only, and
    nobody knows it; at `heal_at` all nodes are made members."""

    seed: int
    profile: str
    nodes: tuple[str, ...]
    settings: dict[str, int]
    sessions: tuple[Session, ...]
    skew_ms: dict[str, int]
    weather: dict[tuple[str, str], Weather]
    severed: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...]
    heal_at: float
    joins: str = ""
    watches: bool = False
    """Whether there is a watcher, which changes its node all the time."""
    signs: bool = False
    """Whether the cluster has a secret, so that every context is known to be its own."""
    widths: dict[tuple[str, str], float] = field(default_factory=dict)
    """How many bytes pass in a second on links that are narrow, also when all is healed."""

    @property
    def has_expiry(self) -> bool:
        """Whether something that is put expires."""
        return any(isinstance(step, Request) and step.ttl_s for step in self.steps)

    def peers(self, node: str) -> list[str]:
        """Those that the node's settings name."""
        if node == self.joins:
            return [self.nodes[0]]
        return [peer for peer in self.nodes if peer not in (node, self.joins)]


def plan_for(seed: int, profile: str | None = None) -> Plan:
    """The plan of a seed. Without a profile the seed picks one."""
    rng = random.Random(f"plan {seed}")
    profile = profile or PROFILES[seed % len(PROFILES)]
    # By chance of its own: all else is as it would be without.
    watches = random.Random(f"watcher {seed}").random() < 0.4
    planner = _Planner(seed, rng, profile)
    return planner.with_scenes(replace(planner.plan(), watches=watches))


class _Planner:
    def __init__(self, seed: int, rng: random.Random, profile: str) -> None:
        self._seed = seed
        self._rng = rng
        self._profile = profile
        self._has = {
            name: profile in (name, "mix") and (profile != "mix" or rng.random() < 0.6)
            for name in _BY_CHANCE
        }
        self._nodes = tuple("ABCDE"[: rng.choice((2, 3, 3, 3, 3, 3, 4, 5))])
        self._length = rng.uniform(0.6, 1.6)

    def plan(self) -> Plan:
        seed, rng, nodes = self._seed, self._rng, self._nodes
        often = self._has["crash"] or self._has["power"] or self._has["trim"]
        workers = 2 if rng.random() < (0.6 if often else 0.2) else 1
        settings = self._settings(workers)
        weather = self._weather()
        severed = self._severed()
        if not self._has["members"]:
            # Who removes a node that alone connects others divides the cluster for good.
            severed = _less_connected(severed, nodes, random.Random(f"severed {seed}"))
        sessions, requests = self._requests()
        skew = dict.fromkeys(nodes, 0)
        requests = _with_expiry(requests, random.Random(f"expiry {seed}"))
        steps: list[Step] = _with_transactions(requests, random.Random(f"transactions {seed}"))
        chance = random.Random(f"deferred {seed}")
        steps = _with_deferred(steps, chance, nodes, {s.name for s in sessions if s.carries})
        steps = _with_repeats(steps, random.Random(f"repeats {seed}"))
        signs = chance.random() < 0.8
        if self._has["limits"]:
            settings["deferred_max"] = chance.choice((1, 2, 1000))
        if self._has["storm"] or self._has["partition"] or self._has["trim"]:
            steps += self._link_changes(weather)
        if self._has["crash"] or (self._has["trim"] and rng.random() < 0.5):
            steps += self._crashes(workers)
        if self._has["trim"]:
            steps += self._sender_crashes(random.Random(f"sender crashes {seed}"))
            steps += self._merge_crashes(random.Random(f"merge crashes {seed}"))
        if self._has["storage"]:
            steps += self._troubles()
        if self._has["power"]:
            steps += self._power_cuts()
        if self._has["disk"]:
            steps.append(self._lost_disk())
        joins = ""
        if self._has["members"]:
            joins = nodes[-1] if rng.random() < 0.7 else ""
            # A node does not listen to one that it does not know, and hears of it only from those
            # that it knows: if they cannot reach it, nobody bridges that.
            severed = () if joins else severed
            # Where nobody knows of a node, nobody remembers what it wrote (ADR 12).
            alone = nodes[0] if joins and len(nodes) == 2 else ""
            steps = [s for s in steps if not (isinstance(s, DiskLost) and s.node == alone)]
            steps += self._member_changes(joins)
        if self._has["skew"] or rng.random() < 0.3:
            skew = {node: rng.choice((0, 0, -3000, -50, 20, 5000, 86_400_000)) for node in nodes}
            steps += self._jumps()
        if (self._has["crash"] or self._has["storm"]) and rng.random() < 0.5:
            steps += self._pauses()
        return Plan(
            seed,
            self._profile,
            nodes,
            settings,
            sessions,
            skew,
            weather,
            severed,
            tuple(sorted(steps, key=lambda step: step.at)),
            round(self._length + 0.5, 3),
            joins,
            signs=signs,
        )

    # --- scenes ----------------------------------------------------------------------------------

    def with_scenes(self, plan: Plan) -> Plan:
        """The plan, and scenes that go on in it. Chance of their own: the rest is the same."""
        rng = random.Random(f"scenes {plan.seed}")
        made: list[scenes.Scene] = []
        if rng.random() < 0.2:
            made.append(scenes.scene(scenes.crowd, rng, plan.nodes, "c"))
        if self._profile == "disk" and rng.random() < 0.3:
            others = tuple(step for step in plan.steps if not isinstance(step, DiskLost))
            plan = replace(plan, steps=others)
            made.append(scenes.scene(scenes.lost_before_it_was_heard, rng, plan.nodes, "u"))
        if self._profile == "trim" and rng.random() < 0.3:
            made.append(scenes.scene(scenes.failing_now_and_then, rng, plan.nodes, "f"))
        if self._profile in _SCENES:
            made.append(scenes.scene(rng.choice(_SCENES[self._profile]), rng, plan.nodes, "l"))
            settings = plan.settings | _quick(rng)
            if any(isinstance(s, DiskLost) and s.for_s == 0 for s in made[-1].steps):
                # No run has ended: only who knew what is lost can miss it.
                settings["workers"] = 1
            plan = replace(plan, settings=settings)
        if self._profile == "narrow":
            plan = replace(plan, widths=_narrow(rng, plan.nodes))
            made.append(scenes.scene(scenes.backlog, rng, plan.nodes, "n"))
        if not made:
            return plan
        steps = [*plan.steps, *(step for one in made for step in one.steps)]
        return replace(
            plan,
            sessions=(*plan.sessions, *(session for one in made for session in one.sessions)),
            steps=tuple(sorted(steps, key=lambda step: step.at)),
            heal_at=round(max(plan.heal_at, *(one.ends_at for one in made)), 3),
        )

    # --- the cluster -----------------------------------------------------------------------------

    def _settings(self, workers: int) -> dict[str, int]:
        rng = self._rng
        settings = {
            "workers": workers,
            "heartbeat_ms": rng.choice((400, 1000)),
            "relay_after_ms": rng.choice((100, 300, 1000)),
            "lease_ms": rng.choice((1500, 3000)),
            "sweep_ms": rng.choice((500, 1000, 3000)),
            "retry_min_ms": 20,
            "retry_max_ms": rng.choice((100, 500)),
            "peer_timeout_ms": rng.choice((400, 1500)),
            "redis_timeout_ms": 500,
            "first_start_wait_ms": 1000,
        }
        if self._has["limits"]:
            settings |= {
                "pending_max": rng.choice((1, 2, 4)),
                "drain_max": rng.choice((1, 2)),
                "batch_max_writes": rng.choice((1, 2, 5)),
            }
        if self._has["trim"]:
            settings |= {
                "log_max_entries": rng.choice((1, 2, 5)),
                "log_min_entries": 0,
                "trim_ms": rng.choice((20, 100, 300)),
                "batch_max_bytes": rng.choice((100, 400, 1_000_000)),
            }
        return settings

    def _pairs(self) -> list[tuple[str, str]]:
        return [(a, b) for a in self._nodes for b in self._nodes if a != b]

    def _weather(self) -> dict[tuple[str, str], Weather]:
        """Links are fine, except that often one is slow; in a storm all are bad."""
        rng = self._rng
        weather = dict.fromkeys(self._pairs(), FINE)
        if self._has["storm"]:
            for pair in weather:
                weather[pair] = self._storm()
        if rng.random() < (0.4 if self._has["storm"] else 0.9):
            slow = rng.choice(self._pairs())
            weather[slow] = Weather(delay_ms=rng.choice((80, 250, 900)), jitter_ms=20)
        return weather

    def _storm(self) -> Weather:
        rng = self._rng
        return Weather(
            delay_ms=rng.choice((1, 5, 40, 150)),
            jitter_ms=rng.choice((1, 30, 200)),
            loss=rng.choice((0, 0.1, 0.3)),
            repeat=rng.choice((0, 0.2, 0.5)),
            late=rng.choice((0, 0.1, 0.3)),
        )

    def _severed(self) -> tuple[tuple[str, str], ...]:
        """One link that stays cut, in one direction or both, where a third node can bridge it."""
        rng = self._rng
        if len(self._nodes) < 3 or rng.random() > (0.5 if self._has["partition"] else 0.15):
            return ()
        a, b = rng.sample(self._nodes, 2)
        return ((a, b), (b, a)) if rng.random() < 0.7 else ((a, b),)

    # --- what clients do -------------------------------------------------------------------------

    def _requests(self) -> tuple[tuple[Session, ...], list[Request]]:
        """Most sessions stay at one node, and most carry their context."""
        rng = self._rng
        keys = ("x", "y", "z")[: rng.choice((1, 2, 2, 3))]
        sessions: list[Session] = []
        requests: list[Request] = []
        for number in range(rng.randint(2, 2 + len(self._nodes))):
            session = Session(f"s{number}", carries=rng.random() < 0.7)
            sessions.append(session)
            home = rng.choice(self._nodes)
            roams = rng.choice((0.0, 0.3, 1.0)) if session.carries else 0.0
            pace = rng.choice((0.02, 0.06, 0.2))
            writes = rng.choice((0.2, 0.5, 0.8))
            deletes = rng.choice((0.0, 0.2, 0.5))
            at = rng.uniform(0, self._length / 3)
            for index in range(rng.randint(4, 18)):
                node = rng.choice(self._nodes) if rng.random() < roams else home
                kind: Kind
                if rng.random() < writes:
                    kind = "delete" if rng.random() < deletes else "put"
                else:
                    kind = "siblings" if rng.random() < 0.3 else "get"
                value = f"{session.name}.{index}" if kind == "put" else ""
                wait_s = rng.choice((0.0, 0.2, 1.0, 2.0))
                requests.append(
                    Request(round(at, 4), session.name, node, kind, rng.choice(keys), value, wait_s)
                )
                at += rng.expovariate(1 / pace)
                if at > self._length:
                    break
        return tuple(sessions), requests

    # --- what goes wrong -------------------------------------------------------------------------

    def _at(self) -> float:
        return round(self._rng.uniform(0.05, self._length), 4)

    def _for_s(self) -> float:
        return round(self._rng.choice((0.05, 0.3, 1.0)) * self._rng.uniform(0.5, 1.5), 4)

    def _link_changes(self, weather: dict[tuple[str, str], Weather]) -> list[LinkChange]:
        rng = self._rng
        changes: list[LinkChange] = []
        for _ in range(rng.randint(1, 4)):
            at = self._at()
            for pair in self._cut():
                changes.append(LinkChange(at, *pair, Weather(cut=True)))
                changes.append(LinkChange(round(at + self._for_s(), 4), *pair, weather[pair]))
        return changes

    def _cut(self) -> list[tuple[str, str]]:
        """The directions to cut: one, a link, a node, two halves, or halves with a bridge."""
        rng, pairs = self._rng, self._pairs()
        shape = rng.choice(("one way", "link", "node", "halves", "bridge"))
        if shape == "one way":
            return [rng.choice(pairs)]
        if shape == "link":
            a, b = rng.choice(pairs)
            return [(a, b), (b, a)]
        if shape == "node":
            alone = rng.choice(self._nodes)
            return [pair for pair in pairs if alone in pair]
        nodes = list(self._nodes)
        rng.shuffle(nodes)
        bridge = nodes.pop() if shape == "bridge" and len(nodes) > 2 else None
        half = set(nodes[: len(nodes) // 2])
        return [p for p in pairs if bridge not in p and (p[0] in half) != (p[1] in half)]

    def _crashes(self, workers: int) -> list[Crash]:
        rng = self._rng
        return [
            Crash(
                self._at(),
                rng.choice(self._nodes),
                rng.randrange(workers),
                rng.randint(1, 12),
                rng.choice(("before", "after", "late")),
                self._for_s(),
            )
            for _ in range(rng.randint(1, 6))
        ]

    def _sender_crashes(self, rng: random.Random) -> list[SenderCrash]:
        if rng.random() < 0.5:
            return []
        return [
            SenderCrash(
                round(rng.uniform(0.05, self._length), 4),
                rng.choice(self._nodes),
                round(rng.uniform(0.05, 1.5), 4),
            )
            for _ in range(rng.randint(2, 6))
        ]

    def _merge_crashes(self, rng: random.Random) -> list[MergeCrash]:
        if rng.random() < 0.5:
            return []
        return [
            MergeCrash(
                round(rng.uniform(0.05, self._length), 4),
                node,
                rng.randint(1, 4),
                round(rng.uniform(0.05, 1.5), 4),
            )
            for node in self._nodes
        ]

    def _troubles(self) -> list[Trouble]:
        rng = self._rng
        kinds: tuple[TroubleKind, ...]
        kinds = ("slow", "full", "readonly", "loading", "down", "restart", *("flaky",) * 4)
        mostly = rng.choice(kinds)
        if self._profile == "storage":  # in turn: a few seeds know them all
            mostly = (*kinds, "flaky")[self._seed % (len(kinds) + 1)]
        if rng.random() < 0.6:  # at every node and nearly all the time: rare moments are hit
            return [Trouble(0.1, node, mostly, round(self._length, 3)) for node in self._nodes]
        return [
            Trouble(
                self._at(),
                rng.choice(self._nodes),
                mostly if rng.random() < 0.7 else rng.choice(kinds),
                self._for_s(),
            )
            for _ in range(rng.randint(2, 7))
        ]

    def _power_cuts(self) -> list[PowerCut]:
        rng = self._rng
        return [
            PowerCut(self._at(), rng.choice(self._nodes), rng.randint(1, 4), self._for_s())
            for _ in range(rng.randint(1, 5))
        ]

    def _lost_disk(self) -> DiskLost:
        """Of one node: what only two had, and both lose, is waited for where its effects wait."""
        rng = self._rng
        at = round(rng.uniform(0.3, self._length), 4)
        copied_s = round(rng.uniform(0.05, at - 0.1), 4) if rng.random() < 0.6 else 0.0
        return DiskLost(at, rng.choice(self._nodes), copied_s, self._for_s())

    def _member_changes(self, joins: str) -> list[MemberChange]:
        """One joins, and others are removed and come back; never the first, whom all can ask."""
        rng, changes = self._rng, []
        if joins:
            changes.append(MemberChange(self._at(), rng.choice(self._nodes[:-1]), "add", joins))
        for _ in range(rng.randint(0, 2)):
            member = rng.choice(self._nodes[1:])
            at, node = self._at(), rng.choice(self._nodes)
            changes.append(MemberChange(at, node, "remove", member))
            if rng.random() < 0.7:
                at = round(at + self._for_s(), 4)
                changes.append(MemberChange(at, rng.choice(self._nodes), "add", member))
        return changes

    def _jumps(self) -> list[ClockJump]:
        rng = self._rng
        return [
            ClockJump(
                self._at(), rng.choice(self._nodes), rng.choice((-7_200_000, -500, 500, 60_000))
            )
            for _ in range(rng.randint(0, 4))
        ]

    def _pauses(self) -> list[Pause]:
        rng = self._rng
        return [
            Pause(self._at(), rng.choice(self._nodes), self._for_s() * 2)
            for _ in range(rng.randint(1, 3))
        ]


def _quick(rng: random.Random) -> dict[str, int]:
    """Settings with which much is known soon, so that much is done before all is healed."""
    return {
        "workers": rng.choice((1, 1, 2)),
        "heartbeat_ms": rng.choice((100, 250)),
        "relay_after_ms": rng.choice((100, 300)),
        "sweep_ms": rng.choice((150, 400)),
        "retry_max_ms": 100,
        "trim_ms": rng.choice((100, 1000)),
        "batch_max_writes": rng.choice((1, 100)),
    }


def _narrow(rng: random.Random, nodes: tuple[str, ...]) -> dict[tuple[str, str], float]:
    """One node is reached, or reaches the others, on narrow links."""
    width, alone = rng.choice((1000, 2000, 4000)), rng.choice(nodes)
    others = [node for node in nodes if node != alone]
    ways = [(alone, other) for other in others], [(other, alone) for other in others]
    chosen = rng.choice(([*ways[0]], [*ways[1]], [*ways[0], *ways[1]]))
    return dict.fromkeys(chosen, float(width))


def _less_connected(
    severed: tuple[tuple[str, str], ...], nodes: tuple[str, ...], rng: random.Random
) -> tuple[tuple[str, str], ...]:
    """What is severed; some larger clusters are a line or a ring, in which no node reaches all.
    Chance of its own: what else happens is the same."""
    if len(nodes) < 4 or rng.random() > 0.3:
        return severed
    wires = set(pairwise(nodes))
    if rng.random() < 0.5:
        wires.add((nodes[-1], nodes[0]))
    return tuple((a, b) for a, b in permutations(nodes, 2) if not wires & {(a, b), (b, a)})


def _with_expiry(requests: list[Request], rng: random.Random) -> list[Request]:
    """In some simulations some of what is put expires, most of it while the simulation goes on."""
    often = rng.choice((0.0, 0.0, 0.4, 0.8))
    return [
        replace(request, ttl_s=rng.choice(TTLS_S) if rng.random() < 0.8 else LONG_S)
        if request.kind == "put" and rng.random() < often
        else request
        for request in requests
    ]


def _with_transactions(requests: list[Request], rng: random.Random) -> list[Step]:
    """In some simulations some of the requests are transactions about all keys, where there are
    several. Chance of their own: what else happens is the same with them."""
    keys = sorted({request.key for request in requests})
    often = rng.choice((0.0, 0.2, 0.6)) if len(keys) > 1 else 0.0
    kinds: dict[Kind, Kind] = {"put": "puts", "get": "gets", "siblings": "gets"}
    steps: list[Step] = []
    for request in requests:
        if request.kind in kinds and rng.random() < often:
            others = tuple(key for key in keys if key != request.key)
            steps.append(replace(request, kind=kinds[request.kind], others=others))
        else:
            steps.append(request)
    return steps


def _with_deferred(
    steps: list[Step], rng: random.Random, nodes: tuple[str, ...], carrying: set[str]
) -> list[Step]:
    """In some simulations some of the writes need not be done at once, and are asked for wherever
    the session comes. Chance of their own."""
    often = rng.choice((0.0, 0.4, 0.9))
    return [
        replace(step, defers=True, node=rng.choice(nodes), wait_s=rng.choice((0.0, 0.0, 0.2)))
        if isinstance(step, Request)
        and step.session in carrying
        and step.kind in ("put", "puts", "delete")
        and rng.random() < often
        else step
        for step in steps
    ]


def _with_repeats(steps: list[Step], rng: random.Random) -> list[Step]:
    """In some simulations some of the writes are asked for twice, to be done once. Chance of their
    own."""
    often = rng.choice((0.0, 0.0, 0.3, 0.8))
    return [
        replace(step, repeats=True)
        if isinstance(step, Request)
        and step.kind in ("put", "puts", "delete")
        and rng.random() < often
        else step
        for step in steps
    ]
