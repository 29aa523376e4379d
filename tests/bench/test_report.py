"""The page, the tables and the JSON: whole, alone, and without a figure that nobody measured."""

import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from bench.chart import Bar, Part, Point, bars, ranges
from bench.contenders import CONTENDERS
from bench.figures import Spread
from bench.report import write_report
from bench.results import Result
from bench.shown import figure, show
from tests.bench.model_run import answered, full_run, result, sample
from tests.html_text import Page


def page_of(run: Result, tmp_path: Path) -> Page:
    write_report(run, tmp_path / "bench.html")
    return Page((tmp_path / "bench.html").read_text())


def text_of(run: Result) -> str:
    file = io.StringIO()
    show(run, Console(file=file, width=200))
    return file.getvalue()


def test_the_page_is_whole_and_fetches_nothing(tmp_path: Path) -> None:
    page = page_of(full_run(), tmp_path)
    assert not page.open and not page.fetched
    assert "script" not in page.tags and page.tags.count("svg") == 6


def test_page_and_terminal_name_who_was_measured_and_who_was_not(tmp_path: Path) -> None:
    page, text = page_of(full_run(), tmp_path).text, text_of(full_run())
    for shown in (page, text):
        assert all(name in shown for name in ("bare", "naive", "alone", "three", "eventual"))
        assert "etcd was left out: etcd is not installed" in shown
        assert "webdis" not in shown
    assert all(CONTENDERS[name].about in page for name in ("bare", "three"))


def test_a_quiet_machine_and_a_noisy_one_are_told_apart_at_the_top(tmp_path: Path) -> None:
    quiet, noisy = (
        full_run(),
        result(sample("bare", {"worker": 0.1}), sample("bare", {"worker": 0.3}, round=1)),
    )
    assert "a quiet machine" in page_of(quiet, tmp_path).text
    assert "a noisy machine" in page_of(noisy, tmp_path).text
    assert "was noisy" in text_of(noisy) and "was noisy" not in text_of(quiet)


def test_requests_that_failed_are_told_of() -> None:
    text = text_of(result(sample("alone", {"worker": 0.1}, came=answered(errors=3))))
    assert "alone PUT, full load, round 1: 3 of 1000 requests failed" in text


def test_what_was_not_measured_is_a_dash_or_is_not_there(tmp_path: Path) -> None:
    run = result(sample("alone", {"worker": 0.1}))
    [row] = run.rows("PUT", "full")
    assert row.over_bare is None and row.over_naive is None
    assert run.rows("GET", "full") == [] and run.rows("PUT", "half") == []
    assert "GET" not in text_of(run).partition("Goals")[0]
    assert not page_of(run, tmp_path).open


def test_rows_hold_the_ratios_to_the_baselines() -> None:
    rows = {row.contender: row for row in full_run().rows("PUT", "full")}
    assert [*rows] == ["bare", "naive", "alone", "three", "eventual"]
    three = rows["three"]
    assert three.over_bare is not None and three.over_bare.median == pytest.approx(1.6)
    assert three.over_naive is not None and three.over_naive.median == pytest.approx(0.75)
    assert three.all_us.median == pytest.approx(150)
    assert three.cpu_us["peers"].median == pytest.approx(60)


def test_json_holds_every_sample_and_what_follows_from_them() -> None:
    told = json.loads(json.dumps(full_run().to_json()))
    assert len(told["samples"]) == 5 * 2 * 2 * 2
    assert len(told["figures"]) == 5 * 2 * 2
    assert {goal["verdict"] for goal in told["goals"]} == {"met", "missed"}
    assert told["noises"] == [] and len(told["notes"]) == 1


def test_a_figure_says_how_far_a_round_was_off() -> None:
    assert figure(Spread(100.0, 90.0, 120.0), 0) == "100 ±20%"
    assert figure(Spread(1234.5, 1234.5, 1234.5), 1) == "1,234.5"
    assert figure(Spread(0.0, 0.0, 1.0), 0) == "0"
    assert figure(None, 2) == "-"


class Drawn(HTMLParser):
    """The attributes of each tag of a kind."""

    def __init__(self, svg: str, tag: str) -> None:
        super().__init__()
        self._tag = tag
        self.found: list[dict[str, str | None]] = []
        self.feed(svg)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == self._tag:
            self.found.append(dict(attrs))


def number(attributes: dict[str, str | None], name: str) -> float:
    value = attributes[name]
    assert value is not None
    return float(value)


def test_bars_are_as_long_as_what_they_show() -> None:
    svg = bars(
        [
            Bar("one", [Part("worker", 10.0, "c0"), Part("redis", 5.0, "c1")], [14.0, 16.0], "15"),
            Bar("two", [Part("worker", 20.0, "c0")], [20.0], "20"),
        ]
    )
    first, second, third = Drawn(svg, "rect").found
    assert number(first, "width") == pytest.approx(2 * number(second, "width"), rel=0.01)
    assert number(third, "width") == pytest.approx(2 * number(first, "width"), rel=0.01)
    assert number(second, "x") == pytest.approx(
        number(first, "x") + number(first, "width"), abs=0.2
    )
    assert len(Drawn(svg, "circle").found) == 3


def test_points_on_a_logarithmic_axis_stand_at_equal_distances_for_equal_ratios() -> None:
    at = [Point(str(value), Spread(value, value, value), "c0") for value in (0.5, 5.0, 50.0)]
    xs = [number(one, "cx") for one in Drawn(ranges([("a", at)], "ms"), "circle").found]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


def test_nothing_and_odd_things_can_be_drawn() -> None:
    for svg in (
        bars([]),
        ranges([], "ms"),
        bars([Bar("<&>", [Part("<script>", 0.0, "c0")], [0.0], "<b>")]),
        ranges([("<&>", [Point("<script>", Spread(1.0, 1.0, 1.0), "c0")])], "<ms>"),
    ):
        page = Page(svg)
        assert page.tags[0] == "svg" and not page.open
        assert "script" not in page.tags and "b" not in page.tags
