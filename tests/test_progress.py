"""Waiting for the node to come further: who wakes, when, and what is said of what is missing."""

import asyncio
from collections.abc import Callable

import pytest

from app.progress import Progress
from app.vector_clock import Dot, VectorClock


def clock(text: str) -> VectorClock:
    return VectorClock.parse(text)


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


class Redis:
    """The clock in Redis, and how often it was read."""

    def __init__(self, seen: str = "") -> None:
        self.seen = clock(seen)
        self.reads = 0

    async def refresh(self) -> VectorClock:
        self.reads += 1
        return self.seen


# --- advancing -----------------------------------------------------------------------------------


def test_a_clock_that_is_told_is_joined_with_what_is_known() -> None:
    progress = Progress(clock("A:1"))
    progress.advance(clock("B:2"))
    progress.advance(clock("A:3"))
    assert progress.clock == clock("A:3 B:2")


def test_old_news_changes_nothing_and_is_told_to_nobody() -> None:
    progress = Progress(clock("A:3 B:2"))
    calls: list[VectorClock] = []
    progress.on_advance(lambda: calls.append(progress.clock))
    for text in ("", "A:1", "A:3 B:2"):
        progress.advance(clock(text))
    assert progress.clock == clock("A:3 B:2")
    assert calls == []


def test_each_listener_is_told_of_each_advance_after_it() -> None:
    progress = Progress()
    first: list[VectorClock] = []
    second: list[VectorClock] = []
    progress.on_advance(lambda: first.append(progress.clock))
    progress.on_advance(lambda: second.append(progress.clock))
    progress.advance(clock("A:1"))
    progress.advance(clock("B:1"))
    assert first == second == [clock("A:1"), clock("A:1 B:1")]


def test_who_is_forgotten_is_told_no_more() -> None:
    progress = Progress()
    calls: list[VectorClock] = []

    def listener() -> None:
        calls.append(progress.clock)

    progress.on_advance(listener)
    progress.advance(clock("A:1"))
    progress.forget(listener)
    progress.advance(clock("A:2"))
    assert calls == [clock("A:1")]


# --- waiting -------------------------------------------------------------------------------------


async def test_what_is_covered_is_not_waited_for_and_redis_is_not_asked() -> None:
    redis = Redis()
    progress = Progress(clock("A:3"))
    assert not await progress.reach(clock("A:2"), 0, redis.refresh)
    assert not await progress.reach(VectorClock(), 0, redis.refresh)
    assert redis.reads == 0


async def test_what_another_worker_has_applied_is_found_in_redis() -> None:
    redis = Redis("A:3")
    progress = Progress(clock("A:1"))
    assert not await progress.reach(clock("A:2"), 0, redis.refresh)
    assert progress.clock == clock("A:3")
    assert redis.reads == 1


async def test_a_waiter_wakes_when_its_context_is_covered_and_only_then() -> None:
    redis = Redis()
    progress = Progress()
    waiting = asyncio.create_task(progress.reach(clock("A:2 B:1"), 600, redis.refresh))
    for text in ("", "A:1", "A:2", "C:9"):
        progress.advance(clock(text))
        await settle()
        assert not waiting.done()
    progress.advance(clock("B:5"))
    assert await waiting == VectorClock()
    assert redis.reads == 1, "once at first, and not again"


async def test_each_of_many_waiters_wakes_for_its_own_context() -> None:
    redis = Redis()
    progress = Progress()
    wanted = ["A:1", "A:2", "B:1", "A:2 B:1", "A:3"]
    waiting = {
        text: asyncio.create_task(progress.reach(clock(text), 600, redis.refresh))
        for text in wanted
    }

    async def awake() -> list[str]:
        await settle()
        return [text for text, task in waiting.items() if task.done()]

    assert await awake() == []
    progress.advance(clock("A:2"))
    assert await awake() == ["A:1", "A:2"]
    progress.advance(clock("B:1"))
    assert await awake() == ["A:1", "A:2", "B:1", "A:2 B:1"]
    progress.advance(clock("A:9"))
    assert await awake() == wanted


async def test_what_one_request_finds_in_redis_wakes_the_others() -> None:
    progress = Progress()
    waiting = asyncio.create_task(progress.reach(clock("A:1"), 600, Redis().refresh))
    await settle()
    assert not await progress.reach(clock("A:2"), 0, Redis("A:2").refresh)
    assert await waiting == VectorClock()


async def test_an_advance_while_redis_is_read_is_not_missed() -> None:
    progress = Progress()

    async def refresh() -> VectorClock:
        progress.advance(clock("A:1"))
        return VectorClock()

    assert not await progress.reach(clock("A:1"), 0, refresh)


async def test_without_patience_what_is_missing_is_said_at_once(
    pass_time: Callable[[float], None],
) -> None:
    # Time stands still here, so whoever waited for it would wait for ever.
    redis = Redis("A:1")
    missing = await Progress().reach(clock("A:2 B:1"), 0, redis.refresh)
    assert missing == clock("A:2 B:1")
    assert redis.reads == 1


