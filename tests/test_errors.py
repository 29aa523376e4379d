"""The tree of errors: as drawn, each with a place in HTTP, each with an honest outcome."""

import re

import pytest

from app import errors
from app.errors import (
    LightconeError,
    NotCaughtUp,
    RedisUnavailable,
    RequestError,
    StartupError,
    listing,
)
from app.problems import STATUS
from app.vector_clock import Dot


def classes() -> list[type[LightconeError]]:
    """Every class of the module's own."""
    return [
        thing
        for thing in vars(errors).values()
        if isinstance(thing, type)
        and thing.__module__ == errors.__name__
        and issubclass(thing, LightconeError)
    ]


def drawn() -> dict[str, str | None]:
    """The tree in the docstring: name -> name of the parent."""
    tree: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"( {4}[ │├└─]*)([A-Z]\w+)", line)
        if match and ("─" in match[1] or match[1] == " " * 4):
            column = len(match[1])
            while above and above[-1][0] >= column:
                above.pop()
            tree[match[2]] = above[-1][1] if above else None
            above.append((column, match[2]))
    return tree


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    parents = {error.__name__: error.__base__ for error in classes()}
    assert drawn() == {
        name: None if parent is Exception or parent is None else parent.__name__
        for name, parent in parents.items()
    }


def test_every_class_has_one_parent_and_says_what_it_means() -> None:
    for error in classes():
        assert len(error.__bases__) == 1
        assert error.__doc__ and error.__doc__[0].isupper()


def descendants(error: type[RequestError]) -> set[type[RequestError]]:
    found = {error}
    for child in error.__subclasses__():
        found |= descendants(child)
    return found


def test_every_request_error_has_a_status_and_nothing_else_has() -> None:
    # The two that are only there to be inherited from are never raised.
    raised = descendants(RequestError) - {RequestError, errors.BadRequest}
    assert set(STATUS) == raised


def test_a_mistake_of_the_caller_is_told_as_one() -> None:
    for error, status in STATUS.items():
        assert 400 <= status < 600
        if issubclass(error, errors.BadRequest):
            assert status == 400


@pytest.mark.parametrize("error", [e for e in STATUS if "__init__" not in vars(e)])
def test_a_refusal_has_changed_nothing_unless_it_says_so(error: type[RequestError]) -> None:
    raised = error("What was wrong.")
    assert raised.outcome == "not_applied"
    assert raised.detail == str(raised) == "What was wrong."


def test_what_keeps_a_node_from_starting_is_no_error_of_a_request() -> None:
    assert not issubclass(StartupError, RequestError)
    assert not issubclass(errors.InvariantError, RequestError)


def test_not_caught_up_names_what_is_missing_and_for_how_long() -> None:
    error = NotCaughtUp({Dot("A", 7): 0.41, Dot("B~x1", 1): 3.0}, 1.5)
    assert error.missing == {Dot("A", 7): 0.41, Dot("B~x1", 1): 3.0}
    assert error.outcome == "not_applied"
    assert error.detail.startswith(
        "This node has not applied A:7, B~x1:1 yet, and waited 1.5 s for it."
    )


def test_redis_unavailable_says_what_became_of_the_write() -> None:
    refused = RedisUnavailable("OOM")
    assert refused.outcome == "not_applied"
    assert refused.cause == "OOM"
    assert refused.detail == (
        "This node's Redis cannot serve the request: OOM. Nothing was changed."
    )
    unknown = RedisUnavailable("the connection failed", outcome="unknown")
    assert unknown.outcome == "unknown"
    assert "Whether the write was applied is not known" in unknown.detail
    assert RedisUnavailable("OOM").outcome == "not_applied", "one error's outcome is its own"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b", "c", "d", "e"], "a, b, c, d, e"),
        (["a", "b", "c", "d", "e", "f"], "a, b, c, d, e and 1 more"),
        ([Dot("A", n) for n in range(1, 9)], "A:1, A:2, A:3, A:4, A:5 and 3 more"),
    ],
)
def test_a_listing_is_cut_after_a_few(names: list[object], text: str) -> None:
    assert listing(names) == text
