"""ETags and conditions: what somebody wants a key to hold before something is done to it.

Assumes nothing. Guarantees that an ETag changes whenever the set of siblings does, for it names
their dots (`"A:4,B:2"`), and that a condition which is not understood never holds.

Does not know when conditions are looked at: before a write it is `lua/commit_writes.lua` that does,
by the same rule.

From RFC 9110, section 13.1.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from app.vector_clock import Dot

_ANY: Final = "*"
_NONE: Final = "-"
_ETAG: Final = re.compile(r'(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7e\x80-\xff]*)"')


def etag(dots: Iterable[Dot]) -> str:
    """The strong ETag of a key with these versions; it needs one."""
    return f'"{_opaque(dots)}"'


def _opaque(dots: Iterable[Dot]) -> str:
    names = [f"{actor}:{sequence}" for actor, sequence in dots]
    names.sort()
    return ",".join(names)


@dataclass(frozen=True, slots=True)
class Condition:
    """What `key` is to hold: `wanted` says it as scripts take it (`lua/conditions.inc.lua`)."""

    key: str
    wanted: str

    @classmethod
    def exists(cls, key: str) -> "Condition":
        """The key has a version."""
        return cls(key, _ANY)

    @classmethod
    def absent(cls, key: str) -> "Condition":
        """The key has no version."""
        return cls(key, _NONE)

    @classmethod
    def matches(cls, key: str, tags: Iterable[str]) -> "Condition":
        """The key has just the versions that one of these opaque tags names."""
        return cls(key, " ".join(filter(_is_ours, tags)))

    def holds(self, dots: Collection[Dot]) -> bool:
        """Whether a key with these versions is what is wanted."""
        if self.wanted in (_ANY, _NONE):
            return bool(dots) == (self.wanted == _ANY)
        return bool(dots) and _opaque(dots) in self.wanted.split()


def parse_tags(text: str) -> tuple[list[str], list[str]] | None:
    """The opaque tags, strong ones and weak ones, in a list as `If-Match` has it: `"A:4", W/"x"`.

    None if it is no such list.
    """
    strong: list[str] = []
    weak: list[str] = []
    position, rest = 0, text.strip()
    while position < len(rest):
        match = _ETAG.match(rest, position)
        if match is None:
            return None
        (weak if match["weak"] else strong).append(match["opaque"])
        gap = re.compile(r"\s*(,[\s,]*|$)").match(rest, match.end())
        if gap is None:
            return None
        position = gap.end()
    return (strong, weak) if strong or weak else None


def _is_ours(tag: str) -> bool:
    """Whether a node could have made the tag: the dots of siblings, each once and in order."""
    try:
        dots = [Dot.parse(part) for part in tag.split(",")]
    except ValueError:
        return False
    return len(set(dots)) == len(dots) and _opaque(dots) == tag
