"""Sending to one peer: what is sent, when, again, and by whom. The peer is a model in memory."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from app.board import Board, PeerReport
from app.config import Config
from app.errors import InvariantError, PeerRefused, PeerUnreachable, RedisUnavailable
from app.faults import HEALTHY, Fault
from app.members import Members
from app.peers import Exchange
from app.recent import KEPT_MAX
from app.replication import Link, Tools
from app.snapshot import Kept, Part
from app.snapshot_reading import SnapshotReader
from app.snapshot_sending import SnapshotSending
from app.standing import UNHEARD, Heard, Standing
from app.under_way import _FULL
from app.vector_clock import VectorClock
from app.wire import Answer, Batch
from app.write import Put, Write
from tests.conftest import MakeStore, Store
from tests.model import Node
from tests.processes import until

URL = "http://b.example"
NEVER_MS = 86_000_000
DAY_MS = 86_400_000


class Peer:
    """B, which notes what it is sent and answers as the model does, if it can be reached."""

    def __init__(self, node: Node | None = None) -> None:
        self.node = node or Node("B")
        self.batches: list[Batch] = []
        self.answers: list[Answer] = []
        self.open = asyncio.Event()
        self.open.set()
        self.reachable = True
        self.loses_answers = False
        self.in_flight_max = 0
        self.ahead_us = 0
        self._in_flight = 0
        self.writes_in_flight_max = 0
        self._writes_in_flight = 0

    async def __call__(self, url: str, batch: Batch) -> Answer:
        assert url == URL
        self.batches.append(batch)
        self._in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self._in_flight)
        self._writes_in_flight += len(batch.writes)
        self.writes_in_flight_max = max(self.writes_in_flight_max, self._writes_in_flight)
        try:
            await self.open.wait()
            if not self.reachable:
                raise PeerUnreachable("the line is dead")
            answer = self.answer(Counter(self.node.receive(batch.writes)))
            if self.loses_answers:
                raise PeerUnreachable("the answer was lost")
            self.answers.append(answer)
            return answer
        finally:
            self._in_flight -= 1
            self._writes_in_flight -= len(batch.writes)

    def answer(self, outcomes: Counter[Any]) -> Answer:
        return Answer(
            "B",
            self.node.clock,
            self.node.received,
            VectorClock(),
            outcomes["applied"],
            outcomes["duplicate"],
            outcomes["pending"],
            outcomes["refused"],
            1_000_000 + self.ahead_us,
        )

    @property
    def sent(self) -> list[str]:
        """The dots of all writes it was sent, in order."""
        return [str(write.dot) for batch in self.batches for write in batch.writes]

    @property
    def sizes(self) -> list[int]:
        """How many writes each batch held that held any."""
        return [len(batch.writes) for batch in self.batches if batch.writes]

    def has(self, clock: str) -> Callable[[], bool]:
        return lambda: VectorClock.parse(clock) <= self.node.clock

    def heard(self, count: int) -> Callable[[], bool]:
        """`count` more batches have come."""
        goal = len(self.batches) + count
        return lambda: len(self.batches) >= goal

    def answered(self, count: int) -> Callable[[], bool]:
        """`count` more batches have been answered."""
        goal = len(self.answers) + count
        return lambda: len(self.answers) >= goal


async def until_report(board: Board, condition: Callable[[PeerReport], bool]) -> PeerReport:
    """What is posted of B, once `condition` holds for it."""
    async with asyncio.timeout(40):
        while not condition(report := await board.peer("B")):
            await asyncio.sleep(0.002)
    return report


def board_of(store: Store, worker: str = "first") -> Board:
    return Board(store.redis, store.keys, store.scripts, worker)


def sending_to(store: Store, peer: str) -> SnapshotSending:
    return SnapshotSending(
        peer,
        "A",
        SnapshotReader(store.redis, store.keys, store.store, 1024 * 1024),
        board_of(store),
        lambda: store.time_us[0],
        random.Random(2),
    )


def link_to(
    store: Store,
    exchange: Exchange,
    worker: str = "first",
    *,
    board: Board | None = None,
    **settings: Any,
) -> Link:
    """A's link to B. Nothing comes of itself but heartbeats, unless a setting says so."""
    quiet = {
        "heartbeat_ms": 10,
        "lease_ms": DAY_MS,
        "retry_min_ms": 1,
        "retry_max_ms": 5,
        "relay_after_ms": NEVER_MS,
    }
    config = Config(node_id="A", **{"peers": {"B": URL}, **quiet, **settings})
    tools = Tools(
        config,
        store.store,
        board or board_of(store, worker),
        store.progress,
        store.life,
        Members(config, store.redis, store.keys, store.scripts),
        exchange,
        lambda peer: sending_to(store, peer),
        lambda: store.time_us[0],
        random.Random(1),
    )
    return Link("B", URL, tools)


