"""Writes the contract of the HTTP interface into docs/openapi.json: all routes that there are."""

import inspect
import json
from pathlib import Path
from typing import Any

from app.config import Config
from app.http_api import Api
from app.interface import Interface

PAGE = Path(__file__).parents[1] / "docs" / "openapi.json"


def interface() -> Interface:
    """All routes there are, of a node that has no parts: it can only be looked at."""
    nothing: Any = None
    parts = [nothing] * (len(inspect.signature(Api).parameters) - 1)
    return Api(Config(node_id="A", faults=True), *parts).interface()


def text() -> str:
    """The contract, as it is written."""
    document = interface().document()
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """The file holds the contract as it is in the code."""
    PAGE.write_text(text())


if __name__ == "__main__":
    main()
