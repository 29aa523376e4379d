"""Each fault of a link, with a send that is scripted and a random that is seeded."""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import BadFault, PeerRefused, PeerUnreachable
from app.faults import HEALTHY, Fault, FaultyLink, fault_text, parse_fault
from app.vector_clock import Dot, VectorClock
from app.wire import Answer, Batch
from app.write import Delete, Write

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

LONG_MS = 600_000


def batch(first: int, count: int = 1) -> Batch:
    """Writes of A from `first` on."""
    writes = tuple(
        Write(Dot("A", n), VectorClock({"A": n - 1}), n, (Delete("k"),))
        for n in range(first, first + count)
    )
    return Batch("A", "B", VectorClock({"A": first + count - 1}), writes)


HEARTBEAT = batch(1, 0)


class Peer:
    """Takes batches, and numbers its answers."""

    def __init__(self) -> None:
        self.got: list[Batch] = []
        self.fails: Exception | None = None

    async def send(self, sent: Batch) -> Answer:
        if self.fails:
            raise self.fails
        self.got.append(sent)
        clock = VectorClock({"B": len(self.got)})
        return Answer("B", clock, clock, VectorClock(), 0, 0, 0, 0, 1)

    @property
    def dots(self) -> list[list[str]]:
        return [[str(write.dot) for write in one.writes] for one in self.got]


def answer_number(answer: Answer) -> int:
    return answer.clock["B"]


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
async def link() -> FaultyLink:
    return FaultyLink(random.Random(1))


