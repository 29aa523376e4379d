"""What many rounds say together: medians, how sure they are, ratios, and what disturbed them.

Assumes that in each round all contenders were measured one after the other, so that what disturbs
the machine for longer disturbs them alike: ratios are taken within a round, and then compared.

Guarantees that nothing is left out of a median as an outlier, and that how sure one is follows from
how many rounds say so, whatever the noise is like. Does not know who the contenders are, but for
one that is named as the baseline.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from bench.samples import Sample

SPREAD_MAX: Final = 0.10
"""How sure the baseline's CPU time per request has to be. It does the same each time."""
OTHERS_MAX: Final = 0.05
"""Of the machine's time, by processes that are not measured."""
STEAL_MAX: Final = 0.02
"""Of the machine's time, taken by the machine that it runs on."""
GENERATOR_MAX: Final = 0.85
"""Of a core. A generator that is busier may be what limits the throughput."""

SETTLE_MAX: Final = 0.2
"""Of the time of a measurement, until peers have everything after it. Whose peers need longer does
not keep up with its clients."""

UNSURE_MAX: Final = 0.05
"""How probable it may be that a median is not where it is said to be."""

Figure = Callable[[Sample], float]


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure in all rounds: their median, and between which of them it would lie, with a
    certainty of 95 %, if there were any number of rounds.

    Of fewer than nine that is all of them, and of fewer than six less certain.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value.

        Each further value is below the median as often as above it, whatever the noise is like
        (Thompson, "On confidence ranges for the median", 1936).
        """
        rising = sorted(values)
        passed_over = _passed_over(len(rising))
        return cls(statistics.median(rising), rising[passed_over], rising[-1 - passed_over])

    @property
    def width(self) -> float:
        """From the lowest to the highest, as a part of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def _passed_over(count: int) -> int:
    """How many of the lowest, and of the highest, of so many values need not be looked at for the
    median to lie between the others."""
    ways, number = 0, 0  # in which at most `number` of the values are below it
    while True:
        ways += math.comb(count, number)
        if 2 * ways > UNSURE_MAX * 2**count:
            return max(0, number - 1)
        number += 1


def percentile(rising: Sequence[float], percent: float) -> float:
    """The least of these values that so many of a hundred do not exceed (nearest rank)."""
    return rising[max(0, math.ceil(len(rising) * percent / 100) - 1)]


def spread(samples: Iterable[Sample], figure: Figure) -> Spread:
    """The figure over these samples, of which there is at least one."""
    return Spread.of([figure(sample) for sample in samples])


def ratio(
    above: tuple[Iterable[Sample], Figure], below: tuple[Iterable[Sample], Figure]
) -> Spread | None:
    """One figure over the other, taken in each round that has both; None if there is no such."""
    upper, lower = (
        {sample.round: figure(sample) for sample in samples} for samples, figure in (above, below)
    )
    values = [upper[number] / lower[number] for number in upper if lower.get(number)]
    return Spread.of(values) if values else None


def by_contender(
    samples: Iterable[Sample], operation: str, load: str
) -> Mapping[str, list[Sample]]:
    """Those of one operation under one load, by contender, in the order in which they came."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if (sample.operation, sample.load) == (operation, load):
            found[sample.contender].append(sample)
    return found


def noises(samples: Sequence[Sample], baseline: str) -> list[str]:
    """What says that the machine was noisy, in sentences; empty if nothing does."""
    said = []
    for operation in dict.fromkeys(sample.operation for sample in samples):
        same = by_contender(samples, operation, "full").get(baseline, [])
        if not same:
            continue
        found = spread(same, lambda sample: sample.cpu_us("worker"))
        if found.width > SPREAD_MAX:
            said.append(
                f"The CPU time of {baseline} per {operation}, which should be the same in each "
                f"round, is known no better than between {found.low:.0f} and {found.high:.0f} us."
            )
    return [*said, *disturbances(samples)]


class Disturbed(Protocol):
    """A measurement, and what used the machine beside what was measured, as parts of it."""

    @property
    def others_share(self) -> float:
        """Processes that are not measured."""
        ...

    @property
    def steal_share(self) -> float:
        """The machine below."""
        ...


def disturbances(samples: Sequence[Disturbed]) -> list[str]:
    """What used more of the machine beside what was measured than it may, in sentences."""
    said = []
    for name, shares, most in (
        ("other processes", [sample.others_share for sample in samples], OTHERS_MAX),
        ("the machine below this one (steal)", [s.steal_share for s in samples], STEAL_MAX),
    ):
        if disturbed := [share for share in shares if share > most]:
            said.append(
                f"In {len(disturbed)} of {len(samples)} measurements {name} used more than "
                f"{most:.0%} of the machine, and up to {max(disturbed):.0%}."
            )
    return said


def limited_by_generator(samples: Iterable[Sample]) -> list[str]:
    """The measurements of throughput in which the generator was about as busy as it can be."""
    busy: dict[str, float] = {}
    for sample in samples:
        share = sample.generator_share
        if sample.load == "full" and share > GENERATOR_MAX:
            name = f"{sample.contender} {sample.operation}"
            busy[name] = max(share, busy.get(name, 0.0))
    return [
        f"{name}: the load generator used {share:.0%} of a core, so that the throughput is a lower "
        "bound."
        for name, share in busy.items()
    ]


def fell_behind(samples: Iterable[Sample]) -> list[str]:
    """The measurements of throughput after which peers needed long to have everything."""
    behind: dict[str, float] = {}
    for sample in samples:
        if sample.load == "full" and sample.settled_s > SETTLE_MAX * sample.answered.seconds:
            name = f"{sample.contender} {sample.operation}"
            behind[name] = max(sample.settled_s, behind.get(name, 0.0))
    return [
        f"{name}: after the last answer its peers needed {longest:.1f} s to have everything, so "
        "that such a throughput does not last."
        for name, longest in behind.items()
    ]
