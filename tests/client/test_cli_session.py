"""The file of a session: what commands that run together leave in it."""

import os
import threading
from pathlib import Path

import pytest

from client.cli_errors import LocalTrouble
from client.cli_session import SessionFile, named
from client.errors import BadInput


def test_commands_that_run_together_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "s"
    SessionFile(path).keep("t0")
    first, second = SessionFile(path), SessionFile(path)
    assert first.context == second.context == "t0"
    first.keep("t1")
    second.keep("t2")
    assert set(SessionFile(path).context.split(",")) == {"t1", "t2"}
    # The next command carries both, and its answer covers both.
    third = SessionFile(path)
    third.keep("t3")
    assert SessionFile(path).context == "t3"


def test_a_command_that_was_answered_nothing_takes_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "s"
    SessionFile(path).keep("t0")
    slow, quick = SessionFile(path), SessionFile(path)
    quick.keep("t1")
    slow.keep(slow.context)
    assert set(SessionFile(path).context.split(",")) == {"t0", "t1"}


def test_many_at_once_keep_what_all_have_seen(tmp_path: Path) -> None:
    path = tmp_path / "s"
    files = [SessionFile(path) for _ in range(20)]
    threads = [
        threading.Thread(target=file.keep, args=(f"t{number}",))
        for number, file in enumerate(files)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(SessionFile(path).context.split(",")) == {f"t{n}" for n in range(20)}
    assert sorted(os.listdir(tmp_path)) == [".s.lock", "s"]


def test_a_file_that_cannot_be_replaced_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    SessionFile(path).keep("t0")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    file = SessionFile(path)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(LocalTrouble, match="No space left") as trouble:
        file.keep("t1")
    assert trouble.value.outcome == "applied"
    assert path.read_text() == "t0\n"
    assert sorted(os.listdir(tmp_path)) == [".s.lock", "s"]


def test_sessions_lie_where_state_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert named("ann") == tmp_path / "lightcone" / "sessions" / "ann"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/ann")
    assert named("ann") == Path("/home/ann/.local/state/lightcone/sessions/ann")


def test_a_user_who_has_no_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers that run under a number that is nobody's."""

    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    with pytest.raises(BadInput, match="--session-file"):
        named("ann")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "-x", "a b", "é", "x" * 101])
def test_what_cannot_be_the_name_of_a_file_names_no_session(name: str) -> None:
    with pytest.raises(BadInput, match="name a session"):
        named(name)
