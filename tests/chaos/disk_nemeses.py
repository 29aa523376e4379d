"""What takes a node's disk away: all that is on it, or the last that was written to it.

What it is: a `Nemesis` (nemeses.py) each.

What it assumes and guarantees: nothing else is broken meanwhile. It begins when all nodes have what
any has; after `heal` that is so again. What exactly was lost is noted as a `Loss`, of the node's
actor and of its lanes. It is a loss that the node can notice: a copy is only put back once the
peers have writes of the node that are not in it (docs/adr/0012-incarnations.md tells why). The end
of a lane may be declared, and then its lost names are covered: by the node itself, where something
waited in it, or by whoever waits for what is lost. Before that all who have seen it have begun
anew.

What it does not know: what becomes of those who have seen what is lost.

Where the idea is from: Jepsen's lost and corrupted files; every operator who restored a backup.
"""

import asyncio
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from app.incarnation import lane_of
from client import Status
from tests.chaos.lanes import until_lanes_are_clear
from tests.chaos.losses import Loss, of_lanes
from tests.chaos.place import Place
from tests.chaos.plan import Strike
from tests.chaos.proxy import Network
from tests.contents import joined
from tests.processes import until

#: An empty node is sent all that was ever written, a batch after the other.
CATCH_UP_MAX_S = 300.0
_REWRITE = "auto-aof-rewrite-percentage"
_PAUSED_MAX_MS = 60_000
_HELD_MAX_S = 10.0


class _LostDisk:
    """A node is killed, its disk is another one, and it goes on under another name."""

    _empties = False
    """Whether nothing is put in its place."""

    def __init__(self, network: Network, places: Mapping[str, Place], strike: Strike) -> None:
        self._network = network
        self._place = places[strike.node]
        self._others = [place for node, place in places.items() if node != strike.node]
        self._wires = strike.wires
        self._refuses = strike.refuses
        self._lasts_s = strike.lasts_s
        self._actor = ""
        self._at_us = 0
        self._held = 0
        self._had = 0
        self._losses = self._place.nodes.losses

    async def _kill(self, accepted: int = 0) -> None:
        """The node is dead, and it is known what of it is on other disks.

        What waits in its lanes is on none, but for what was `accepted` before a copy was taken. Who
        has seen more of them has begun anew.
        """
        self._had = (await self._place.received()).get(self._actor, 0)
        waited = await self._place.lanes()
        # What others have of it by a snapshot stands in no other log.
        await self._place.keep_log()
        await self._place.nodes.kill(self._place.node)
        self._at_us = time.monotonic_ns() // 1000
        elsewhere = await self._elsewhere()
        self._held = max([received.get(self._actor, 0) for received in elsewhere])
        node, lane = self._place.node, lane_of(self._actor)
        of_lane = Loss(node, lane, self._at_us, 0, 0, accepted, self._empties)
        self._losses.taken += of_lanes(of_lane, waited, elsewhere)
        await until(self._nobody_has_seen_it)

    async def _nobody_has_seen_it(self) -> bool:
        """Nobody asks on who has seen what is lost. What was on its way may still have come."""
        for received in await self._elsewhere():
            self._losses.keep(received)
        return not self._losses.are_seen()

    async def _elsewhere(self) -> list[dict[str, int]]:
        return [await place.received() for place in self._others]

    async def heal(self) -> None:
        """The node takes writes, and what any node had then all have now."""
        await self._mend()
        if self._place.nodes.pid(self._place.node) is None:
            await self._place.nodes.start(self._place.node)
        await until(self._takes_writes)
        wanted = await self._caught_up()
        if self._at_us:
            kept = wanted.get(self._actor, 0)
            loss = Loss(
                self._place.node, self._actor, self._at_us, self._held, kept, emptied=self._empties
            )
            self._losses.keep(wanted)
            self._losses.taken.append(loss)
            await until(self._nobody_has_seen_it)
            everywhere = [self._place, *self._others]
            await until_lanes_are_clear(everywhere, self._losses, CATCH_UP_MAX_S)

    async def _caught_up(self) -> dict[str, int]:
        """What any node had when it was asked. All have it now."""
        everywhere = [self._place, *self._others]
        wanted = joined([await place.received() for place in everywhere])

        async def all_have_it() -> bool:
            clocks = [await place.clock() for place in everywhere]
            return all(c.get(actor, 0) >= s for c in clocks for actor, s in wanted.items())

        await until(all_have_it, CATCH_UP_MAX_S)
        return wanted

    async def _mend(self) -> None:
        await self._network.mend(self._wires, refuses=self._refuses)
        self._wires = ()

    async def _writer(self) -> str:
        """The actor that writes at the node, once somebody does."""
        await until(self._takes_writes)
        status = await self._place.status()
        assert status is not None and status["actor"], "it has just taken a write"
        return status["actor"]

    async def _takes_writes(self) -> bool:
        return not await self._place.says()


