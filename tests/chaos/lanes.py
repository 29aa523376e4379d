"""What a lost disk leaves waiting: it is done, or what it waits for is declared lost.

What it is: `until_lanes_are_clear`, what an operator does once all else is healed.

What it assumes and guarantees: all nodes are there and have what any has, and nobody asks on who
has seen what is lost. What waits for something lost has that declared lost: what is deferred goes
on then, be it of an earlier incarnation itself, and what had overtaken what the disk had alone is
given up. It is declared where it is waited for; and what is of a lane at the lane's own node, which
alone knows whether something waits in it, to be done under another name first
(docs/adr/0017-what-is-lost.md). Wires that are severed stay so: no node has to reach all others.

What it does not know: what else is deferred all the time.
"""

from collections.abc import Sequence
from contextlib import suppress

from app.incarnation import lane_of
from app.vector_clock import Dot as AppDot
from app.vector_clock import node_of
from client import LightconeError
from tests.chaos.losses import Losses
from tests.chaos.place import Place
from tests.checker.history import Dot
from tests.processes import until


async def until_lanes_are_clear(places: Sequence[Place], losses: Losses, within_s: float) -> None:
    """Nothing waits in the lane of an earlier incarnation, or anywhere for what is lost."""

    async def all_clear() -> bool:
        found = [await _left_at(place, losses) for place in places]
        left = [one for one in found if one is not None]
        if len(left) == len(places):
            at = {place.node: place for place in places}
            for place, (_, lost) in zip(places, left, strict=True):
                for dot in lost:
                    # Where it is waited for; and where alone it may be known whether it is lost.
                    for asked in dict.fromkeys((place, at[node_of(AppDot.parse(dot).actor)])):
                        await _declare(asked, dot)
        return len(left) == len(places) and not any(former or lost for former, lost in left)

    await until(all_clear, within_s)


async def _left_at(place: Place, losses: Losses) -> tuple[set[str], set[str]] | None:
    """The lanes of earlier incarnations in which something waits at the node, and what is lost and
    waited for there; nothing if it does not say."""
    status, waiting = await place.status(), await place.waiting()
    if status is None or status["actor"] is None or waiting is None:
        return None
    lanes = {AppDot.parse(one["dot"]).actor for one in waiting["deferred"]}
    dots = {dot for one in waiting["deferred"] for dot in one["waiting_for"]}
    dots |= {dot for one in waiting["writes"] for dot in one["waiting_for"]}
    lost = {dot for dot in dots if losses.has_taken(Dot.parse(dot))}
    return lanes - {lane_of(status["actor"])}, lost


async def _declare(place: Place, dot: str) -> None:
    """It is declared lost, if it is, and everybody has been heard; else another time."""
    with suppress(LightconeError):
        await place.declare_lost(dot)