@asynccontextmanager
async def running(link: Link) -> AsyncIterator[asyncio.Task[None]]:
    """The link sends; afterwards it has ended."""
    task = asyncio.create_task(link.run())
    try:
        yield task
        assert not task.done(), "a link runs for ever"
    finally:
        await end(task)


async def end(task: asyncio.Task[None]) -> None:
    """The task has ended. Before Python 3.12 the plain redis-py client of these tests can lose a
    cancellation (`asyncio.wait_for` did), so it is repeated."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.2)


@asynccontextmanager
async def sending(store: Store, peer: Peer, **settings: Any) -> AsyncIterator[Link]:
    """A sends to B, and has had a first answer if B can be reached."""
    link = link_to(store, peer, **settings)
    async with running(link):
        await until(lambda: bool(peer.answers) or not peer.reachable)
        yield link


async def write(store: Store, count: int = 1, value: bytes = b"noon?") -> None:
    for _ in range(count):
        await store.store.commit([Put("lunch", value)])


async def receive(store: Store, *writes: Write) -> None:
    received = await store.buffer.receive(writes)
    assert (received.pending, received.refused) == (0, 0)


def own(count: int, first: int = 1) -> list[str]:
    """The dots of A from `first` on."""
    return [f"A:{n}" for n in range(first, first + count)]


@pytest.fixture
def long_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every link counts as long, however soon the peer answers."""
    monkeypatch.setattr("app.under_way._LONG_S", 0.0)


# --- own writes -----------------------------------------------------------------------------------


