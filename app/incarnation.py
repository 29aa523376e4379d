"""Under which name a node writes: the rule that keeps a dot from ever naming two writes (G4).

A node writes as the actor `A` in its first life. Whenever it may have lost writes that it has
acknowledged, it goes on as a new *incarnation*, `A~TAG`, with a tag that was never used: so what it
lost keeps its names, and comes home from the peers under them.

Each incarnation has a *lane*, `A+` or `A~TAG+`: the actor of its deferred writes, which are named
when they are accepted and committed later. It begins and ends with its incarnation.

Assumes that Redis, when it loses anything, loses the end of its history (an append-only file is
cut short, a copy is older). Guarantees that an actor is kept only where nothing speaks for a loss.

Pure. Does not know Redis, peers, or how any of the evidence comes in.

From the incarnation numbers of SWIM (Das, Gupta, Motivala 2002) and Riak's per-key actor epochs
(riak_kv, 2015), here for a whole node at once.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from app.vector_clock import VectorClock, node_of

ABSENCE_MAX_US: Final = 3 * 60 * 1_000_000
"""A Redis that no worker has used for so long may be an old copy that was put back, unless it was
left in good order and all peers know no more. A mere restart takes less, and a new incarnation
costs one entry in the clocks."""

_TAG: Final = re.compile(r"[^~]*~([0-9A-Za-z]+)")
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the node's Redis says of itself.

    `actor` is who writes there, empty in a new Redis; `run` the run of Redis for which that was
    settled; `alive_us` when a worker last said that it was at work, 0 for never. `rested` says that
    the node ended that run in good order: so Redis holds all that came before it said so, and if it
    is durable, nothing came after it. `waits` is the last dot that each lane has given, where
    something of it waits.
    """

    actor: str
    run: str
    alive_us: int
    clock: VectorClock
    rested: bool = False
    waits: VectorClock = field(default_factory=VectorClock)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known outside of Redis: the writes that peers and workers have seen, the peers that
    did not say, and those that have heard of the node when it had another Redis. Peers have
    `applied` so much, which a node that begins with nothing will get from them. The node's lanes
    have `given` these dots, as workers remember."""

    seen: VectorClock
    silent: tuple[str, ...] = ()
    remember_another: tuple[str, ...] = ()
    applied: VectorClock = field(default_factory=VectorClock)
    given: VectorClock = field(default_factory=VectorClock)


@dataclass(frozen=True, slots=True)
class Settled:
    """Who writes from now on. `reason` says why it is a new incarnation; empty if it is not."""

    actor: str
    reason: str = ""


def lane_of(actor: str) -> str:
    """The actor under which this one's deferred writes are named."""
    return f"{actor}+"


def is_lane(actor: str) -> bool:
    """Whether this actor is a lane."""
    return actor.endswith("+")


def lost_writes(actor: str, seen: VectorClock, clock: VectorClock) -> VectorClock:
    """What has been seen of `actor`, or of a later incarnation of its node, beyond `clock`.

    Not of earlier ones: what those lost is on its way home.
    """
    return VectorClock(
        (other, sequence)
        for other, sequence in seen.beyond(clock).items()
        if node_of(other) == node_of(actor) and _tag(other) >= _tag(actor)
    )


def asks_all_peers(redis: Remembered, now_us: int) -> bool:
    """Whether a silent peer costs the node its name, so that peers which start beside it, as after
    a long rest of all, had better be given time."""
    return not redis.actor or (redis.rested and _was_away(redis, now_us))


def has_written(node: str, seen: VectorClock) -> bool:
    """Whether writes of `node`, in any of its incarnations, have been seen."""
    return any(node_of(actor) == node for actor in seen)


def is_later(actor: str, than: str) -> bool:
    """Whether `actor` is a later incarnation of the same node."""
    return node_of(actor) == node_of(than) and _tag(actor) > _tag(than)


def former(clock: VectorClock) -> VectorClock:
    """The part of the clock that is about actors that have ended: a later incarnation has written.

    It hardly ever changes any more.
    """
    newest: dict[str, int] = {}
    for actor in clock:
        node = node_of(actor)
        newest[node] = max(newest.get(node, -1), _tag(actor))
    return VectorClock((a, s) for a, s in clock.items() if _tag(a) < newest[node_of(a)])


def settle(
    node: str,
    redis: Remembered,
    run: str,
    evidence: Evidence,
    *,
    durable: bool,
    took_over: bool = False,
    now_us: int,
) -> Settled:
    """Who writes at `node` in this run of Redis.

    `durable` says that Redis has on disk what it has acknowledged, whenever it ends; `took_over`
    that this may be another server than that of the run before: a replica of it, at best, which is
    given what its primary has acknowledged later, or never.
    """
    known = redis.clock.merge(evidence.seen)
    if reason := _why_not_the_same(
        node, redis, run, evidence, durable=durable, took_over=took_over, now_us=now_us
    ):
        return Settled(_next_actor(node, (redis.actor, *known), now_us // 1000), reason)
    return Settled(redis.actor or node)


def _why_not_the_same(
    node: str,
    redis: Remembered,
    run: str,
    evidence: Evidence,
    *,
    durable: bool,
    took_over: bool,
    now_us: int,
) -> str:
    if not redis.actor:
        if has_written(node, redis.clock.merge(evidence.seen)):
            return f"Redis is new, and {node} has written before"
        if evidence.remember_another:
            return f"Redis is new, and {evidence.remember_another[0]} remembers an earlier one"
        if evidence.silent:
            silent = ", ".join(evidence.silent)
            return f"Redis is new, and whether {node} wrote before is not known: {silent} is silent"
        return "Redis is new, and took over from another" if took_over else ""
    if lost := lost_writes(redis.actor, evidence.seen, redis.clock):
        (actor, sequence), *_ = lost.items()
        has = redis.clock[actor]
        holds = f"it ends at {actor}:{has}" if has else f"it holds nothing of {actor}"
        return f"Redis has lost writes: {actor}:{sequence} was seen, and {holds}"
    if lost := lost_writes(redis.actor, evidence.given, redis.clock.merge(redis.waits)):
        return f"Redis has lost deferred writes: {lost.dots()[0]} was accepted"
    if run == redis.run:
        return ""
    # That the node rested says nothing then: it may have worked again since, unknown to a replica.
    if took_over:
        return "another Redis took over, and may lack the last that the one before was given"
    # Nor does it here: what Redis may have lost is that the node worked again since.
    if not durable:
        return "Redis was started again, and may have lost the last that it was given"
    if _was_away(redis, now_us) and (evidence.silent or not redis.rested):
        away_s = (now_us - redis.alive_us) // 1_000_000
        return f"Redis was not in use for {away_s} s, and may be an old copy"
    return ""


def _was_away(redis: Remembered, now_us: int) -> bool:
    return bool(redis.run) and now_us - redis.alive_us > ABSENCE_MAX_US


@lru_cache(maxsize=4096)  # for there are few, asked about for each batch
def _tag(actor: str) -> int:
    """The number in the tag; -1 for a node's first life."""
    match = _TAG.match(actor)
    return int(match[1], 36) if match else -1


def _next_actor(node: str, known: Iterable[str], now_ms: int) -> str:
    """A later incarnation than all that are known, with the time as its tag."""
    last = max((_tag(actor) for actor in known if actor and node_of(actor) == node), default=-1)
    number, digits = max(now_ms, last + 1), ""
    while number or not digits:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return f"{node}~{digits}"
