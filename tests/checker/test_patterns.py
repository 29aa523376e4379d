"""Every history of `histories.txt` is found as good or as bad as its heading says."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.checker.check import MEANING, check
from tests.checker.explain import Explainer
from tests.checker.notation import line, parse


class Told(NamedTuple):
    name: str
    patterns: set[str]
    broken: str | None
    text: str


def _read() -> list[Told]:
    text = (Path(__file__).parent / "histories.txt").read_text(encoding="utf-8")
    heading = re.compile(r"(.*): ([A-Za-z, ]+?)(?: \((.*)\))?")
    told = []
    for part in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        first, _, lines = part.partition("\n")
        match = heading.fullmatch(first)
        assert match, first
        patterns = set() if match[2] == "nothing" else set(match[2].split(", "))
        told.append(Told(match[1], patterns, match[3], lines))
    return told


HISTORIES = _read()


@pytest.mark.parametrize("told", HISTORIES, ids=lambda told: told.name)
def test_history_is_judged_as_told(told: Told) -> None:
    report = check(parse(told.text))
    explanations = [Explainer(report).explain(finding) for finding in report.findings]
    assert set(report.counts()) == told.patterns, "\n\n".join(map(str, explanations))
    if told.broken:
        assert explanations[0].broken == told.broken


@pytest.mark.parametrize("told", HISTORIES, ids=lambda told: told.name)
def test_notation_prints_what_it_reads(told: Told) -> None:
    lines = [text for text in told.text.splitlines() if text and not text.startswith("#")]
    assert [line(operation) for operation in parse(told.text)] == lines


def test_every_pattern_is_shown_by_some_history() -> None:
    assert set(MEANING) == {pattern for told in HISTORIES for pattern in told.patterns}


def test_every_session_guarantee_is_broken_by_some_history() -> None:
    assert {
        "read your writes",
        "monotonic reads",
        "monotonic writes",
        "writes follow reads",
    } < {told.broken for told in HISTORIES}


@pytest.mark.parametrize("told", HISTORIES, ids=lambda told: told.name)
def test_batches_of_any_size_find_the_same(told: Told) -> None:
    operations = parse(told.text)
    assert check(operations, batch_bits=1).counts() == check(operations).counts()


def test_without_dots_only_sessions_and_values_count() -> None:
    operations = parse(
        """
        alice@A put x=1 -> A:1
        bob@A put y=2 -> A:2
        carol@B txn y: 2, x: nothing
        """
    )
    assert not check(operations).is_good
    assert check(operations, use_dots=False).is_good
