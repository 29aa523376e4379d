from pathlib import Path

from tests.chaos.run import Result


def write_report(result: Result, path: Path) -> None:
    path.write_text("")
