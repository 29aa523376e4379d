"""Several seeds in one process, and what came of them, small enough to be handed to another.

What it is: `run_seeds`. What it assumes and guarantees: a seed that breaks the simulation itself
counts as a failure, with the traceback. What it does not know: who asks.
"""

import gc
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.simulation.cluster import simulate
from tests.simulation.plan import plan_for


@dataclass(frozen=True, slots=True)
class Failure:
    """A seed that found something."""

    seed: int
    profile: str
    violation: str

    def __str__(self) -> str:
        return f"seed {self.seed} ({self.profile}): {self.violation}"


@dataclass
class Outcomes:
    """What came of some seeds: failures, and how often each kind of event happened."""

    failures: list[Failure] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)


def run_seeds(
    seeds: Iterable[int],
    profile: str | None = None,
    *,
    clients_only: bool = False,
    stop_at_first: bool = False,
) -> Outcomes:
    """What came of these seeds."""
    outcomes = Outcomes()
    gc.collect()
    gc.freeze()  # what is here now stays, and need not be looked through after each seed
    for seed in seeds:
        plan = plan_for(seed, profile)
        try:
            result = simulate(plan, clients_only=clients_only)
        except Exception:  # what breaks the simulation itself is a finding, too
            violation: str | None = traceback.format_exc()
        else:
            violation = result.violation
            outcomes.seen.update(result.seen)
        gc.collect()
        if violation is not None:
            outcomes.failures.append(Failure(seed, plan.profile, violation))
            if stop_at_first:
                break
    return outcomes
