"""Which writes are lost: a write that nobody has, of an actor that can make no other."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lost import Loss, has_ended, is_home, judge, later_is_here, losses, without
from app.standing import Standing
from app.vector_clock import Dot, VectorClock

CLOCK = VectorClock.parse
LATER = "A~x:1"


def said(applied: str, waiting: str = "") -> Standing:
    """A member that has applied this, and holds that without a gap besides."""
    clock = CLOCK(applied)
    return Standing(clock, clock.merge(CLOCK(waiting)))


def test_what_nobody_has_of_an_actor_that_has_ended_is_lost() -> None:
    members = {"A": said(f"{LATER} A:95"), "B": said("A~x:7 A:95"), "C": said(LATER, "A:95")}
    assert judge(Dot("A", 101), members) == Loss("A", 95, 101)
    assert losses(CLOCK("A:101 B:2"), members) == [Loss("A", 95, 101)]
    assert str(Loss("A", 95, 101)) == "A:96 to A:101"
    assert str(Loss("A", 95, 96)) == "A:96"


def test_what_nobody_ever_had_of_it_is_lost_from_its_first_write_on() -> None:
    members = {"A": said(LATER), "B": said(LATER)}
    assert judge(Dot("A", 3), members) == Loss("A", 0, 3)
    assert without(CLOCK("A:3 B:1"), [Loss("A", 0, 3)]) == CLOCK("B:1")


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (said(f"{LATER} A:101"), "C has it"),
        (said(f"{LATER} A:200"), "C has it"),
        (said(f"{LATER} A:90", "A:101"), "C has it"),  # it waits there
        (None, "C is not heard from"),
        (said("A:90"), "C has seen no write of A under a later name than A"),
        (said("A:90 B~x:1"), "C has seen no write of A"),
        (said(f"{LATER} A:94"), "C lacks A:95 yet, and may hold what follows it"),
        (said(LATER), "C lacks A:95 yet, and may hold what follows it"),
        (said(f"{LATER} A:96"), "A lacks A:96 yet, and may hold what follows it"),
        (said(f"{LATER} A:95", "A:96"), "A lacks A:96 yet, and may hold what follows it"),
    ],
)
def test_as_long_as_one_member_may_have_it_a_write_is_not_lost(
    member: Standing | None, why: str
) -> None:
    members = {"A": said(f"{LATER} A:95"), "B": said(f"{LATER} A:95"), "C": member}
    found = judge(Dot("A", 101), members)
    assert isinstance(found, str)
    assert found.startswith(why)
    assert losses(CLOCK("A:101"), members) == []


def test_what_was_done_under_later_names_is_here_if_no_member_has_more() -> None:
    b, c = said("A~x:3 B:9"), said("A~x:3 A:7 C:8")
    assert later_is_here("A+", "B", {"B": b, "C": c}), "A is not later, and C not of its node"
    assert later_is_here("A~x+", "C", {"B": b, "C": c})
    assert not later_is_here("A+", "B", {"B": b, "C": said("A~x:4")})
    assert not later_is_here("A+", "B", {"B": b, "C": said("A~x:3", "A~x:4")}), "at C it waits"
    assert not later_is_here("A+", "B", {"B": b, "C": said("A~x:3 A~x+:1")})
    assert not later_is_here("A+", "B", {"B": b, "C": said("A~x:2")}), "C may have A~x:4"
    assert not later_is_here("A+", "B", {"B": None, "C": c})


def test_what_a_node_writes_by_now_it_has_though_the_others_lag() -> None:
    a = said("A~x:3 A~y:9 A~y+:2")
    assert later_is_here("A+", "A", {"A": a, "B": said("A~x:3 A~y:1")})
    assert not later_is_here("A+", "A", {"A": a, "B": said("A~x:2 A~y:1")}), "B may have A~x:4"
    assert not later_is_here("A+", "A", {"A": a, "B": said("A~x:3 A~y:10")})
    assert later_is_here("A~x+", "A", {"A": a, "B": said("A~x:2 A~y:1")})


def test_all_is_home_once_each_member_holds_as_much_of_the_earlier_names() -> None:
    a, b = said("A:7 A~x:3 A~y:9"), said("A:7 A~x:3 A~y:1", "B:2")
    assert is_home("A~y", {"A": a, "B": b})
    assert is_home("A~y", {"A": a, "B": said("A:7 A~y:1", "A~x:3")})
    assert is_home("A~y", {"A": a, "B": said("A:7 A~x:3 A~y+:1")}), "its lane will do"
    assert not is_home("A~y", {"A": a, "B": said("A:7 A~x:4 A~y:1")})
    assert not is_home("A~y", {"A": a, "B": said("A:7 A~x:3 A~y:1", "A~x:4")})
    assert not is_home("A~y", {"A": a, "B": said("A:7 A~x:2 A~y:1")}), "B may have A~x:4"
    assert not is_home("A~y", {"A": a, "B": said("A:7 A~x:3")}), "that may have been long ago"
    assert not is_home("A~y", {"A": a, "B": None})
    assert not is_home("A~y", {"A": None, "B": b})


def test_only_a_later_incarnation_ends_an_actor() -> None:
    assert has_ended("A", CLOCK("A~x:1"))
    assert has_ended("A~x", CLOCK("A~y:1"))
    assert has_ended("A~z", CLOCK("A~10:1")), "tags are numbers"
    assert not has_ended("A~y", CLOCK("A:9 A~x:3 A~y:1"))
    assert not has_ended("A", CLOCK("AB~x:1 A:3"))


def test_an_incarnation_that_was_lost_itself_is_judged_as_the_first_one() -> None:
    members = {"A": said("A:7 A~x:2 A~y:1"), "B": said("A:7 A~x:2 A~y:4")}
    assert losses(CLOCK("A:9 A~x:5 A~y:9"), members) == [Loss("A", 7, 9), Loss("A~x", 2, 5)]


def test_what_is_lost_is_cut_off_and_all_else_stays() -> None:
    lost = [Loss("A", 95, 101), Loss("B", 0, 2)]
    assert without(CLOCK("A:101 A~x:4 B:2 C:7"), lost) == CLOCK("A:95 A~x:4 C:7")
    assert without(CLOCK("A:90 C:7"), lost) == CLOCK("A:90 C:7"), "never raised"


ACTORS = ("A", "A~x", "A~y", "B")
CLOCKS = st.dictionaries(st.sampled_from(ACTORS), st.integers(1, 5)).map(VectorClock)
STANDINGS = st.builds(lambda clock, more: Standing(clock, clock.merge(more)), CLOCKS, CLOCKS)
MEMBERS = st.dictionaries(st.sampled_from("ABCD"), st.none() | STANDINGS, min_size=1)


@given(MEMBERS, CLOCKS)
def test_whatever_members_say_nothing_is_lost_that_one_has_or_may_have(
    members: dict[str, Standing | None], wanted: VectorClock
) -> None:
    found = losses(wanted, members)
    for loss in found:
        for standing in members.values():
            assert standing is not None
            assert standing.received[loss.actor] == loss.after < loss.through
            assert has_ended(loss.actor, standing.clock)
    left = without(wanted, found)
    assert left <= wanted
    assert losses(left, members) == [], "with what is left a session can go on"


@given(MEMBERS, CLOCKS, STANDINGS)
def test_one_member_more_never_makes_more_lost(
    members: dict[str, Standing | None], wanted: VectorClock, another: Standing
) -> None:
    lost = {loss.actor for loss in losses(wanted, {**members, "E": another})}
    assert lost <= {loss.actor for loss in losses(wanted, members)}


def without_a_gap(sequences: set[int]) -> int:
    """How far these go from 1 on."""
    return next(n for n in itertools.count() if n + 1 not in sequences)


def holding(last: int) -> Standing | None:
    return said(LATER, f"A:{last}" if last else "")


@given(st.dictionaries(st.sampled_from("ABC"), st.sets(st.integers(1, 6)), min_size=1))
def test_what_a_member_holds_is_never_lost_if_members_can_fill_the_gap_before_it(
    holdings: dict[str, set[int]],
) -> None:
    """Whatever is beyond the gap of one, and comes in which order."""
    members = {member: holding(without_a_gap(all_of)) for member, all_of in holdings.items()}
    can_be_applied = without_a_gap(set().union(*holdings.values()))
    for sequence in range(1, 8):
        if isinstance(judge(Dot("A", sequence), members), Loss):
            assert sequence > can_be_applied
    caught_up = dict.fromkeys(members, holding(can_be_applied))
    assert judge(Dot("A", 7), caught_up) == Loss("A", can_be_applied, 7), "in the end all is told"
