"""What processes used between two moments, for so many things done meanwhile.

What it is: `Meter`, begun at one moment, and `Reading`, what it says at a later one.

What it assumes and guarantees: Linux. All processes run at both moments. CPU time comes in ticks of
10 ms, so a reading is only as good as it is long.

What it does not know: what was done.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.accounting import Machine, used_s
from bench.load import children_cpu_s


@dataclass(frozen=True, slots=True)
class Reading:
    """So many things were done in so many seconds, for so much CPU time."""

    count: int
    seconds: float
    cpu_s: Mapping[str, float]
    """By what the processes are for."""
    machine: Machine
    """All CPU time of the machine meanwhile."""
    harness_s: float = 0.0
    """CPU time of the process that measures, and of what it started."""

    @property
    def rate(self) -> float:
        """Things done a second."""
        return self.count / self.seconds

    def cpu_us(self, *roles: str) -> float:
        """Microseconds of CPU time per thing done of these processes."""
        return sum(self.cpu_s[role] for role in roles) * 1e6 / self.count

    @property
    def others_share(self) -> float:
        """What processes used that are not measured, as a part of the machine."""
        ours = sum(self.cpu_s.values()) + self.harness_s
        return max(0.0, self.machine.busy_s - ours) / (self.machine.all_s or 1.0)

    @property
    def steal_share(self) -> float:
        """What was taken from the machine, as a part of it."""
        return self.machine.steal_s / (self.machine.all_s or 1.0)


class Meter:
    """Measures these processes from now on."""

    def __init__(self, processes: Mapping[str, Iterable[int]]) -> None:
        """Raises ProcessGone."""
        self._processes = {role: list(pids) for role, pids in processes.items()}
        self._machine, self._harness_s = Machine.now(), harness_s()
        self._cpu_s = self._used()
        self._begun = time.monotonic()

    def read(self, count: int) -> Reading:
        """What was used for so many things done. Raises ProcessGone."""
        seconds = time.monotonic() - self._begun
        used = {role: cpu_s - self._cpu_s[role] for role, cpu_s in self._used().items()}
        machine = Machine.now().since(self._machine)
        return Reading(count, seconds, used, machine, harness_s() - self._harness_s)

    def _used(self) -> dict[str, float]:
        return {role: used_s(pids) for role, pids in self._processes.items()}


def harness_s() -> float:
    """The CPU time of this process and of the generators that it has started."""
    return time.process_time() + children_cpu_s()
