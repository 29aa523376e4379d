"""What a lost disk leaves in lanes: what waits is done, or what it waits for is declared lost.

What it is: `until_lanes_are_clear`, what an operator does once all else is healed.

What it assumes and guarantees: all nodes are there and have what any has, and nobody asks on who
has seen what is lost. First what an earlier incarnation left is done, under whichever name. Then
nothing waits for what is lost: it is declared lost where it is waited for. That takes a node which
reaches all others, so what is severed is not, meanwhile (docs/adr/0017-what-is-lost.md).

What it does not know: what else is deferred all the time.
"""

from collections.abc import Sequence

from app.incarnation import lane_of
from app.vector_clock import Dot as AppDot
from client import LightconeError
from tests.chaos.losses import Losses
from tests.chaos.place import Place
from tests.chaos.proxy import Network
from tests.checker.history import Dot
from tests.processes import until


async def until_lanes_are_clear(
    network: Network, places: Sequence[Place], losses: Losses, within_s: float
) -> None:
    """Nothing waits in the lane of an earlier incarnation, or for what is lost."""
    severed = places[0].nodes.plan.severed

    async def nothing_is_left() -> bool:
        return not any([await _waits_in_former(place) for place in places])

    async def nothing_is_waited_for() -> bool:
        return not any([await _declares_lost(place, losses) for place in places])

    async def all_clear() -> bool:
        return await nothing_is_left() and not any(
            [await _lost_for(place, losses) for place in places]
        )

    if await all_clear():
        return
    await network.mend(severed, refuses=True)
    try:
        await until(nothing_is_left, within_s)
        await until(nothing_is_waited_for, within_s)
    finally:
        await network.cut(severed, refuses=True)


async def _waits_in_former(place: Place) -> bool:
    """Whether something does, or the node does not say."""
    status, waiting = await place.status(), await place.deferred()
    if status is None or status["actor"] is None or waiting is None:
        return True
    lane = lane_of(status["actor"])
    return any(AppDot.parse(one["dot"]).actor != lane for one in waiting)


async def _lost_for(place: Place, losses: Losses) -> set[str]:
    """What is lost and waited for at the node; what cannot be told is taken for something."""
    waiting = await place.deferred()
    if waiting is None:
        return {"?"}
    return {
        dot for one in waiting for dot in one["waiting_for"] if losses.has_taken(Dot.parse(dot))
    }


async def _declares_lost(place: Place, losses: Losses) -> bool:
    """Whether something was left to be declared lost at the node."""
    dots = await _lost_for(place, losses)
    for dot in dots - {"?"}:
        try:
            await place.declare_lost(dot)
        except LightconeError:
            break  # not everybody has been heard yet
    return bool(dots)
