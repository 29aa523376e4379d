"""Who this worker writes as, settled anew for each run of Redis.

Assumes a way to ask each peer where it stands. Guarantees that no value is read or written in a run
of Redis for which it was not settled who writes (`admits` is asked for each such connection), and
that a loss is answered with a new incarnation as soon as anything shows it: Redis itself at start,
this worker's own memory, or a peer that has seen more of this node than this node holds (G4).

The rule is `incarnation.settle`; here is what it needs to know, and what follows from it. Does not
know what is written.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from redis.asyncio import Redis

from app import codec, incarnation, metrics
from app.errors import InvariantError, NotReady, PeerError, RedisUnavailable, StartupError
from app.incarnation import Evidence, Remembered, Settled
from app.keys import LAYOUT, Keys
from app.log import get_logger
from app.progress import Progress
from app.redis_link import run_of, took_over, translated
from app.scripts import Scripts
from app.vector_clock import Dot, VectorClock
from app.wire import Answer

log = get_logger(__name__)

Ask = Callable[[str], Awaitable[Answer]]
"""Asks one peer where it stands, and of which birth of this node's Redis it heard first, given the
one that it has. Raises PeerError."""

LearnMembers = Callable[[], Awaitable[None]]
"""From then on the members are those that Redis tells of. Raises RedisUnavailable."""

Peers = Callable[[Mapping[str, str]], Mapping[str, Ask]]
"""Who is asked: each other member, and each node of which peers have told, with its URL."""

_LOOK_AGAIN_S: Final = 30.0
"""How often a worker says that it is at work; far less than `incarnation.ABSENCE_MAX_US`."""
_ASK_S: Final = 2.0
"""A peer that takes longer is silent."""
_RETRY_S: Final = 0.2
_SOON_S: Final = 1.0

NOT_OURS: Final = (
    "it no longer holds what this node has applied (was it emptied, put back from a copy, or "
    "another one put in its place?); the node looks into it, so try again, or at another node"
)


class Identity:
    """The actor of one node, as one worker knows it."""

    def __init__(
        self,
        node: str,
        redis: Redis,
        keys: Keys,
        scripts: Scripts,
        progress: Progress,
        now_us: Callable[[], int],
        birth: str,
        *,
        durable: bool,
        fails_over: bool = False,
        first_start_wait_s: float,
    ) -> None:
        self._node = node
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._scripts = scripts
        self._progress = progress
        self._now_us = now_us
        self._birth = birth
        self._durable = durable
        self._fails_over = fails_over
        self._first_start_wait_s = first_start_wait_s
        self._actor = ""
        self._run = ""
        self._seen = VectorClock()
        self._given = VectorClock()
        self._gave_way = False
        self._hindrance = ""
        self.doubts = 0
        """How often there has been a doubt."""
        self._doubted = asyncio.Event()
        self._settled = asyncio.Event()
        self.serves = asyncio.Event()
        """Set once it is settled who writes, or known that this takes long: Redis is new."""

    @property
    def actor(self) -> str:
        """Who writes here.

        While that is in doubt raises NotReady, or RedisUnavailable if Redis does not let it be
        found out.
        """
        if self.is_in_doubt:
            if self._hindrance:
                raise RedisUnavailable(self._hindrance)
            raise NotReady(
                "Whether this node has written before, or has lost what it wrote, is still to be "
                "found out. Nothing was done. Try again soon, or at another node."
            )
        return self._actor

    @property
    def is_in_doubt(self) -> bool:
        """Whether it is still to be settled who writes here."""
        return not self._settled.is_set()

    async def writer(self) -> str:
        """Who writes here; if that is in doubt, once it is settled, which as a rule is at once.

        Raises NotReady, RedisUnavailable.
        """
        await self.settles()
        return self.actor

    async def settles(self) -> bool:
        """Whether it is settled who writes, now or in a moment."""
        if self.is_in_doubt:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SOON_S):
                    await self._settled.wait()
        return not self.is_in_doubt

    def admits(self, run: str) -> bool:
        """Whether values may be read and written in this run of Redis; if not, they may soon.

        A Redis that was killed may have loaded what its last run had not synced yet. What settles
        who writes is a write itself: once it is on disk, so is all that was loaded.
        """
        if run != self._run:
            self.doubt()
        return run == self._run

    def doubt(self) -> None:
        """Redis does not hold what it should: that is looked into before anything is written."""
        self.doubts += 1
        self._settled.clear()
        self._doubted.set()

    @property
    def given(self) -> VectorClock:
        """The last dots that this worker knows the node's lanes to have given."""
        return self._given

    def gave(self, dot: Dot) -> None:
        """A lane of this node has given this dot: if Redis does not know that any more, it has lost
        something."""
        self._given = self._given.with_dot(dot)

    def witness(self, seen: VectorClock) -> None:
        """A peer has seen these writes. If it knows more of this node's than the node, that is
        looked into before anything is written."""
        known = self._progress.clock.merge(self._seen)
        if lost := incarnation.lost_writes(self._actor or self._node, seen, known):
            self._seen = self._seen.merge(lost)
            self.doubt()

    async def keep(self, learn_members: LearnMembers, peers: Peers) -> None:
        """It is settled who writes, and settled again whenever there is reason to, for ever.

        Raises StartupError if the first Redis is not this node's; InvariantError.
        """
        while True:
            self._doubted.clear()
            try:
                await self._settle(learn_members, peers)
                self._hindrance = ""
                if not self._doubted.is_set():
                    self._settled.set()
                    self.serves.set()
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._doubted.wait()
            except TimeoutError:
                pass
            except RedisUnavailable as error:  # the listener on the board says so
                self._hindrance = error.cause
                self.serves.set()  # to say what hinders it
                await asyncio.sleep(_RETRY_S)

    async def _settle(self, learn_members: LearnMembers, peers: Peers) -> None:
        while True:
            # In this order: what is known now must be in the Redis that is looked at next.
            known, given = self._progress.clock, self._given
            run, birth, remembered = await self._look()
            if run != self._run:
                await check_logs(self._scripts)
            await learn_members()
            evidence = await self._hear(peers, birth, remembered, run, known.merge(self._seen))
            evidence = replace(evidence, given=given)
            now_us = self._now_us()
            settled = incarnation.settle(
                self._node,
                remembered,
                run,
                evidence,
                durable=self._durable,
                # One that was promoted and started again before it was looked at does not show it.
                took_over=took_over(run) or (self._fails_over and bool(remembered.run)),
                now_us=now_us,
            )
            if settled.reason and run == self._run:
                self._check_for_a_double(remembered.actor, evidence.seen)
            joining = VectorClock() if remembered.actor else evidence.applied
            is_as_found = run == remembered.run and settled == Settled(remembered.actor)
            try:
                with translated(changes=True):
                    if await self._scripts.settle_actor(
                        self._node, remembered, settled, run, now_us, joining
                    ):
                        break
            except RedisUnavailable as error:
                # It was settled in this run before, and a Redis that is full can still be read.
                if not is_as_found or error.outcome != "not_applied":
                    raise
                break
        if settled.reason:
            metrics.INCARNATIONS.inc()
            log.error("new incarnation", actor=settled.actor, reason=settled.reason)
        if joining:
            log.info("begins with nothing, and catches up", until=str(joining))
        self._actor, self._run = settled.actor, run
        if not known <= remembered.clock:
            self._progress.restart(remembered.clock)
        self._progress.advance(remembered.clock)

    def _check_for_a_double(self, actor: str, seen: VectorClock) -> None:
        """A node that was put back to an older state may find, once, that it went on as another
        incarnation. If that happens again, somebody else takes them.

        Raises InvariantError.
        """
        later = [other for other in seen if incarnation.is_later(other, actor)]
        if later and self._gave_way:
            raise InvariantError(
                f"another node writes as {later[0]} while this one writes as {actor}: two nodes "
                f"have NODE_ID={self._node}, and their writes would get the same names (G4)"
            )
        self._gave_way = self._gave_way or bool(later)

    async def _look(self) -> tuple[str, str, Remembered]:
        """The run of Redis that is on, the birth of its data, and what it holds.

        Raises RedisUnavailable; StartupError if it has never been this node's, as far as this
        worker knows.
        """
        with translated():
            run = await run_of(self._redis)
        try:
            meta = await claim(self._scripts, self._node, self._birth)
        except StartupError as error:
            if not self._run:
                raise
            raise RedisUnavailable(NOT_OURS) from error
        with translated():
            # In this order: what leaves the lanes meanwhile is in the clock that is read after it.
            waits = codec.unpack_clock(await self._redis.hgetall(self._keys.deferred))
            clock = codec.unpack_clock(await self._redis.hgetall(self._keys.clock))
        actor, past, alive_us = meta.get("actor", ""), meta.get("run", ""), meta.get("alive", 0)
        rested = bool(past) and meta.get("rested") == past
        return (
            run,
            meta.get("birth", ""),
            Remembered(actor, past, int(alive_us), clock, rested, waits),
        )

    async def _hear(
        self,
        peers: Peers,
        birth: str,
        redis: Remembered,
        run: str,
        known: VectorClock,
    ) -> Evidence:
        """What is known outside of Redis.

        Peers are asked by a worker that has seen nothing of this Redis yet, unless another one has
        settled it. If it depends on all of them they are asked for a while; in a new Redis, until
        one has heard of this node. Its settings may name few of the members then, but those name
        the others.
        """
        if redis.actor and (run == redis.run or self._actor):
            return Evidence(known)
        loop = asyncio.get_running_loop()
        give_up_at = loop.time()
        if incarnation.asks_all_peers(redis, self._now_us()):
            give_up_at += self._first_start_wait_s
            self.serves.set()  # for peers that start beside it ask the same
        if not redis.actor:
            self._run = run  # what there is, is on disk: `claim` was a write
        told: dict[str, str] = {}
        applied = VectorClock()
        silent = dict(peers(told))
        asked, remember_another = set(silent), []
        while True:
            answers = await asyncio.gather(*(answered(ask, birth) for ask in silent.values()))
            for peer, answer in zip(tuple(silent), answers, strict=True):
                if answer is not None:
                    del silent[peer]
                    applied = applied.merge(answer.clock)
                    told = {**answer.members, **{n: url for n, url in told.items() if url}}
                    known = known.merge(answer.clock).merge(answer.received).merge(answer.missing)
                    if answer.first_birth != birth:
                        remember_another.append(peer)
            is_known = bool(remember_another) or incarnation.has_written(
                self._node, known.merge(redis.clock)
            )
            unasked = {p: ask for p, ask in peers(told).items() if p not in asked}
            silent |= unasked
            asked |= set(unasked)
            if not silent or loop.time() >= give_up_at or (is_known and not redis.actor):
                return Evidence(known, tuple(silent), tuple(remember_another), applied)
            if not unasked:
                await asyncio.sleep(_RETRY_S)


