"""Dots and vector clocks: the laws, by Hypothesis, and the forms, as literals."""

import copy
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock, is_actor, node_of

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Few actors and small sequences, so that clocks are often equal, ordered or concurrent.
actors = st.sampled_from(["A", "B", "C"])
clocks = st.dictionaries(actors, st.integers(0, 3)).map(VectorClock)
dots = st.builds(Dot, actors, st.integers(1, 4))

any_actor = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}(~[A-Za-z0-9]{1,9})?", fullmatch=True)
any_sequence = st.integers(1, SEQUENCE_MAX)
any_clock = st.dictionaries(any_actor, any_sequence, max_size=5).map(VectorClock)


def clock(text: str) -> VectorClock:
    return VectorClock.parse(text)


# --- actors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["A", "a", "0", "node-1", "Berlin_2", "A~x1", "A.3", "A.3~k9", "A~1.2+3", "a" * 32],
)
def test_these_can_name_an_actor(text: str) -> None:
    assert is_actor(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "-A", "_A", "~x", "A B", "A:1", "A,B", "A;B", "A=", "Ä", "A\n", "A\0", "é", "٣"]
    + ["a" * 33, "A~" + "x" * 63, "A~1~2~3~4"],
)
def test_these_cannot_name_an_actor(text: str) -> None:
    assert not is_actor(text)


@pytest.mark.parametrize(
    ("actor", "node"),
    [
        ("A", "A"),
        ("A~x1", "A"),
        ("A.3", "A"),
        ("A.3~x1", "A"),
        ("A+1", "A"),
        ("node-1_b", "node-1_b"),
    ],
)
def test_an_actor_belongs_to_the_node_it_begins_with(actor: str, node: str) -> None:
    assert node_of(actor) == node


# --- dots ----------------------------------------------------------------------------------------


def test_a_dot_prints_as_actor_and_sequence() -> None:
    dot = Dot("A", 7)
    assert (dot.actor, dot.sequence) == ("A", 7)
    assert str(dot) == "A:7"
    assert repr(dot) == "Dot(A:7)"
    assert dot == Dot.parse("A:7")
    assert len({dot, Dot("A", 7), Dot("A", 8), Dot("B", 7)}) == 3


@patient
@given(st.builds(Dot, any_actor, any_sequence))
def test_a_printed_dot_parses_to_itself(dot: Dot) -> None:
    assert Dot.parse(str(dot)) == dot


@patient
@given(st.builds(Dot, any_actor, any_sequence))
def test_a_dot_survives_copying_and_pickling(dot: Dot) -> None:
    for again in (copy.copy(dot), copy.deepcopy(dot), pickle.loads(pickle.dumps(dot))):
        assert again == dot
        assert type(again) is Dot


def test_the_greatest_sequence_is_what_a_double_holds_exactly() -> None:
    assert Dot.parse(f"A:{SEQUENCE_MAX}").sequence == 2**53 - 1
    with pytest.raises(ValueError, match="is not a dot"):
        Dot.parse(f"A:{SEQUENCE_MAX + 1}")


@pytest.mark.parametrize(
    "text",
    ["", "A", "A:", ":7", "A:0", "A:-1", "A:+1", "A:07", "A:1.0", "A:7 ", " A:7", "A:7\n", "A::7"]
    + ["A:7:8", "A:x", "A:٣", "A: 7", "A:1e3", "A:1_0", "-:7", "A B:7", "A:9" + "9" * 40]
    + ["A~" + "x" * 63 + ":1", "\0:1"],
)
def test_these_are_no_dots(text: str) -> None:
    with pytest.raises(ValueError, match="is not a dot such as A:7"):
        Dot.parse(text)


@patient
@given(st.text())
def test_any_text_is_a_dot_or_a_value_error(text: str) -> None:
    try:
        dot = Dot.parse(text)
    except ValueError:
        return
    assert str(dot) == text
    assert is_actor(dot.actor)
    assert 1 <= dot.sequence <= SEQUENCE_MAX


# --- one form for one value ----------------------------------------------------------------------


@patient
@given(st.dictionaries(actors, st.integers(0, 3)))
def test_zeros_are_never_stored(entries: dict[str, int]) -> None:
    stored = VectorClock(entries)
    assert 0 not in stored.values()
    assert stored == VectorClock({actor: s for actor, s in entries.items() if s})
    assert hash(stored) == hash(VectorClock(list(entries.items())))
    assert all(stored[actor] == sequence for actor, sequence in entries.items())


