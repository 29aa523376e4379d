"""Logs are trimmed to what some member lacks, and to the caps in any case."""

from dataclasses import replace
from typing import Any

import pytest

from app.board import Board, PeerReport
from app.config import Config
from app.patience import LONGEST_S
from app.snapshot import Sending
from app.standing import Heard, Standing
from app.trimming import Trimmer
from app.vector_clock import Dot, VectorClock
from app.write import Put, Write
from tests.conftest import SERVERS, MakeStore, Store

NOW_US = 10**12

# fakeredis cannot say how much memory a key takes.
pytestmark = pytest.mark.parametrize("make_redis", SERVERS, indirect=True)


def clock(text: str) -> VectorClock:
    return VectorClock.parse(text)


def board_of(store: Store) -> Board:
    return Board(store.redis, store.keys, store.scripts, "a worker")


async def trim(store: Store, **settings: Any) -> None:
    config = Config(node_id="A", **{"log_min_entries": 0, **settings})
    peers = ("B", "C")
    trimmer = Trimmer(config, store.store, board_of(store), lambda: peers, lambda: NOW_US)
    await trimmer.trim()


async def node_a(make_store: MakeStore, own: int, of_b: int = 0, value: bytes = b"") -> Store:
    """A, which wrote so many and has so many of B."""
    store: Store = await make_store("A")
    for _ in range(own):
        await store.store.commit([Put("x", value)])
    theirs = [
        Write(Dot("B", n), VectorClock({"B": n - 1}), n, (Put("y", value),))
        for n in range(1, of_b + 1)
    ]
    await store.buffer.receive(theirs)
    return store


async def heard(store: Store, **clocks: str) -> None:
    for peer, text in clocks.items():
        await board_of(store).post_peer(peer, PeerReport(clock(text), "", NOW_US))


def said(text: str) -> Heard:
    """What others tell of a member that has applied so much."""
    return Heard(Standing(clock(text), clock(text)), NOW_US)


async def held(store: Store, actor: str = "A") -> list[int]:
    entries = await store.redis.xrange(f"log:{actor}")
    return [int(entry_id.partition(b"-")[0]) for entry_id, _ in entries]


async def test_what_every_member_has_goes(make_store: MakeStore) -> None:
    a = await node_a(make_store, 5, of_b=4)
    await heard(a, B="A:4 B:4", C="A:3 B:1")
    await trim(a)
    assert await held(a) == [4, 5]
    assert await held(a, "B") == [2, 3, 4]


async def test_nothing_goes_that_a_member_lacks_of_which_nothing_was_heard(
    make_store: MakeStore,
) -> None:
    a = await node_a(make_store, 5)
    await heard(a, B="A:5")
    await trim(a)
    assert await held(a) == [1, 2, 3, 4, 5]


async def test_what_others_say_counts_for_a_member_that_cannot_be_reached(
    make_store: MakeStore,
) -> None:
    a = await node_a(make_store, 5)
    await heard(a, B="A:5")
    await board_of(a).post_hearsay({"C": said("A:3")})
    await trim(a)
    assert await held(a) == [4, 5]
    # What it says itself is newer: it has lost its disk.
    await heard(a, C="A:1")
    await board_of(a).post_hearsay({"C": said("A:5")})
    await trim(a)
    assert await held(a) == [4, 5]
    await board_of(a).post_peer("C", PeerReport(clock("A:1"), "away", NOW_US))
    await trim(a)
    assert await held(a) == []


async def test_the_newest_stay_although_every_member_has_them(make_store: MakeStore) -> None:
    a = await node_a(make_store, 5)
    await heard(a, B="A:5", C="A:5")
    await trim(a, log_min_entries=2)
    assert await held(a) == [4, 5]


async def test_writes_that_come_meanwhile_are_not_in_the_way(make_store: MakeStore) -> None:
    """Not even if the log has become several times as long as it was."""
    a = await node_a(make_store, 1)

    class Busy(Board):
        async def sending(self, peer: str) -> Sending | None:
            for _ in range(10):
                await a.store.commit([Put("x", b"")])
            return None

    board = Busy(a.redis, a.keys, a.scripts, "a worker")
    config = Config(node_id="A", log_min_entries=5)
    await Trimmer(config, a.store, board, lambda: ("B",), lambda: NOW_US).trim()
    last = (await a.store.clock())["A"]
    assert last > 10 and await held(a) == list(range(1, last + 1))


async def test_a_log_over_its_cap_loses_its_beginning(make_store: MakeStore) -> None:
    a = await node_a(make_store, 9, of_b=3)
    await heard(a, B="A:9 B:3")
    await trim(a, log_max_entries=4)
    assert await held(a) == [6, 7, 8, 9]
    assert await held(a, "B") == [1, 2, 3]
    await trim(a, log_max_entries=4)
    assert await held(a) == [6, 7, 8, 9]


async def test_logs_over_their_bytes_are_shortened_alike(make_store: MakeStore) -> None:
    a = await node_a(make_store, 200, of_b=100, value=bytes(1000))
    before = await a.store.log.sizes(["A", "B"])
    total = before["A"].bytes + before["B"].bytes
    await trim(a, log_max_bytes=total // 2)
    after = await a.store.log.sizes(["A", "B"])
    assert 90 <= after["A"].entries <= 110
    assert 45 <= after["B"].entries <= 55
    assert (await held(a))[-1] == 200


async def test_what_a_snapshot_that_is_being_sent_needs_stays(make_store: MakeStore) -> None:
    a = await node_a(make_store, 9)
    await heard(a, B="A:9")
    sending = Sending("s1", "a run", 0, True, clock("A:2"), heard_us=NOW_US)
    await board_of(a).post_sending("C", sending)
    await trim(a, log_max_entries=4)
    assert await held(a) == [3, 4, 5, 6, 7, 8, 9]
    # A part of it may take as long as an answer is waited for.
    arriving = replace(sending, heard_us=NOW_US - int(LONGEST_S * 1_000_000))
    await board_of(a).post_sending("C", arriving)
    await trim(a, log_max_entries=4)
    assert await held(a) == [3, 4, 5, 6, 7, 8, 9]
    # Not for ever, if nothing comes of it.
    await board_of(a).post_sending("C", Sending("s1", "a run", 0, True, clock("A:2")))
    await trim(a, log_max_entries=4)
    assert await held(a) == [6, 7, 8, 9]
