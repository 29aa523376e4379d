"""All that came of a run, and what follows from it: rows of figures, verdicts, JSON.

What it assumes and guarantees: everything here follows from the samples, which are kept whole.

What it does not know: how it is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.figures import (
    Spread,
    by_contender,
    fell_behind,
    limited_by_generator,
    noises,
    ratio,
    spread,
)
from bench.goals import GOALS
from bench.samples import LoadName, Operation, Sample

BASELINE: Final = "bare"
"""What the worker's CPU time is compared with, and how noise is noticed."""
PLAIN: Final = "naive"
"""What the CPU time of all processes is compared with."""
OPERATIONS: Final[tuple[Operation, ...]] = ("PUT", "GET")
LOADS: Final[tuple[LoadName, ...]] = ("full", "half")
ROLES: Final = ("worker", "redis", "peers")


@dataclass(frozen=True, slots=True)
class Row:
    """What the rounds say of one contender, operation and load."""

    contender: str
    throughput: Spread
    """Requests a second."""
    cpu_us: Mapping[str, Spread]
    """Per request, by what the processes are for."""
    all_us: Spread
    """Per request, of all processes."""
    over_bare: Spread | None
    """The worker's CPU time over that of the worker of `bare`."""
    over_naive: Spread | None
    """The CPU time of all processes over that of all of `naive`."""
    p50_ms: Spread
    p99_ms: Spread
    p999_ms: Spread
    worker_share: Spread
    """How busy the worker was, as a part of one core."""
    generator_share: Spread
    """How busy the load generator was, as a part of one core."""
    settled_s: Spread
    """From the last answer until all nodes had everything."""
    errors: int


@dataclass(frozen=True, slots=True)
class Result:
    """A run."""

    settings: Mapping[str, str]
    machine: Mapping[str, str]
    left_out: Mapping[str, str]
    """Contenders that were not measured, and why."""
    samples: Sequence[Sample]

    @property
    def noises(self) -> list[str]:
        """What says that the machine was noisy; empty if nothing does."""
        return noises(self.samples, BASELINE)

    @property
    def notes(self) -> list[str]:
        """What else is to be known before a figure is believed."""
        failed = [sample for sample in self.samples if sample.answered.errors]
        out = [f"{name} was left out: {reason}." for name, reason in self.left_out.items()]
        errors = [
            f"{sample.contender} {sample.operation}, {sample.load} load, round {sample.round + 1}: "
            f"{sample.answered.errors} of {sample.answered.requests} requests failed."
            for sample in failed
        ]
        return [*out, *errors, *limited_by_generator(self.samples), *fell_behind(self.samples)]

    def rows(self, operation: Operation, load: LoadName) -> list[Row]:
        """A row for each contender that was measured so."""
        found = by_contender(self.samples, operation, load)
        return [self._row(samples, found) for samples in found.values()]

    def verdicts(self) -> list[tuple[str, Spread | None, float, str]]:
        """Each goal with its ratio, its limit and whether it is met."""
        return [
            (str(goal), goal.ratio(self.samples), goal.limit, goal.verdict(self.samples))
            for goal in GOALS
        ]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "settings": dict(self.settings),
            "machine": dict(self.machine),
            "noises": self.noises,
            "notes": self.notes,
            "goals": [
                {
                    "goal": goal,
                    "ratio": None if found is None else asdict(found),
                    "limit": limit,
                    "verdict": verdict,
                }
                for goal, found, limit, verdict in self.verdicts()
            ],
            "figures": [
                {"operation": operation, "load": load, **asdict(row)}
                for operation in OPERATIONS
                for load in LOADS
                for row in self.rows(operation, load)
            ],
            "samples": [asdict(sample) for sample in self.samples],
        }

    def _row(self, samples: Sequence[Sample], all_of: Mapping[str, Sequence[Sample]]) -> Row:
        def over(contender: str, *roles: str) -> Spread | None:
            def figure(sample: Sample) -> float:
                return sample.cpu_us(*roles)

            return ratio((samples, figure), (all_of.get(contender, ()), figure))

        roles = dict.fromkeys(role for sample in samples for role in sample.cpu_s)
        return Row(
            samples[0].contender,
            spread(samples, lambda sample: sample.throughput),
            {role: _of_role(samples, role) for role in roles},
            spread(samples, lambda sample: sample.cpu_us()),
            over(BASELINE, "worker"),
            over(PLAIN),
            spread(samples, lambda sample: sample.answered.p50_us / 1000),
            spread(samples, lambda sample: sample.answered.p99_us / 1000),
            spread(samples, lambda sample: sample.answered.p999_us / 1000),
            spread(samples, lambda sample: sample.share("worker")),
            spread(samples, lambda sample: sample.generator_share),
            spread(samples, lambda sample: sample.settled_s),
            sum(sample.answered.errors for sample in samples),
        )


def _of_role(samples: Sequence[Sample], role: str) -> Spread:
    return spread(samples, lambda sample: sample.cpu_us(role))
