"""Counting instructions: what follows from two counts, and what is said without valgrind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench import instructions, work


async def test_what_more_steps_took_is_shared_by_what_was_done_in_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def executed(what: str, size: int, nodes: int, steps: int) -> int:
        return 5_000_000 + steps * (700 + size * 100)

    monkeypatch.setattr(instructions, "_executed", executed)
    assert (await instructions.counted("received", 7, 2, things=21)).each == 200


@pytest.mark.parametrize("main", [instructions.main, work.main], ids=["scripts", "a worker"])
def test_without_valgrind_nothing_is_counted(
    main: Callable[[list[str]], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--directory", str(tmp_path / "out")]) == 2
    assert "valgrind, which is not here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
