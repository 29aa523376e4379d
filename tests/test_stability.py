"""What every member has applied is stable; who lacks something holds it back."""

from hypothesis import given
from hypothesis import strategies as st

from app.stability import HeldBack, held_back, stable, writes_beyond
from app.vector_clock import SEQUENCE_MAX, VectorClock


def clock(text: str) -> VectorClock:
    return VectorClock.parse(text)


clocks = st.dictionaries(st.sampled_from("ABC"), st.integers(1, 5)).map(VectorClock)


@given(clocks, st.lists(clocks, max_size=4))
def test_what_is_stable_every_clock_covers_and_nothing_more_is(
    mine: VectorClock, others: list[VectorClock]
) -> None:
    found = stable(mine, others)
    assert all(found <= one for one in (mine, *others))
    for actor in "ABC":
        more = found.increment(actor)
        assert not all(more <= one for one in (mine, *others))


def test_a_member_that_was_never_heard_from_makes_nothing_stable() -> None:
    assert stable(clock("A:3 B:2"), [clock("A:3 B:2"), clock("")]) == clock("")


def test_without_other_members_all_is_stable() -> None:
    assert stable(clock("A:3"), []) == clock("A:3")


def test_who_lacks_most_is_named_first() -> None:
    others = {"B": clock("A:9"), "C": clock("A:2 B:1"), "D": clock("A:10 B:4")}
    assert held_back(clock("A:10 B:4"), others) == [HeldBack("C", 11), HeldBack("B", 5)]


def test_what_was_declared_lost_is_no_lag() -> None:
    mine = VectorClock({"A": SEQUENCE_MAX, "B": 9})
    assert writes_beyond(mine, VectorClock({"A": 3, "B": 5, "C": 7})) == 4
    assert held_back(mine, {"B": VectorClock({"B": 9})}) == []
