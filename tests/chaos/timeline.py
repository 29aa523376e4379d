"""How a run went, second by second: what was acknowledged, and how far each node had come.

What it is: `Timeline`, which takes a `Sample` every so often, and what follows from samples: rates,
the distance of each node from all that was written, and for how long it had been behind.

What it assumes and guarantees: the clock of a node only grows, so what one sample lacks can be seen
in another. A node that does not answer has no clock in that sample. Delays are as coarse as the
samples are apart.

What it does not know: why a node is behind.
"""

import asyncio
import itertools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from client import Lightcone, LightconeError, Status
from tests.chaos.load import Tally

Clock = Mapping[str, int]
Points = Sequence[tuple[float, float | None]]

PERIOD_S = 0.5
_GLANCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment: counts since the begin; by node its clock, how many writes wait there, and how
    many its logs hold."""

    at_s: float
    reads: Mapping[str, int]
    writes: Mapping[str, int]
    clocks: Mapping[str, Clock]
    pending: Mapping[str, int]
    logged: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Timeline:
    """The samples so far."""

    nodes: tuple[str, ...]
    samples: list[Sample] = field(default_factory=list)
    #: Of actors whose last writes are lost with a disk: how far they have lasted.
    lasting: Mapping[str, int] = field(default_factory=dict)

    async def take(self, kv: Lightcone, urls: Mapping[str, str], tally: Tally) -> None:
        """Samples are taken, until this is cancelled."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        session = kv.session(name="timeline", timeout_s=_GLANCE_S)

        async def ask(node: str) -> Status | None:
            try:
                return await session.status(urls[node])
            except LightconeError:
                return None

        while True:
            at_s = loop.time() - began
            reads, writes = dict(tally.reads), dict(tally.writes)
            told = dict(zip(urls, await asyncio.gather(*map(ask, urls)), strict=True))
            self.samples.append(
                Sample(
                    at_s,
                    reads,
                    writes,
                    {node: status["clock"] for node, status in told.items() if status},
                    {node: status["pending"]["total"] for node, status in told.items() if status},
                    {node: status["log"]["entries"] for node, status in told.items() if status},
                )
            )
            await asyncio.sleep(max(0.0, began + at_s + PERIOD_S - loop.time()))

    def rates(self, kind: str, outcome: str, most: int = 200) -> list[tuple[float, float]]:
        """How many `reads` or `writes` a second ended so, as `most` means over time at most."""
        points = []
        apart = self.samples[:: 1 + len(self.samples) // most]
        for before, sample in itertools.pairwise(apart):
            counts = [getattr(s, kind).get(outcome, 0) for s in (before, sample)]
            points.append((sample.at_s, (counts[1] - counts[0]) / (sample.at_s - before.at_s)))
        return points

    def written(self) -> list[Clock]:
        """For each sample: what had been written by then, as far as any node had told and it is
        not lost."""
        known: dict[str, int] = {}
        clocks: list[Clock] = []
        for sample in self.samples:
            for clock in sample.clocks.values():
                for actor, sequence in clock.items():
                    lasting = min(sequence, self.lasting.get(actor, sequence))
                    known[actor] = max(known.get(actor, 0), lasting)
            clocks.append(dict(known))
        return clocks

    def distances(self, node: str) -> list[tuple[float, float | None]]:
        """How many writes the node lacked at each sample; None where it did not answer."""
        return [
            (
                sample.at_s,
                None
                if (clock := sample.clocks.get(node)) is None
                else sum(s - min(s, clock.get(actor, 0)) for actor, s in written.items()),
            )
            for sample, written in zip(self.samples, self.written(), strict=True)
        ]

    def delays_s(self, node: str) -> list[tuple[float, float | None]]:
        """How old at each sample the newest state was of which the node had everything.

        While a node does not answer its state is that of its last answer, so its delay grows.
        """
        written = self.written()
        points: list[tuple[float, float | None]] = []
        clock: Clock = {}
        for index, sample in enumerate(self.samples):
            clock = sample.clocks.get(node, clock)
            # What had been written only grows, so what the node covers is all up to some sample.
            covered = bisect_right(
                written[: index + 1], False, key=lambda state: not _covers(clock, state)
            )
            at_s = self.samples[covered - 1].at_s if covered else 0.0
            points.append((sample.at_s, sample.at_s - at_s))
        return points


def _covers(clock: Clock, other: Clock) -> bool:
    return all(clock.get(actor, 0) >= sequence for actor, sequence in other.items())


def peaks(points: Points, most: int = 400) -> Points:
    """The highest of each few points that follow each other, `most` of them at most.

    Where one of the few is None, so is the result: a gap stays a gap.
    """
    few = 1 + len(points) // most
    groups = [points[i : i + few] for i in range(0, len(points), few)]
    return [
        (
            group[-1][0],
            max(known)
            if len(known := [value for _, value in group if value is not None]) == len(group)
            else None,
        )
        for group in groups
    ]


def highest(points: Points) -> float:
    """The highest of the points; 0 if there are none."""
    return max((value for _, value in points if value is not None), default=0.0)
