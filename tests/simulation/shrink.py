"""Making a plan that fails as small as it goes while it still fails in the same way.

What it is: `shrink`.

What it assumes and guarantees: the result fails, too, and breaks the same guarantee. It is not the
smallest there is: the number of tries is bounded.

What it does not know: why it fails.

Where the idea is from: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input"
(2002); Hypothesis.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.simulation.cluster import Result, simulate
from tests.simulation.plan import Plan
from tests.simulation.steps import FINE, Request, Step

TRIES_MAX = 300


def shrink(
    failed: Result, tries_max: int = TRIES_MAX, tried: Callable[[], None] = lambda: None
) -> Result:
    """The result of the smallest plan found that fails like this one. `tried` is called per try."""
    best, tries = failed, 0
    smaller = True
    while smaller and tries < tries_max:
        smaller = False
        for plan in _smaller_plans(best.plan):
            if tries == tries_max:
                break
            tries += 1
            tried()
            result = simulate(plan)
            if result.guarantee == failed.guarantee:
                best, smaller = result, True
                break
    return best


def _smaller_plans(plan: Plan) -> Iterator[Plan]:
    """Large cuts first."""
    last = max((step.at for step in plan.steps), default=0.0)
    if plan.heal_at > last + 0.31:
        yield replace(plan, heal_at=round(last + 0.3, 3))
    yield from _without_nodes(plan)
    if plan.watches:
        yield replace(plan, watches=False)
    for session in plan.sessions:
        others = tuple(s for s in plan.sessions if s != session)
        yield replace(plan, sessions=others, steps=_of_sessions(plan, {s.name for s in others}))
    size = len(plan.steps) // 2
    while size >= 1:
        for start in range(0, len(plan.steps), size):
            yield replace(plan, steps=plan.steps[:start] + plan.steps[start + size :])
        size //= 2
    if any(weather != FINE for weather in plan.weather.values()):
        yield replace(plan, weather=dict.fromkeys(plan.weather, FINE))
        for pair, weather in plan.weather.items():
            if weather != FINE:
                yield replace(plan, weather={**plan.weather, pair: FINE})
    if plan.severed:
        yield replace(plan, severed=())
    if any(plan.skew_ms.values()):
        yield replace(plan, skew_ms=dict.fromkeys(plan.skew_ms, 0))
    if plan.settings.get("workers", 1) > 1:
        yield replace(plan, settings={**plan.settings, "workers": 1})


def _of_sessions(plan: Plan, names: set[str]) -> tuple[Step, ...]:
    return tuple(s for s in plan.steps if not isinstance(s, Request) or s.session in names)


def _without_nodes(plan: Plan) -> Iterator[Plan]:
    if len(plan.nodes) <= 2:
        return
    for node in plan.nodes:
        nodes = tuple(other for other in plan.nodes if other != node)
        yield replace(
            plan,
            nodes=nodes,
            steps=tuple(step for step in plan.steps if node not in _nodes_of(step)),
            weather={pair: w for pair, w in plan.weather.items() if node not in pair},
            severed=tuple(pair for pair in plan.severed if node not in pair),
            skew_ms={other: ms for other, ms in plan.skew_ms.items() if other != node},
        )


def _nodes_of(step: Step) -> set[str]:
    names = ("node", "source", "target")
    return {getattr(step, name) for name in names if hasattr(step, name)}
