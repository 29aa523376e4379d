"""What is going to happen in one simulation, all of it decided beforehand by a seed.

What it is: a `Plan`: the cluster, the weather on its links, and a list of `Step`s in time: requests
of clients and troubles. `plan_for(seed, profile)` makes one.

What it assumes and guarantees: plain values only, so a plan can be cut down and printed. The same
seed and profile give the same plan for ever after, on this version of the file.

What it does not know: how any of it is carried out, nor what should come of it.

Where the idea is from: the workload matters more than the faults. Few keys, sessions that stay at
one node, and one slow link find a missing dependency check at once; a storm of faults on healthy
links does not.
"""

import random
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Final, Literal

Kind = Literal["put", "get", "siblings", "delete", "puts", "gets"]
"""The last two are transactions: the value is put on all keys, or all are read at one instant."""
TroubleKind = Literal["slow", "full", "readonly", "loading", "down", "flaky", "restart"]
CrashWhen = Literal["before", "after", "late"]

PROFILES: Final = (
    *("calm", "storm", "crash", "partition", "storage", "skew", "limits", "power", "disk", "trim"),
    *("members", "mix"),
)


@dataclass(frozen=True, slots=True)
class Weather:
    """How one direction of a link is: milliseconds, and probabilities of what befalls a message.

    `late` messages are held back and arrive long after the sender has given up on them.
    """

    delay_ms: float = 2.0
    jitter_ms: float = 1.0
    loss: float = 0.0
    repeat: float = 0.0
    late: float = 0.0
    cut: bool = False


FINE: Final = Weather()
TTLS_S: Final = (0.02, 0.2, 0.2, 1.0, 3.0)
LONG_S: Final = 10_000_000.0
"""Longer than a simulation, however much clocks are wrong in it."""


@dataclass(frozen=True, slots=True)
class Request:
    """A session asks a node for something, at `at` or when its request before has ended."""

    at: float
    session: str
    node: str
    kind: Kind
    key: str
    value: str = ""
    wait_s: float = 1.0
    others: tuple[str, ...] = ()
    """The further keys of a transaction."""
    ttl_s: float = 0.0
    """How long what it puts lives; 0 for ever."""
    defers: bool = False
    """Whether it prefers that its write is done later, where the node lacks what it has seen."""
    repeats: bool = False
    """Whether it is asked once more, whatever came of it, with the same Idempotency-Key."""

    @property
    def keys(self) -> tuple[str, ...]:
        """All that it asks about."""
        return (self.key, *self.others)


@dataclass(frozen=True, slots=True)
class LinkChange:
    """From now on what `source` sends to `target` has this weather."""

    at: float
    source: str
    target: str
    weather: Weather


@dataclass(frozen=True, slots=True)
class Pause:
    """A node stands still for a while, as with SIGSTOP."""

    at: float
    node: str
    for_s: float


@dataclass(frozen=True, slots=True)
class Crash:
    """A worker is killed at its n-th command to Redis from now on, and another starts later.

    `before` the command left, `after` its effect, or `late`: the command is on its way to Redis,
    and takes effect when its sender is dead.
    """

    at: float
    node: str
    worker: int
    commands: int
    when: CrashWhen
    for_s: float


@dataclass(frozen=True, slots=True)
class SenderCrash:
    """A worker is killed when the last part of a snapshot has arrived that it is the next to send,
    before it hears of that, and another starts later. Rare moments would not be hit otherwise."""

    at: float
    node: str
    for_s: float


@dataclass(frozen=True, slots=True)
class MergeCrash:
    """A worker is killed when its Redis has carried out the n-th step of a merge from now on,
    before it hears of that, and another starts later. The merge waits meanwhile, half done."""

    at: float
    node: str
    steps: int
    for_s: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """A node's Redis is unwell for a while."""

    at: float
    node: str
    kind: TroubleKind
    for_s: float


@dataclass(frozen=True, slots=True)
class PowerCut:
    """A node loses its power soon after its Redis has logged the n-th write from now on.

    Its workers and its Redis end, and what Redis had not synced may be lost. It comes back later.
    """

    at: float
    node: str
    writes: int
    for_s: float


@dataclass(frozen=True, slots=True)
class DiskLost:
    """A node's processes end, and it comes back without its data; or, if `copied_s` is not 0, with
    a copy of it that was made so long before, and that nobody has used for long."""

    at: float
    node: str
    copied_s: float
    for_s: float


@dataclass(frozen=True, slots=True)
class ClockJump:
    """A node's wall clock jumps."""

    at: float
    node: str
    by_ms: int


@dataclass(frozen=True, slots=True)
class MemberChange:
    """A node is asked to add another one to the cluster, or to remove it."""

    at: float
    node: str
    verb: Literal["add", "remove"]
    member: str


WorkerCrash = Crash | SenderCrash | MergeCrash
Disturbance = (
    LinkChange | Pause | WorkerCrash | Trouble | PowerCut | DiskLost | ClockJump | MemberChange
)
Step = Request | Disturbance


@dataclass(frozen=True, slots=True)
class Session:
    """One client. With `carries` it sends the causal context it has, on whichever node it asks."""

    name: str
    carries: bool


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
    return replace(_Planner(rng, profile).plan(seed), watches=watches)


class _Planner:
    def __init__(self, rng: random.Random, profile: str) -> None:
        self._rng = rng
        self._profile = profile
        self._has = {
            name: profile in (name, "mix") and (profile != "mix" or rng.random() < 0.6)
            for name in PROFILES
        }
        self._nodes = tuple("ABCDE"[: rng.choice((2, 3, 3, 3, 3, 3, 4, 5))])
        self._length = rng.uniform(0.6, 1.6)

    def plan(self, seed: int) -> Plan:
        rng, nodes = self._rng, self._nodes
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
