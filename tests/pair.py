"""A node's real store and its twin, held together: whatever is done to one is done to the other.

What it is: `Pair`, two workers over one Redis, and the `Node` of tests/model.py.

What it assumes and guarantees: any Redis that is empty. Each method does the same at both and fails
where they differ; after `check` has passed, everything that this node's Redis shows is what the
twin says. Which waiting write a node names first is its own affair, so `missing` is held only to
naming something that its first waiting writes do lack.

What it does not know: other nodes, or who sends what to whom.

Where the idea is from: the reference model in the property tests of etcd raft's quorum, and in
Erlang's QuickCheck state machines (Claessen, Hughes).
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from app import codec, expiry, identity, wire
from app.board import Board
from app.buffer import PendingBuffer, pieces
from app.commits import Committed
from app.conditions import Condition
from app.deferred import DeferredWrites
from app.errors import LogTrimmed, PreconditionFailed
from app.keys import Keys
from app.kv_store import KVStore, Reading, reading
from app.lane_scripts import LaneScripts
from app.progress import Progress
from app.scripts import Received, Scripts
from app.snapshot import Kept
from app.snapshot_reading import SnapshotReader
from app.snapshot_receiving import SnapshotReceiving
from app.snapshot_scripts import SnapshotScripts
from app.snapshot_sending import SnapshotSending
from app.vector_clock import NOTHING, Dot, VectorClock
from app.wire import Batch
from app.write import SYSTEM, Operation, Put, Write
from tests.conftest import FirstLife, begin
from tests.model import Node

WORKERS = 2
_ALL = 10_000
"""More than a test makes of anything."""


class Worker:
    """What one worker of a node keeps in memory."""

    def __init__(self, pair: "Pair") -> None:
        keys, name = pair.keys, pair.twin.name
        self.scripts = Scripts(pair.redis, keys)
        self.progress = Progress()
        life = FirstLife(name)
        self.store = KVStore(
            pair.redis, keys, self.scripts, self.progress, life, lambda: pair.now_us
        )
        self.buffer = PendingBuffer(
            pair.redis,
            keys,
            self.scripts,
            self.progress,
            name,
            life,
            lambda: pair.now_us,
            pending_max=pair.twin.pending_max,
            drain_max=pair.drain_max,
        )
        self.deferred = DeferredWrites(
            pair.redis,
            keys,
            LaneScripts(pair.redis, keys),
            self.progress,
            life,
            lambda: pair.now_us,
            deferred_max=_ALL,
            deferred_max_bytes=2**30,
            drain_max=pair.drain_max,
            requests_max=_ALL,
        )
        self.board = Board(pair.redis, keys, self.scripts, "a worker")
        self.receiving = SnapshotReceiving(
            name,
            pair.redis,
            keys,
            self.board,
            self.buffer,
            self.progress,
            life,
            lambda: pair.now_us,
            60_000,
        )


class Pair:
    """One node, twice."""

    def __init__(self, name: str, redis: Redis, pending_max: int, drain_max: int) -> None:
        self.twin = Node(name, pending_max)
        self.redis: Any = redis
        self.keys = Keys()
        self.drain_max = drain_max
        self.now_us = 1
        self.log_begins: dict[str, int] = {}
        """Of which actors the log does not begin at 1, and where."""
        self.workers = [Worker(self) for _ in range(WORKERS)]

    async def start(self) -> None:
        """The Redis is this node's, and its workers serve."""
        await begin(self.workers[0].scripts, self.twin.name)
        for number in range(WORKERS):
            await self.replace_worker(number)

    async def replace_worker(self, number: int) -> None:
        """The worker has died, and another begins as workers do."""
        worker = self.workers[number] = Worker(self)
        assert (await identity.claim(worker.scripts, self.twin.name, "a birth"))[
            "actor"
        ] == self.twin.name
        worker.progress.advance(await worker.store.clock())

    # --- what is done to both ------------------------------------------------------------------

    async def write(self, number: int, operations: Sequence[Operation]) -> Write:
        """A write of this node's own, by one of its workers."""
        write = self.twin.write(operations, self.now_us)
        committed = await self.workers[number].store.commit(operations)
        assert isinstance(committed, Committed)
        assert (committed.dot, committed.timestamp) == (write.dot, write.timestamp)
        assert committed.clock == self.twin.clock
        return write

    async def write_if(
        self, number: int, operations: Sequence[Operation], conditions: Sequence[Condition]
    ) -> Write | None:
        """A write that is done if its conditions hold, and reads at once what it overwrites."""
        keys = [operation.key for operation in operations]
        at = self.twin.next_timestamp(self.now_us)
        before = {key: self.twin.versions(key, at) for key in keys}
        failing = [one for one in conditions if not self.twin.holds(one, at)]
        commit = self.workers[number].store.commit(operations, NOTHING, conditions, keys)
        if failing:
            with pytest.raises(PreconditionFailed) as refusal:
                await commit
            held = refusal.value.held
            assert [one.key for one in held] == [one.key for one in failing]
            for one in held:
                assert set(one.dots) == {v.dot for v in self.twin.versions(one.key, at)}
                assert self.twin.is_safe_context(one.key, one.seen, at)
            return None
        write = self.twin.write(operations, self.now_us)
        committed = await commit
        assert isinstance(committed, Committed)
        assert (committed.dot, committed.timestamp) == (write.dot, write.timestamp)
        read = [reading(fields, committed.clock, at).versions for fields in committed.before]
        assert dict(zip(keys, map(list, read), strict=True)) == before
        return write

    async def accept(
        self, number: int, operations: Sequence[Operation], context: VectorClock
    ) -> None:
        """A write that is committed once this is here, and is named now."""
        dot = self.twin.accept(operations, context)
        accepted = await self.workers[number].deferred.accept(operations, context)
        assert (accepted.dot, accepted.clock) == (dot, self.twin.clock)

    async def commit_due(self, number: int) -> None:
        """All deferred writes that are due are committed."""
        committed = self.twin.commit_deferred(self.now_us)
        due = await self.workers[number].deferred.commit_due()
        assert due.clock == self.twin.clock
        assert bool(due.committed) <= bool(committed)
        if self.twin.deferred:
            context, _ = next(iter(self.twin.deferred.values()))
            assert due.lacks == context.beyond(self.twin.clock)

    async def receive(self, number: int, writes: Sequence[Write]) -> Received:
        """These writes come in one batch, as they travel."""
        body = wire.encode_batch(Batch("sender", "receiver", VectorClock(), tuple(writes)))
        received = await self.workers[number].buffer.receive(wire.decode_batch(body).writes)
        outcomes: Counter[str] = Counter()
        for piece in pieces(writes, self.drain_max):
            outcomes.update(self.twin.receive(piece))
        assert received.applied == outcomes["applied"]
        assert received.duplicate == outcomes["duplicate"]
        assert received.pending == outcomes["pending"]
        assert received.refused == outcomes["refused"]
        assert not received.more
        self._check_position(received)
        return received

    async def receive_and_die(self, number: int, writes: Sequence[Write]) -> None:
        """These writes come in one batch, and the worker dies after its first step of draining;
        what it left behind is applied by the sweep of the next one."""
        worker = self.workers[number]
        await worker.scripts.receive_writes(
            self.twin.name, writes, self.now_us, self.twin.pending_max, self.drain_max
        )
        await self.replace_worker(number)
        self.twin.receive(writes)
        await self.sweep(number)

    async def sweep(self, number: int) -> None:
        """Whatever was left behind is applied, and it is known how far the node has received.

        A script looks only so far ahead for that, so it may take a few sweeps.
        """
        buffer = self.workers[number].buffer
        for _ in self.twin.pending:
            self._check_position(await buffer.sweep())
        received = await buffer.sweep()
        self._check_position(received)
        assert received.clock.merge(received.received) == self.twin.received

    async def remove_expired(self, number: int) -> None:
        """The memory of what has expired is free."""
        worker = self.workers[number]
        await expiry.remove_expired(worker.scripts, self.twin.name, lambda: self.now_us)
        self.twin.remove_expired(self.now_us)

    async def trim(self, actor: str, count: int) -> None:
        """The log of the actor loses its first entries."""
        begins = self.log_begins.get(actor, 1)
        through = min(begins + count - 1, self.twin.clock[actor])
        await self.workers[0].store.log.trim(actor, through, begins)
        self.log_begins[actor] = max(begins, through + 1)

    def sending_to(self, peer: str, part_max_bytes: int) -> SnapshotSending:
        """Sends this node's state to the peer, in parts of about so many bytes."""
        worker = self.workers[0]
        return SnapshotSending(
            peer,
            self.twin.name,
            SnapshotReader(self.redis, self.keys, worker.store, part_max_bytes),
            worker.board,
            lambda: self.now_us,
            random.Random(f"{self.twin.name} {peer} {self.now_us} {part_max_bytes}"),
        )

    async def take_part(
        self, sender: "Pair", sending: SnapshotSending, dies_after_keys: int | None = None
    ) -> bool:
        """The next part of the sender's snapshot comes, as it travels; after the last all of it
        is merged, by a worker that begins anew if the one before has died after so many keys.

        Returns whether it was the last."""
        part = await sending.part()
        if part is None:
            return False
        twin, worker = self.twin, self.workers[0]
        body = wire.encode_batch(Batch("sender", "receiver", VectorClock(), (), part=part))
        part = wire.decode_batch(body).part
        assert part is not None
        held = await worker.receiving.take(sender.twin.name, part)
        is_complete = await sending.take(held)
        assert is_complete == (part.cut is not None and held == Kept(part.snapshot, part.name))
        if part.cut is None or not is_complete:
            await worker.receiving.tidy()
            return False
        await sending.end()
        assert part.cut.clock == sender.twin.clock
        for actor in part.cut.clock.beyond(twin.clock):
            self.log_begins[actor] = part.cut.clock[actor] + 1
        removed = sender.twin.removed - twin.removed
        twin.merge(sender.twin.applied)
        if dies_after_keys is not None:
            await self._merge_and_die(part.snapshot, dies_after_keys)
            await self.replace_worker(0)
            worker = self.workers[0]
        await worker.receiving.tidy()
        assert await worker.receiving.state() is None
        # What the sender has removed it may have sent before.
        stored = {key: await self._dots(key) for _, key in removed}
        twin.removed |= {(dot, key) for dot, key in removed if dot not in stored[key]}
        twin.receive(())
        return True

    async def _merge_and_die(self, snapshot: str, count: int) -> None:
        scripts = SnapshotScripts(self.redis, self.keys)
        for staged, stem in ((False, self.keys.kv_stem), (True, self.keys.staged_stem(snapshot))):
            names = sorted(await self.redis.keys(f"{stem}*"))
            for name in names[: count if staged else len(names)]:
                key = name.decode().removeprefix(stem)
                assert await scripts.merge_keys(snapshot, [key], staged=staged)
            if len(names) > count:
                return

    # --- what both must say --------------------------------------------------------------------

    def applied(self) -> list[Write]:
        """All that the node has applied, in causal order."""
        return sorted(self.twin.applied, key=lambda w: (w.timestamp, w.dot.actor))

    async def read(self, number: int, key: str) -> Reading:
        """What a reader is shown: the siblings, and a context that is safe to go on with (G7)."""
        found = await self.workers[number].store.read(key)
        assert list(found.versions) == self.twin.versions(key, self.now_us)
        assert self.twin.is_safe_context(key, found.context, self.now_us)
        assert found.context <= self.twin.clock
        if not found.versions:
            assert found.context == self.twin.clock
        authors = [version.dot.actor for version in found.versions]
        assert len(authors) == len(set(authors)), "an actor has two siblings"
        return found

    async def check(self, keys: Sequence[str]) -> None:
        """Everything that the node's Redis shows is what the twin says."""
        twin, store, buffer = self.twin, self.workers[0].store, self.workers[0].buffer
        assert await store.clock() == twin.clock
        assert (await store.life()).timestamp == twin.timestamp
        assert await buffer.counts() == Counter(dot.actor for dot in twin.pending)
        blocked = await buffer.blocked(_ALL)
        assert {b.waiting.write for b in blocked} == set(twin.pending.values())
        for one in blocked:
            lacking = one.waiting.write.dependencies.beyond(twin.clock)
            assert one.waiting_for == tuple(lacking.dots())
        assert {
            one.dot: (one.context, one.operations)
            for one in await self.workers[0].deferred.first(_ALL)
        } == twin.deferred
        for actor in twin.clock:
            begins = self.log_begins.get(actor, 1)
            expected = [
                write
                for write in twin.applied
                if write.dot.actor == actor and write.dot.sequence >= begins
            ]
            if expected:
                assert await store.log.after(actor, begins - 1, _ALL) == expected
                for worker in self.workers:
                    # What is read now is kept, and goes on with what this worker commits.
                    known = await worker.store.recent.after(actor, begins - 1, _ALL)
                    last = await worker.store.recent.after(actor, expected[-1].dot.sequence - 1, 1)
                    assert [*known, *last] == [*expected[: len(known)], expected[-1]]
            if begins > 1 or not expected:
                with pytest.raises(LogTrimmed):
                    await store.log.after(actor, begins - 2 if expected else begins - 1, _ALL)
        for key in keys:
            await self.read(0, key)
        readings, clock = await store.snapshot(keys, NOTHING, (), 10**9)
        assert clock == twin.clock
        shown = {key: twin.versions(key, self.now_us) for key in keys}
        assert {key: list(readings[key].versions) for key in keys} == shown
        for key in keys:
            assert await self._dots(key) == {version.dot for version in twin.held(key)}
        names = {name.decode() for name in await self.redis.keys(f"{self.keys.kv_stem}*")}
        assert names == {self.keys.kv(key) for key in keys if twin.held(key)}, (
            "a delete left a key behind"
        )
        times = {key: [v.expires_us for v in twin.held(key) if v.expires_us] for key in keys}
        expiring = await self.redis.zrange(self.keys.expiring, 0, -1, withscores=True)
        assert {key.decode(): int(time) for key, time in expiring} == {
            key: min(its) for key, its in times.items() if its
        }
        keys = [key for key in keys if not key.startswith(SYSTEM)]  # no index has the system's own
        assert await self._indexed() == {key for key in keys if twin.held(key)}
        conflicts = await self.redis.zrange(self.keys.conflicts, 0, -1)
        assert {key.decode() for key in conflicts} == {
            key for key in keys if len(twin.held(key)) > 1
        }
        present = sorted(key for key in keys if shown[key])
        for limit in (1, _ALL):
            assert await self._list(limit) == present
        siblings = {key: {version.dot for version in shown[key]} for key in present}
        listed = (await store.list_conflicts("", "", _ALL)).keys
        assert {key: set(dots) for key, dots in listed.items()} == {
            key: dots for key, dots in siblings.items() if len(dots) > 1
        }
        for worker in self.workers:
            assert worker.progress.clock <= twin.clock, "a worker takes for applied what is not"

    async def _list(self, limit: int) -> list[str]:
        """All keys, in pages of so many."""
        page = await self.workers[0].store.list_keys("", "", limit)
        found = list(page.keys)
        while page.cursor:
            page = await self.workers[0].store.list_keys("", page.cursor, limit)
            assert page.clock == self.twin.clock
            found += page.keys
        return found

    async def _indexed(self) -> set[str]:
        """The keys that are in a bucket of the index."""
        starts = await self.redis.zrange(self.keys.keys, 0, -1)
        buckets = [await self.redis.zrange(self.keys.bucket(s.decode()), 0, -1) for s in starts]
        return {key.decode() for bucket in buckets for key in bucket}

    async def _dots(self, key: str) -> set[Dot]:
        """Whose versions are stored at the key."""
        fields = await self.redis.hgetall(self.keys.kv(key))
        return {version.dot for version in codec.unpack_versions(fields)}

    def put_dots(self, key: str) -> set[Dot]:
        """The puts of `key` that were ever applied here."""
        return {
            write.dot
            for write in self.twin.applied
            for operation in write.operations
            if isinstance(operation, Put) and operation.key == key
        }

    def _check_position(self, received: Received) -> None:
        """What an answer says of where the node stands is so."""
        assert received.clock == self.twin.clock
        assert received.received <= self.twin.received
        lacking = [self._head_lacks(actor) for actor in {dot.actor for dot in self.twin.pending}]
        assert set(received.missing.dots()) <= {dot for lacks in lacking for dot in lacks.dots()}
        assert all(any(map(received.missing.covers, lacks.dots())) for lacks in lacking)

    def _head_lacks(self, actor: str) -> VectorClock:
        """What the first waiting write of `actor` waits for."""
        head = self.twin.clock.next_dot(actor)
        waiting = self.twin.pending.get(head)
        return (
            VectorClock([head]) if waiting is None else waiting.dependencies.beyond(self.twin.clock)
        )
