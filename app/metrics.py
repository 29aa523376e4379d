"""What an operator's Prometheus is told of a node: what has happened, and where it stands.

What it is: counters, which any module may raise; `answered`, for times of requests; `exposition`,
the answer to `GET /metrics`.

What it assumes and guarantees: a scrape reaches any worker of a node, and is told of all of them.
Counts are kept by each worker in a file that all can read (prometheus_client's multiprocess mode);
one that takes another's place goes on with its counts. Where the node stands is the same whoever
says it: it is what Redis says. Labels come from our own code and never from a request, so that the
number of series is bounded (G9).

What it does not know: what is counted, and why.
"""

import asyncio
import os
from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"  # the library's own name for it
_PLACE: Final = "LIGHTCONE_WORKER_PLACE"
_BUCKETS_S: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)

_place: Final = os.environ.get(_PLACE)
if _place is not None:
    # By the worker's place and not by its process id: so there are as many files as workers,
    # however often one dies.
    values.ValueClass = values.MultiProcessValue(lambda: _place)  # type: ignore[no-untyped-call]

_COUNTED: Final = CollectorRegistry()

_REQUESTS: Final = Histogram(
    "lightcone_request_duration_seconds",
    "How long requests took, from head to answer.",
    ["method", "route", "status"],
    buckets=_BUCKETS_S,
    registry=_COUNTED,
)
_WRITES: Final = Counter(
    "lightcone_writes",
    "Writes: committed here, or deferred before that; or received, and applied, duplicate, "
    "pending or refused.",
    ["outcome"],
    registry=_COUNTED,
)
REDIS_FAILURES: Final = Counter(
    "lightcone_redis_failures",
    "Commands that this node's Redis did not carry out, by cause.",
    ["cause"],
    registry=_COUNTED,
)
INCARNATIONS: Final = Counter(
    "lightcone_incarnations",
    "New incarnations that this node began: each is a possible loss.",
    registry=_COUNTED,
)
EXPIRED: Final = Counter(
    "lightcone_expired_versions",
    "Versions that were removed here because they had expired.",
    registry=_COUNTED,
)

WATCHERS: Final = Gauge(
    "lightcone_watchers",
    "Watchers that are told of writes now.",
    registry=_COUNTED,
    multiprocess_mode="sum",
)
WATCH_EVENTS: Final = Counter(
    "lightcone_watch_events",
    "Writes and states of keys that watchers were told.",
    registry=_COUNTED,
)
WATCHERS_GIVEN_UP: Final = Counter(
    "lightcone_watchers_given_up",
    "Watchers that were given up because they read too slowly.",
    registry=_COUNTED,
)

COMMITTED, DEFERRED, APPLIED, DUPLICATE, PENDING, REFUSED = map(
    _WRITES.labels, ("committed", "deferred", "applied", "duplicate", "pending", "refused")
)


def environment_of_worker(directory: str, place: int) -> dict[str, str]:
    """What the worker in this place needs in its environment to count along with the others."""
    return {**os.environ, _DIRECTORY: directory, _PLACE: str(place)}


_uncounted: Final[defaultdict[tuple[str, str, int], list[float]]] = defaultdict(list)
"""Seconds that requests took, by method, route and status, which are not counted yet."""


def answered(method: str, route: str, status: int, seconds: float) -> None:
    """A request was answered, and took so long. It is counted in the next turn of the event loop,
    with all that were answered in this one: to count one costs as much as to count them."""
    if not _uncounted:
        asyncio.get_running_loop().call_soon(_count)
    _uncounted[method, route, status].append(seconds)


def _count() -> None:
    for labels, took in _uncounted.items():
        histogram: Any = _duration(*labels)
        # What `observe` does for each of them.
        histogram._sum.inc(sum(took))
        for bucket, times in Tally(bisect_left(_BUCKETS_S, seconds) for seconds in took).items():
            histogram._buckets[bucket].inc(times)
    _uncounted.clear()


@cache
def _duration(method: str, route: str, status: int) -> Histogram:
    return _REQUESTS.labels(method, route, str(status))


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a node stands, as its Redis says. `begun_us` is 0 in a node's first life."""

    actor: str
    begun_us: int
    clock: Mapping[str, int]
    pending: Mapping[str, int]
    deferred: int
    peers: Mapping[str, Mapping[str, Any]]
    """As `GET /status` shows them."""


def exposition(node: str, version: str, standing: Standing | None) -> bytes:
    """All metrics, in Prometheus' text format. Without a standing Redis could not be asked."""
    _count()
    registry = CollectorRegistry()
    if _place is not None:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(_COUNTED)
    registry.register(
        _Now([*_node(node, version, standing), *(_state(standing) if standing else ())])
    )
    return generate_latest(registry)


class _Now(Collector):
    """Metrics that are made for one answer."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _node(node: str, version: str, standing: Standing | None) -> Iterable[Metric]:
    actor = standing.actor if standing else ""
    yield _gauge(
        "node_info", "Who this is.", [((node, actor, version), 1)], "node", "actor", "version"
    )
    yield _gauge(
        "redis_up", "Whether this node's Redis could be asked.", [((), int(bool(standing)))]
    )


def _state(standing: Standing) -> Iterable[Metric]:
    yield _gauge(
        "incarnation_start_time_seconds",
        "When this incarnation began; 0 in the node's first life.",
        [((), standing.begun_us / 1e6)],
    )
    yield _gauge("applied_sequence", "The vector clock.", _by(standing.clock), "actor")
    yield _gauge("pending_writes", "Writes that wait for others.", _by(standing.pending), "actor")
    yield _gauge(
        "deferred_writes",
        "Writes of this node that were accepted and wait for others.",
        [((), standing.deferred)],
    )
    for name, field, unit, text in (
        ("peer_reachable", "reachable", 1, "Whether the last exchange with the peer succeeded."),
        ("peer_lag_writes", "lag_writes", 1, "Writes that are here and not at the peer."),
        ("peer_lag_seconds", "lag_s", 1, "Age of the oldest write that the peer lacks."),
        ("peer_clock_skew_seconds", "skew_ms", 1000, "How far the peer's wall clock is ahead."),
        ("peer_last_contact_seconds", "last_contact_s", 1, "Time since the last exchange."),
    ):
        told = {p: shown[field] for p, shown in standing.peers.items() if shown[field] is not None}
        yield _gauge(name, text, [((p,), value / unit) for p, value in told.items()], "peer")


def _by(counts: Mapping[str, int]) -> list[tuple[tuple[str, ...], float]]:
    return [((name,), count) for name, count in counts.items()]


def _gauge(
    name: str, text: str, samples: Iterable[tuple[tuple[str, ...], float]], *labels: str
) -> Metric:
    gauge = GaugeMetricFamily(f"lightcone_{name}", text, labels=labels)
    for label_values, value in samples:
        gauge.add_metric(label_values, value)
    return gauge