class LoseData(_LostDisk):
    """All that is on a disk is removed.

    Wires of the node are cut meanwhile, and still are when it starts. If all are, there are writes
    that no other disk has. What was on its way arrives, unless links refuse connections.
    """

    _empties = True

    def __init__(self, network: Network, places: Mapping[str, Place], strike: Strike) -> None:
        super().__init__(network, places, strike)
        self._birth = ""

    async def strike(self) -> None:
        place = self._place
        await self._caught_up()
        await self._network.cut(self._wires, refuses=self._refuses)
        self._actor, self._birth = await self._writer(), await place.birth()
        await asyncio.sleep(self._lasts_s)
        if len(self._wires) == 2 * len(place.reaches):
            await until(self._has_what_nobody_has)
        await self._kill()
        await asyncio.to_thread(_empty, place.directory)
        await place.nodes.start(place.node)

    async def proof(self) -> str:
        status, birth = await self._place.status(), await self._place.birth()
        if status is None or status["actor"] in (None, self._actor) or birth == self._birth:
            return ""
        alone = max(0, self._had - self._held)
        return f"Redis {birth}, not {self._birth}; {alone} writes were there alone; {_name(status)}"

    async def _has_what_nobody_has(self) -> bool:
        mine = (await self._place.clock()).get(self._actor, 0)
        return all(mine > received.get(self._actor, 0) for received in await self._elsewhere())


class OldData(_LostDisk):
    """A disk is as it was a while before, for a copy of it is put back.

    Where what others send to the node is held meanwhile, what it has deferred is in the copy, and
    waits still when the node is killed; if others hear of it all the same that it is newer.
    """

    def __init__(self, network: Network, places: Mapping[str, Place], strike: Strike) -> None:
        super().__init__(network, places, strike)
        self._copy = self._place.directory.with_suffix(".copy")
        self._copied = 0

    async def strike(self) -> None:
        place = self._place
        await self._caught_up()
        self._actor = await self._writer()
        await self._network.cut(self._wires)
        await asyncio.sleep(self._lasts_s / 2 if self._wires else 0)
        in_copy = (await place.clock()).get(self._actor, 0)
        accepted = await self._take_copy()
        self._copied = (await place.clock()).get(self._actor, 0)
        await asyncio.sleep(self._lasts_s)
        try:
            await until(self._is_old, _HELD_MAX_S)
        except AssertionError:
            # Its log does not go back to what others have, and the answers to a snapshot are held.
            await self._mend()
            await until(self._is_old)
        await self._kill(accepted)
        await self._mend()
        self._held = max(self._held, in_copy)
        await asyncio.to_thread(_empty, place.directory)
        await asyncio.to_thread(shutil.copytree, self._copy, place.directory, dirs_exist_ok=True)
        await place.nodes.start(place.node)

    async def proof(self) -> str:
        status = await self._place.status()
        if status is None or status["actor"] in (None, self._actor):
            return ""
        return f"it had come to {self._actor}:{self._had}; {_name(status)}"

    async def heal(self) -> None:
        await super().heal()
        await asyncio.to_thread(shutil.rmtree, self._copy, ignore_errors=True)

    async def _take_copy(self) -> int:
        """As the manual of Redis says: while no file is put in another's place; and while nothing
        is written, so that it is known what of the node's lane is in it, which is the result."""
        async with self._place.redis() as redis:
            usual = (await redis.config_get(_REWRITE))[_REWRITE]
            await redis.config_set(_REWRITE, 0)

            async def nothing_is_rewritten() -> bool:
                about = await redis.info("persistence")
                return not about["aof_rewrite_in_progress"]

            await until(nothing_is_rewritten)
            await redis.client_pause(_PAUSED_MAX_MS, all=False)
            try:
                accepted = await self._place.given(lane_of(self._actor))
                await asyncio.to_thread(
                    shutil.copytree, self._place.directory, self._copy, ignore=_no_sockets
                )
            finally:
                await redis.client_unpause()
                await redis.config_set(_REWRITE, str(usual))
            return accepted

    async def _is_old(self) -> bool:
        """Whoever can be asked about the node knows more of it than the copy."""
        peers = [place for place in self._others if place.node in self._place.reaches]
        received = [await place.received() for place in peers]
        return all(had.get(self._actor, 0) > self._copied for had in received)


def _name(status: Status) -> str:
    reason = status["incarnation"]["reason"] if status["incarnation"] else "no reason"
    return f"{status['actor']} writes: {reason}"


def _empty(directory: Path) -> None:
    """Nothing is in the directory, which itself may be where a disk is mounted."""
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _no_sockets(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(directory) / name).is_socket()]