async def test_when_patience_ends_what_is_still_missing_is_said(
    pass_time: Callable[[float], None],
) -> None:
    redis = Redis()
    progress = Progress()
    waiting = asyncio.create_task(progress.reach(clock("A:2 B:1 C:1"), 30, redis.refresh))
    await settle()
    progress.advance(clock("A:1 B:1"))
    pass_time(29)
    await settle()
    assert not waiting.done()
    pass_time(2)
    assert await waiting == clock("A:2 C:1")
    assert redis.reads == 1


async def test_an_advance_in_the_last_instant_still_counts(
    pass_time: Callable[[float], None],
) -> None:
    progress = Progress()
    waiting = asyncio.create_task(progress.reach(clock("A:1"), 30, Redis().refresh))
    await settle()
    pass_time(31)
    progress.advance(clock("A:1"))
    assert await waiting == VectorClock()


async def test_a_request_that_is_given_up_is_forgotten() -> None:
    progress = Progress()
    waiting = asyncio.create_task(progress.reach(clock("A:1"), 600, Redis().refresh))
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    progress.advance(clock("A:1"))
    assert not await progress.reach(clock("A:1"), 0, Redis().refresh)


async def test_a_redis_that_fails_fails_the_request() -> None:
    async def refresh() -> VectorClock:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        await Progress().reach(clock("A:1"), 600, refresh)


# --- how long something has been missing ---------------------------------------------------------


async def test_a_missing_dot_is_known_from_when_it_was_first_missed(
    pass_time: Callable[[float], None],
) -> None:
    progress = Progress(clock("A:1"))
    assert progress.known_for_s(Dot("B", 7)) == 0
    progress.miss(clock("B:7"))
    pass_time(3)
    progress.miss(clock("B:7 C:1"))
    pass_time(2)
    assert progress.known_for_s(Dot("B", 7)) == pytest.approx(5)
    assert progress.known_for_s(Dot("C", 1)) == pytest.approx(2)


async def test_a_request_that_waits_has_made_the_dot_known(
    pass_time: Callable[[float], None],
) -> None:
    progress = Progress()
    await progress.reach(clock("A:4"), 0, Redis().refresh)
    pass_time(7)
    assert progress.known_for_s(Dot("A", 4)) == pytest.approx(7)


async def test_what_is_here_is_not_missed(pass_time: Callable[[float], None]) -> None:
    progress = Progress(clock("A:5"))
    progress.miss(clock("A:5 B:1"))
    pass_time(1)
    assert progress.known_for_s(Dot("A", 5)) == 0
    progress.advance(clock("B:1"))
    assert progress.known_for_s(Dot("B", 1)) == 0


async def test_a_dot_is_known_since_a_later_one_of_its_actor_is(
    pass_time: Callable[[float], None],
) -> None:
    progress = Progress()
    progress.miss(clock("A:7"))
    pass_time(3)
    progress.miss(clock("A:9"))
    pass_time(2)
    assert progress.known_for_s(Dot("A", 1)) == pytest.approx(5)
    assert progress.known_for_s(Dot("A", 8)) == pytest.approx(2)
    assert progress.known_for_s(Dot("A", 10)) == 0
    progress.advance(clock("A:7"))
    assert progress.known_for_s(Dot("A", 8)) == pytest.approx(2)


async def test_of_however_many_actors_something_is_missing_what_is_remembered_is_bounded(
    pass_time: Callable[[float], None],
) -> None:
    progress = Progress()
    for part in range(10):
        progress.miss(VectorClock({f"B~{part}x{number}": 1 for number in range(1000)}))
        pass_time(1)
    assert len(progress._missed) <= 1024
    assert progress.known_for_s(Dot("B~9x0", 1)) == pytest.approx(1)
    assert progress.known_for_s(Dot("B~0x0", 1)) == 0


async def test_what_is_remembered_is_bounded_and_the_oldest_is_kept(
    pass_time: Callable[[float], None],
) -> None:
    progress = Progress()
    for sequence in range(1, 10_001):
        progress.miss(VectorClock({"A": sequence}))
        pass_time(1)
    assert all(len(missed) <= 64 for missed in progress._missed.values())
    assert progress.known_for_s(Dot("A", 1)) == pytest.approx(10_000)
    known = [progress.known_for_s(Dot("A", sequence)) for sequence in range(1, 10_001, 100)]
    assert known == sorted(known, reverse=True)


async def test_what_redis_is_seen_to_hold_is_known_unless_it_lacks_what_was_known_before() -> None:
    progress = Progress(VectorClock({"A": 2}))
    known = progress.clock
    assert progress.learn(known, VectorClock({"A": 2, "B": 1}))
    assert progress.clock == VectorClock({"A": 2, "B": 1})
    assert not progress.learn(known, VectorClock({"A": 1, "B": 5}))
    assert progress.clock == VectorClock({"A": 2, "B": 1})
