"""Who writes at a node: kept only where nothing speaks for a loss."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.incarnation import (
    ABSENCE_MAX_US,
    Evidence,
    Remembered,
    Settled,
    asks_all_peers,
    former,
    has_written,
    is_later,
    lane_of,
    lost_writes,
    settle,
)
from app.vector_clock import Dot, VectorClock, is_actor, node_of

NOW_US = 1_764_000_000_000_000
LATER_US = NOW_US + 60_000_000


def clock(text: str) -> VectorClock:
    return VectorClock.parse(text)


def remembered(
    actor: str, has: str = "", *, run: str = "first", alive_us: int = NOW_US
) -> Remembered:
    return Remembered(actor, run, alive_us, clock(has))


def settled(
    redis: Remembered,
    seen: str = "",
    *silent: str,
    run: str = "first",
    durable: bool = True,
    took_over: bool = False,
    now_us: int = LATER_US,
) -> Settled:
    evidence = Evidence(clock(seen), silent)
    return settle("A", redis, run, evidence, durable=durable, took_over=took_over, now_us=now_us)


NEW = Remembered("", "", 0, VectorClock())


# --- a new Redis ----------------------------------------------------------------------------------


def test_a_node_of_which_no_peer_has_heard_begins_under_its_own_name() -> None:
    assert settled(NEW, "B:3 AA:1") == Settled("A")
    assert settled(NEW) == Settled("A")


@pytest.mark.parametrize("seen", ["A:1", "A~x1:3", "B:2 A:9"])
def test_a_node_that_a_peer_knows_takes_another_name(seen: str) -> None:
    after = settled(NEW, seen)
    assert after.reason == "Redis is new, and A has written before"
    assert after.actor not in ("A", "A~x1") and node_of(after.actor) == "A"


def test_a_peer_may_remember_an_earlier_redis_of_which_it_has_seen_no_write() -> None:
    evidence = Evidence(VectorClock(), (), ("C",))
    after = settle("A", NEW, "run", evidence, durable=True, now_us=NOW_US)
    assert after.actor.startswith("A~")
    assert after.reason == "Redis is new, and C remembers an earlier one"


def test_a_silent_peer_may_know_the_node() -> None:
    after = settled(NEW, "B:2", "C", "D")
    assert after.actor.startswith("A~")
    assert "C, D is silent" in after.reason


def test_writes_that_came_home_before_it_was_settled_are_known_too() -> None:
    assert settled(Remembered("", "", 0, clock("A:2"))).actor.startswith("A~")


# --- a Redis that the node has used before --------------------------------------------------------


@pytest.mark.parametrize("actor", ["A", "A~x1"])
def test_an_actor_goes_on_while_nothing_speaks_for_a_loss(actor: str) -> None:
    redis = remembered(actor, f"{actor}:5 B:2")
    assert settled(redis, f"{actor}:5 B:7 C:1") == Settled(actor)
    assert settled(redis, f"{actor}:3", "C", run="second") == Settled(actor)


def test_a_peer_that_has_seen_more_proves_a_loss() -> None:
    after = settled(remembered("A", "A:5"), "A:9")
    assert after.actor.startswith("A~")
    assert after.reason == "Redis has lost writes: A:9 was seen, and it ends at A:5"


def test_an_older_copy_knows_nothing_of_a_later_incarnation() -> None:
    assert settled(remembered("A", "A:5"), "A:5 A~x1:1").actor.startswith("A~")
    assert settled(remembered("A~x1", "A:5 A~x1:2"), "A~x2:1").actor.startswith("A~")


def test_what_an_earlier_incarnation_lost_does_not_end_the_next() -> None:
    """It is on its way home; else each look at a peer would begin another incarnation."""
    redis = remembered("A~x1", "A:5 A~x1:2")
    assert settled(redis, "A:9 A~x1:2") == Settled("A~x1")


def test_a_redis_that_may_forget_and_was_started_again_has_perhaps_forgotten() -> None:
    redis = remembered("A", "A:5")
    assert settled(redis, durable=False, run="first") == Settled("A")
    assert settled(redis, durable=False, run="second").actor.startswith("A~")


def test_a_redis_that_nobody_used_for_long_may_be_an_old_copy() -> None:
    redis = remembered("A", "A:5")
    at_last = NOW_US + ABSENCE_MAX_US
    assert settled(redis, run="second", now_us=at_last) == Settled("A")
    after = settled(redis, run="second", now_us=at_last + 1)
    assert after.actor.startswith("A~") and "may be an old copy" in after.reason
    assert settled(redis, run="first", now_us=at_last + 1) == Settled("A"), "the same run goes on"


def test_data_from_before_runs_were_kept_is_taken_as_it_is() -> None:
    assert settled(remembered("A", "A:5", run="", alive_us=0), run="second") == Settled("A")


# --- names ----------------------------------------------------------------------------------------


actors = st.sampled_from(
    ["A", "A~x1", "A~zzzzzzzz", "A~zzzzzzzzz", "A~", "A~x.3", "B~zzzzzzzzzzzz"]
)


@given(st.lists(actors), st.integers(0, 2**53))
def test_a_new_name_is_one_and_was_never_used(known: list[str], now_us: int) -> None:
    seen = VectorClock((actor, 1) for actor in known)
    after = settle("A", NEW, "run", Evidence(seen, ("B",)), durable=True, now_us=now_us)
    assert is_actor(after.actor) and node_of(after.actor) == "A"
    assert after.actor not in known
    assert str(Dot(after.actor, 1)) == str(Dot.parse(f"{after.actor}:1"))
    again = settle(
        "A", NEW, "run", Evidence(seen.with_dot(Dot(after.actor, 1))), durable=True, now_us=0
    )
    assert lost_writes(after.actor, VectorClock({again.actor: 1}), VectorClock()), "it is no later"


def test_a_tag_is_the_time() -> None:
    assert settled(NEW, "", "B", now_us=NOW_US).actor == "A~midc1z40"


# --- a node that ended in good order --------------------------------------------------------------


RESTED = Remembered("A", "first", NOW_US, VectorClock({"A": 5}), rested=True)
NEXT_DAY_US = NOW_US + 86_400_000_000


def test_after_a_rest_a_node_goes_on_if_all_peers_agree() -> None:
    assert settled(RESTED, "A:5 B:9", run="second", now_us=NEXT_DAY_US) == Settled("A")
    assert settled(RESTED, "A:6", run="second", now_us=NEXT_DAY_US).actor.startswith("A~")
    after = settled(RESTED, "A:5", "C", run="second", now_us=NEXT_DAY_US)
    assert after.actor.startswith("A~"), "it may be an old copy, of which only C can tell"


def test_that_a_node_rested_says_nothing_of_what_a_redis_that_may_forget_was_given_later() -> None:
    """It may have worked again, and a power cut have taken that, and that it did."""
    assert settled(RESTED, "A:5", "C", run="second") == Settled("A")
    after = settled(RESTED, "A:5", "C", run="second", durable=False)
    assert after.actor.startswith("A~") and "started again" in after.reason


def test_peers_are_given_time_where_the_name_depends_on_all_of_them() -> None:
    assert asks_all_peers(NEW, NOW_US)
    assert asks_all_peers(RESTED, NEXT_DAY_US)
    assert not asks_all_peers(RESTED, LATER_US)
    assert not asks_all_peers(remembered("A", "A:5"), NEXT_DAY_US)


# --- another server takes over --------------------------------------------------------------------


def test_what_another_redis_lacks_nobody_knows_however_durable_each_is() -> None:
    after = settled(remembered("A", "A:5"), run="second", took_over=True)
    assert after.actor.startswith("A~") and "took over" in after.reason
    assert settled(remembered(after.actor, run="second"), run="second", took_over=True) == Settled(
        after.actor
    )


def test_that_a_node_rested_says_nothing_of_what_a_replica_was_given_later() -> None:
    assert settled(RESTED, "A:5", run="second", took_over=True).actor.startswith("A~")


def test_an_empty_redis_that_took_over_is_not_a_new_node() -> None:
    assert settled(NEW, took_over=True).reason == "Redis is new, and took over from another"


# --- lanes ----------------------------------------------------------------------------------------


def test_a_lane_begins_and_ends_with_its_incarnation() -> None:
    assert (lane_of("A"), lane_of("A~x1")) == ("A+", "A~x1+")
    for actor in ("A", "A~x1"):
        assert is_actor(lane_of(actor)) and node_of(lane_of(actor)) == "A"
        assert not is_later(lane_of(actor), actor) and not is_later(actor, lane_of(actor))
    assert is_later("A~x1", "A+") and is_later("A~x1+", "A") and is_later("A~x2+", "A~x1+")
    assert not is_later("A+", "A~x1") and not is_later("B~x1+", "A+")
    assert has_written("A", clock("A+:1"))


def test_a_node_whose_lane_was_seen_further_than_it_is_has_lost_something() -> None:
    assert lost_writes("A", clock("A+:3"), clock("A+:2")) == clock("A+:3")
    after = settled(remembered("A", "A:7 A+:2"), "A+:3")
    assert after.reason == "Redis has lost writes: A+:3 was seen, and it ends at A+:2"
    assert lost_writes("A~x1", clock("A+:3"), clock("A+:2")) == VectorClock(), "it comes home"


def test_a_redis_that_forgot_what_its_lane_gave_has_lost_something() -> None:
    def after(waits: str, given: str) -> Settled:
        redis = Remembered("A", "first", NOW_US, clock("A+:2"), waits=clock(waits))
        evidence = Evidence(VectorClock(), given=clock(given))
        return settle("A", redis, "first", evidence, durable=True, now_us=LATER_US)

    assert after("A+:5", "A+:5") == after("", "A+:2") == after("A+:5", "") == Settled("A")
    assert after("A+:4", "A+:5").reason == ("Redis has lost deferred writes: A+:5 was accepted")
    assert after("", "A+:3").actor.startswith("A~")


@pytest.mark.parametrize(
    ("has", "ended"),
    [
        ("", ""),
        ("A:3 B:1", ""),
        ("A:3 A+:2 B:1", ""),  # a lane ends with its actor, and no sooner
        ("A:3 A+:2 A~m1:1 B:1", "A:3 A+:2"),
        ("A:3 A~m1:1 A~m2:4 A~m2+:1 B~m9:2", "A:3 A~m1:1"),
        ("A:3 A~m1+:1", "A:3"),
    ],
)
def test_an_actor_is_former_once_a_later_incarnation_has_written(has: str, ended: str) -> None:
    assert former(clock(has)) == clock(ended)
