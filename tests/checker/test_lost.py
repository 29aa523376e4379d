"""What is lost with a disk has been, and is not there at the end: `check_all`."""

import io

import pytest

from tests.checker.__main__ import main
from tests.checker.check import check, check_all
from tests.checker.history import BadHistory, read_history, to_json
from tests.checker.notation import parse

#: A:2 and A:3 were on one disk. They replaced and deleted what B had, and carol saw that.
LOST = """
    alice@A put x=1 -> A:1 [after nothing]
    bob@B put y=1 -> B:1 [after A:1]
    alice@A put x=2 -> A:2 [after A:1 B:1] [lost A:2]
    alice@A delete y -> A:3 [after A:2 B:1] [lost A:3]
    carol@A siblings x: 2/A:2 [lost A:2]
    carol@A siblings y: nothing [lost A:3]
    alice-1@A get x: 1 [complete]
    check@A siblings x: 1/A:1 [final]
    check@A siblings y: 1/B:1 [final]
"""


def found(text: str) -> list[set[str]]:
    """The patterns found in each of the two histories that one with losses is."""
    return [set(report.counts()) for report in check_all(parse(text))]


def test_what_is_lost_explains_nothing_and_is_missed_by_nobody() -> None:
    assert found(LOST) == [set(), set()]


def test_without_a_loss_the_same_would_be_wrong() -> None:
    assert not check(parse(LOST.replace("[lost A:2]", "").replace("[lost A:3]", ""))).is_good


def test_what_is_lost_was_seen_in_causal_order() -> None:
    shown = LOST.replace("carol@A siblings x: 2/A:2", "carol@A siblings x: 1/A:1 2/A:2")
    assert "SiblingsOfOneActor" in found(shown)[0]
    late = LOST + "\n    alice@A siblings y: 1/B:1 [lost A:3]"
    assert found(late) == [{"WriteCORead"}, set()]


def test_what_is_not_lost_must_last() -> None:
    assert found(LOST.replace("x: 1/A:1 [final]", "x: nothing [final]")) == [set(), {"LostWrite"}]


def test_what_is_lost_is_not_shown_at_the_end() -> None:
    assert found(LOST.replace("x: 1/A:1 [final]", "x: 2/A:2 [final]")) == [set(), {"ThinAirRead"}]


def test_what_is_lost_is_no_reason_for_anything_at_the_end() -> None:
    """Not even a delete that was lost: it would have to be there."""
    assert found(LOST.replace("y: 1/B:1 [final]", "y: nothing [final]")) == [set(), {"LostWrite"}]


def test_who_saw_what_is_lost_is_not_served_without_it() -> None:
    assert found(LOST + "\n    carol@B get y: 1") == [{"FollowsLost", "VersionComesBack"}, set()]


def test_lines_say_it() -> None:
    operations = parse(LOST)
    assert read_history(map(to_json, operations)) == operations


def test_a_final_read_has_not_seen_what_is_lost() -> None:
    with pytest.raises(BadHistory, match="final"):
        read_history(map(to_json, parse("check@A get x: 1 [final] [lost A:1]")))


def test_the_command_says_that_there_are_two_histories(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(map(to_json, parse(LOST)))))
    assert main(["-"]) == 0
    told = capsys.readouterr().out
    assert "lost with a disk" in told and told.count("Nothing found.") == 2
