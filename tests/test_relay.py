"""Whose turn it is to send what: own writes at once, another's only to a peer that stays behind."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.relay import PeerView
from app.vector_clock import VectorClock, node_of

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

AFTER_S = 10.0


def clock(text: str) -> VectorClock:
    return VectorClock.parse(text)


class View:
    """Node A's view of a peer, in texts."""

    def __init__(self) -> None:
        self.view = PeerView("A", AFTER_S)

    def notice(self, mine: str, now: float) -> None:
        """A has applied `mine`."""
        self.view.notice(clock(mine), now)

    def learn(self, received: str, mine: str, now: float) -> None:
        """The peer answers that it has `received`, all applied, while A has `mine`."""
        self.view.learn(clock(received), clock(received), clock(mine), now)

    def lacks(self, mine: str, *, relay: bool = True) -> str:
        """What A sends now."""
        return self.view.lacks(clock(mine), relay=relay).entries_text()


@pytest.fixture
def view() -> View:
    return View()


# --- own writes ----------------------------------------------------------------------------------


def test_a_peer_never_heard_from_is_asked_before_anything_is_sent(view: View) -> None:
    view.notice("A:3", 0)
    assert view.lacks("A:3") == ""
    view.learn("A:1", "A:3", 1)
    assert view.lacks("A:3") == "A:3"


def test_own_writes_are_sent_at_once(view: View) -> None:
    view.learn("", "", 0)
    view.notice("A:3", 0)
    assert view.lacks("A:3") == "A:3"


def test_own_writes_of_every_incarnation_are_own(view: View) -> None:
    view.learn("", "", 0)
    assert view.lacks("A:3 A~x1:2 B:1") == "A:3 A~x1:2"


def test_a_node_whose_id_begins_like_ours_is_another(view: View) -> None:
    assert view.lacks("AB:3 A-1:1 A_:2") == ""


def test_what_the_peer_has_is_not_sent_again(view: View) -> None:
    view.learn("A:3", "A:3", 0)
    assert view.lacks("A:3") == ""
    assert view.lacks("A:5") == "A:5"


def test_what_waits_at_the_peer_is_not_sent_again(view: View) -> None:
    view.view.learn(clock("A:1"), clock("A:4"), clock("A:5"), 0)
    assert view.lacks("A:5") == "A:5"
    assert view.view.clock == clock("A:1")
    assert view.view.received == clock("A:4")
    view.view.learn(clock("A:1"), clock("A:5"), clock("A:5"), 0)
    assert view.lacks("A:5") == ""


def test_a_peer_that_lost_its_state_is_sent_again_what_it_lost(view: View) -> None:
    view.learn("A:5 B:2", "A:5 B:2", 0)
    view.learn("", "A:5 B:2", 1)
    assert view.lacks("A:5 B:2") == "A:5"
    view.learn("", "A:5 B:2", 1 + AFTER_S)
    assert view.lacks("A:5 B:2") == "A:5 B:2", "and others' writes when nobody else does"


# --- relay ---------------------------------------------------------------------------------------


def test_anothers_writes_are_not_relayed_before_the_peer_has_stayed_behind(view: View) -> None:
    view.notice("B:1", 0)
    assert view.lacks("B:1") == ""
    view.learn("", "B:1", AFTER_S - 0.1)
    assert view.lacks("B:1") == ""


def test_a_peer_that_stays_behind_is_relayed_to_after_an_answer_that_says_so(view: View) -> None:
    view.learn("", "", 0)
    view.notice("A:1 B:3", 0)
    view.notice("A:1 B:3", 5 * AFTER_S)
    assert view.lacks("A:1 B:3") == "A:1", "old news never starts a relay"
    view.learn("A:1", "A:1 B:3", 5 * AFTER_S)
    assert view.lacks("A:1 B:3") == "B:3"


def test_a_relay_can_be_kept_back_and_own_writes_are_not(view: View) -> None:
    view.notice("A:1 B:3", 0)
    view.learn("", "A:1 B:3", AFTER_S)
    assert view.lacks("A:1 B:3") == "A:1 B:3"
    assert view.lacks("A:1 B:3", relay=False) == "A:1"


def test_a_peer_that_makes_progress_is_never_relayed_to(view: View) -> None:
    for second in range(100):
        have, has = f"B:{second + 50}", f"B:{second + 1}"
        view.notice(have, second * AFTER_S * 0.9)
        view.learn(has, have, second * AFTER_S * 0.9)
        assert view.lacks(have) == ""


def test_each_actor_is_waited_for_by_itself(view: View) -> None:
    view.notice("B:1 C:1", 0)
    view.learn("C:1", "B:1 C:2", AFTER_S)
    assert view.lacks("B:1 C:2") == "B:1", "something of C has come, nothing of B"
    view.learn("B:1 C:1", "B:1 C:2", 2 * AFTER_S)
    assert view.lacks("B:1 C:2") == "C:2"


def test_a_write_that_came_here_late_is_waited_for_from_then_on(view: View) -> None:
    view.learn("B:1", "B:1", 0)
    view.notice("B:2", 100)
    view.learn("B:1", "B:2", 100 + AFTER_S / 2)
    assert view.lacks("B:2") == ""
    view.learn("B:1", "B:2", 100 + AFTER_S)
    assert view.lacks("B:2") == "B:2"


def test_more_writes_of_the_actor_do_not_begin_the_wait_anew(view: View) -> None:
    view.notice("B:1", 0)
    view.notice("B:9", AFTER_S - 1)
    view.learn("", "B:9", AFTER_S)
    assert view.lacks("B:9") == "B:9"


