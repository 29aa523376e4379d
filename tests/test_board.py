"""What the workers of a node tell each other: leases, peers, faults, and how far the node is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs
from redis.asyncio import Redis

from app.board import Board, PeerReport
from app.errors import RedisUnavailable
from app.faults import HEALTHY, Fault
from app.keys import Keys
from app.progress import Progress
from app.scripts import Scripts
from app.standing import Heard, Standing
from app.vector_clock import VectorClock
from app.write import Put
from tests.conftest import SERVERS, MakeStore, Store, running_redis
from tests.processes import until

CLOCK = VectorClock.parse
LONG_MS = 600_000

real_redis_only = pytest.mark.parametrize("make_redis", SERVERS, indirect=True)


def worker(store: Store, name: str) -> Board:
    """The board as one worker of the node has it."""
    return Board(store.redis, store.keys, store.scripts, name)


# --- leases ---------------------------------------------------------------------------------------


async def test_one_worker_at_a_time_sends_to_a_peer(make_store: MakeStore) -> None:
    a = await make_store("A")
    first, second = worker(a, "first"), worker(a, "second")
    assert await first.hold_lease("B", LONG_MS)
    assert not await second.hold_lease("B", LONG_MS)
    assert await first.hold_lease("B", LONG_MS), "it keeps what it holds"
    assert await second.hold_lease("C", LONG_MS), "another peer is another matter"


@pytest.mark.parametrize("how", ["it runs out", "it is removed", "it is released"])
async def test_a_lease_that_is_free_again_passes_on(make_store: MakeStore, how: str) -> None:
    a = await make_store("A")
    first, second = worker(a, "first"), worker(a, "second")
    await first.hold_lease("B", LONG_MS)
    match how:
        case "it runs out":
            await a.redis.pexpire("lease:B", 0)
        case "it is removed":
            await a.redis.delete("lease:B")
        case _:
            await first.release_lease("B")
    assert await second.hold_lease("B", LONG_MS)
    assert not await first.hold_lease("B", LONG_MS)


async def test_a_worker_releases_only_its_own_lease(make_store: MakeStore) -> None:
    a = await make_store("A")
    first, second = worker(a, "first"), worker(a, "second")
    await first.hold_lease("B", LONG_MS)
    await second.release_lease("B")
    assert not await second.hold_lease("B", LONG_MS)


# --- what is known of peers -----------------------------------------------------------------------


async def test_a_peer_of_which_nothing_was_posted_is_unreachable(make_store: MakeStore) -> None:
    a = await make_store("A")
    assert await worker(a, "first").peer("B") == PeerReport()
    assert PeerReport().error


async def test_every_worker_knows_what_one_posted_of_a_peer(make_store: MakeStore) -> None:
    a = await make_store("A")
    clock = VectorClock({"A": 7, "B": 2})
    report = PeerReport(clock, "", 1_700_000_000_000_000, -250, clock.increment("A"))
    await worker(a, "first").post_peer("B", report)
    assert await worker(a, "second").peer("B") == report
    assert await worker(a, "second").peer("C") == PeerReport()
    gone = PeerReport(VectorClock(), "no answer within 10 s: é", 0, 0)
    await worker(a, "second").post_peer("B", gone)
    assert await worker(a, "first").peer("B") == gone


async def test_what_others_told_of_a_peer_counts_where_it_is_newer_or_the_peer_is_away(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    said, told = (
        Heard(Standing(CLOCK(clock), CLOCK(received)), at_us)
        for clock, received, at_us in (("A:7", "A:7 C:1", 50), ("A:3 B:2", "A:4 B:2", 60))
    )
    await worker(a, "first").post_hearsay({"B": told, "C": told})
    assert await worker(a, "second").peer("C") == PeerReport(hearsay=told)
    for error, has in (("", "A:7"), ("it is away", "A:7 B:2")):
        report = PeerReport(said.standing.clock, error, said.at_us, 0, said.standing.received)
        await worker(a, "first").post_peer("B", report)
        posted = await worker(a, "second").peer("B")
        assert posted == structs.replace(report, hearsay=told)
        assert posted.has == CLOCK(has)
        assert posted.newest(now_us=60) == told
        assert posted.newest(now_us=59) == said, "what was told is of an unknown time"


# --- faults ---------------------------------------------------------------------------------------


async def test_every_worker_sees_the_fault_of_a_link(make_store: MakeStore) -> None:
    a = await make_store("A")
    first, second = worker(a, "first"), worker(a, "second")
    assert await second.fault("B") == HEALTHY
    fault = Fault(delay_ms=20, drop=0.5, no_relay=True)
    await first.set_fault("B", fault)
    assert await second.fault("B") == fault
    assert await second.fault("C") == HEALTHY
    await second.set_fault("B", HEALTHY)
    assert await first.fault("B") == HEALTHY
    assert not await a.redis.exists("faults"), "a healthy link leaves nothing"


# --- listening ------------------------------------------------------------------------------------


class Listener:
    """A worker that listens on the board, and what it has heard."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.board: Board | None = None
        self.changed_links: list[str] = []
        self.looked_at_system = 0
        self.doubts = 0
        self.heard: list[tuple[str, VectorClock]] = []

    async def look_at_system(self) -> None:
        self.looked_at_system += 1

    def doubt(self) -> None:
        self.doubts += 1

    def hear(self, peer: str, clock: VectorClock) -> None:
        self.heard.append((peer, clock))

    def has(self, clock: str) -> Callable[[], bool]:
        return lambda: VectorClock.parse(clock) <= self.progress.clock


