"""Strike after strike, track beside track, and a record of what each has shown.

What it is: `Conductor`, which carries out the strikes of a plan, and `Firing`, what became of one.

What it assumes and guarantees: the strikes of a track follow each other, each healed before the
next begins; those of different tracks overlap as it comes, but for those that go on alone. A strike
lasts for as long as planned, and longer if it has not been seen to work by then. One that never is
has not fired, and says so. Whatever happens, what was broken is healed at the end.

What it does not know: what harm is done, and whether the store bears it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos.nemeses import Nemesis
from tests.chaos.plan import Strike

#: A cut is seen only by nodes that answer, and another strike may keep those from it for a while.
PROOF_MAX_S = 60.0
_POLL_S = 0.1


@dataclass
class Firing:
    """A strike that was carried out. Seconds count from the begin of the run."""

    strike: Strike
    began_s: float
    proof: str = ""
    #: Why it failed, if it did: to strike, to show that it works, or to heal.
    problem: str = ""
    healing_s: float = 0.0
    ended_s: float = 0.0

    @property
    def fired(self) -> bool:
        """Whether it was seen to work, and to be healed."""
        return bool(self.proof) and not self.problem


class Conductor:
    """Carries out the strikes of a plan, of which `make` makes the nemeses."""

    def __init__(
        self,
        make: Callable[[Strike], Nemesis],
        tell: Callable[[str], None],
        proof_max_s: float = PROOF_MAX_S,
    ) -> None:
        self.firings: list[Firing] = []
        self._make = make
        self._tell = tell
        self._proof_max_s = proof_max_s
        #: Whoever begins goes through it. It is shut while a strike waits to be alone, or is.
        self._door = asyncio.Lock()
        self._began = 0.0

    async def run(self, tracks: tuple[tuple[Strike, ...], ...]) -> None:
        """All strikes were carried out, and everything is healed."""
        self._began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for track in tracks:
                group.create_task(self._play(track))

    def under_way(self) -> list[Strike]:
        """What is broken now."""
        return [firing.strike for firing in self.firings if not firing.ended_s]

    async def _play(self, track: tuple[Strike, ...]) -> None:
        for strike in track:
            await asyncio.sleep(strike.gap_s)
            async with self._door:
                if strike.alone:
                    while self.under_way():
                        await asyncio.sleep(_POLL_S)
                    await self._carry_out(self._begin(strike), self._make(strike))
                    continue
                firing = self._begin(strike)
            await self._carry_out(firing, self._make(strike))

    def _begin(self, strike: Strike) -> Firing:
        firing = Firing(strike, self._now())
        self.firings.append(firing)
        self._tell(f"strikes: {strike}")
        return firing

    async def _carry_out(self, firing: Firing, nemesis: Nemesis) -> None:
        strike = firing.strike
        try:
            if await self._attempt(firing, nemesis.strike):
                await self._until_proven(firing, nemesis)
                await asyncio.sleep(firing.began_s + strike.lasts_s - self._now())
        finally:
            firing.healing_s = self._now()
            await self._attempt(firing, nemesis.heal)
            firing.ended_s = self._now()
        if firing.fired:
            self._tell(f"healed:  {strike}: {firing.proof}")
        else:
            self._tell(f"FAILED:  {strike}: {firing.problem}")

    async def _until_proven(self, firing: Firing, nemesis: Nemesis) -> None:
        try:
            async with asyncio.timeout(self._proof_max_s):
                while not firing.proof:
                    firing.proof = await nemesis.proof()
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            firing.problem = f"nothing showed within {self._proof_max_s:g} s that it works"
        except Exception as error:
            firing.problem = _told(error)

    async def _attempt(self, firing: Firing, step: Callable[[], Awaitable[None]]) -> bool:
        """The step was taken; if it failed, the firing says how, and the run goes on."""
        try:
            await step()
        except Exception as error:
            firing.problem = _told(error)
            return False
        return True

    def _now(self) -> float:
        return asyncio.get_running_loop().time() - self._began


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
