"""The report: whole, alone, and careful with what it is told."""

from pathlib import Path

import pytest

from tests.chaos.chart import Band, Series, curves, rows
from tests.chaos.evidence import Verdict
from tests.chaos.model_run import model_result
from tests.chaos.nemeses import MEANING
from tests.chaos.plan import NEMESES
from tests.chaos.report import write_report
from tests.html_text import Page


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "report.html"


def test_the_report_is_one_page_that_fetches_nothing(path: Path) -> None:
    write_report(model_result(), path)
    page = Page(path.read_text())
    assert not page.open and not page.fetched
    assert "script" not in page.tags and page.tags.count("svg") == 8
    assert "url(" not in path.read_text() and "@import" not in path.read_text()


def test_it_names_every_nemesis_every_check_and_the_seed(path: Path) -> None:
    told = model_result()
    write_report(told, path)
    text = Page(path.read_text()).text
    assert all(nemesis in text for nemesis in NEMESES)
    assert all(verdict.name in text for verdict in told.verdicts)
    assert f"seed {told.plan.seed}" in text and "all good" in text


def test_what_is_wrong_is_said_at_the_top_and_in_words(path: Path) -> None:
    write_report(model_result(Verdict("pigs cannot fly", "a look at the sky", ["one did"])), path)
    text = Page(path.read_text()).text
    assert "something is wrong" in text and "all good" not in text
    assert "one did" in text


def test_what_came_from_outside_is_text_and_nothing_else(path: Path) -> None:
    evil = "<script>alert('&')</script>"
    write_report(model_result(Verdict("evil", evil, [evil]), proof=evil), path)
    page = Page(path.read_text())
    assert "script" not in page.tags
    assert evil in page.text


def test_every_nemesis_has_a_meaning() -> None:
    assert set(MEANING) == set(NEMESES)


def test_a_gap_in_the_data_is_a_gap_in_the_line() -> None:
    series = Series("A", [(0.0, 1.0), (1.0, 2.0), (2.0, None), (3.0, 1.0), (4.0, 1.0)], "c0")
    assert curves([series], [], 4.0, 100).count("<polyline") == 2


@pytest.mark.parametrize("points", [[], [(0.0, None)], [(0.0, 0.0)], [(0.0, 1e9), (5.0, 0.001)]])
def test_odd_data_can_be_drawn(points: list[tuple[float, float | None]]) -> None:
    page = Page(curves([Series("A", points, "c0")], [], 5.0, 100))
    assert page.tags[0] == "svg" and not page.open


def test_a_bar_is_where_its_band_is() -> None:
    bands = [Band(0.0, 10.0, "network", "one", "a"), Band(0.0, 5.0, "clocks", "two", "b")]
    drawn = rows(["one", "two"], bands, 10.0)
    widths = [float(part.split('"')[1]) for part in drawn.split(" width=")[1:]]
    assert widths[0] == pytest.approx(2 * widths[1])
