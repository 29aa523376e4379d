"""How long an answer is waited for: longer each time, where a batch cannot be made smaller."""

import pytest

from app.patience import LONGEST_S, Patience
from app.snapshot import Part
from app.vector_clock import Dot, VectorClock
from app.wire import Batch
from app.write import Put, Write

ORDINARY_S = 10.0


def batch(writes: int, part: Part | None = None, receiver: str = "B") -> Batch:
    made = (
        Write(Dot("A", n), VectorClock({"A": n - 1}), n, (Put("k", b""),))
        for n in range(1, writes + 1)
    )
    return Batch("A", receiver, VectorClock(), tuple(made), part=part)


ONE = batch(1)
PART = batch(0, Part("s", "1", "", 0))
QUESTION = batch(0, Part("s", "", "", 0))


class Waiting:
    """A node that waits, on a clock of its own."""

    def __init__(self, ordinary_s: float = ORDINARY_S) -> None:
        self.now = 0.0
        self.patience = Patience(ordinary_s, lambda: self.now)

    def in_vain(self, batch: Batch) -> float:
        """For how long it waited for an answer that did not come."""
        before = self.now
        with pytest.raises(TimeoutError) as caught, self.patience.waiting(batch) as patience_s:
            self.now += patience_s
            raise TimeoutError
        assert str(caught.value) == f"no answer within {patience_s:g} s"
        return self.now - before

    def for_an_answer(self, batch: Batch, took_s: float) -> float:
        """For how long it would have waited for an answer that came after so many seconds."""
        with self.patience.waiting(batch) as patience_s:
            self.now += took_s
        return patience_s


@pytest.mark.parametrize("indivisible", [ONE, PART], ids=["one write", "a part of a snapshot"])
def test_what_cannot_be_made_smaller_has_twice_the_time_after_each_failure(
    indivisible: Batch,
) -> None:
    node = Waiting()
    assert [node.in_vain(indivisible) for _ in range(8)] == [10, 20, 40, 80, 160, 320, 600, 600]
    assert LONGEST_S == 600
    assert node.for_an_answer(indivisible, 599) == 600
    assert node.for_an_answer(indivisible, 1) == 600, "it was slow the last time"
    assert node.for_an_answer(indivisible, 1) == 10


@pytest.mark.parametrize("divisible", [batch(0), batch(2)], ids=["none", "two writes"])
def test_what_can_be_and_what_only_asks_has_the_ordinary_time(divisible: Batch) -> None:
    node = Waiting()
    assert [node.in_vain(divisible) for _ in range(3)] == [10, 10, 10]
    node.in_vain(ONE)
    assert node.in_vain(divisible) == 10
    assert node.for_an_answer(divisible, 1) == 10
    assert node.in_vain(ONE) == 20, "that says nothing of what is large"


def test_nor_does_the_answer_to_the_question_with_which_a_snapshot_begins() -> None:
    """Or else a part that takes longer than its peer keeps what came before would never come."""
    node = Waiting()
    node.in_vain(PART)
    assert node.for_an_answer(QUESTION, 1) == 10
    assert node.in_vain(PART) == 20


def test_each_peer_is_waited_for_by_itself() -> None:
    node = Waiting()
    node.in_vain(ONE)
    assert node.in_vain(batch(1, receiver="C")) == 10
    assert node.in_vain(ONE) == 20


def test_that_it_failed_in_another_way_changes_nothing() -> None:
    node = Waiting()
    node.in_vain(ONE)
    with pytest.raises(ConnectionError), node.patience.waiting(ONE):
        raise ConnectionError
    assert node.in_vain(ONE) == 20


def test_who_was_told_to_wait_longer_than_the_longest_does() -> None:
    node = Waiting(2 * LONGEST_S)
    assert [node.in_vain(ONE) for _ in range(2)] == [2 * LONGEST_S] * 2


def test_what_is_known_of_the_failure_is_told() -> None:
    with (
        pytest.raises(TimeoutError, match="another answer"),
        Patience(ORDINARY_S, lambda: 0.0).waiting(ONE),
    ):
        raise TimeoutError("another answer did not come in time")