async def settle() -> None:
    """Everything that can run without time passing has run."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Holds the loop's time, and moves it on by so many seconds."""
    loop = asyncio.get_running_loop()
    now = loop.time()

    def pass_(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(loop, "time", lambda: now)
    return pass_


# --- no fault ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [HEALTHY, Fault(), Fault(no_relay=True)])
async def test_a_link_that_loses_nothing_carries_batches_untouched(
    link: FaultyLink, peer: Peer, fault: Fault
) -> None:
    sent = [batch(1, 3), HEARTBEAT, batch(4)]
    answers = [await link.carry(one, fault, peer.send) for one in sent]
    assert all(got is one for got, one in zip(peer.got, sent, strict=True))
    assert [answer_number(answer) for answer in answers] == [1, 2, 3]


@pytest.mark.parametrize("fault", [HEALTHY, Fault(delay_ms=1), Fault(duplicate=1.0)])
@pytest.mark.parametrize("error", [PeerUnreachable("down"), PeerRefused("no")])
async def test_what_sending_raises_is_raised(
    link: FaultyLink, peer: Peer, fault: Fault, error: Exception
) -> None:
    peer.fails = error
    with pytest.raises(type(error)) as caught:
        await link.carry(batch(1), fault, peer.send)
    assert caught.value is error


# --- cut and drop --------------------------------------------------------------------------------


async def test_a_cut_link_lets_nothing_through(link: FaultyLink, peer: Peer) -> None:
    for one in (batch(1), HEARTBEAT):
        with pytest.raises(PeerUnreachable, match="cut by a fault"):
            await link.carry(one, Fault(cut=True, duplicate=1.0), peer.send)
    assert peer.got == []
    await link.carry(batch(1), HEALTHY, peer.send)
    assert peer.dots == [["A:1"]]


async def test_what_is_dropped_is_the_batch_or_the_answer_to_it(
    link: FaultyLink, peer: Peer
) -> None:
    reasons = set()
    for first in range(1, 41):
        before = len(peer.got)
        with pytest.raises(PeerUnreachable) as caught:
            await link.carry(batch(first), Fault(drop=1.0), peer.send)
        arrived = len(peer.got) > before
        lost = "the answer" if arrived else "the batch"
        assert str(caught.value) == f"{lost} was dropped by a fault"
        reasons.add(lost)
    assert reasons == {"the answer", "the batch"}


async def test_a_probability_is_neither_never_nor_always(link: FaultyLink, peer: Peer) -> None:
    lost = 0
    for first in range(1, 201):
        try:
            await link.carry(batch(first), Fault(drop=0.5), peer.send)
        except PeerUnreachable:
            lost += 1
    assert 0 < lost < 200


async def test_the_same_seed_gives_the_same_faults() -> None:
    async def history() -> list[list[str]]:
        peer, link = Peer(), FaultyLink(random.Random(7))
        for first in range(1, 40, 2):
            try:
                await link.carry(
                    batch(first, 2), Fault(drop=0.3, duplicate=0.3, reorder=0.3), peer.send
                )
            except PeerUnreachable as error:
                peer.got.append(batch(1, 0))
                assert "by a fault" in str(error)
        return peer.dots

    assert await history() == await history()


# --- duplicate and reorder -----------------------------------------------------------------------


async def test_a_duplicated_batch_arrives_twice_and_the_last_answer_counts(
    link: FaultyLink, peer: Peer
) -> None:
    answer = await link.carry(batch(1, 2), Fault(duplicate=1.0), peer.send)
    assert peer.dots == [["A:1", "A:2"], ["A:1", "A:2"]]
    assert answer_number(answer) == 2


async def test_a_reordered_batch_arrives_after_the_next_one(link: FaultyLink, peer: Peer) -> None:
    fault = Fault(reorder=1.0)
    with pytest.raises(PeerUnreachable, match="held back by a fault"):
        await link.carry(batch(1), fault, peer.send)
    assert peer.got == []
    answer = await link.carry(batch(2), fault, peer.send)
    assert peer.dots == [["A:2"], ["A:1"]]
    assert answer_number(answer) == 1, "the answer to the batch that was asked about"


async def test_a_held_batch_arrives_once(link: FaultyLink, peer: Peer) -> None:
    with pytest.raises(PeerUnreachable):
        await link.carry(batch(1), Fault(reorder=1.0), peer.send)
    await link.carry(batch(2), Fault(no_relay=True), peer.send)
    await link.carry(batch(3), Fault(no_relay=True), peer.send)
    assert peer.dots == [["A:2"], ["A:1"], ["A:3"]]


async def test_the_writes_of_a_reordered_batch_are_shuffled_and_none_is_lost(
    link: FaultyLink, peer: Peer
) -> None:
    first, second = batch(1, 20), batch(21, 20)
    with pytest.raises(PeerUnreachable):
        await link.carry(first, Fault(reorder=1.0), peer.send)
    await link.carry(second, Fault(reorder=1.0), peer.send)
    for got, sent in zip(peer.got, (second, first), strict=True):
        assert set(got.writes) == set(sent.writes)
        assert got.writes != sent.writes
        assert (got.sender, got.receiver, got.clock) == (sent.sender, sent.receiver, sent.clock)


async def test_a_heartbeat_is_not_held_back(link: FaultyLink, peer: Peer) -> None:
    await link.carry(HEARTBEAT, Fault(reorder=1.0), peer.send)
    assert peer.got == [HEARTBEAT]


async def test_a_batch_is_held_until_the_next_has_got_through(link: FaultyLink, peer: Peer) -> None:
    with pytest.raises(PeerUnreachable):
        await link.carry(batch(1), Fault(reorder=1.0), peer.send)
    peer.fails = PeerUnreachable("down")
    with pytest.raises(PeerUnreachable, match="down"):
        await link.carry(batch(2), Fault(reorder=1.0), peer.send)
    peer.fails = None
    await link.carry(batch(2), Fault(reorder=1.0), peer.send)
    assert peer.dots == [["A:2"], ["A:1"]]


# --- delay ---------------------------------------------------------------------------------------


async def test_a_delayed_batch_goes_out_when_the_delay_has_passed(
    link: FaultyLink, peer: Peer, pass_time: Callable[[float], None]
) -> None:
    carrying = asyncio.create_task(link.carry(batch(1), Fault(delay_ms=2000), peer.send))
    await settle()
    pass_time(1.9)
    await settle()
    assert peer.got == []
    pass_time(0.2)
    assert answer_number(await carrying) == 1
    assert peer.dots == [["A:1"]]


async def test_jitter_comes_on_top_of_the_delay_and_differs(
    peer: Peer, pass_time: Callable[[float], None]
) -> None:
    fault = Fault(delay_ms=1000, jitter_ms=1000)
    links = [FaultyLink(random.Random(seed)) for seed in range(20)]
    carrying = [asyncio.create_task(link.carry(batch(1), fault, peer.send)) for link in links]
    await settle()
    pass_time(0.9)
    await settle()
    assert peer.got == []
    pass_time(0.6)
    await settle()
    assert 0 < len(peer.got) < len(links)
    pass_time(0.6)
    await asyncio.gather(*carrying)
    assert len(peer.got) == len(links)


@pytest.mark.parametrize("fault", [Fault(delay_ms=LONG_MS), Fault(jitter_ms=LONG_MS)])
async def test_a_change_of_the_fault_releases_what_was_delayed(
    link: FaultyLink, peer: Peer, fault: Fault, pass_time: Callable[[float], None]
) -> None:
    carrying = asyncio.create_task(link.carry(batch(1), fault, peer.send))
    await settle()
    assert peer.got == []
    link.changed()
    assert answer_number(await carrying) == 1
    assert peer.dots == [["A:1"]]


async def test_a_change_concerns_what_is_delayed_now_and_not_what_comes_later(
    link: FaultyLink, peer: Peer, pass_time: Callable[[float], None]
) -> None:
    link.changed()
    carrying = asyncio.create_task(link.carry(batch(1), Fault(delay_ms=LONG_MS), peer.send))
    await settle()
    assert peer.got == []
    link.changed()
    await carrying


async def test_a_delay_that_is_given_up_sends_nothing(link: FaultyLink, peer: Peer) -> None:
    carrying = asyncio.create_task(link.carry(batch(1), Fault(delay_ms=LONG_MS), peer.send))
    await settle()
    carrying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await carrying
    assert peer.got == []


# --- what a person asks for ----------------------------------------------------------------------

faults = st.builds(
    Fault,
    delay_ms=st.integers(0, LONG_MS),
    jitter_ms=st.integers(0, LONG_MS),
    drop=st.floats(0, 1),
    duplicate=st.floats(0, 1),
    reorder=st.floats(0, 1),
    cut=st.booleans(),
    no_relay=st.booleans(),
)


@patient
@given(faults)
def test_a_stored_fault_comes_back(fault: Fault) -> None:
    assert parse_fault(fault_text(fault).encode()) == fault
    assert parse_fault(json.dumps(fault.to_dict()).encode()) == fault


def test_every_field_is_optional_and_nothing_is_healthy() -> None:
    assert parse_fault(b"{}") == HEALTHY
    assert parse_fault(b'{"drop": 1, "cut": true}') == Fault(drop=1.0, cut=True)
    assert parse_fault(b' {"delay_ms": 600000} ') == Fault(delay_ms=LONG_MS)


def test_a_fault_is_shown_with_all_its_fields() -> None:
    assert Fault(cut=True).to_dict() == {
        "delay_ms": 0,
        "jitter_ms": 0,
        "drop": 0.0,
        "duplicate": 0.0,
        "reorder": 0.0,
        "cut": True,
        "no_relay": False,
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"true",
        b'"cut"',
        b"cut=true",
        b"\xff",
        b'{"cut": "\xff"}',
        b'{"cut": true} x',
        b'{"cut": 1}',
        b'{"cut": "true"}',
        b'{"no_relay": null}',
        b'{"delay_ms": -1}',
        b'{"delay_ms": 600001}',
        b'{"delay_ms": 1.5}',
        b'{"delay_ms": "100"}',
        b'{"delay_ms": true}',
        b'{"jitter_ms": -1}',
        b'{"jitter_ms": 1e400}',
        b'{"drop": -0.1}',
        b'{"drop": 1.1}',
        b'{"drop": NaN}',
        b'{"drop": "0.5"}',
        b'{"duplicate": 2}',
        b'{"reorder": -1}',
        b'{"delay": 100}',
        b'{"Cut": true}',
        b'{"cut": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_fault_is_refused(body: bytes) -> None:
    with pytest.raises(BadFault) as caught:
        parse_fault(body)
    assert caught.value.outcome == "not_applied"
    assert "The link is as it was." in caught.value.detail


def test_a_refusal_names_the_field() -> None:
    with pytest.raises(BadFault, match="drop"):
        parse_fault(b'{"drop": 1.1}')
    with pytest.raises(BadFault, match="dalay_ms"):
        parse_fault(b'{"dalay_ms": 100}')


@patient
@given(st.binary())
def test_any_body_is_a_fault_or_refused(body: bytes) -> None:
    with contextlib.suppress(BadFault):
        parse_fault(body)
