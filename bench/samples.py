"""One measurement: one contender, one operation, one load, in one round.

Assumes nothing. Guarantees that what is derived follows from what was measured, and is not kept
beside it. Does not know how it was measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.accounting import Machine

Operation = Literal["PUT", "GET"]
LoadName = Literal["full", "half"]
"""As much as there can be; or half as many requests a second as that were."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a load generator saw."""

    requests: int
    seconds: float
    errors: int
    p50_us: float
    p99_us: float
    p999_us: float
    most_us: float
    cpu_s: float
    """Its own CPU time."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement."""

    contender: str
    operation: Operation
    load: LoadName
    round: int
    answered: Answered
    cpu_s: Mapping[str, float]
    """CPU time of the contender's processes, by what they are for."""
    settled_s: float
    """After the last answer, until all of its nodes had everything."""
    machine: Machine
    """All CPU time of the machine meanwhile."""
    harness_s: float = 0.0
    """CPU time of the process that measures, and of contenders whose turn it is not."""

    @property
    def throughput(self) -> float:
        """Requests answered a second."""
        return self.answered.requests / self.answered.seconds

    def cpu_us(self, *roles: str) -> float:
        """Microseconds of CPU time per request of these processes; of all, without any name."""
        used = sum(self.cpu_s.get(role, 0.0) for role in roles or self.cpu_s)
        return used * 1e6 / self.answered.requests

    def share(self, role: str) -> float:
        """How busy those were, as a part of one core."""
        return self.cpu_s.get(role, 0.0) / self.answered.seconds

    @property
    def generator_share(self) -> float:
        """How busy the load generator was, as a part of one core."""
        return self.answered.cpu_s / self.answered.seconds

    @property
    def others_share(self) -> float:
        """What processes used that are not measured, as a part of the machine."""
        ours = sum(self.cpu_s.values()) + self.answered.cpu_s + self.harness_s
        return max(0.0, self.machine.busy_s - ours) / (self.machine.all_s or 1.0)

    @property
    def steal_share(self) -> float:
        """What was taken from the machine, as a part of it."""
        return self.machine.steal_s / (self.machine.all_s or 1.0)
