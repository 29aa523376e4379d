"""One page of HTML for people, that needs nothing but itself.

What it is: `page`, and the pieces that reports have in common.

What it assumes and guarantees: a function whose parameter is named `html` or `cells` takes HTML;
all other text is escaped here. Nothing is fetched and no script runs, so that a page can be kept
and sent.

What it does not know: what is told.
"""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main>
<header><div><h1>{title}</h1><p class="soft">{about}</p></div>
<div class="badge {word}">{verdict}</div></header>
{html}
</main></body></html>
"""


def page(title: str, about: str, verdict: str, is_good: bool, html: Iterable[str]) -> str:
    """A whole page: a title, what is shown, a verdict, and then these pieces."""
    return _PAGE.format(
        title=escape(title),
        style=Path(__file__).with_name("html_page.css").read_text(encoding="utf-8"),
        about=escape(about),
        word="good" if is_good else "bad",
        verdict=escape(verdict),
        html="".join(html),
    )


def cards(figures: Iterable[tuple[str, str]]) -> str:
    """A row of figures, each with what it counts."""
    shown = (
        f'<div class="card"><b>{escape(figure)}</b><span class="soft">{escape(what)}</span></div>'
        for figure, what in figures
    )
    return f'<section class="cards">{"".join(shown)}</section>'


def heading(text: str, about: str = "") -> str:
    """Where a section begins."""
    return f'<h2>{escape(text)}</h2><p class="soft">{escape(about)}</p>'


def table(header: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in cells)
    return f"<table><tr>{head}</tr>{body}</table>"


def settings(values: Iterable[tuple[str, str]]) -> str:
    """Names and values, in two columns."""
    lines = (f"<div><code>{escape(name)}</code> {escape(value)}</div>" for name, value in values)
    return f'<div class="settings">{"".join(lines)}</div>'


def key(colours: Iterable[tuple[str, str]]) -> str:
    """What colours mean: names, each with its class in the style sheet."""
    return " ".join(
        f'<span class="key"><i class="{colour}"></i> {escape(name)}</span>'
        for name, colour in colours
    )


def name(text: str) -> str:
    """A cell that names its row."""
    return f'<span class="name">{escape(text)}</span>'


def number(text: str) -> str:
    """A cell with a figure."""
    return f'<span class="number">{escape(text)}</span>'


def verdict(word: str, is_good: bool) -> str:
    """A word in the colour of good or bad."""
    return f'<span class="is-{"good" if is_good else "bad"}">{escape(word)}</span>'