def test_a_relay_goes_on_until_the_peer_lacks_nothing(view: View) -> None:
    view.notice("B:9", 0)
    view.learn("", "B:9", AFTER_S)
    view.learn("B:4", "B:9", AFTER_S + 0.1)
    assert view.lacks("B:9") == "B:9", "the first batch came; the next follows at once"
    view.learn("B:9", "B:9", AFTER_S + 0.2)
    assert view.lacks("B:9") == ""
    view.notice("B:10", AFTER_S + 0.3)
    assert view.lacks("B:10") == "B:10", "nor waits for the next write: nobody else sends these"
    view.notice("B:10 C:1", AFTER_S + 0.3)
    assert view.lacks("B:10 C:1") == "B:10", "which says nothing of another's"


def test_a_lost_contact_begins_the_wait_anew(view: View) -> None:
    view.notice("A:1 B:1", 0)
    view.learn("", "A:1 B:1", AFTER_S)
    view.view.lost_contact()
    assert view.lacks("A:1 B:1") == "A:1"
    view.learn("", "A:1 B:1", 10 * AFTER_S)
    assert view.lacks("A:1 B:1") == "A:1", "while it was away nothing could come to it"
    view.learn("", "A:1 B:1", 11 * AFTER_S)
    assert view.lacks("A:1 B:1") == "A:1 B:1"


def test_what_a_peer_said_is_fresh_until_contact_is_lost(view: View) -> None:
    assert not view.view.is_fresh
    view.learn("A:1", "A:1", 0)
    assert view.view.is_fresh
    view.view.lost_contact()
    assert not view.view.is_fresh
    view.learn("A:1", "A:1", 1)
    assert view.view.is_fresh


def test_found_duplicates_leave_the_relay_to_whoever_else_sends(view: View) -> None:
    view.notice("B:9", 0)
    view.learn("", "B:9", AFTER_S)
    view.view.found_duplicates({"B"}, AFTER_S + 1)
    view.learn("B:4", "B:9", AFTER_S + 1)
    assert view.lacks("B:9") == ""
    view.learn("B:4", "B:9", AFTER_S + 1 + AFTER_S)
    assert view.lacks("B:9") == "B:9", "unless that one stops"


def test_duplicates_of_one_actor_say_nothing_of_another(view: View) -> None:
    view.notice("B:9 C:9", 0)
    view.learn("", "B:9 C:9", AFTER_S)
    view.view.found_duplicates({"C"}, AFTER_S + 1)
    view.learn("", "B:9 C:9", AFTER_S + 1)
    assert view.lacks("B:9 C:9") == "B:9"


# --- asking --------------------------------------------------------------------------------------


def test_a_peer_that_lacks_nothing_of_others_need_not_be_asked(view: View) -> None:
    assert view.view.ask_at() is None
    view.notice("A:5", 0)
    assert view.view.ask_at() is None, "own writes are sent, not asked about"
    view.learn("A:5 B:1", "A:5 B:1", 1)
    assert view.view.ask_at() is None


def test_a_peer_is_asked_when_the_first_relay_could_be_due(view: View) -> None:
    view.notice("B:1", 3)
    view.notice("B:1 C:1", 5)
    assert view.view.ask_at() == 3 + AFTER_S
    view.learn("B:1", "B:1 C:1", 6)
    assert view.view.ask_at() == 5 + AFTER_S


def test_a_peer_that_is_relayed_to_is_not_asked(view: View) -> None:
    view.notice("B:1", 0)
    view.learn("", "B:1", AFTER_S)
    assert view.lacks("B:1") == "B:1"
    assert view.view.ask_at() is None


def test_an_answer_at_the_time_to_ask_starts_the_relay(view: View) -> None:
    view.notice("B:1", 0.3)
    ask_at = view.view.ask_at()
    assert ask_at is not None
    view.learn("", "B:1", ask_at)
    assert view.lacks("B:1") == "B:1"


# --- anything ------------------------------------------------------------------------------------

actors = st.sampled_from(["A", "A~x1", "B", "C"])
clocks = st.dictionaries(actors, st.integers(0, 3)).map(VectorClock)
events = st.one_of(
    st.tuples(st.just("notice"), clocks),
    st.tuples(st.just("learn"), clocks),
    st.tuples(st.just("lost"), clocks),
    st.tuples(st.just("duplicates"), clocks),
)


@patient
@given(st.lists(st.tuples(events, st.floats(0, 2 * AFTER_S)), max_size=20))
def test_own_writes_are_always_sent_and_a_peer_that_stays_behind_gets_all(
    history: list[tuple[tuple[str, VectorClock], float]],
) -> None:
    """Whatever happened before (G8)."""
    view = PeerView("A", AFTER_S)
    mine, now = VectorClock(), 0.0
    view.learn(mine, mine, mine, now)
    for (event, value), later in history:
        now += later
        match event:
            case "notice":
                mine = mine.merge(value)
                view.notice(mine, now)
            case "learn":
                view.learn(value, value, mine, now)
            case "lost":
                view.lost_contact()
            case _:
                view.found_duplicates(value.keys(), now)
        sent = view.lacks(mine)
        lacking = mine.beyond(view.received)
        assert sent <= lacking
        own = VectorClock((a, s) for a, s in lacking.items() if node_of(a) == "A")
        assert own <= sent
        assert view.lacks(mine, relay=False) == own

    has = view.received
    view.learn(has, has, mine, now)
    for _ in range(3):
        ask_at = view.ask_at()
        if ask_at is None:
            break
        now = max(now, ask_at)
        view.learn(has, has, mine, now)
    assert view.lacks(mine) == mine.beyond(has)
