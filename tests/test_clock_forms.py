"""What clocks are sent as: what was said gives the clock back; what nobody would say is refused."""

import pytest
from hypothesis import given

from app import clock_forms
from app.errors import BadBatch
from app.vector_clock import NOTHING, VectorClock
from tests.strategies import clocks, patient


@patient
@given(clocks, clocks)
def test_what_differs_gives_the_clock_back(before: VectorClock, clock: VectorClock) -> None:
    assert clock_forms.changed(before, clock.since(before)) == clock
    assert clock_forms.whole(clock.to_dict()) == clock


@patient
@given(clocks, clocks)
def test_clocks_have_the_same_name_if_they_are_equal_alone(
    one: VectorClock, other: VectorClock
) -> None:
    assert (clock_forms.name(one) == clock_forms.name(other)) == (one == other)
    assert (clock_forms.name(one) == b"") == (one == NOTHING)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"B C": 1}, "'B C', which is no actor"),
        ({"": 0}, "'', which is no actor"),
        ({"x" * 1000: 1}, "xxx..., which is no actor"),
        ({"C": 0}, "takes C back"),
    ],
)
def test_what_nobody_would_say_is_refused(said: dict[str, int], why: str) -> None:
    with pytest.raises(BadBatch) as caught:
        clock_forms.changed(VectorClock({"B": 1}), said)
    assert why in caught.value.detail
    assert "Nothing of it was applied." in caught.value.detail
    assert len(caught.value.detail) < 500


def test_an_actor_that_was_said_can_be_taken_back() -> None:
    assert clock_forms.changed(VectorClock({"B": 1, "C": 2}), {"B": 0}) == VectorClock({"C": 2})
