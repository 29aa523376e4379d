"""One form for all that is logged, and one write a line."""

import json
import logging

import pytest

from app import log


def test_json_lines_hold_fields_and_what_is_always_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("info", "json", node="A")
    log.get_logger("app.x").info("ready", url="http://a", clock={"A": 7})
    logging.getLogger("library").warning("lost %s", "it")
    ours, theirs = map(json.loads, capsys.readouterr().err.splitlines())
    fields = {"event": "ready", "node": "A", "url": "http://a", "clock": {"A": 7}, "level": "info"}
    assert ours.items() >= fields.items()
    assert theirs.items() >= {"event": "lost it", "node": "A", "level": "warning"}.items()


def test_text_is_one_line_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "text", node="A")
    log.get_logger("app.x").info("ready", url="http://a")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ready" in line and "node=A" in line and "url=http://a" in line


def test_what_is_below_the_level_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("warning", "text")
    log.get_logger("app.x").info("ready")
    logging.getLogger("library").info("ready")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_shows_no_values(capsys: pytest.CaptureFixture[str], form: str) -> None:
    log.configure("info", form)
    secret = "hunter" + "2"
    try:
        raise ValueError(len(secret))
    except ValueError:
        log.get_logger("app.x").exception("failed")
    told = capsys.readouterr().err
    assert "ValueError: 7" in told
    assert "hunter2" not in told
