"""Three nodes and their twins do the same, whatever is done to them.

Clients write and read at any node and roam; writes reach the other nodes late, repeated,
reordered, by way of third nodes, in any batches; buffers are small; clocks jump; workers die.
After every step the node's Redis and its twin say the same, and when in the end everything has
come everywhere, all nodes do.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace
from redis.asyncio import Redis

from app import codec, lane_scripts, scripts, snapshot_scripts
from app.conditions import Condition
from app.context import Contexts
from app.errors import InvariantError, RedisUnavailable
from app.snapshot_sending import SnapshotSending
from app.vector_clock import Dot, VectorClock
from app.write import TTL_MAX_S, Delete, Operation, Put, Write, microseconds
from tests.compiled_lua import compile_once
from tests.conftest import SERVERS
from tests.effort import effort, time_enough
from tests.model import Node
from tests.mutations.hunt import mutated
from tests.mutations.mutations import MUTATIONS, Mutation
from tests.pair import WORKERS, Pair

pytestmark = time_enough()

NODES = "ABC"
KEYS = ("lunch", "dinner", "supper")
LONG_US = microseconds(TTL_MAX_S)
"""What lives so long is there when the test ends."""
_SCRIPTS = tuple(
    f"app/lua/{name}.lua"
    for name in (
        *("commit_writes", "receive_writes", "merge_keys", "remove_expired"),
        *("commit.inc", "accept_deferred", "commit_deferred"),
    )
)

MakeRedis = Callable[[int], Redis]
"""The empty Redis of the node with this number."""


def _operations() -> st.SearchStrategy[list[Operation]]:
    keys = st.sampled_from(KEYS)
    ttls_us = st.sampled_from([0, 0, 0, 0, 7, 30, 2**49, LONG_US])
    puts = st.builds(Put, keys, st.binary(max_size=3), st.just("text/plain"), ttls_us)
    return st.lists(
        st.one_of(puts, puts, st.builds(Delete, keys)),
        min_size=1,
        max_size=3,
        unique_by=lambda operation: operation.key,
    )


nodes = st.sampled_from(NODES)
workers = st.integers(0, WORKERS - 1)
sessions = st.integers(0, 1)
#: What a conditional write wants of a key: the siblings that this node has, or some, or none.
wants = st.sampled_from([*NODES, "exists", "absent"])
keys = st.sampled_from(KEYS)
operations = _operations()
#: Close together, so that timestamps collide, and now and then far off.
times_us = st.integers(1, 40) | st.integers(1, 2**50)
LATE_US = 2**51
"""Whatever lives for less than the longest time has expired everywhere by then."""
#: Some of a log, by position, again and again and in any order.
picks = st.lists(st.integers(0, 30), min_size=1, max_size=6)


@dataclass
class Session:
    """A client that roams: the token it carries, and what it must never be shown wrong (G7)."""

    token: str = ""
    seen: set[Dot] = field(default_factory=set)
    """What it wrote or was shown, wherever: it is applied where it reads next."""
    gone: dict[str, set[Dot]] = field(default_factory=lambda: {key: set() for key in KEYS})
    """By key: the versions that it knows to be replaced or deleted."""


class ThreeNodes(RuleBasedStateMachine):
    """Three pairs of a node and its twin, two roaming clients, and all that can happen to them."""

    def __init__(self, make_redis: MakeRedis) -> None:
        super().__init__()
        self._make_redis = make_redis
        self._runner = asyncio.Runner()
        self._pairs: dict[str, Pair] = {}
        self._changed: set[str] = set()
        self._sending: dict[tuple[str, str], SnapshotSending] = {}
        self._sessions = [Session(), Session()]
        self._contexts = Contexts("a secret of this cluster", 10_000)

    @initialize(pending_max=st.integers(1, 5), drain_max=st.integers(1, 3))
    def start(self, pending_max: int, drain_max: int) -> None:
        async def start() -> None:
            for number, name in enumerate(NODES):
                pair = Pair(name, self._make_redis(number), pending_max, drain_max)
                self._pairs[name] = pair
                await pair.redis.flushdb()
                await pair.start()

        self._runner.run(start())

    # --- clients ---------------------------------------------------------------------------------

    @rule(node=nodes, worker=workers, operations=operations)
    def write(self, node: str, worker: int, operations: list[Operation]) -> None:
        self._runner.run(self._pair(node).write(worker, operations))

    @rule(
        node=nodes,
        worker=workers,
        operations=operations,
        wanted=wants,
        keys=st.lists(keys, max_size=2),
    )
    def write_if(
        self, node: str, worker: int, operations: list[Operation], wanted: str, keys: list[str]
    ) -> None:
        """The ETags are those of some node, which may know more, less or something else."""
        conditions = [self._condition(key, wanted) for key in keys]
        self._runner.run(self._pair(node).write_if(worker, operations, conditions))

    def _condition(self, key: str, wanted: str) -> Condition:
        if wanted == "exists":
            return Condition.exists(key)
        if wanted == "absent":
            return Condition.absent(key)
        twin = self._pairs[wanted].twin
        versions = twin.versions(key, self._pairs[wanted].now_us)
        return Condition.matches(key, ["Z:9", ",".join(sorted(str(v.dot) for v in versions))])

    @rule(node=nodes, worker=workers, operations=operations, knows=nodes)
    def write_later(self, node: str, worker: int, operations: list[Operation], knows: str) -> None:
        """Its client has seen what another node has, and that perhaps is not here."""
        context = self._pairs[knows].twin.clock
        self._runner.run(self._pair(node).accept(worker, operations, context))

    @rule(node=nodes, worker=workers)
    def commit_what_is_due(self, node: str, worker: int) -> None:
        self._runner.run(self._pair(node).commit_due(worker))

    @rule(each=st.tuples(operations, operations, operations))
    def write_at_every_node(self, each: tuple[list[Operation], ...]) -> None:
        for node, its in zip(NODES, each, strict=True):
            self._runner.run(self._pair(node).write(0, its))

    @rule(session=sessions, node=nodes, worker=workers, key=keys)
    def read_in_session(self, session: int, node: str, worker: int, key: str) -> None:
        self._runner.run(self._read(self._sessions[session], self._pair(node), worker, key))

    async def _read(self, session: Session, pair: Pair, worker: int, key: str) -> None:
        context = await self._served(session, pair, worker)
        if context is None:
            return
        reading = await pair.read(worker, key)
        shown = {version.dot for version in reading.versions}
        assert not shown & session.gone[key], "what was gone is shown again"
        session.seen |= shown
        # What has expired here may be shown where the clock is behind.
        session.gone[key] |= pair.put_dots(key) - shown - pair.twin.expired(key, pair.now_us)
        session.token = self._contexts.token(context.merge(reading.context))

    @rule(session=sessions, node=nodes, worker=workers, operations=operations)
    def write_in_session(
        self, session: int, node: str, worker: int, operations: list[Operation]
    ) -> None:
        self._runner.run(self._write(self._sessions[session], self._pair(node), worker, operations))

    async def _write(
        self, session: Session, pair: Pair, worker: int, operations: list[Operation]
    ) -> None:
        context = await self._served(session, pair, worker)
        if context is None:
            return
        for operation in operations:
            session.gone[operation.key] |= pair.put_dots(operation.key)
        write = await pair.write(worker, operations)
        assert all(map(write.dependencies.covers, session.seen)), "it precedes what it follows"
        session.seen.add(write.dot)
        session.token = self._contexts.token(context.with_dot(write.dot))

    async def _served(self, session: Session, pair: Pair, worker: int) -> VectorClock | None:
        """The session's context, if the node covers it; what it has seen is applied there then."""
        context = self._contexts.parse(session.token)
        at = pair.workers[worker]
        missing = await at.progress.reach(context, 0, at.store.clock)
        assert missing == context.beyond(pair.twin.clock)
        if missing:
            return None
        assert all(map(pair.twin.clock.covers, session.seen)), "the context says too little"
        return context

    @rule(session=sessions)
    def take_the_other_sessions_token_too(self, session: int) -> None:
        one, other = self._sessions[session], self._sessions[1 - session]
        joined = self._contexts.parse(f"{one.token}, {other.token}")
        one.token = self._contexts.token(joined)
        one.seen |= other.seen
        for key in KEYS:
            one.gone[key] |= other.gone[key]

    @rule(session=sessions)
    def forget(self, session: int) -> None:
        self._sessions[session] = Session()

    # --- between nodes ---------------------------------------------------------------------------

    @rule(sender=nodes, receiver=nodes, worker=workers, which=picks)
    def send(self, sender: str, receiver: str, worker: int, which: list[int]) -> None:
        """Some of what the sender has applied, its own writes and those of others."""
        if writes := self._some(sender, which):
            self._runner.run(self._pair(receiver).receive(worker, writes))

    @rule(sender=nodes, receiver=nodes, worker=workers)
    def send_all_that_lacks(self, sender: str, receiver: str, worker: int) -> None:
        """As a link does that nothing is wrong with."""
        pair = self._pair(receiver)
        applied = self._pairs[sender].applied()
        lacking = [write for write in applied if not pair.twin.clock.covers(write.dot)]
        received = self._runner.run(pair.receive(worker, lacking))
        assert received.refused == received.pending == 0
        assert self._pairs[sender].twin.clock <= pair.twin.clock

    @rule(sender=nodes, receiver=nodes, worker=workers, which=picks)
    def worker_dies_after_receiving(
        self, sender: str, receiver: str, worker: int, which: list[int]
    ) -> None:
        if writes := self._some(sender, which):
            self._runner.run(self._pair(receiver).receive_and_die(worker, writes))

    def _some(self, sender: str, which: list[int]) -> list[Write]:
        applied = self._pairs[sender].applied()
        return [applied[index % len(applied)] for index in which if applied]

    @rule(sender=nodes, receiver=nodes, part_max_bytes=st.sampled_from((1, 150, 10_000)))
    def send_part_of_a_snapshot(self, sender: str, receiver: str, part_max_bytes: int) -> None:
        """The next of those that went before, whatever was written meanwhile."""
        if sender != receiver:
            self._runner.run(self._send_part(sender, receiver, part_max_bytes))

    @rule(sender=nodes, receiver=nodes, which=picks, dies_after_keys=st.none() | st.integers(0, 3))
    def send_some_and_then_a_snapshot(
        self, sender: str, receiver: str, which: list[int], dies_after_keys: int | None
    ) -> None:
        """What came too early may be in it, or become deliverable by it."""
        pair = self._pair(receiver)
        if writes := self._some(sender, which):
            self._runner.run(pair.receive(0, writes))
        if sender != receiver:
            for _ in range(3 + 4 * len(KEYS)):
                if self._runner.run(self._send_part(sender, receiver, 150, dies_after_keys)):
                    return

    async def _send_part(
        self, sender: str, receiver: str, part_max_bytes: int, dies_after_keys: int | None = None
    ) -> bool:
        source = self._pairs[sender]
        sending = self._sending.get((sender, receiver))
        if sending is None:
            sending = source.sending_to(receiver, part_max_bytes)
            self._sending[sender, receiver] = sending
        return await self._pair(receiver).take_part(source, sending, dies_after_keys)

    @rule(sender=nodes, receiver=nodes)
    def worker_dies_while_it_sends_a_snapshot(self, sender: str, receiver: str) -> None:
        self._sending.pop((sender, receiver), None)

    @rule(node=nodes, actor=nodes, count=st.integers(1, 4))
    def trim(self, node: str, actor: str, count: int) -> None:
        self._runner.run(self._pair(node).trim(actor, count))

    # --- what else befalls a node ----------------------------------------------------------------

    @rule(node=nodes, now_us=times_us)
    def wall_clock_jumps(self, node: str, now_us: int) -> None:
        self._pair(node).now_us = now_us

    @rule(node=nodes, worker=workers)
    def worker_dies(self, node: str, worker: int) -> None:
        self._runner.run(self._pair(node).replace_worker(worker))

    @rule(node=nodes, worker=workers)
    def sweep(self, node: str, worker: int) -> None:
        self._runner.run(self._pair(node).sweep(worker))

    @rule(node=nodes, worker=workers, operations=operations)
    def write_what_expires_soon(self, node: str, worker: int, operations: list[Operation]) -> None:
        """Before anything else happens."""
        self._runner.run(self._write_what_expires_soon(self._pair(node), worker, operations))

    async def _write_what_expires_soon(
        self, pair: Pair, worker: int, operations: list[Operation]
    ) -> None:
        soon = [replace(one, ttl_us=1) if isinstance(one, Put) else one for one in operations]
        write = await pair.write(worker, soon)
        pair.now_us = max(pair.now_us, write.timestamp + 1)
        await pair.remove_expired(worker)

    @rule(node=nodes, worker=workers)
    def remove_expired(self, node: str, worker: int) -> None:
        self._runner.run(self._pair(node).remove_expired(worker))

    # --- what holds ------------------------------------------------------------------------------

    def _pair(self, name: str) -> Pair:
        """The pair, to do something to it."""
        self._changed.add(name)
        return self._pairs[name]

    @invariant()
    def nodes_and_twins_say_the_same(self) -> None:
        for name in self._changed:
            self._runner.run(self._pairs[name].check(KEYS))
        self._changed.clear()

    def teardown(self) -> None:
        """Everything has come everywhere, latest first, and all nodes are equal."""
        try:
            self._runner.run(self._deliver_all())
        finally:
            for pair in self._pairs.values():
                self._runner.run(pair.redis.aclose())
            self._runner.close()

    async def _deliver_all(self) -> None:
        while True:
            await self._deliver_all_there_is()
            if not any(pair.twin.deferred for pair in self._pairs.values()):
                return
            for pair in self._pairs.values():
                await pair.commit_due(0)

    async def _deliver_all_there_is(self) -> None:
        logs = [pair.applied() for pair in self._pairs.values()]
        made = list({write.dot: write for log in logs for write in log}.values())
        for pair in self._pairs.values():
            for _ in made:
                if (await pair.receive(0, made[::-1])).refused == 0:
                    break
            await pair.check(KEYS)
            assert not pair.twin.pending
        for pair in self._pairs.values():
            pair.now_us = LATE_US
        for removed in (False, True):
            for one, other in itertools.pairwise(self._pairs.values()):
                assert one.twin.clock == other.twin.clock
                for key in KEYS:
                    here, there = await one.read(0, key), await other.read(0, key)
                    assert here.versions == there.versions
                    if removed:
                        assert list(here.versions) == one.twin.held(key)
            for pair in self._pairs.values():
                await pair.remove_expired(0)
                await pair.check(KEYS)


