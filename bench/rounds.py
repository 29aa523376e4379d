"""Rounds of measurements: A B C, A B C, and so on.

Assumes nothing of the contenders but what `Contender` says. Guarantees that each is started afresh
in each round and runs alone, and that what it does after its last answer, for its peers to have
everything, is counted with it. No round is begun after the time that was given.

Does not know what the figures mean.
"""

import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.accounting import Machine, used_s
from bench.contenders import Contender, Running
from bench.load import Loads
from bench.reading import harness_s
from bench.requests import write_requests
from bench.samples import Answered, LoadName, Operation, Sample

LOADS: Final[tuple[LoadName, ...]] = ("full", "half")
PUT: Final[Operation] = "PUT"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how much."""

    contenders: Sequence[Contender]
    operations: Sequence[Operation]
    loads: Loads
    rounds: int
    seconds: float
    """Of each measurement."""
    warm_up_s: float
    keys: int
    fsync: str
    minutes: float
    """After so many no further round is begun."""

    @property
    def steps(self) -> int:
        """How many measurements there are."""
        return self.rounds * len(self.contenders) * len(self.operations) * len(LOADS)


Tell = Callable[[str, int], None]
"""Is told what is being done, and how many measurements were done since."""


async def measure(plan: Plan, tell: Tell) -> list[Sample]:
    """All rounds. Raises StartupError, ProcessGone."""
    samples: list[Sample] = []
    give_up = time.monotonic() + plan.minutes * 60
    for number in range(plan.rounds):
        if time.monotonic() > give_up:
            break
        for contender in plan.contenders:
            name = f"round {number + 1} of {plan.rounds}: {contender.name}"
            tell(f"{name} starts", 0)
            with own_place(contender.name) as place:
                async with contender.start(place, plan.fsync) as running:
                    samples += await _Turn(plan, contender, running, place, number, tell).take()
    return samples


@contextmanager
def own_place(name: str) -> Iterator[Path]:
    """A directory, which is removed at the end, unless something failed that it may explain."""
    place = Path(tempfile.mkdtemp(prefix="lightcone-bench-"))
    try:
        yield place
    except Exception as error:
        error.add_note(f"What {name} said is in {place}.")
        raise
    except BaseException:  # Ctrl-C: nobody wants to know what was said
        shutil.rmtree(place)
        raise
    shutil.rmtree(place)


@dataclass(frozen=True, slots=True)
class _Turn:
    """One contender's turn in one round."""

    plan: Plan
    contender: Contender
    running: Running
    place: Path
    round: int
    tell: Tell

    async def take(self) -> list[Sample]:
        await self._fill()
        samples = []
        for operation in self.plan.operations:
            name = f"round {self.round + 1} of {self.plan.rounds}: {self.contender.name}"
            self.tell(f"{name} {operation}", 0)
            full = await self._full(operation)
            self.tell(f"{name} {operation}, half load", 1)
            half = await self._half(operation, full.throughput / 2)
            self.tell(name, 1)
            samples += [full, half]
        return samples

    async def _fill(self) -> None:
        """Every key has a value, and every node has written something that others depend on."""
        if not self.contender.keeps:
            return
        asked, *peers = self.running.ports
        for port, most in ((asked, self.plan.keys), *((port, 1) for port in peers)):
            await self.plan.loads.once(self._requests(PUT), port, most)
            await self.running.settle()

    async def _full(self, operation: Operation) -> Sample:
        loads, port, requests = self.plan.loads, self.running.ports[0], self._requests(operation)
        await loads.saturate(requests, port, self.plan.warm_up_s)
        await self.running.settle()
        return await self._sampled(
            operation, "full", lambda: loads.saturate(requests, port, self.plan.seconds)
        )

    async def _half(self, operation: Operation, rate: float) -> Sample:
        loads, port, requests = self.plan.loads, self.running.ports[0], self._requests(operation)
        return await self._sampled(
            operation, "half", lambda: loads.pace(requests, port, self.plan.seconds, rate)
        )

    async def _sampled(
        self, operation: Operation, load: LoadName, make: Callable[[], Awaitable[Answered]]
    ) -> Sample:
        processes = self.running.processes
        cpu_before = {role: used_s(pids) for role, pids in processes.items()}
        machine, before_s = Machine.now(), harness_s()
        answered = await make()
        ended = time.monotonic()
        await self.running.settle()
        settled_s = time.monotonic() - ended
        return Sample(
            self.contender.name,
            operation,
            load,
            self.round,
            answered,
            {role: used_s(pids) - cpu_before[role] for role, pids in processes.items()},
            settled_s,
            Machine.now().since(machine),
            harness_s() - before_s - answered.cpu_s,
        )

    def _requests(self, operation: Operation) -> Path:
        path = self.place / f"{operation}.requests"
        if not path.exists():
            keys = (f"key-{number:06}" for number in range(self.plan.keys))
            write_requests((self.contender.request(operation, key) for key in keys), path)
        return path