async def test_a_link_begins_by_asking_where_the_peer_stands(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    await write(a, 3)
    async with sending(a, peer):
        await until(peer.has("A:3"))
    first = peer.batches[0]
    assert (first.sender, first.receiver, first.writes) == ("A", "B", ())
    assert first.clock == VectorClock({"A": 3})


async def test_own_writes_are_sent_without_waiting_for_a_heartbeat(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    async with sending(a, peer, heartbeat_ms=NEVER_MS):
        for n in range(1, 4):
            await write(a)
            await until(peer.has(f"A:{n}"))
    assert peer.sent == own(3)


async def test_own_writes_are_sent_once_each_and_in_order(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    await write(a, 30)
    async with sending(a, peer):
        await write(a, 30)
        await until(peer.has("A:60"))
        await until(peer.answered(3))
    assert peer.sent == own(60)
    assert peer.node.applied == await a.store.log.after("A", 0, 100)


async def test_a_peer_that_was_away_gets_exactly_what_it_missed(make_store: MakeStore) -> None:
    a = await make_store("A")
    await write(a, 20)
    there = await a.store.log.after("A", 0, 12)
    peer = Peer(Node("B", applied=there))
    async with sending(a, peer):
        await until(peer.has("A:20"))
    assert peer.sent == own(8, first=13)


async def test_while_one_batch_is_in_flight_the_next_gathers_what_came_meanwhile(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.under_way._LONG_S", NEVER_MS / 1000)
    a, peer = await make_store("A"), Peer()
    async with sending(a, peer, heartbeat_ms=NEVER_MS):
        peer.open.clear()
        in_flight = peer.heard(1)
        await write(a)
        await until(in_flight)
        await write(a, 25)
        assert peer.sent == own(1)
        peer.open.set()
        await until(peer.has("A:26"))
    assert peer.sizes == [1, 25]
    assert peer.in_flight_max == 1


@pytest.mark.usefixtures("long_link")
async def test_what_is_new_follows_before_an_answer_that_takes_long(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    async with sending(a, peer, heartbeat_ms=NEVER_MS):
        peer.open.clear()
        for _ in range(3):
            in_flight = peer.heard(1)
            await write(a)
            await until(in_flight)
        assert peer.sizes == [1, 1, 1]
        peer.open.set()
        await until(peer.has("A:3"))
        await write(a)
        await until(peer.has("A:4"))
    assert peer.sent == own(4), "once each"
    assert peer.in_flight_max == 3


@pytest.mark.usefixtures("long_link")
async def test_where_little_was_answered_all_in_flight_is_no_more_than_a_batch_may_hold(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.under_way._RATE_S", 1e-9)
    a, peer = await make_store("A"), Peer()
    async with sending(a, peer, heartbeat_ms=NEVER_MS, batch_max_writes=5):
        peer.open.clear()
        in_flight = peer.heard(1)
        await write(a)
        await until(in_flight)
        await write(a, 20)
        await until(lambda: len(peer.sent) == 5)
        peer.open.set()
        await until(peer.has("A:21"))
    assert peer.sent == own(21)
    assert peer.writes_in_flight_max == 5


@pytest.mark.usefixtures("long_link")
async def test_batches_that_overtake_each_other_are_put_in_order_by_the_peer(
    make_store: MakeStore,
) -> None:
    a, peer = await make_store("A"), Peer()
    overtaken = asyncio.Event()

    async def overtaking(url: str, batch: Batch) -> Answer:
        numbers = [write.dot.sequence for write in batch.writes]
        if 1 in numbers:
            await overtaken.wait()
        answer = await peer(url, batch)
        if 2 in numbers:
            overtaken.set()
        return answer

    async with running(link_to(a, overtaking, heartbeat_ms=NEVER_MS)):
        await until(lambda: bool(peer.answers))
        await write(a)
        await write(a)
        await until(peer.has("A:2"))
        await write(a)
        await until(peer.has("A:3"))
    assert peer.node.applied == await a.store.log.after("A", 0, 10)


@pytest.mark.usefixtures("long_link")
async def test_what_followed_a_batch_that_was_lost_is_sent_again_with_it(
    make_store: MakeStore,
) -> None:
    a, peer = await make_store("A"), Peer()
    lost: list[Batch] = []
    arrived = asyncio.Event()

    async def losing(url: str, batch: Batch) -> Answer:
        if batch.writes and not lost:
            lost.append(batch)
            await arrived.wait()
            raise PeerUnreachable("it was lost")
        answer = await peer(url, batch)
        if batch.writes:
            arrived.set()
        return answer

    async with running(link_to(a, losing, heartbeat_ms=NEVER_MS)):
        await until(lambda: bool(peer.answers))
        await write(a)
        await until(lambda: bool(lost))
        await write(a)
        await until(peer.has("A:2"))
    assert peer.sent == ["A:2", "A:1", "A:2"]
    assert peer.node.applied == await a.store.log.after("A", 0, 10)


@pytest.mark.usefixtures("long_link")
@pytest.mark.parametrize("seed", range(5))
async def test_whatever_a_long_link_does_to_batches_all_is_applied_in_order(
    make_store: MakeStore, seed: int
) -> None:
    a, peer, rng = await make_store("A"), Peer(), random.Random(seed)
    under_way: list[int] = []
    at_once: list[int] = []

    async def bad(url: str, batch: Batch) -> Answer:
        under_way.append(len(batch.writes))
        at_once.append(len(under_way))
        assert sum(under_way) <= _FULL * 20
        try:
            await asyncio.sleep(rng.uniform(0, 0.02))
            if rng.random() < 0.1:
                raise PeerUnreachable("the batch was lost")
            answer = await peer(url, batch)
            await asyncio.sleep(rng.uniform(0, 0.02))
            if rng.random() < 0.1:
                raise PeerUnreachable("the answer was lost")
            return answer
        finally:
            under_way.remove(len(batch.writes))

    async with running(link_to(a, bad, batch_max_writes=20)):
        written = 0
        while written < 40 or max(at_once, default=0) < 2:
            await write(a, rng.randrange(4))
            written += 1
            await asyncio.sleep(rng.uniform(0, 0.005))
        clock = await a.store.clock()
        await until(lambda: clock <= peer.node.clock)
    assert peer.node.applied == await a.store.log.after("A", 0, 10_000)


async def test_a_batch_holds_at_most_so_many_writes(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    await write(a, 10)
    async with sending(a, peer, batch_max_writes=3):
        await until(peer.has("A:10"))
    assert peer.sizes == [3, 3, 3, 1]


async def test_a_batch_is_closed_once_it_holds_so_many_bytes(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    await write(a, 40, value=b"x" * 300)
    await write(a, 1, value=b"x" * 5000)
    await write(a, 40, value=b"x")
    async with sending(a, peer, batch_max_bytes=1000):
        await until(peer.has("A:81"))
    assert peer.sent == own(81)
    for batch in peer.batches:
        values = [o.value for w in batch.writes for o in w.operations if isinstance(o, Put)]
        assert sum(map(len, values[:-1])) < 1000
    assert max(peer.sizes) > 1, "small writes share a batch"


async def test_a_log_longer_than_one_read_is_sent_whole(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    await write(a, 100, value=b"")
    async with sending(a, peer, batch_max_writes=45):
        await until(peer.has("A:100"))
    assert peer.sizes == [45, 45, 10]


async def test_an_idle_link_carries_heartbeats_with_the_clock(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    await write(a, 2)
    async with sending(a, peer, heartbeat_ms=5):
        await until(peer.has("A:2"))
        await until(peer.answered(5))
    assert peer.sent == own(2)
    assert peer.batches[-1].writes == ()
    assert peer.batches[-1].clock == VectorClock({"A": 2})


# --- failures -------------------------------------------------------------------------------------


async def test_a_failed_exchange_is_repeated_and_nothing_is_skipped(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    async with sending(a, peer):
        await write(a, 3)
        await until(peer.has("A:3"))
        peer.reachable = False
        await write(a, 3)
        await until(peer.heard(4))
        peer.reachable = True
        await until(peer.has("A:6"))
        await until(peer.answered(3))
    assert peer.node.applied == await a.store.log.after("A", 0, 10)
    assert set(peer.sent) == set(own(6))


async def test_what_arrived_and_was_not_answered_is_sent_again_and_does_no_harm(
    make_store: MakeStore,
) -> None:
    a, peer = await make_store("A"), Peer()
    async with sending(a, peer):
        peer.loses_answers = True
        await write(a, 2)
        await until(peer.has("A:2"))
        await until(peer.heard(3))
        peer.loses_answers = False
        await write(a, 2)
        await until(peer.has("A:4"))
    assert peer.node.applied == await a.store.log.after("A", 0, 10)


async def test_a_peer_that_refuses_is_asked_again(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    refusals = iter(["it answered 403: unknown peer", "it answered 503: no Redis"])

    async def refusing(url: str, batch: Batch) -> Answer:
        if why := next(refusals, None):
            raise PeerRefused(why)
        return await peer(url, batch)

    await write(a, 2)
    async with running(link_to(a, refusing)):
        await until(peer.has("A:2"))
    assert peer.sent == own(2)


async def test_the_board_says_whether_a_peer_is_reached_and_where_it_stands(
    make_store: MakeStore,
) -> None:
    a, peer = await make_store("A"), Peer()
    board = board_of(a)
    peer.ahead_us = 5_000_000
    async with sending(a, peer):
        await write(a, 2)
        report = await until_report(board, lambda report: report.clock["A"] == 2)
        clock = VectorClock({"A": 2})
        assert report == PeerReport(clock, "", 1_000_000, 5_000_000, clock)
        peer.reachable = False
        report = await until_report(board, lambda report: bool(report.error))
        assert report == PeerReport(clock, "the line is dead", 1_000_000, 5_000_000, clock)
        peer.reachable = True
        await until_report(board, lambda report: not report.error)


async def test_a_peer_that_lost_its_state_is_sent_all_again(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    async with sending(a, peer):
        await write(a, 5)
        await until(peer.has("A:5"))
        peer.node = Node("B")
        await until(peer.has("A:5"))
    assert peer.sent == own(5) + own(5)


async def test_a_peer_that_lost_its_last_writes_is_sent_these_again(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    async with sending(a, peer):
        await write(a, 5)
        await until(peer.has("A:5"))
        peer.node = Node("B", applied=peer.node.applied[:3])
        await until(peer.has("A:5"))
    assert peer.sent == own(5) + own(2, first=4)


# --- snapshots ------------------------------------------------------------------------------------


class PeerThatReceives(Peer):
    """B, which takes snapshots as a node does, and knows by heart what A wrote."""

    def __init__(self, b: Store, written: list[Write]) -> None:
        super().__init__()
        self.store = b
        self.written = written
        self.parts: list[Part] = []

    async def __call__(self, url: str, batch: Batch) -> Answer:
        answer = await super().__call__(url, batch)
        if batch.part is None:
            return answer
        self.parts.append(batch.part)
        held = await self.store.snapshots.stage_part("B", "A", batch.part, 0, 1)
        assert isinstance(held, Kept)
        if batch.part.cut is not None and held.last == batch.part.name:
            self.node.merge(self.written)
        return replace(answer, kept=held)


async def test_a_peer_that_lacks_what_the_log_has_no_more_is_sent_a_snapshot(
    make_store: MakeStore,
) -> None:
    a, b = await make_store("A"), await make_store("B")
    await write(a, 5)
    written = await a.store.log.after("A", 0, 9)
    await a.redis.xtrim("log:A", minid="3-0", approximate=False)
    peer = PeerThatReceives(b, written)
    async with running(link_to(a, peer)):
        await until(peer.has("A:5"))
        assert peer.sent == []
        assert peer.parts[0].name == ""
        assert [part.cut is not None for part in peer.parts] == [False, False, True]
        # From there on the log serves again.
        await write(a, 1)
        await until(peer.has("A:6"))
        assert peer.sent == ["A:6"]
        assert await board_of(a).sending("B") is None


async def trimmed_while_the_peer_gets_all_by_another(store: Store, peer: Peer) -> None:
    """A third node has what the peer lacks, and gives it to it; so the log lets it go."""
    here = await store.store.clock()
    lacks = await store.store.log.after("A", peer.node.clock["A"], here["A"])
    peer.node.receive(lacks)
    await store.redis.xtrim("log:A", minid=f"{here['A']}-0", approximate=False)


async def test_a_peer_that_others_have_served_while_it_was_away_is_sent_no_snapshot(
    make_store: MakeStore,
) -> None:
    a, peer = await make_store("A"), Peer()
    async with sending(a, peer, heartbeat_ms=NEVER_MS):
        await write(a, 2)
        await until(peer.has("A:2"))
        peer.reachable = False
        await write(a, KEPT_MAX + 2)  # so that they have to be read from the log
        await until_report(board_of(a), lambda report: bool(report.error))
        await trimmed_while_the_peer_gets_all_by_another(a, peer)
        await until(peer.heard(2))  # the second was gathered after that
        peer.batches.clear()
        peer.reachable = True
        await until(lambda: bool(peer.batches))
        await write(a)
        await until(peer.has(f"A:{KEPT_MAX + 5}"))
    assert peer.sent == [f"A:{KEPT_MAX + 5}"]
    assert not [batch.part for batch in peer.batches if batch.part]


async def test_that_a_peer_needs_a_snapshot_does_not_outlast_the_lease(
    make_store: MakeStore,
) -> None:
    a, peer = await make_store("A"), Peer()
    await write(a, 5)
    await a.redis.xtrim("log:A", minid="3-0", approximate=False)
    written = Node("A")
    for n in range(1, 6):
        written.write([Put("lunch", b"noon?")], 999_999 + n)

    class Failing(Board):
        """Redis fails when the peer has been asked, and has been served by others."""

        async def post_peer(self, peer_id: str, report: PeerReport) -> None:
            if peer.batches[-1].part and not peer.node.clock:
                peer.node.receive(written.applied)
                peer.batches.clear()
                raise RedisUnavailable("it is slow")
            await super().post_peer(peer_id, report)

    board = Failing(a.redis, a.keys, a.scripts, "first")
    async with running(link_to(a, peer, board=board)):
        await until(peer.has("A:5"))
        await until(peer.answered(3))
    assert not [batch.part for batch in peer.batches if batch.part]


async def test_who_receives_another_snapshot_is_asked_again_later(make_store: MakeStore) -> None:
    a = await make_store("A")
    await write(a, 5)
    await a.redis.xtrim("log:A", minid="3-0", approximate=False)
    peer = Peer()
    async with running(link_to(a, peer)):
        await until(lambda: sum(batch.part is not None for batch in peer.batches) > 2)
        assert all(not batch.part.keys for batch in peer.batches if batch.part)
        # The peer gets from elsewhere what is gone here: then the link goes on.
        lost = Node("A")
        for n in (1, 2):
            lost.write([Put("lunch", b"noon?")], 999_999 + n)
        peer.node.receive(lost.applied)
        await until(peer.has("A:5"))


# --- relay ----------------------------------------------------------------------------------------


def of_c(count: int) -> list[Write]:
    c = Node("C")
    return [c.write([Put("tea", b"five")], n) for n in range(1, count + 1)]


async def test_what_others_wrote_is_left_to_them_at_first(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    await receive(a, *of_c(3))
    async with sending(a, peer):
        await write(a)
        await until(lambda: "A:1" in peer.sent)
        await until(peer.answered(5))
    assert peer.sent == ["A:1"]


async def test_a_peer_that_stays_behind_is_sent_what_others_wrote(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    await receive(a, *of_c(3))
    async with sending(a, peer, relay_after_ms=1):
        await until(peer.has("C:3"))
    assert peer.node.applied == of_c(3)


async def test_what_waits_at_a_peer_is_applied_when_its_cause_is_relayed(
    make_store: MakeStore,
) -> None:
    """C writes, A answers; the link from C to B is cut."""
    a, peer = await make_store("A"), Peer()
    await receive(a, *of_c(2))
    await write(a, 2)
    async with sending(a, peer, relay_after_ms=100):
        await until(peer.has("A:2 C:2"))
        await until(peer.answered(3))
    assert Counter(peer.sent) == Counter(["C:1", "C:2", "A:1", "A:2"])


async def test_writes_of_several_actors_go_out_in_causal_order(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    c, d = Node("C"), Node("D")
    for n in range(1, 7):
        author, other = (c, d) if n % 2 else (d, c)
        answer = author.write([Put("talk", b"%d" % n)], n)
        other.receive([answer])
        await receive(a, answer)
    peer.reachable = False
    async with sending(a, peer, relay_after_ms=1):
        peer.reachable = True
        await until(peer.has("C:3 D:3"))
    assert all(answer.pending == 0 for answer in peer.answers)


async def test_a_peer_that_is_being_served_by_others_is_not_relayed_to(
    make_store: MakeStore,
) -> None:
    """Its clock moves with every answer: it lacks some, and does not stay behind."""
    a, c = await make_store("A"), Node("C")
    writes = [c.write([Put("tea", b"five")], n) for n in range(1, 41)]
    await receive(a, *writes)

    class Served(Peer):
        async def __call__(self, url: str, batch: Batch) -> Answer:
            self.node.receive(writes[len(self.batches) : len(self.batches) + 1])
            return await super().__call__(url, batch)

    peer = Served()
    async with sending(a, peer, heartbeat_ms=1, relay_after_ms=600_000):
        await until(peer.has("C:40"))
    assert peer.sent == []


# --- limits ---------------------------------------------------------------------------------------


async def test_a_peer_that_is_full_is_sent_again_what_it_refused(make_store: MakeStore) -> None:
    a = await make_store("A")
    await receive(a, *of_c(1))
    await write(a, 3)
    peer = Peer(Node("B", pending_max=1))
    async with sending(a, peer):
        await until(lambda: sum(answer.refused for answer in peer.answers) >= 6)
        assert peer.node.clock == VectorClock()
        peer.node.receive(of_c(1))
        await until(peer.has("A:3 C:1"))
    assert peer.node.versions("lunch")[0].dot == ("A", 3)


# --- faults ---------------------------------------------------------------------------------------


async def test_a_cut_link_carries_nothing_until_it_is_healed(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    board = board_of(a)
    async with sending(a, peer, faults=True) as link:
        await board.set_fault("B", Fault(cut=True))
        link.fault_changed()
        await until_report(board, lambda report: "cut by a fault" in report.error)
        before = len(peer.batches)
        await write(a, 2)
        assert len(peer.batches) == before
        await board.set_fault("B", HEALTHY)
        link.fault_changed()
        await until(peer.has("A:2"))
        await until_report(board, lambda report: not report.error)


async def test_what_was_delayed_goes_out_when_the_link_is_healed(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    board = board_of(a)
    await board.set_fault("B", Fault(delay_ms=600_000))
    await write(a, 2)
    link = link_to(a, peer, faults=True)
    async with running(link):
        await until_leased(a)
        await board.set_fault("B", HEALTHY)

        def heal() -> bool:
            link.fault_changed()
            return peer.has("A:2")()

        await until(heal)


async def test_a_link_without_relay_carries_own_writes_only(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    board = board_of(a)
    await board.set_fault("B", Fault(no_relay=True))
    await receive(a, *of_c(1))
    await write(a)
    async with sending(a, peer, faults=True, relay_after_ms=1) as link:
        await until(lambda: "A:1" in peer.sent)
        await until(peer.answered(5))
        assert set(peer.sent) == {"A:1"}
        await board.set_fault("B", HEALTHY)
        link.fault_changed()
        await until(peer.has("A:1 C:1"))


@pytest.mark.parametrize(
    "fault",
    [
        Fault(drop=0.5),
        Fault(duplicate=0.7),
        Fault(reorder=0.7),
        Fault(drop=0.3, duplicate=0.3, reorder=0.3, jitter_ms=2),
    ],
    ids=str,
)
async def test_a_bad_link_loses_and_repeats_nothing(make_store: MakeStore, fault: Fault) -> None:
    a, peer = await make_store("A"), Peer()
    await board_of(a).set_fault("B", fault)
    async with sending(a, peer, faults=True, batch_max_writes=3):
        await write(a, 40)
        await until(peer.has("A:40"))
    assert peer.node.applied == await a.store.log.after("A", 0, 100)


# --- leases ---------------------------------------------------------------------------------------


async def until_leased(store: Store) -> None:
    async with asyncio.timeout(40):
        while not await store.redis.exists("lease:B"):
            await asyncio.sleep(0.002)


async def test_of_two_workers_one_sends_and_the_other_takes_over_when_it_ends(
    make_store: MakeStore,
) -> None:
    a, first, second = await make_store("A"), Peer(), Peer()
    # The second looks for the lease every two seconds.
    sender = asyncio.create_task(link_to(a, first, "first", lease_ms=6000).run())
    try:
        await until(first.answered(1))
        async with running(link_to(a, second, "second", lease_ms=6000)):
            await write(a, 2)
            await until(first.has("A:2"))
            await until(first.answered(5))
            assert second.batches == []
            await end(sender)
            ended_with = len(first.batches)
            await write(a, 2)
            await until(second.has("A:4"))
            assert len(first.batches) == ended_with
            assert await a.redis.get("lease:B") == b"second"
    finally:
        await end(sender)
    assert not await a.redis.exists("lease:B"), "a link that ends frees its lease"


@pytest.mark.parametrize("how", ["runs out", "is taken away"])
async def test_the_lease_of_a_worker_that_died_passes_on(make_store: MakeStore, how: str) -> None:
    a, peer = await make_store("A"), Peer()
    await write(a)
    assert await board_of(a, "dead").hold_lease("B", DAY_MS)
    async with running(link_to(a, peer, lease_ms=60)):
        assert peer.batches == []
        await (a.redis.pexpire("lease:B", 0) if how == "runs out" else a.redis.delete("lease:B"))
        await until(peer.has("A:1"))


async def test_a_lease_is_kept_while_an_exchange_takes_long(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    async with sending(a, peer, heartbeat_ms=20, lease_ms=3000):
        peer.open.clear()
        await until(peer.heard(1))
        # As if most of its time had passed:
        await a.redis.pexpire("lease:B", 2000)
        await prolonged(lambda: a.redis.pttl("lease:B"), beyond=2000)
        assert await a.redis.get("lease:B") == b"first"
        peer.open.set()


async def test_a_lease_is_kept_while_a_link_is_idle(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    async with sending(a, peer, heartbeat_ms=2999, lease_ms=3000):
        await a.redis.pexpire("lease:B", 2000)
        await prolonged(lambda: a.redis.pttl("lease:B"), beyond=2000)


async def prolonged(left_ms: Callable[[], Awaitable[int]], *, beyond: int) -> None:
    """More than `beyond` milliseconds are left again."""
    async with asyncio.timeout(40):
        while await left_ms() <= beyond:
            await asyncio.sleep(0.002)


async def test_a_link_that_loses_its_lease_stops_sending(make_store: MakeStore) -> None:
    a, peer = await make_store("A"), Peer()
    refused_at: list[int] = []

    class Noting(Board):
        async def hold_lease(self, peer_id: str, ttl_ms: int) -> bool:
            held = await super().hold_lease(peer_id, ttl_ms)
            if not held:
                refused_at.append(len(peer.batches))
            return held

    board = Noting(a.redis, a.keys, a.scripts, "first")
    async with running(link_to(a, peer, board=board, heartbeat_ms=20, lease_ms=90)):
        await until(peer.answered(1))
        await a.redis.set("lease:B", "another")
        await until(lambda: bool(refused_at))
        await write(a, 3)
        goal = len(refused_at) + 3
        await until(lambda: len(refused_at) >= goal)
        assert set(refused_at) == {len(peer.batches)}, "it asks for the lease, and sends nothing"
        assert await a.redis.get("lease:B") == b"another"
        await a.redis.delete("lease:B")
        await until(peer.has("A:3"))


async def test_a_link_outlasts_a_redis_that_fails_when_it_is_to_say_why_nothing_is_sent(
    make_store: MakeStore,
) -> None:
    a, peer = await make_store("A"), Peer()
    doubts, failures = [InvariantError("a doubt (G4)")], [RedisUnavailable("it is slow")]

    class Failing(Board):
        async def hold_lease(self, peer_id: str, ttl_ms: int) -> bool:
            if doubts:
                raise doubts.pop()
            return await super().hold_lease(peer_id, ttl_ms)

        async def post_peer(self, peer_id: str, report: PeerReport) -> None:
            if failures:
                raise failures.pop()
            await super().post_peer(peer_id, report)

    board = Failing(a.redis, a.keys, a.scripts, "first")
    async with running(link_to(a, peer, board=board)):
        await until(lambda: bool(peer.answers))
    assert not failures


async def test_what_a_peer_heard_counts_for_members_that_cannot_be_reached(
    make_store: MakeStore,
) -> None:
    """It is asked for now and then, and is written down for nobody else, nor where something newer
    was heard. It is told by the clock of the peer, which is five seconds ahead."""
    a = await make_store("A")
    board, clock = board_of(a), VectorClock({"A": 3})
    told = Standing(clock, clock.increment("A"))
    before = Heard(Standing(VectorClock(), VectorClock({"A": 1})), 900_000)

    class Knows(Peer):
        def answer(self, outcomes: Counter[Any]) -> Answer:
            heard = dict.fromkeys("CDFX", Heard(told, 5_900_000)) | {"E": Heard(told, 5_899_999)}
            hearsay = heard if self.batches[-1].asks_hearsay else {}
            return replace(super().answer(outcomes), hearsay=hearsay)

    for node in "CEF":
        await board.post_peer(node, PeerReport(VectorClock(), "it is away"))
    await board.post_peer("D", PeerReport(VectorClock(), ""))
    # What was heard of F seems to be of the future: the clock was set back since.
    await board.post_hearsay({"E": before, "F": replace(before, at_us=1_000_001)})
    peers = {"B": URL} | {node: f"http://{node}" for node in "CDEF"}
    peer = Knows()
    peer.ahead_us = 5_000_000
    async with running(link_to(a, peer, peers=peers, trim_ms=50)):
        await until(lambda: sum(batch.asks_hearsay for batch in peer.batches) > 2)
    assert not all(batch.asks_hearsay for batch in peer.batches)
    reports = await board.peers("CDEFX")
    here = Heard(told, 900_000)
    assert [reports[node].hearsay for node in "CDEFX"] == [here, UNHEARD, before, here, UNHEARD]
    assert [reports[node].has for node in "CDE"] == [clock, VectorClock(), VectorClock()]
