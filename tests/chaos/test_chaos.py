"""A short run of everything, also of deferring and expiring; `make chaos` does it for longer."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.load import Tally
from tests.chaos.nodes import lacking
from tests.chaos.plan import NEMESES, Strike, plan_for
from tests.chaos.report import write_report
from tests.chaos.run import run
from tests.checker.__main__ import main as check_history

pytestmark = pytest.mark.timeout(600)

SEED = 2


class Notes:
    """Looks at a run, and keeps what it is told for when the test fails."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def tell(self, line: str) -> None:
        self.lines.append(line)
        print(line)

    def show(self, tally: Tally, under_way: Sequence[Strike]) -> None:
        """Nobody looks."""


async def test_a_cluster_bears_every_nemesis_under_load(tmp_path: Path) -> None:
    without = lacking()
    for nemesis, reason in without.items():
        print(f"left out: {nemesis}, because {reason}")
    plan = plan_for(SEED, seconds=40, without=without)
    result = await run(plan, tmp_path, Notes())
    told = "\n".join(map(str, result.verdicts))
    print(told)
    assert result.is_good, told

    fired = {firing.strike.nemesis for firing in result.firings}
    assert fired == set(NEMESES) - set(without)
    report = tmp_path / "report.html"
    write_report(result, report)
    # The history is there for people too, and says the same by itself.
    assert check_history([str(result.history)]) == 0
