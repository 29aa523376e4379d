"""The command: what it refuses, how it shows a run, and how it ends."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos.__main__ import EXIT_FOUND, EXIT_GOOD, Screen, conclude, main
from tests.chaos.evidence import Verdict
from tests.chaos.load import Tally
from tests.chaos.model_run import model_result


class Place:
    """A directory as a run leaves it, and what the command says about it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nodes = directory / "nodes"
        self.nodes.mkdir()
        self._console = Console(file=io.StringIO(), width=200)

    def conclude(self, *problems: str) -> tuple[int, str]:
        more = [Verdict("pigs cannot fly", "a look at the sky", problems)] if problems else []
        code = conclude(model_result(*more), self.directory, "the command", self._console)
        assert isinstance(self._console.file, io.StringIO)
        return code, self._console.file.getvalue()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_good_run_ends_with_0_and_leaves_the_report_alone(place: Place) -> None:
    code, told = place.conclude()
    assert code == EXIT_GOOD == 0
    assert (place.directory / "report.html").exists() and not place.nodes.exists()
    assert "Everything is as it must be" in told and "BAD" not in told


def test_a_bad_run_ends_with_1_says_what_is_wrong_and_where_all_of_it_is(place: Place) -> None:
    code, told = place.conclude("one did")
    assert code == EXIT_FOUND == 1
    assert place.nodes.exists() and str(place.nodes) in told
    assert "BAD   pigs cannot fly" in told and "one did" in told
    assert "The same plan again: the command" in told and "history.jsonl" in told


@pytest.mark.parametrize(
    "arguments", [["--nodes", "2"], ["--topology", "star"], ["--seconds", "1"]]
)
def test_wrong_usage_is_told_before_anything_runs(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "error:" in capsys.readouterr().err


def test_without_a_terminal_there_are_plain_lines() -> None:
    console = Console(file=io.StringIO(), width=200)
    screen = Screen(console, strikes=3)
    with screen.progress:
        screen.tell("strikes: kill-node A")
        screen.show(Tally(), [])
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().endswith("strikes: kill-node A\n")
    assert "\x1b" not in console.file.getvalue()


def test_in_a_terminal_there_is_a_bar_with_the_counts() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    screen = Screen(console, strikes=3)
    tally = Tally()
    tally.reads["ok"] = 41
    with screen.progress:
        screen.show(tally, model_result().plan.strikes()[:1])
    assert isinstance(console.file, io.StringIO)
    assert "41 reads" in console.file.getvalue() and "\x1b" in console.file.getvalue()