def test_an_actor_that_was_never_seen_is_at_zero() -> None:
    seen = VectorClock({"A": 7, "B": 0})
    assert seen["B"] == seen["C"] == 0
    assert "A" in seen
    assert "B" not in seen
    assert list(seen) == ["A"]
    assert len(seen) == 1
    assert not VectorClock()


def test_a_negative_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="never negative"):
        VectorClock({"A": -1})


def test_a_clock_does_not_change_with_the_dictionary_it_was_made_of() -> None:
    entries = {"A": 1}
    made = VectorClock(entries)
    entries["A"] = 9
    made.to_dict()["A"] = 9
    assert made == clock("A:1")


def test_the_order_of_entries_makes_no_difference() -> None:
    one, other = VectorClock([("A", 1), ("B", 2)]), VectorClock([("B", 2), ("A", 1)])
    assert one == other
    assert hash(one) == hash(other)
    assert one.entries_text() == other.entries_text() == "A:1 B:2"
    assert list(one.to_dict()) == list(other.to_dict()) == ["A", "B"]


def test_a_clock_is_not_equal_to_what_is_no_clock() -> None:
    assert VectorClock({"A": 1}) != {"A": 1}
    assert VectorClock() != ()


# --- text ----------------------------------------------------------------------------------------


def test_a_clock_prints_in_braces_by_actor() -> None:
    seen = VectorClock({"B": 3, "A": 7})
    assert str(seen) == "{A:7 B:3}"
    assert repr(seen) == "VectorClock({A:7 B:3})"
    assert seen.entries_text() == "A:7 B:3"
    assert seen.dots() == [Dot("A", 7), Dot("B", 3)]
    assert str(VectorClock()) == "{}"
    assert VectorClock().entries_text() == ""


@patient
@given(any_clock)
def test_the_text_of_a_clock_parses_to_itself(seen: VectorClock) -> None:
    assert VectorClock.parse(seen.entries_text()) == seen


@pytest.mark.parametrize(
    "text", ["A", "A:0", "A:-1", "A:7,B:3", "{A:7}", "A:7;B:3", "A:7 B", "A:7 B:3 :1", "\0"]
)
def test_these_are_no_clocks(text: str) -> None:
    with pytest.raises(ValueError, match="is not a dot"):
        VectorClock.parse(text)


@pytest.mark.parametrize("text", ["A:7 A:3", "A:7 B:1 A:7"])
def test_an_actor_named_twice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names an actor twice"):
        VectorClock.parse(text)


@patient
@given(st.text(alphabet="AB:;~ 0179\n"))
def test_any_text_is_a_clock_or_a_value_error(text: str) -> None:
    try:
        seen = VectorClock.parse(text)
    except ValueError:
        return
    assert VectorClock.parse(seen.entries_text()) == seen


# --- the order -----------------------------------------------------------------------------------


@patient
@given(clocks)
def test_order_is_reflexive(a: VectorClock) -> None:
    assert a <= a
    assert a >= a
    assert not a < a
    assert not a > a


@patient
@given(clocks, clocks)
def test_order_is_antisymmetric(a: VectorClock, b: VectorClock) -> None:
    assert (a <= b and b <= a) == (a == b)


@patient
@given(clocks, clocks, clocks)
def test_order_is_transitive(a: VectorClock, b: VectorClock, c: VectorClock) -> None:
    b, c = a.merge(b), a.merge(b).merge(c)  # a chain, so that the premise always holds
    assert a <= b <= c
    assert a <= c


@patient
@given(clocks, clocks)
def test_order_is_by_element(a: VectorClock, b: VectorClock) -> None:
    assert (a <= b) == all(a[actor] <= b[actor] for actor in {*a, *b})


@patient
@given(clocks, clocks)
def test_two_clocks_are_equal_or_ordered_or_concurrent_and_only_one_of_these(
    a: VectorClock, b: VectorClock
) -> None:
    assert [a == b, a < b, a > b, a.concurrent(b)].count(True) == 1


@patient
@given(clocks, clocks)
def test_the_comparisons_agree_with_each_other(a: VectorClock, b: VectorClock) -> None:
    assert (a < b) == (a <= b and a != b) == (b > a)
    assert (a <= b) == (b >= a)
    assert a.concurrent(b) == b.concurrent(a)


