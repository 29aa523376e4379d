"""What is going to be done to a cluster in one run, all of it decided beforehand by a seed.

What it is: a `Plan`: the cluster, its network, the sessions of clients (clients.py), and `Strike`s,
in tracks that go on side by side. `plan_for` makes one.

What it assumes and guarantees: plain values only. The same arguments give the same plan for ever
after, on this version of the file. Real processes take their own time, so the plan is what repeats
and not the run. Every nemesis that is not left out strikes once before any strikes twice. What is
severed leaves all nodes connected, if only by way of others.

What it does not know: how a strike is carried out, or what should come of it.

Where the idea is from: tests/simulation/plan.py, which does this to clusters on virtual time.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from tests.chaos.clients import Request, SessionPlan, requests_of, sessions_of, ttl_s_of

End = Literal["sender", "receiver"]
ENDS: Final[tuple[End, ...]] = get_args(End)
Wire = tuple[str, str]
"""One direction between two nodes: what the first sends to the second."""

NODES_MAX: Final = 5
TOPOLOGIES: Final = ("mesh", "far", "line", "ring")

PROCESSES: Final = (
    "kill-worker",
    "kill-redis",
    "kill-node",
    "kill-supervisor",
    "stop-node",
    "pause-worker",
    "pause-redis",
    "full-memory",
    "full-disk",
    "lose-data",
    "old-data",
    "in-snapshot",
    "change-members",
)
NETWORK: Final = ("isolate", "one-way", "bridge", "halves", "delay")
CLOCKS: Final = ("clock-jump",)
#: Nothing else strikes meanwhile. What only one disk holds is lost with it; were two lost before
#: all nodes have the same, or were an old copy put back where no peer can tell that it is old, then
#: more would be lost than is allowed to.
ALONE: Final = ("lose-data", "old-data")
#: Of the rounds after the first: for all else stands still, longer the more has been written.
_ALONE_SHARE: Final = 0.3
NEMESES: Final = PROCESSES + NETWORK + CLOCKS

#: Seconds that a strike lasts at least. A cut takes PEER_TIMEOUT_MS to be noticed.
_LASTS_S: Final[Mapping[str, tuple[float, float]]] = {
    "kill-worker": (0.0, 0.5),
    "kill-redis": (0.0, 0.5),
    "kill-node": (0.5, 4.0),
    "kill-supervisor": (0.0, 2.0),
    "stop-node": (0.5, 3.0),
    "pause-worker": (1.0, 5.0),
    # Longer than REDIS_TIMEOUT_MS: what was given up is carried out when Redis goes on.
    "pause-redis": (2.0, 5.0),
    "full-memory": (1.0, 4.0),
    "full-disk": (1.5, 4.0),
    # For so long it writes what is on no other disk, or in no copy. Then there is the start.
    "lose-data": (0.3, 2.0),
    "old-data": (0.5, 3.0),
    # For so long the victim is dead. Before that comes what it takes to need a snapshot.
    "in-snapshot": (0.2, 1.5),
    # Longer than the logs go back, as often as not.
    "change-members": (0.5, 5.0),
    "clock-jump": (4.0, 10.0),
    **dict.fromkeys(("isolate", "one-way", "bridge", "halves", "delay"), (3.0, 8.0)),
}
_GAP_S: Final = (0.5, 2.0)
#: What seeing that a strike works, and that all is well after it, takes on average. The library
#: for odd clocks looks once a second whether the clock has jumped.
_PROOF_S: Final[Mapping[str, float]] = {
    **dict.fromkeys(PROCESSES + NETWORK, 1.5),
    **dict.fromkeys(ALONE, 6),
    "in-snapshot": 12,
    "clock-jump": 2,
}


@dataclass(frozen=True, slots=True)
class Strike:
    """One thing that is done, after a pause, and lasts for a while.

    It strikes a node, or wires, or a node whose wires are cut meanwhile. `amount` is milliseconds
    of delay, or seconds of a clock's jump; `refuses` says that a cut link refuses connections,
    instead of being silent; `kills` which end of a snapshot to `node` is killed.
    """

    nemesis: str
    gap_s: float
    lasts_s: float
    node: str = ""
    wires: tuple[Wire, ...] = ()
    amount: float = 0.0
    refuses: bool = False
    kills: End | None = None

    @property
    def alone(self) -> bool:
        """Whether nothing else strikes meanwhile."""
        return self.nemesis in ALONE

    def __str__(self) -> str:
        wires = " ".join(f"{source}>{target}" for source, target in self.wires)
        amount = f" {self.amount:+g}" if self.amount else ""
        place = " ".join(filter(None, (self.node, wires)))
        kills = f" kills {self.kills}" if self.kills else ""
        return f"{self.nemesis} {place}{amount}{' refused' if self.refuses else ''}{kills}"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seed: int
    nodes: tuple[str, ...]
    topology: str
    settings: Mapping[str, str]
    #: Milliseconds that whatever is sent takes, where it is not 0.
    delays_ms: Mapping[Wire, float]
    #: Wires that stay cut to the end.
    severed: tuple[Wire, ...]
    #: The node whose disk is small, and the one whose wall clock can be set.
    small_disk: str
    odd_clock: str
    sessions: tuple[SessionPlan, ...]
    tracks: tuple[tuple[Strike, ...], ...]
    #: Nemeses that are left out, and why.
    skipped: Mapping[str, str]

    def strikes(self) -> list[Strike]:
        """All strikes, track by track."""
        return list(itertools.chain(*self.tracks))

    @property
    def log_entries_max(self) -> int:
        """How long each log may be, once nobody writes: what every node has goes."""
        return int(self.settings["LOG_MIN_ENTRIES"])

    def keys(self) -> list[str]:
        """Every key that a session may use, but for those of which what is put expires."""
        return sorted(key for key in self._all_keys() if ttl_s_of(key) is None)

    def expiring_keys(self) -> list[str]:
        """Every key that a session may use of which what is put expires."""
        return sorted(key for key in self._all_keys() if ttl_s_of(key) is not None)

    def requests_of(self, session: SessionPlan) -> Iterator[Request]:
        """What the session asks for, without end. No value is put twice on a key."""
        return requests_of(self.seed, self.nodes, session)

    def _all_keys(self) -> set[str]:
        return {key for session in self.sessions for key in session.keys}


def plan_for(
    seed: int,
    *,
    nodes: int = 3,
    seconds: float = 60.0,
    topology: str | None = None,
    without: Mapping[str, str] | None = None,
) -> Plan:
    """The plan of a seed, for about so many seconds. `without` holds nemeses, and why not."""
    return _Planner(seed, nodes, topology).plan(seconds, without or {})


class _Planner:
    def __init__(self, seed: int, nodes: int, topology: str | None) -> None:
        if not 3 <= nodes <= NODES_MAX:
            raise ValueError(f"A run has 3 to {NODES_MAX} nodes, not {nodes}.")
        self._seed = seed
        self._rng = random.Random(f"plan {seed} {nodes}")
        self._nodes = tuple("ABCDE"[:nodes])
        # Chosen always, so that to name one changes nothing else.
        chosen = self._rng.choice(TOPOLOGIES)
        self._topology = topology or chosen

    def plan(self, seconds: float, without: Mapping[str, str]) -> Plan:
        rng = self._rng
        delays_ms, severed = self._network()
        settings = self._settings()
        self._small_disk, self._odd_clock = rng.sample(self._nodes, 2)
        self._severed = set(severed)
        sessions = sessions_of(rng, self._nodes)
        decks = ([n for n in deck if n not in without] for deck in (PROCESSES, NETWORK, CLOCKS))
        tracks = tuple(tuple(self._track(deck, seconds)) for deck in decks if deck)
        return Plan(
            seed=self._seed,
            nodes=self._nodes,
            topology=self._topology,
            settings=settings,
            delays_ms=delays_ms,
            severed=severed,
            small_disk="" if "full-disk" in without else self._small_disk,
            odd_clock="" if "clock-jump" in without else self._odd_clock,
            sessions=sessions,
            tracks=tracks,
            skipped={name: without[name] for name in NEMESES if name in without},
        )

    def _network(self) -> tuple[dict[Wire, float], tuple[Wire, ...]]:
        """Who is far from whom, and who never reaches whom."""
        rng = self._rng
        along = rng.sample(self._nodes, len(self._nodes))
        pairs = list(itertools.combinations(along, 2))
        neighbours = list(itertools.pairwise(along))
        # There and back within PEER_TIMEOUT_MS.
        slow_ms = rng.choice((100.0, 250.0, 500.0))
        if self._topology == "far":
            # The two ends are far apart, and everybody between them is near to both.
            return dict.fromkeys(_both_ways([(along[0], along[-1])]), slow_ms), ()
        if self._topology == "mesh":
            return {}, ()
        near = neighbours + ([(along[-1], along[0])] if self._topology == "ring" else [])
        severed = [pair for pair in pairs if pair not in near and pair[::-1] not in near]
        delays = dict.fromkeys(_both_ways(rng.sample(near, 1)), slow_ms / 2)
        return delays, tuple(_both_ways(severed))

    def _settings(self) -> dict[str, str]:
        rng = self._rng
        settings = {
            "WORKERS": rng.choice((1, 2)) if len(self._nodes) == 3 else 1,
            "PENDING_MAX": rng.choice((20, 1000, 100_000)),
            # A node that starts with nothing is sent all that was ever written, and much of it
            # waits: were these any smaller, that would take minutes. And one batch is under way at
            # a time, so that small ones would not bear the load over a slow link.
            "DRAIN_MAX": rng.choice((32, 256)),
            "BATCH_MAX_WRITES": rng.choice((50 if self._topology == "mesh" else 200, 512)),
            # An entry stays for longer than the logbook takes to read it again, and is gone when a
            # node was cut off for some seconds: then it is sent a snapshot, of a part or of more.
            "LOG_MIN_ENTRIES": rng.choice((100, 150)),
            "LOG_MAX_ENTRIES": rng.choice((200, 300)),
            "TRIM_MS": rng.choice((100, 300)),
            "EXPIRY_MS": rng.choice((100, 300)),
            "BATCH_MAX_BYTES": rng.choice((20_000, 1024 * 1024)),
            "RELAY_AFTER_MS": rng.choice((100, 300)),
            "HEARTBEAT_MS": 300,
            "LEASE_MS": 1500,
            "PEER_TIMEOUT_MS": 1500,
            "REDIS_TIMEOUT_MS": 1500,
            "RETRY_MAX_MS": 500,
            "FIRST_START_WAIT_MS": 3000,
            "FAULTS": 0,
        }
        secret = {"CLUSTER_SECRET": f"chaos-of-seed-{self._seed:06}"} if rng.random() < 0.5 else {}
        return {name: str(value) for name, value in settings.items()} | secret

    # --- strikes ----------------------------------------------------------------------------------

    def _track(self, deck: Sequence[str], seconds: float) -> Iterator[Strike]:
        """Round after round of the deck, each in an order of its own, until the time is up."""
        rng = self._rng
        left_s = seconds
        for round_number in itertools.count():
            for nemesis in rng.sample(deck, len(deck)):
                if round_number and nemesis in ALONE and rng.random() > _ALONE_SHARE:
                    continue
                strike = self._strike(nemesis)
                left_s -= strike.gap_s + strike.lasts_s + _PROOF_S[nemesis]
                if left_s < 0 and round_number > 0:
                    return
                yield strike
            if left_s < 0:
                return

    def _strike(self, nemesis: str) -> Strike:
        rng = self._rng
        gap_s = round(rng.uniform(*_GAP_S), 2)
        lasts_s = round(rng.uniform(*_LASTS_S[nemesis]), 2)
        if nemesis == "full-disk":
            return Strike(nemesis, gap_s, lasts_s, self._small_disk)
        if nemesis == "clock-jump":
            jump_s = rng.choice((-7200.0, -30.0, 30.0, 7200.0))
            return Strike(nemesis, gap_s, lasts_s, self._odd_clock, amount=jump_s)
        if nemesis == "lose-data":
            node = rng.choice(self._nodes)
            wires = self._some_wires_of(node)
            # What is held on a silent wire arrives after all, and is not lost.
            refuses = bool(wires) and rng.random() < 0.7
            return Strike(nemesis, gap_s, lasts_s, node, wires, refuses=refuses)
        if nemesis == "old-data":
            node = rng.choice(self._nodes)
            # What others send to it is held: so what it defers waits, and is in the copy.
            wires = self._wires_to(node, [peer for peer in self._nodes if peer != node])
            is_deaf = rng.random() < 0.5
            incoming = tuple(w for w in wires if is_deaf and w[1] == node)
            return Strike(nemesis, gap_s, lasts_s, node, incoming)
        if nemesis == "in-snapshot":
            node = rng.choice(self._nodes)
            wires = self._wires_to(node, [peer for peer in self._nodes if peer != node])
            kills = rng.choice(ENDS)
            return Strike(nemesis, gap_s, lasts_s, node, wires, refuses=True, kills=kills)
        if nemesis in PROCESSES:
            return Strike(nemesis, gap_s, lasts_s, rng.choice(self._nodes))
        wires = self._wires(nemesis)
        if nemesis == "delay":
            delay_ms = rng.choice((100.0, 300.0, 1000.0))
            return Strike(nemesis, gap_s, lasts_s, wires=wires, amount=delay_ms)
        # A direction alone can only be silent: to refuse takes both.
        refuses = nemesis != "one-way" and rng.random() < 0.4
        return Strike(nemesis, gap_s, lasts_s, wires=wires, refuses=refuses)

    def _wires(self, nemesis: str) -> tuple[Wire, ...]:
        """What is struck; never only what is severed anyway."""
        while True:
            wires = [wire for wire in self._choice(nemesis) if wire not in self._severed]
            if wires:
                return tuple(wires)

    def _some_wires_of(self, node: str) -> tuple[Wire, ...]:
        """To all peers that it reaches, as often as not; else to some of them, or to none."""
        peers = [peer for peer in self._nodes if peer != node and (node, peer) not in self._severed]
        count = len(peers) if self._rng.random() < 0.5 else self._rng.randrange(len(peers))
        return self._wires_to(node, self._rng.sample(peers, count))

    def _wires_to(self, node: str, peers: Sequence[str]) -> tuple[Wire, ...]:
        """To those of the peers that the node reaches, and back."""
        return tuple(wire for wire in _between([node], peers) if wire not in self._severed)

    def _choice(self, nemesis: str) -> list[Wire]:
        along = self._rng.sample(self._nodes, len(self._nodes))
        half = len(along) // 2
        match nemesis:
            case "isolate":
                return _between(along[:1], along[1:])
            case "bridge":
                # All halves reach the bridge and nobody else.
                return _between(along[:half], along[half + 1 :])
            case "halves":
                return _between(along[:half], along[half:])
            case "one-way":
                return [(along[0], along[1])]
            case _:
                return _both_ways([(along[0], along[1])])


def _between(one: Sequence[str], other: Sequence[str]) -> list[Wire]:
    return _both_ways(list(itertools.product(one, other)))


def _both_ways(pairs: Sequence[tuple[str, str]]) -> list[Wire]:
    return [wire for a, b in pairs for wire in ((a, b), (b, a))]
