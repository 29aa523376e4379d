"""One form for all that is logged, and one write a line."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from aiohttp.http_exceptions import BadStatusLine
from aiohttp.web import RequestPayloadError

from app import log


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


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


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("level", ["info", "warning"])
def test_what_is_no_http_is_no_error_and_is_not_repeated(
    capsys: pytest.CaptureFixture[str], form: str, level: str
) -> None:
    log.configure(level, form)
    server = logging.getLogger("aiohttp.server")
    bad_line, bad_body = BadStatusLine("Causal-Context: lc1;A:7"), RequestPayloadError("lc1;A:7")
    server.error("Error handling request from %s", "127.0.0.1", exc_info=bad_line)
    server.error("Unhandled exception", exc_info=bad_body)
    lines = capsys.readouterr().err.splitlines()
    told = [" from 127.0.0.1: BadStatusLine", ": RequestPayloadError"] if level == "info" else []
    for line, cause in zip(lines, told, strict=True):
        assert f"bad HTTP{cause}" in line
        assert "info" in line and "error" not in line
        assert "lc1" not in line


def test_what_else_goes_wrong_in_the_server_is_told_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("info", "text")
    server = logging.getLogger("aiohttp.server")
    server.error("Unhandled exception", exc_info=ValueError("this"))
    assert "ValueError: this" in capsys.readouterr().err
