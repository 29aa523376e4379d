"""Rounds of measurements: A B C, A B C, and so on.

Assumes nothing of the contenders but what `Contender` says. Guarantees that all are there all the
time, and all but one idle; that in each round each comes right after the other, for a short time,
since what a machine is worth changes by the second; and that what a contender does after its last
answer, for its peers to have everything, is counted with it. No round is begun after the time that
was given.

Does not know what the figures mean.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.accounting import Machine, used_s
from bench.contenders import Contender, Running
from bench.load import Loads
from bench.reading import harness_s
from bench.requests import write_requests
from bench.samples import LoadName, Operation, Sample

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
    """Before the first round, of each contender and operation."""
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
    async with AsyncExitStack() as stack:
        sides = []
        for contender in plan.contenders:
            tell(f"{contender.name} starts", 0)
            place = stack.enter_context(own_place(contender.name))
            running = await stack.enter_async_context(contender.start(place, plan.fsync))
            sides.append(_Side(plan, contender, running, place))
        for side in sides:
            await side.prepare()
        for number in range(plan.rounds):
            if time.monotonic() > give_up:
                break
            for operation in plan.operations:
                name = f"round {number + 1} of {plan.rounds}: {operation}"
                tell(name, 0)
                rates: list[float | None] = [None] * len(sides)
                for load in LOADS:
                    for index, side in enumerate(sides):
                        others = sides[:index] + sides[index + 1 :]
                        sample = await side.sample(operation, number, others, rates[index])
                        rates[index] = sample.throughput / 2
                        samples.append(sample)
                        tell(f"{name}, {load} load", 1)
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
class _Side:
    """One contender, which runs."""

    plan: Plan
    contender: Contender
    running: Running
    place: Path

    async def prepare(self) -> None:
        """Every key has a value, every node has written something that others depend on, and each
        operation has been asked for."""
        loads, (asked, *peers) = self._loads, self.running.ports
        if self.contender.keeps:
            for port, most in ((asked, self.plan.keys), *((port, 1) for port in peers)):
                await loads.once(self._requests(PUT), port, most)
                await self.running.settle()
        for operation in self.plan.operations:
            await loads.saturate(self._requests(operation), asked, self.plan.warm_up_s)
            await self.running.settle()

    def used_s(self) -> float:
        """The CPU time of all of its processes."""
        return sum(map(used_s, self.running.processes.values()))

    async def sample(
        self, operation: Operation, number: int, others: "Sequence[_Side]", rate: float | None
    ) -> Sample:
        """As much load as there can be; or so many requests a second. The others are idle."""
        loads, port, requests = self._loads, self.running.ports[0], self._requests(operation)
        processes = self.running.processes

        def beside_s() -> float:
            return harness_s() + sum(side.used_s() for side in others)

        cpu_before = {role: used_s(pids) for role, pids in processes.items()}
        machine, before_s = Machine.now(), beside_s()
        if rate is None:
            answered = await loads.saturate(requests, port, self.plan.seconds)
        else:
            answered = await loads.pace(requests, port, self.plan.seconds, rate)
        ended = time.monotonic()
        await self.running.settle()
        settled_s = time.monotonic() - ended
        return Sample(
            self.contender.name,
            operation,
            "full" if rate is None else "half",
            number,
            answered,
            {role: used_s(pids) - cpu_before[role] for role, pids in processes.items()},
            settled_s,
            Machine.now().since(machine),
            beside_s() - before_s - answered.cpu_s,
        )

    @property
    def _loads(self) -> Loads:
        loads = self.plan.loads
        return replace(loads, connections=loads.connections * self.contender.times)

    def _requests(self, operation: Operation) -> Path:
        path = self.place / f"{operation}.requests"
        if not path.exists():
            keys = (f"key-{number:06}" for number in range(self.plan.keys))
            write_requests((self.contender.request(operation, key) for key in keys), path)
        return path
