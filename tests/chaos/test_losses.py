"""Which refusals, and which contexts, a lost disk explains."""

from dataclasses import replace

import pytest

from app.vector_clock import SEQUENCE_MAX
from client import Lost, NotApplied, NotCaughtUp
from tests.chaos.losses import Loss, Losses, of_lanes
from tests.checker.history import Dot

LOSSES = Losses(
    [
        Loss("A", "A", at_us=1000, held=5, kept=7),
        Loss("A", "A~1", at_us=2000, held=2, kept=2),
    ]
)


def refusal(*dots: str) -> NotCaughtUp:
    missing = [{"dot": dot, "known_for_s": 1.0} for dot in dots]
    return NotCaughtUp("not there", problem={"missing": missing})


@pytest.mark.parametrize("dots", [("A:8",), ("A~1:3",), ("B:4", "A:9")])
def test_a_session_that_misses_what_is_lost_can_never_be_served(dots: tuple[str, ...]) -> None:
    assert LOSSES.explain(refusal(*dots))


@pytest.mark.parametrize("dots", [(), ("A:7",), ("A~1:2",), ("B:9",), ("A~2:9",)])
def test_what_is_only_late_is_waited_for(dots: tuple[str, ...]) -> None:
    assert not LOSSES.explain(refusal(*dots))


def test_another_refusal_has_another_reason() -> None:
    problem = {"missing": [{"dot": "A:8", "known_for_s": 1.0}]}
    assert not LOSSES.explain(NotApplied("no", problem=problem))
    assert not Losses().explain(refusal("A:8"))


def test_a_context_names_what_is_lost_beyond_what_there_is_in_the_end() -> None:
    end = {"A": 7, "A~1": 2, "A~2": 50, "B": 9}
    assert LOSSES.newest_in({"A": 8, "B": 3}, end) == Dot("A", 8)
    assert LOSSES.newest_in({"A": 7, "A~1": 4}, end) == Dot("A~1", 4)
    assert LOSSES.newest_in({"A": 7, "A~1": 2, "A~2": 51}, end) is None
    assert LOSSES.newest_in({"A": 8}, end | {"A": 8}) is None, "it came home after all"


def test_who_has_seen_an_actor_closed_has_seen_nothing_lost() -> None:
    assert LOSSES.newest_in({"A": SEQUENCE_MAX}, {"A": 7}) is None


def test_of_one_actor_is_told_what_is_asked_of_it() -> None:
    context = {"A": 8, "A~1": 4}
    assert LOSSES.newest_in(context, {}, ["A"]) == Dot("A", 8)
    assert LOSSES.newest_in(context, {}, ["B"]) is None


def test_who_still_asks_on_is_known_and_what_has_come_is_not_lost() -> None:
    losses, token = Losses([Loss("A", "A+", at_us=0, held=2, kept=3)]), "lc1;A+:4;B:7"
    losses.seen.append(lambda: token)
    assert losses.are_seen() and losses.has_taken(Dot("A+", 4))
    losses.keep({"A+": 4})
    assert not losses.are_seen() and not losses.has_taken(Dot("A+", 4))
    assert losses.taken[0].held == 2
    losses.keep({"A+": 1, "B": 90})
    assert not losses.are_seen()
    token = "lc1;A+:5"
    assert losses.are_seen()


def test_a_session_that_is_told_so_itself_is_explained_as_well() -> None:
    def told(through: int) -> Lost:
        lost = {"actor": "A", "after": 1, "through": through}
        return Lost("gone", problem={"lost": [lost]})

    assert LOSSES.explain(told(8))
    assert not LOSSES.explain(told(5))


def test_what_waited_on_an_empty_disk_goes_with_every_lane_of_the_node() -> None:
    loss = Loss("A", "A~2+", at_us=9, held=0, kept=0, emptied=True)
    waited = {"A+": 7, "A~1+": 4, "A~2+": 3}
    elsewhere = [{"A+": SEQUENCE_MAX, "A~1+": 1}, {"A~1+": 2, "A~2+": 1}]
    assert of_lanes(loss, waited, elsewhere) == [
        replace(loss, held=1, kept=1),
        replace(loss, actor="A~1+", held=2, kept=2),
    ], "the first has been closed"


def test_in_the_place_of_a_disk_the_copy_has_what_waited_in_earlier_lanes() -> None:
    loss = Loss("A", "A~2+", at_us=9, held=0, kept=0, accepted=2)
    found = of_lanes(loss, {"A~1+": 4, "A~2+": 3}, [{"A~1+": 2, "A~2+": 1}])
    assert found == [replace(loss, held=1, kept=2)]
