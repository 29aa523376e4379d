"""Wishes that are asked for together."""

import asyncio
from collections.abc import Sequence

import pytest

from app.gathering import Gathering


class TooLateError(Exception):
    pass


class Asked:
    """What was asked for, batch by batch; answered when it is allowed to be."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_answer = asyncio.Event()
        self.fails: set[str] = set()

    async def __call__(self, wishes: Sequence[str]) -> list[str]:
        self.batches.append(list(wishes))
        await self.may_answer.wait()
        if self.fails & set(wishes):
            raise LookupError(*wishes)
        return [wish.upper() for wish in wishes]

    async def begun(self, batches: int) -> None:
        """So many batches are, or have been, asked for."""
        async with asyncio.timeout(30):
            while len(self.batches) < batches:
                await asyncio.sleep(0)


def gathering(asked: Asked, most: int = 100, patience_s: float = 30) -> Gathering[str, str]:
    return Gathering(asked, most, patience_s, TooLateError)


async def test_who_comes_in_one_turn_is_asked_for_at_once_and_who_comes_meanwhile_next() -> None:
    asked = Asked()
    wanted = gathering(asked)
    first = [wanted.wish("a"), wanted.wish("b")]
    await asked.begun(1)
    later = [wanted.wish("c"), wanted.wish("a")]
    asked.may_answer.set()
    assert await asyncio.gather(*first, *later) == ["A", "B", "C", "A"]
    assert asked.batches == [["a", "b"], ["c", "a"]]
    assert await wanted.wish("d") == "D", "and it goes on when there was nothing to do"


async def test_a_batch_has_its_limit_and_what_is_heavier_goes_alone() -> None:
    asked = Asked()
    asked.may_answer.set()
    wanted = gathering(asked, most=3)
    wishes = ["aa", "b", "c", "heavy", "d"]
    results = await asyncio.gather(*(wanted.wish(wish, len(wish)) for wish in wishes))
    assert results == [wish.upper() for wish in wishes]
    assert asked.batches == [["aa", "b"], ["c"], ["heavy"], ["d"]]


async def test_what_is_enough_for_another_batch_does_not_wait_for_the_first() -> None:
    asked = Asked()
    wanted = gathering(asked, most=3)
    wishes = [wanted.wish("aa", 2)]
    await asked.begun(1)
    wishes.append(wanted.wish("bb", 2))
    for _ in range(5):
        await asyncio.sleep(0)
    assert asked.batches == [["aa"]], "who comes meanwhile is asked for next"
    wishes += [wanted.wish("c"), wanted.wish("d"), wanted.wish("eee", 3)]
    await asked.begun(2)
    for _ in range(5):
        await asyncio.sleep(0)
    assert asked.batches == [["aa"], ["bb", "c"]], "two at once, and no more"
    asked.may_answer.set()
    assert await asyncio.gather(*wishes) == ["AA", "BB", "C", "D", "EEE"]
    assert asked.batches == [["aa"], ["bb", "c"], ["d"], ["eee"]]
    assert await wanted.wish("f") == "F"


async def test_a_failure_is_that_of_its_batch() -> None:
    asked = Asked()
    asked.fails = {"a"}
    wanted = gathering(asked)
    failing = [wanted.wish("a"), wanted.wish("b")]
    await asked.begun(1)
    later = wanted.wish("c")
    asked.may_answer.set()
    failures = await asyncio.gather(*failing, return_exceptions=True)
    for failure in failures:
        assert isinstance(failure, LookupError)
        assert failure.args == ("a", "b")
    assert await later == "C"


async def test_who_has_given_up_is_not_asked_for_and_spoils_nothing() -> None:
    asked = Asked()
    wanted = gathering(asked)
    given_up, other = wanted.wish("a"), wanted.wish("b")
    await asked.begun(1)
    early, kept = wanted.wish("c"), wanted.wish("d")
    given_up.cancel()
    early.cancel()
    asked.may_answer.set()
    results = await asyncio.gather(other, kept)
    assert list(results) == ["B", "D"]
    assert asked.batches == [["a", "b"], ["d"]]


async def test_whose_turn_does_not_come_in_time_is_told_so_and_not_asked_for() -> None:
    asked = Asked()
    patience_s = 0.5
    wanted = gathering(asked, patience_s=patience_s)
    first = wanted.wish("a")
    await asked.begun(1)
    late = wanted.wish("b")
    loop = asyncio.get_running_loop()
    until = loop.time() + patience_s
    while loop.time() <= until:
        await asyncio.sleep(until - loop.time() + 0.001)
    asked.may_answer.set()
    assert await first == "A"
    with pytest.raises(TooLateError):
        await late
    assert asked.batches == [["a"]]


async def test_nobody_waits_for_who_was_ended() -> None:
    asked = Asked()
    wanted = gathering(asked)
    first = wanted.wish("a")
    await asked.begun(1)
    second = wanted.wish("b")
    (asking,) = asyncio.all_tasks() - {asyncio.current_task()}
    asking.cancel()
    ended = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(error) for error in ended] == [asyncio.CancelledError] * 2