# --- the tests -----------------------------------------------------------------------------------


def in_process(_number: int) -> Redis:
    server = FakeServer()
    compile_once(server)
    redis: Redis = FakeAsyncRedis(server=server)
    return redis


def real(socket: Path) -> MakeRedis:
    return lambda number: Redis(unix_socket_path=str(socket), db=number)


def run(make_redis: MakeRedis, how: settings) -> None:
    class Nodes(ThreeNodes):
        def __init__(self) -> None:
            super().__init__(make_redis)

    run_state_machine_as_test(Nodes, settings=how)


def test_three_nodes_do_what_their_twins_do() -> None:
    run(in_process, effort(80))


@pytest.mark.parametrize("name", SERVERS)
def test_three_nodes_on_a_real_redis_do_what_their_twins_do(
    name: str, redis_sockets: dict[str, Path]
) -> None:
    run(real(redis_sockets[name]), effort(60))


#: Those of the scripts that keep most guarantees; the rest needs more around it than a store, or
#: is about incarnations, of which a twin has one, or about a Redis that is full or put back.
BREAKS = [
    m
    for m in MUTATIONS
    if m.file in _SCRIPTS
    and m.also is None
    and m.profile not in ("disk", "setbacks")
    and "incarnation" not in m.name
    and "Redis may refuse" not in m.name
]


