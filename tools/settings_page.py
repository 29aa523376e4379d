"""Writes the table of settings into docs/settings.md, between its two marks."""

from pathlib import Path

from app.config import Config
from app.settings_text import list_settings

PAGE = Path("docs/settings.md")


def table() -> str:
    """The settings as Markdown."""
    rows = [
        f"| `{row.name}` | `{row.default}` | {row.description} |" for row in list_settings(Config)
    ]
    return "\n".join(["| name | default | description |", "|---|---|---|", *rows])


def main() -> None:
    """The page shows the settings as they are in the code."""
    before, _, rest = PAGE.read_text().partition("<!-- settings:begin -->\n")
    _, _, after = rest.partition("<!-- settings:end -->")
    text = f"{before}<!-- settings:begin -->\n{table()}\n<!-- settings:end -->{after}"
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
