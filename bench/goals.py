"""What the figures are to be, and whether they are.

What it assumes and guarantees: a goal is about a ratio of two contenders in the same round, so that
a slower machine moves both. It is met or missed where the median of the ratio is sure to be
(`Spread`); otherwise the rounds do not tell.

What it does not know: how anything was measured. Goals that need other measurements than these
rounds are where those are taken; docs/performance.md has all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bench.figures import Figure, Spread, by_contender, ratio
from bench.samples import LoadName, Operation, Sample

Verdict = Literal["met", "missed", "the rounds do not tell", "not measured"]


@dataclass(frozen=True, slots=True)
class Side:
    """A figure of one contender."""

    contender: str
    name: str
    figure: Figure


def worker(contender: str) -> Side:
    """CPU time of the process that answers, per request."""
    return Side(contender, "CPU of the worker", lambda sample: sample.cpu_us("worker"))


def everything(contender: str) -> Side:
    """CPU time of all its processes on all its nodes, per request."""
    return Side(contender, "CPU of all its processes", lambda sample: sample.cpu_us())


def p99(contender: str) -> Side:
    """The time that 99 of 100 requests do not exceed."""
    return Side(contender, "p99", lambda sample: sample.answered.p99_us)


def throughput(contender: str) -> Side:
    """Requests a second."""
    return Side(contender, "throughput", lambda sample: sample.throughput)


@dataclass(frozen=True, slots=True)
class Goal:
    """`above` over `below` is to be at most, or at least, so much."""

    operation: Operation
    load: LoadName
    above: Side
    below: Side
    limit: float
    at_most: bool = True

    def __str__(self) -> str:
        load = "" if self.load == "full" else " at half load"
        sign = "<=" if self.at_most else ">="
        above = f"{self.above.contender}, {self.above.name}"
        return f"{self.operation}{load}: {above} {sign} {self.limit:g} x {self.below.contender}"

    def ratio(self, samples: Sequence[Sample]) -> Spread | None:
        """What it is in the rounds; None if that was not measured."""
        found = by_contender(samples, self.operation, self.load)
        return ratio(
            (found.get(self.above.contender, ()), self.above.figure),
            (found.get(self.below.contender, ()), self.below.figure),
        )

    def verdict(self, samples: Sequence[Sample]) -> Verdict:
        """Whether it is met."""
        return verdict(self.ratio(samples), self.limit, at_most=self.at_most)


def verdict(found: Spread | None, limit: float, *, at_most: bool) -> Verdict:
    """Whether what was found in the rounds is at most, or at least, so much."""
    if found is None:
        return "not measured"

    def holds(value: float) -> bool:
        return value <= limit if at_most else value >= limit

    if holds(found.low) != holds(found.high):
        return "the rounds do not tell"
    return "met" if holds(found.median) else "missed"


GOALS: Final = (
    Goal("PUT", "full", worker("alone"), worker("bare"), 1.5),
    Goal("GET", "full", worker("alone"), worker("bare"), 1.35),
    Goal("PUT", "full", everything("alone"), everything("naive"), 0.5),
    Goal("GET", "full", everything("alone"), everything("naive"), 0.5),
    Goal("PUT", "half", p99("alone"), p99("naive"), 1.0),
    Goal("GET", "half", p99("alone"), p99("naive"), 1.0),
    Goal("PUT", "full", everything("three"), everything("naive"), 0.9),
    Goal("PUT", "full", throughput("three"), throughput("eventual"), 0.95, at_most=False),
    Goal("GET", "full", throughput("three"), throughput("eventual"), 0.95, at_most=False),
)
