"""ETags name siblings; a condition that is not understood never holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.conditions import Condition, etag, parse_tags
from app.vector_clock import Dot
from tests.effort import effort

DOTS = [Dot("A", 4), Dot("B~x1", 2), Dot("C", 10)]


def test_an_etag_names_the_siblings_in_one_order() -> None:
    assert etag(DOTS) == etag(DOTS[::-1]) == '"A:4,B~x1:2,C:10"'


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ('"A:4"', (["A:4"], [])),
        ('"A:4,B:2"', (["A:4,B:2"], [])),
        (' "A:4" ,"B:2",, W/"x" , ', (["A:4", "B:2"], ["x"])),
        ('""', ([""], [])),
        ('"é"', (["é"], [])),
    ],
)
def test_a_list_of_etags_is_read(text: str, tags: tuple[list[str], list[str]]) -> None:
    assert parse_tags(text) == tags


@pytest.mark.parametrize("text", ["", " ", "*", "A:4", '"A:4', '"A:4""B:2"', 'w/"A:4"', '"A:4" x'])
def test_what_is_no_list_of_etags_is_none(text: str) -> None:
    assert parse_tags(text) is None


def test_a_condition_on_etags_wants_just_the_siblings_that_one_of_them_names() -> None:
    wanted = Condition.matches("lunch", ["C:1", etag(DOTS).strip('"')])
    assert wanted.holds(DOTS)
    assert wanted.holds([Dot("C", 1)])
    assert not wanted.holds(DOTS[:2])
    assert not wanted.holds([*DOTS, Dot("D", 1)])
    assert not wanted.holds([])


def test_exists_and_absent() -> None:
    assert Condition.exists("lunch").holds(DOTS)
    assert not Condition.exists("lunch").holds([])
    assert Condition.absent("lunch").holds([])
    assert not Condition.absent("lunch").holds(DOTS)


@pytest.mark.parametrize(
    "tag", ["", "*", "-", "x", "A:4 B:2", "B:2,A:4", "A:4,A:4", "A:0x", "A:4,", "A:04,B:2"]
)
def test_a_tag_that_no_node_made_never_matches(tag: str) -> None:
    condition = Condition.matches("lunch", [tag])
    assert not condition.holds([])
    assert not condition.holds([Dot("A", 4), Dot("B", 2)])
    assert condition.wanted == ""


@effort(100)
@given(st.text())
def test_any_text_is_read_or_not(text: str) -> None:
    tags = parse_tags(text)
    assert tags is None or all(isinstance(tag, str) for kind in tags for tag in kind)
