"""The clients of a run, and what each asks for.

What it is: `SessionPlan`, one client; `Request`; `sessions_of`, all clients of a run; and
`requests_of`, what one of them asks for, one request after the other.

What it assumes and guarantees: plain values only, which follow from a seed. No value is put twice
on a key. What a key holds expires, after so long, if its name says so (`ttl_s_of`); such keys have
clients of their own, and no transactions. What is deferred is a put, or a transaction that only
puts: another one may be its name in the end (deferred.py), and it is known by its values. It is
asked for right after the request before, most often of another node, so that what that has shown
or done has hardly come there.

What it does not know: what is done to the nodes.

Where the idea is from: Jepsen's workloads; sticky readers and writers of few keys find a missing
dependency check soonest (tests/simulation/plan.py).
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["put", "get", "siblings", "delete", "txn"]

#: A node that is not there is asked again and again by its clients, so none may wait for long.
_TIMEOUT_S: Final = 3.0
#: Longer than REDIS_TIMEOUT_MS, and too short for a second try after that. So what a node with a
#: silent Redis says of a write is all that its client is told.
_SHORT_TIMEOUT_S: Final = 1.9

HOT_KEYS: Final = 4
MANY_KEYS: Final = 150

_TTL: Final = "ttl"
#: Seconds, and how many keys there are with that. The longest is beyond all that a clock jumps.
_TTLS_S: Final = {1: 10, 2: 10, 5: 5, 360_000: 10}


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """One client: where it asks, how fast, and for what. Shares are probabilities."""

    name: str
    home: str
    #: How often it asks another node than its home; with `fails_over` it lists all nodes instead.
    roams: float
    fails_over: bool
    timeout_s: float
    pause_s: float
    writes: float
    deletes: float
    keys: tuple[str, ...]
    #: How many of the puts and gets are transactions instead.
    transactions: float = 0.0
    #: How many of the puts may be deferred.
    deferred: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a session asks for, after a pause, of these nodes, nearest first.

    A transaction gets two keys, `key` and `other`, and puts the value on both if there is one; if
    it may be `deferred`, it only puts.
    """

    pause_s: float
    nodes: tuple[str, ...]
    kind: Kind
    key: str
    value: str = ""
    other: str = ""
    deferred: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """All that it asks about."""
        return (self.key, self.other) if self.other else (self.key,)


def ttl_s_of(key: str) -> float | None:
    """For how many seconds what is put at the key lives; None for ever."""
    stem, _, rest = key.partition("/")
    return float(rest.partition("/")[0]) if stem == _TTL else None


def requests_of(seed: int, nodes: Sequence[str], session: SessionPlan) -> Iterator[Request]:
    """What the session asks for, without end. No value is put twice on a key."""
    rng = random.Random(f"{seed} {session.name}")
    others = [node for node in nodes if node != session.home]
    for number in itertools.count():
        kind: Kind
        if rng.random() < session.writes:
            kind = "delete" if rng.random() < session.deletes else "put"
        else:
            kind = "siblings" if rng.random() < 0.3 else "get"
        nearest = rng.choice(others) if rng.random() < session.roams else session.home
        rest = rng.sample(nodes, len(nodes)) if session.fails_over else ()
        value = f"{session.name}.{number}" if kind == "put" else ""
        key, other = rng.choice(session.keys), ""
        if kind != "delete" and rng.random() < session.transactions:
            kind, (key, other) = "txn", rng.sample(session.keys, 2)
        deferred = bool(value) and rng.random() < session.deferred
        yield Request(
            pause_s=0.0 if deferred else rng.expovariate(1 / session.pause_s),
            nodes=tuple(dict.fromkeys((nearest, *rest))),
            kind=kind,
            key=key,
            value=value,
            other=other,
            deferred=deferred,
        )


def sessions_of(rng: random.Random, nodes: Sequence[str]) -> tuple[SessionPlan, ...]:
    """At every node a writer and a reader of the hot keys that stay there; the rest moves."""
    hot = tuple(f"hot/{number}" for number in range(HOT_KEYS))
    many = tuple(f"many/{number:03}" for number in range(MANY_KEYS))
    expiring = tuple(f"{_TTL}/{s}/{number}" for s in _TTLS_S for number in range(_TTLS_S[s]))

    def session(
        name: str,
        home: str,
        *,
        keys: tuple[str, ...],
        writes: float,
        deletes: float = 0.1,
        roams: float = 0.0,
        fails_over: bool = False,
        transactions: float = 0.0,
        deferred: float = 0.0,
    ) -> SessionPlan:
        return SessionPlan(
            name,
            home,
            roams,
            fails_over,
            _TIMEOUT_S if writes < 0.6 else _SHORT_TIMEOUT_S,
            # So that five nodes make no more load than three.
            rng.uniform(0.04, 0.1) * len(nodes) / 3,
            writes,
            deletes,
            keys,
            transactions,
            deferred,
        )

    sessions = []
    for node in nodes:
        sessions += [
            session(f"writer-{node}", node, keys=hot, writes=0.7, deletes=0.2),
            session(f"reader-{node}", node, keys=hot, writes=0.0),
            session(f"roamer-{node}", node, keys=hot, writes=0.4, roams=0.6, transactions=0.5),
            session(f"keeper-{node}", node, keys=many, writes=0.6, roams=0.2, transactions=0.2),
            session(f"wanderer-{node}", node, keys=many, writes=0.5, fails_over=True),
            session(
                *(f"deferrer-{node}", node),
                keys=hot,
                writes=0.6,
                deletes=0.0,
                roams=0.6,
                transactions=0.2,
                deferred=0.6,
            ),
            session(*(f"ticker-{node}", node), keys=expiring, writes=0.5, roams=0.2, deferred=0.1),
        ]
    home = rng.choice(nodes)
    sessions.append(session("deleter", home, keys=hot + many, writes=0.8, deletes=0.9))
    return tuple(sessions)