async def answered(ask: Ask, birth: str) -> Answer | None:
    """What the peer answers; None if it is silent. Raises RedisUnavailable."""
    try:
        async with asyncio.timeout(_ASK_S):
            return await ask(birth)
    except (PeerError, TimeoutError):
        return None


async def rest(redis: Redis, keys: Keys) -> None:
    """It is noted that the node has ended this run of Redis in good order.

    For its last worker's end. A run in which nobody settled who writes is left as it was found.
    Raises RedisUnavailable.
    """
    meta: Any = redis
    with translated(changes=True):
        run = await run_of(redis)
        if await meta.hget(keys.meta, "run") == run.encode():
            await meta.hset(keys.meta, "rested", run)


async def check_logs(scripts: Scripts) -> None:
    """No log lacks a write in its middle.

    An append-only file that is cut short loses its end, and what is left is a state that was. Not
    so where Redis 7 was about to rewrite the file and did not sync each write: it goes on in
    another file then, which may be on disk when the end of the one before is not. What is left
    after that is no state that ever was: values are there without what they follow, and the clock
    covers writes that nobody would send again. The clock cannot be taken back either, for later
    writes may have removed what would come again. So the node does not go on from it.

    Raises InvariantError, RedisUnavailable.
    """
    with translated():
        hole = await scripts.find_hole()
    if hole:
        raise InvariantError(
            f"Redis has lost writes in the middle of what it was given: {hole} (G8). What is left "
            "cannot be gone on from. Keep a copy of it, and start the node with an empty Redis: "
            "its peers give it what they have"
        )


async def claim(scripts: Scripts, node: str, birth: str) -> dict[str, str]:
    """This Redis is `node`'s, since before or from now on, born as `birth`; what `meta` holds.

    Raises StartupError if it is another node's, or holds something else.
    """
    with translated():
        meta = await scripts.claim_node(node, LAYOUT, birth)
    if not meta:
        raise StartupError(
            "REDIS_URL: this Redis database holds data that is not Lightcone's. "
            "Give the node a database of its own."
        )
    if meta.get("node") != node:
        raise StartupError(
            f"REDIS_URL: this Redis belongs to node {meta.get('node')}, and NODE_ID is {node}. "
            "Every node has a Redis of its own."
        )
    if meta.get("layout") != str(LAYOUT):
        raise StartupError(
            f"REDIS_URL: the data is of layout {meta.get('layout')}, and this release reads "
            f"layout {LAYOUT}. Run the release that wrote it."
        )
    return meta
