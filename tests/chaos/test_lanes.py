"""What an operator does for what waits when a disk is lost."""

from typing import Any, cast

import pytest

from tests.chaos.lanes import until_lanes_are_clear
from tests.chaos.losses import Loss, Losses
from tests.chaos.place import Place

LOST = Losses([Loss("C", "C", at_us=0, held=2, kept=2)])


class FakePlace:
    """A node where one write waits until what it waits for is declared lost."""

    node = "C"

    def __init__(self, kind: str, dot: str, waits_for: str) -> None:
        self.declared: list[str] = []
        self._kind = kind
        self._write = {"dot": dot, "waiting_for": [waits_for]}

    async def status(self) -> Any:
        return {"actor": "A"}

    async def waiting(self) -> Any:
        is_there = not set(self._write["waiting_for"]) & set(self.declared)
        return {"writes": [], "deferred": [], self._kind: [self._write] if is_there else []}

    async def declare_lost(self, dot: str) -> None:
        self.declared.append(dot)


async def clear(*fakes: FakePlace, losses: Losses = LOST) -> None:
    places = [cast("Place", fake) for fake in fakes]
    await until_lanes_are_clear(places, losses, within_s=0.5)


@pytest.mark.parametrize(
    ("kind", "dot"),
    [("deferred", "A+:4"), ("writes", "B:7"), ("writes", "C:5")],
    ids=["deferred", "another node's", "what overtook it"],
)
async def test_what_waits_for_what_is_lost_has_that_declared_lost(kind: str, dot: str) -> None:
    place = FakePlace(kind, dot, "C:4")
    await clear(place)
    assert place.declared == ["C:4"]


async def test_the_node_of_what_is_lost_is_asked_as_well() -> None:
    waits = FakePlace("deferred", "A+:4", "C+:4")
    of_lane = FakePlace("writes", "B:1", "C+:4")
    waits.node = "A"
    losses = Losses([Loss("C", "C+", at_us=0, held=2, kept=2)])
    await clear(waits, of_lane, losses=losses)
    assert set(of_lane.declared) == set(waits.declared) == {"C+:4"}


async def test_what_waits_for_what_may_still_come_is_left_to_that() -> None:
    place = FakePlace("writes", "C:2", "C:1")
    await clear(place)
    assert place.declared == []


async def test_what_an_earlier_incarnation_deferred_is_waited_for() -> None:
    place = FakePlace("deferred", "A~1+:4", "B:1")
    with pytest.raises(AssertionError, match="never came true"):
        await clear(place)
    assert place.declared == []
