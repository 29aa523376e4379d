"""What many are told is read once, and what is kept is bounded."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from app.errors import LogTrimmed
from app.recent import RecentWrites
from app.vector_clock import Dot, VectorClock
from app.write import Delete, Operation, Put, Write
from app.write_log import WriteLog


class Log:
    """The log of A, and how often it was read."""

    def __init__(self, count: int, size: int = 1) -> None:
        self.writes = [
            Write(Dot("A", n), VectorClock({"A": n - 1}), n, (Put("x", b"x" * size),))
            for n in range(1, count + 1)
        ]
        self.reads: list[int] = []

    async def after(self, actor: str, sequence: int, count: int) -> list[Write]:
        assert actor == "A"
        self.reads.append(sequence)
        await asyncio.sleep(0)
        if sequence >= len(self.writes):
            raise LogTrimmed(Dot("A", sequence + 1))
        return self.writes[sequence : sequence + count]


def recent_of(log: Log) -> RecentWrites:
    return RecentWrites(cast(WriteLog, log))


def numbers(writes: Sequence[Write]) -> list[int]:
    return [write.dot.sequence for write in writes]


async def test_what_many_want_at_once_is_read_once() -> None:
    log = Log(20)
    recent = recent_of(log)
    found = await asyncio.gather(*(recent.after("A", 10, 3) for _ in range(9)))
    assert [numbers(writes) for writes in found] == [[11, 12, 13]] * 9
    assert numbers(await recent.after("A", 11, 9)) == [12, 13], "what is kept is enough"
    assert numbers(await recent.after("A", 13, 2)) == [14, 15]
    assert numbers(await recent.after("A", 10, 9)) == [11, 12, 13, 14, 15]
    assert log.reads == [10, 13]


async def test_who_is_further_back_reads_for_himself_and_takes_nothing_from_others() -> None:
    log = Log(200)
    recent = recent_of(log)
    await recent.after("A", 150, 16)
    assert numbers(await recent.after("A", 0, 2)) == [1, 2]
    assert numbers(await recent.after("A", 148, 9))[:3] == [149, 150, 151]
    await recent.after("A", 150, 16)
    assert log.reads == [150, 0, 148]


async def test_what_does_not_follow_takes_the_place_of_what_is_kept() -> None:
    log = Log(200)
    recent = recent_of(log)
    await recent.after("A", 0, 16)
    assert numbers(await recent.after("A", 100, 2)) == [101, 102]
    assert numbers(await recent.after("A", 100, 1)) == [101]
    assert numbers(await recent.after("A", 14, 1)) == [15]
    assert log.reads == [0, 100, 14]


async def test_what_is_kept_is_bounded_in_number_and_size() -> None:
    log = Log(1000)
    recent = recent_of(log)
    for sequence in range(0, 600, 16):
        await recent.after("A", sequence, 16)
    await recent.after("A", 352, 16)
    assert log.reads[-1] == 592, "256 are kept"
    await recent.after("A", 351, 16)
    assert log.reads[-1] == 351
    assert len(await recent.after("A", 352, 300)) == 256
    assert len(await recent.after("A", 608, 300)) == 300, "all that was read"
    assert len(await recent.after("A", 700, 300)) == 208
    assert log.reads[-1] == 608
    log = Log(10, size=400_000)
    recent = recent_of(log)
    assert numbers(await recent.after("A", 0, 5)) == [1, 2, 3, 4, 5]
    assert numbers(await recent.after("A", 3, 5)) == [4, 5]
    await recent.after("A", 2, 1)
    assert log.reads == [0, 2], "two of them are 800,000 bytes"


@pytest.mark.parametrize(
    ("operations", "dependencies"),
    [
        (tuple(Delete(f"{n:03d}" + "k" * 509) for n in range(100)), 1),
        (tuple(Put(f"{n:03d}" + "k" * 509, b"") for n in range(100)), 1),
        (tuple(Put(f"{n}", b"", "t/" + "x" * 253) for n in range(300)), 1),
        ((Put("x", b""),), 2000),
    ],
    ids=["deletes", "keys", "content types", "dependencies"],
)
async def test_all_that_is_kept_of_a_write_counts(
    operations: tuple[Operation, ...], dependencies: int
) -> None:
    past = {f"N{n}": 1 for n in range(1, dependencies)}
    log = Log(0)
    log.writes = [
        Write(Dot("A", n), VectorClock({**past, "A": n - 1}), n, operations) for n in range(1, 101)
    ]
    recent = recent_of(log)
    await recent.after("A", 0, 1)
    recent.committed("A", log.writes[1:])
    log.reads.clear()
    assert numbers(await recent.after("A", 90, 9)) == list(range(91, 100))
    assert log.reads == []
    await recent.after("A", 50, 1)
    assert log.reads == [50], "a hundred of them are more than 1 MiB, and so are fifty"


async def test_what_is_committed_here_is_not_read_once_somebody_wants_to_know_it() -> None:
    log = Log(20)
    recent = recent_of(log)
    recent.committed("A", log.writes[:3])
    assert numbers(await recent.after("A", 1, 2)) == [2, 3]
    recent.committed("A", log.writes[3:5])
    recent.committed("A", log.writes[4:7])
    assert numbers(await recent.after("A", 1, 9)) == [2, 3, 4, 5, 6, 7]
    assert numbers(await recent.after("A", 3, 2)) == [4, 5]
    assert log.reads == [1]
    # Another worker has committed between.
    recent.committed("A", log.writes[9:10])
    assert numbers(await recent.after("A", 5, 9)) == [6, 7]
    assert numbers(await recent.after("A", 7, 2)) == [8, 9]
    recent.committed("A", log.writes[9:10])
    assert numbers(await recent.after("A", 7, 9)) == [8, 9, 10]
    assert log.reads == [1, 7]


async def test_what_is_committed_while_the_log_is_read_is_kept_once() -> None:
    log = Log(20)
    recent = recent_of(log)
    await recent.after("A", 0, 2)
    reading = asyncio.create_task(recent.after("A", 2, 3))
    await asyncio.sleep(0)
    assert log.reads == [0, 2]
    recent.committed("A", log.writes[2:7])
    assert numbers(await reading) == [3, 4, 5]
    assert numbers(await recent.after("A", 0, 20)) == [1, 2, 3, 4, 5, 6, 7]
    assert log.reads == [0, 2]


async def test_no_more_is_kept_than_a_log_may_hold() -> None:
    log = Log(20)
    recent = RecentWrites(cast(WriteLog, log), log_max=3)
    await recent.after("A", 0, 2)
    recent.committed("A", log.writes[2:7])
    assert numbers(await recent.after("A", 4, 9)) == [5, 6, 7]
    assert log.reads == [0]
    await recent.after("A", 3, 1)
    assert log.reads == [0, 3], "what a log has lost is told of, and not made up for"


async def test_a_log_that_does_not_go_back_is_told_of() -> None:
    recent = recent_of(Log(3))
    with pytest.raises(LogTrimmed):
        await recent.after("A", 3, 1)
    assert numbers(await recent.after("A", 0, 9)) == [1, 2, 3]