@pytest.mark.parametrize("mutation", BREAKS, ids=lambda mutation: mutation.name)
def test_a_broken_script_is_told_from_its_twin(
    mutation: Mutation, redis_socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken, broken = scripts.source, Path(mutation.file).name
    included = f"--@include {broken.removesuffix('.inc.lua')}\n"

    def source(name: str) -> str:
        text = unbroken(name)
        is_broken = included in (scripts.LUA / f"{name}.lua").read_text()
        if f"{name}.lua" == broken or is_broken:
            return mutated(text, mutation.old, mutation.new)
        return text

    for module in (scripts, lane_scripts, snapshot_scripts):
        monkeypatch.setattr(module, "source", source)
    same_each_time = settings(
        effort(1000), derandomize=True, database=None, phases=[Phase.generate]
    )
    with pytest.raises((AssertionError, InvariantError, RedisUnavailable)):
        run(real(redis_socket), same_each_time)


def test_the_model_keeps_what_it_was_given() -> None:
    """The twin would agree with anything if it could not tell two histories apart."""
    a, b = Node("A"), Node("B")
    first = a.write([Put("lunch", b"noon?")], 5)
    b.receive([first])
    reply = b.write([Put("lunch", b"yes")], 3)
    assert reply.dependencies == VectorClock({"A": 1})
    assert reply.timestamp == 6
    c = Node("C")
    assert c.receive([reply, reply]) == ["pending", "duplicate"]
    assert c.versions("lunch") == []
    assert c.receive([first]) == ["applied"]
    assert [v.value for v in c.versions("lunch")] == [b"yes"]
    assert codec.unpack_operations(codec.pack_operations(reply.operations)) == reply.operations