def test_examples_of_the_order() -> None:
    assert clock("") < clock("A:1") < clock("A:1 B:1") < clock("A:2 B:1")
    assert clock("A:2").concurrent(clock("A:1 B:1"))
    assert not clock("A:2") <= clock("A:1 B:1")
    assert not clock("A:1").concurrent(clock("A:1"))
    assert clock("A:9").concurrent(clock("A~x1:1")), "incarnations are actors of their own"


# --- merge ---------------------------------------------------------------------------------------


@patient
@given(clocks, clocks)
def test_merge_is_commutative(a: VectorClock, b: VectorClock) -> None:
    assert a.merge(b) == b.merge(a)


@patient
@given(clocks, clocks, clocks)
def test_merge_is_associative(a: VectorClock, b: VectorClock, c: VectorClock) -> None:
    assert a.merge(b).merge(c) == a.merge(b.merge(c))


@patient
@given(clocks)
def test_merge_is_idempotent_and_the_empty_clock_is_its_unit(a: VectorClock) -> None:
    assert a.merge(a) == a
    assert a.merge(VectorClock()) == VectorClock().merge(a) == a


@patient
@given(clocks, clocks, clocks)
def test_merge_is_the_least_upper_bound(a: VectorClock, b: VectorClock, c: VectorClock) -> None:
    both = a.merge(b)
    assert a <= both
    assert b <= both
    assert (a <= c and b <= c) == (both <= c)


@patient
@given(clocks, clocks)
def test_merge_changes_neither_clock(a: VectorClock, b: VectorClock) -> None:
    before = a.to_dict(), b.to_dict()
    a.merge(b)
    assert (a.to_dict(), b.to_dict()) == before


def test_an_example_of_merge() -> None:
    assert clock("A:7 B:1").merge(clock("B:3 C:2")) == clock("A:7 B:3 C:2")


# --- dots and clocks -----------------------------------------------------------------------------


@patient
@given(clocks, dots)
def test_a_dot_is_covered_when_its_sequence_has_been_reached(a: VectorClock, dot: Dot) -> None:
    assert a.covers(dot) == (dot.sequence <= a[dot.actor])
    assert a.covers(dot) == (VectorClock([dot]) <= a)


@patient
@given(clocks, dots)
def test_a_clock_with_a_dot_is_the_least_that_covers_both(a: VectorClock, dot: Dot) -> None:
    assert a.with_dot(dot) == a.merge(VectorClock([dot]))


@patient
@given(clocks, actors)
def test_increment_adds_the_next_dot_and_nothing_else(a: VectorClock, actor: str) -> None:
    dot = a.next_dot(actor)
    assert dot == Dot(actor, a[actor] + 1)
    assert not a.covers(dot)
    after = a.increment(actor)
    assert after.covers(dot)
    assert a < after
    assert after.beyond(a) == VectorClock([dot])


@patient
@given(clocks, clocks)
def test_beyond_is_what_the_other_lacks(a: VectorClock, b: VectorClock) -> None:
    lacking = a.beyond(b)
    assert lacking <= a
    assert b.merge(lacking) == b.merge(a)
    assert not any(b.covers(dot) for dot in lacking.dots())
    assert (not lacking) == (a <= b)


def test_an_example_of_beyond() -> None:
    assert clock("A:7 B:3 C:1").beyond(clock("A:5 B:3 D:9")) == clock("A:7 C:1")


@patient
@given(clocks)
def test_the_dots_of_a_clock_make_the_clock(a: VectorClock) -> None:
    assert VectorClock(a.dots()) == a
    assert all(a.covers(dot) for dot in a.dots())


# --- what differs --------------------------------------------------------------------------------


@given(clocks, clocks)
def test_what_differs_makes_one_clock_of_another(before: VectorClock, after: VectorClock) -> None:
    assert before.with_changes(after.since(before)) == after


@given(clocks, clocks)
def test_nothing_differs_of_equal_clocks_alone(one: VectorClock, other: VectorClock) -> None:
    assert (one.since(other) == {}) == (one == other)


def test_what_differs_says_zero_for_what_is_absent() -> None:
    assert clock("A:2 B:1").since(clock("B:1 C:4")) == {"A": 2, "C": 0}
