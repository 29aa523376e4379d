"""`python -m tests.checker FILE.jsonl`, and the explanations it prints."""

import io
from pathlib import Path

import pytest

from tests.checker.__main__ import main
from tests.checker.check import check
from tests.checker.explain import Explainer
from tests.checker.history import to_json
from tests.checker.notation import parse
from tests.checker.workload import Workload

OVERTAKEN = """
    alice@A put x=1 -> A:1
    bob@B get x: 1
    zoe@Z put unrelated=9
    bob@B put y=2 -> B:1
    carol@C txn y: 2, x: nothing
    carol@C get y: 2
"""


def _file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "history.jsonl"
    path.write_text("\n".join(map(to_json, parse(text))))
    return str(path)


def test_a_good_history_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([_file(tmp_path, "alice@A put x=1\nalice@A get x: 1")]) == 0
    assert capsys.readouterr().out == (
        "2 operations of 1 sessions: 2 ok, 0 not applied, 0 unknown.\nNothing found.\n"
    )


def test_a_bad_history_ends_with_1_and_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([_file(tmp_path, OVERTAKEN)]) == 1
    assert capsys.readouterr().out == (
        """\
6 operations of 4 sessions: 6 ok, 0 not applied, 0 unknown.

WriteCOInitRead: a read shows nothing although a put came before it
  1  alice@A put x=1 -> A:1
  2  bob@B get x: 1                shows 1
  3  bob@B put y=2 -> B:1          bob, after 2
  4  carol@C txn y: 2, x: nothing  shows 3
  1 comes before 4, and no delete can be the reason that it is missing.
  Broken: writes follow reads.

Found:
       1  WriteCOInitRead: a read shows nothing although a put came before it
"""
    )


def test_what_is_no_history_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text("{}")
    assert main([str(path)]) == 2
    assert main([str(tmp_path / "none.jsonl")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "Line 1: kind is one of put" in errors[0]
    assert "none.jsonl" in errors[1]


def test_standard_input_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(to_json(parse("a@A put x=1")[0])))
    assert main(["-"]) == 0
    assert "1 operations" in capsys.readouterr().out


def test_without_dots_less_is_claimed(tmp_path: Path) -> None:
    text = "a@A put x=1 -> A:1\nb@A put y=2 -> A:2\nc@B txn y: 2, x: nothing"
    assert main([_file(tmp_path, text)]) == 1
    assert main([_file(tmp_path, text), "--no-dots"]) == 0


def test_counts_tell_what_is_not_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "\n".join(f"alice@A put k{n}=1\nalice@B get k{n}: nothing" for n in range(5))
    assert main([_file(tmp_path, text), "--explain", "1"]) == 1
    out = capsys.readouterr().out
    assert out.count("Broken") == 1
    assert "     5  WriteCOInitRead" in out


@pytest.mark.parametrize(
    ("text", "explained"),
    [
        (
            """
            alice@A put x=1
            alice@A put x=2
            bob@A get x: 2
            bob@B get x: 1
            """,
            """\
WriteCORead: a read shows a version that was superseded before it
  1  alice@A put x=1
  2  alice@A put x=2  alice, after 1
  3  bob@A get x: 2   shows 2
  4  bob@B get x: 1   bob, after 3
  2 superseded 1 and comes before 4, which shows it still.
  Broken: monotonic reads.""",
        ),
        (
            """
            alice@A put x=1
            bob@B put x=2
            alice@A get x: 2
            bob@B get x: 1
            """,
            """\
CyclicCF: no order of writes agrees with every winner shown
  1  alice@A put x=1
  2  bob@B put x=2
  3  alice@A get x: 2  alice, after 1; shows 2
  4  bob@B get x: 1    shows 1; bob, after 2
  3 has 2 win over 1, 4 has 1 win over 2: no order of writes fits.""",
        ),
        (
            """
            alice@A get x: 1
            alice@A put x=1
            """,
            """\
CyclicCO: the causal order has a cycle: an effect comes before its cause
  1  alice@A get x: 1  shows 2
  2  alice@A put x=1   alice, after 1
  Each comes after the one before it, and 1 again after 2.""",
        ),
        (
            """
            alice@A put x=1 -> A:1 [after nothing]
            bob@B put x=2 -> B:1 [after nothing]
            check@C siblings x: 2 [final]
            """,
            """\
LostWrite: at the end, a version is neither there nor superseded
  1  alice@A put x=1 -> A:1 [after nothing]
  2  bob@B put x=2 -> B:1 [after nothing]
  3  check@C siblings x: 2 [final]  shows 2
  1 took effect, and nothing that 3 shows has superseded it.""",
        ),
    ],
    ids=["superseded", "winners", "cycle", "lost"],
)
def test_explanations_name_few_operations_and_say_why(text: str, explained: str) -> None:
    report = check(parse(text))
    assert str(Explainer(report).explain(report.findings[0])) == explained


def test_an_explanation_is_short_however_long_the_history() -> None:
    report = check(Workload(2, fault="context ignored on read", keys=2).history(3000))
    explainer = Explainer(report)
    shortest = min(len(explainer.explain(finding).steps) for finding in report.findings[:20])
    assert shortest <= 5