@asynccontextmanager
async def listening(store: Store) -> AsyncIterator[Listener]:
    """A worker listens, and is subscribed."""
    listener = Listener()
    board = listener.board = worker(store, "listener")
    task = asyncio.create_task(
        board.listen(
            listener.progress,
            listener.changed_links.append,
            listener.hear,
            listener.look_at_system,
            listener.doubt,
        )
    )
    try:
        await until_subscribed(store, 1)
        yield listener
    finally:
        # Before Python 3.12 the plain redis-py client of these tests can lose a cancellation
        # (`asyncio.wait_for` did), so it is repeated.
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=0.2)


async def until_subscribed(store: Store, listeners: int) -> None:
    async with asyncio.timeout(30):
        while (await store.redis.pubsub_numsub(store.keys.applied_channel))[0][1] < listeners:
            await asyncio.sleep(0.005)


async def test_a_listener_knows_at_once_what_was_applied_before(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.store.commit([Put("lunch", b"noon?")])
    async with listening(a) as listener:
        await until(listener.has("A:1"))


async def test_a_listener_hears_what_another_worker_applies(make_store: MakeStore) -> None:
    a = await make_store("A")
    async with listening(a) as listener:
        await a.store.commit([Put("lunch", b"noon?")])
        await until(listener.has("A:1"))


async def test_it_is_the_channel_that_tells(make_store: MakeStore) -> None:
    """What is nowhere in Redis is heard, so that no refresh can have read it."""
    a = await make_store("A")
    async with listening(a) as listener:
        await a.redis.publish(a.keys.applied_channel, "B:7 C:2")
        await until(listener.has("B:7 C:2"))
        assert listener.progress.clock == VectorClock({"B": 7, "C": 2})


async def test_a_lost_message_is_made_up_for(make_store: MakeStore) -> None:
    a = await make_store("A")
    async with listening(a) as listener:
        await a.redis.hset("clock", "B", 3)
        await until(listener.has("B:3"))


async def test_a_lost_message_is_made_up_for_though_others_come(make_store: MakeStore) -> None:
    a = await make_store("A")

    async def tell_of_links() -> None:
        while True:
            await a.redis.publish(a.keys.faults_channel, "B")
            await asyncio.sleep(0.1)

    async with listening(a) as listener:
        telling = asyncio.create_task(tell_of_links())
        try:
            await until(lambda: len(listener.changed_links) > 2)
            await a.redis.hset("clock", "B", 3)
            await until(listener.has("B:3"))
        finally:
            telling.cancel()


async def test_a_listener_hears_of_every_changed_link(make_store: MakeStore) -> None:
    a = await make_store("A")
    async with listening(a) as listener:
        board = worker(a, "first")
        await board.set_fault("B", Fault(cut=True))
        await board.set_fault("C", Fault(delay_ms=5))
        await board.set_fault("B", HEALTHY)
        await until(lambda: listener.changed_links == ["B", "C", "B"])


@real_redis_only
async def test_a_listener_that_lost_its_connection_listens_again(make_store: MakeStore) -> None:
    a = await make_store("A")
    async with listening(a) as listener:
        for n in (1, 2, 3):
            killed = await a.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            assert killed == 1
            await until_subscribed(a, 1)
            await a.redis.publish(a.keys.applied_channel, f"B:{n}")
            await until(listener.has(f"B:{n}"))


@real_redis_only
async def test_a_listener_doubts_a_redis_that_holds_less_than_it_knew(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    async with listening(a) as listener:
        await a.store.commit([Put("lunch", b"noon?")])
        await until(listener.has("A:1"))
        assert not listener.doubts
        await a.redis.hdel(a.keys.clock, "A")
        await until(lambda: listener.doubts > 0)
        assert listener.has("A:1")(), "what is lost is not for it to say"


@real_redis_only
async def test_what_is_applied_while_a_listener_has_no_connection_is_not_missed(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    async with listening(a) as listener:
        await a.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await a.store.commit([Put("lunch", b"noon?")])
        await until(listener.has("A:1"))


# --- a Redis that refuses -------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
async def test_a_redis_that_became_a_replica_is_unavailable_and_no_broken_invariant(
    server: Path,
) -> None:
    # A server of its own, for it remembers for ever that it took over from another.
    with running_redis(server) as socket:
        async with Redis(unix_socket_path=str(socket)) as redis:
            board = Board(redis, Keys(), Scripts(redis, Keys()), "first")
            await redis.replicaof("127.0.0.1", "1")
            with pytest.raises(RedisUnavailable, match="read only replica"):
                await board.post_peer("B", PeerReport())
            with pytest.raises(RedisUnavailable, match="read only replica"):
                await board.hold_lease("B", LONG_MS)
            with pytest.raises(RedisUnavailable, match="read only replica"):
                await board.set_fault("B", Fault(cut=True))
            await redis.replicaof("NO", "ONE")
            assert await board.hold_lease("B", LONG_MS)


# --- who is heard of, and who waits for that ------------------------------------------------------


async def test_every_worker_hears_what_a_peer_said(make_store: MakeStore) -> None:
    a = await make_store("A")
    clock = VectorClock({"A": 3, "B": 1})
    async with listening(a) as listener:
        await worker(a, "other").post_peer("B", PeerReport(clock))
        await worker(a, "other").post_peer("C", PeerReport())
        await until(lambda: len(listener.heard) == 2)
        assert listener.heard == [("B", clock), ("C", VectorClock())]


async def test_every_worker_knows_that_somebody_waits_for_as_long_as_that_lasts(
    make_store: MakeStore,
) -> None:
    a = await make_store("A")
    other = worker(a, "other")
    async with listening(a) as listener:
        board = listener.board
        assert board is not None
        assert not board.peers_are_awaited
        assert not other.peers_are_awaited
        await other.await_peers(60)
        assert other.peers_are_awaited
        await until(lambda: board.peers_are_awaited)
    brief = worker(a, "brief")
    await brief.await_peers(0.01)
    await until(lambda: not brief.peers_are_awaited)
