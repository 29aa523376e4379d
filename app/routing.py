"""Which route a request is for.

Assumes paths of one segment, such as `/kv`, and such that end with a name: `/members/{id}`, or with
a `{key}`, which may hold anything, slashes and nothing as well. Guarantees that a path is found by
what it means, however it is encoded; and in a time that does not depend on how many there are.

Does not know what is at the end of a route, nor HTTP.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote

Target = TypeVar("Target")


@dataclass(frozen=True, slots=True)
class Resource(Generic[Target]):
    """A path, as it was declared, and where each of its methods leads."""

    path: str
    methods: dict[str, Target] = field(default_factory=dict)


class Router(Generic[Target]):
    """The paths of one node."""

    def __init__(self) -> None:
        self._whole: dict[str, Resource[Target]] = {}
        self._named: dict[str, Resource[Target]] = {}
        self._any: dict[str, Resource[Target]] = {}

    def add(self, method: str, path: str, target: Target) -> None:
        """Requests with this method for this path lead there."""
        _, first, *rest = path.split("/")
        match rest:
            case []:
                of_its_kind = self._whole
            case ["{key}"]:
                of_its_kind = self._any
            case [name] if name.startswith("{"):
                of_its_kind = self._named
            case _:
                raise ValueError(f"the path {path} is of no kind that is known")
        of_its_kind.setdefault(first, Resource(path)).methods[method] = target

    def find(self, raw_path: str) -> Resource[Target] | None:
        """What a path is for, which is as it came: encoded."""
        first, slash, rest = raw_path[1:].partition("/")
        if "%" in first:
            first = unquote(first)
        if not slash:
            return self._whole.get(first)
        if found := self._any.get(first):
            return found
        return self._named.get(first) if rest and "/" not in rest else None

    def paths(self) -> list[Resource[Target]]:
        """All of them."""
        return [*self._whole.values(), *self._named.values(), *self._any.values()]
