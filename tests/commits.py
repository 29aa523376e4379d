"""One write, by the script that commits many."""

from collections.abc import Sequence
from typing import Any

from app.commits import Commit, Outcome
from app.scripts import Scripts
from app.write import Operation


async def commit_one(
    scripts: Scripts,
    actor: str,
    operations: Sequence[Operation],
    now_us: int,
    *,
    known: int = 0,
    requests_max: int = 1,
    **rest: Any,
) -> Outcome | None:
    """What came of this write; None if Redis is not the actor's."""
    commit = Commit(operations, **rest)
    outcomes = await scripts.commit_writes(actor, [commit], now_us, known, requests_max)
    if outcomes is None:
        return None
    (outcome,) = outcomes
    return outcome
