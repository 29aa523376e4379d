"""What a member said of itself, and how old that is."""

import pytest

from app.standing import UNHEARD, Heard, Standing
from app.vector_clock import VectorClock

CLOCK = VectorClock.parse


def test_a_member_holds_what_it_has_applied_and_what_it_has_received() -> None:
    assert Standing(CLOCK("A:3 B:1"), CLOCK("A:2 B:4")).held == CLOCK("A:3 B:4")


@pytest.mark.parametrize(
    ("at_us", "age_us"),
    [(100, 0), (40, 60), (0, 100), (101, 100)],
    ids=["just now", "before", "never", "in the future"],
)
def test_what_was_heard_at_an_unknown_time_is_as_old_as_can_be(at_us: int, age_us: int) -> None:
    assert Heard(UNHEARD.standing, at_us).age_us(100) == age_us
