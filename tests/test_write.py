"""Writes: which are well-formed, and which of concurrent versions wins."""

import itertools
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock
from app.write import (
    CONTENT_TYPE_MAX_BYTES,
    DEFAULT_CONTENT_TYPE,
    KEY_MAX_BYTES,
    OPERATIONS_MAX,
    TIMESTAMP_MAX,
    TTL_MAX_S,
    Delete,
    Operation,
    Put,
    Version,
    Write,
    content_type_problem,
    expires_us,
    key_problem,
    microseconds,
    operations_problem,
    ttl_problem,
    winner_first,
    write_problem,
)

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

GOOD = Write(
    Dot("A", 3),
    VectorClock({"A": 2, "B": 5}),
    1_700_000_000_000_000,
    (Put("lunch", b"noon", "text/plain"), Delete("dinner")),
)


# --- keys and content types ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["k", " ", "\0", "a/b//c", "é" * 256, "x" * KEY_MAX_BYTES, "🍜" * 128, "deletes", "\n"]
)
def test_keys_of_1_to_512_bytes_can_be_used(key: str) -> None:
    assert key_problem(key) is None


@pytest.mark.parametrize(
    ("key", "bytes_"), [("", 0), ("x" * 513, 513), ("é" * 257, 514), ("🍜" * 129, 516)]
)
def test_shorter_and_longer_keys_cannot_and_the_problem_names_the_length(
    key: str, bytes_: int
) -> None:
    assert key_problem(key) == f"a key is 1 to 512 bytes of UTF-8, and this one has {bytes_}"


def test_a_key_that_is_not_utf_8_cannot_be_used() -> None:
    assert key_problem("lunch\udcff") == "a key is UTF-8"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "text/plain; charset=utf-8", "x", "~" * CONTENT_TYPE_MAX_BYTES]
)
def test_a_content_type_is_printable_ascii(content_type: str) -> None:
    assert content_type_problem(content_type) is None


@pytest.mark.parametrize("content_type", ["", "x" * (CONTENT_TYPE_MAX_BYTES + 1)])
def test_a_content_type_has_1_to_255_characters(content_type: str) -> None:
    assert content_type_problem(content_type) == "a content type has 1 to 255 characters"


@pytest.mark.parametrize("content_type", ["text/plain\n", "a\0b", "tëxt", "\x7f", "a\tb", "\udcff"])
def test_a_content_type_with_other_characters_is_refused(content_type: str) -> None:
    assert content_type_problem(content_type) == "a content type is printable ASCII"


# --- operations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operations", "problem"),
    [
        ((), "a write has 1 to 1000 operations, and this one has 0"),
        (
            tuple(Delete(f"k{i}") for i in range(OPERATIONS_MAX + 1)),
            "a write has 1 to 1000 operations, and this one has 1001",
        ),
        ((Put("k", b"1"), Put("k", b"2")), "a write names each key once"),
        ((Put("k", b"1"), Delete("k")), "a write names each key once"),
        ((Put("k", b"1"), Delete("")), "a key is 1 to 512 bytes of UTF-8, and this one has 0"),
        ((Put("\ud800", b"1"),), "a key is UTF-8"),
        ((Delete("k"), Put("l", b"", "")), "a content type has 1 to 255 characters"),
        ((Put("l", b"", "a\nb"),), "a content type is printable ASCII"),
    ],
)
def test_operations_that_break_a_rule_are_told_which(
    operations: tuple[Operation, ...], problem: str
) -> None:
    assert operations_problem(operations) == problem
    assert write_problem(replace(GOOD, operations=operations)) == problem


def test_as_many_operations_as_allowed_are_well_formed() -> None:
    assert operations_problem([Delete(f"k{i}") for i in range(OPERATIONS_MAX)]) is None


# --- writes --------------------------------------------------------------------------------------


def test_a_write_is_immutable_and_a_put_has_a_content_type() -> None:
    with pytest.raises(AttributeError):
        GOOD.timestamp = 1  # type: ignore[misc]
    assert Put("k", b"").content_type == DEFAULT_CONTENT_TYPE
    assert content_type_problem(DEFAULT_CONTENT_TYPE) is None


@pytest.mark.parametrize(
    "write",
    [
        GOOD,
        replace(GOOD, dot=Dot("A", 1), dependencies=VectorClock()),
        replace(GOOD, dot=Dot("A~x1", 1), dependencies=VectorClock({"A": 9})),
        replace(GOOD, timestamp=1),
        replace(GOOD, timestamp=TIMESTAMP_MAX),
        Write(
            Dot("A", SEQUENCE_MAX),
            VectorClock({"A": SEQUENCE_MAX - 1, "B": SEQUENCE_MAX}),
            1,
            (Delete("k"),),
        ),
    ],
)
def test_these_writes_are_well_formed(write: Write) -> None:
    assert write_problem(write) is None


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (replace(GOOD, dot=Dot("", 3)), "'' is not an actor"),
        (replace(GOOD, dot=Dot("A B", 3)), "'A B' is not an actor"),
        (replace(GOOD, dot=Dot("A:1", 3)), "'A:1' is not an actor"),
        (replace(GOOD, dot=Dot("A", 0)), f"the sequence 0 is not in 1..{SEQUENCE_MAX}"),
        (replace(GOOD, dot=Dot("A", -1)), f"the sequence -1 is not in 1..{SEQUENCE_MAX}"),
        (
            replace(GOOD, dot=Dot("A", 2**53), dependencies=VectorClock({"A": 2**53 - 1})),
            f"the sequence {2**53} is not in 1..{SEQUENCE_MAX}",
        ),
        (replace(GOOD, dot=Dot("A", 4)), "A:4 must depend on the write before it, and names 2"),
        (replace(GOOD, dot=Dot("A", 2)), "A:2 must depend on the write before it, and names 2"),
        (
            replace(GOOD, dependencies=VectorClock({"B": 5})),
            "A:3 must depend on the write before it, and names 0",
        ),
        (
            replace(GOOD, dependencies=VectorClock({"A": 2, "B C": 1})),
            "A:3 depends on B C:1, which cannot be",
        ),
        (
            replace(GOOD, dependencies=VectorClock({"A": 2, "B": 2**53})),
            f"A:3 depends on B:{2**53}, which cannot be",
        ),
        (
            replace(GOOD, timestamp=0),
            f"A:3 has the timestamp 0, which is not in 1..{TIMESTAMP_MAX}",
        ),
        (
            replace(GOOD, timestamp=-5),
            f"A:3 has the timestamp -5, which is not in 1..{TIMESTAMP_MAX}",
        ),
        (
            replace(GOOD, timestamp=2**53),
            f"A:3 has the timestamp {2**53}, which is not in 1..{TIMESTAMP_MAX}",
        ),
    ],
)
def test_a_write_that_breaks_a_rule_is_told_which(write: Write, problem: str) -> None:
    assert write_problem(write) == problem


def test_of_a_clock_that_was_looked_at_only_what_differs_is_looked_at_again() -> None:
    write = replace(GOOD, dependencies=VectorClock({"A": 2, "B C": 1}))
    assert write_problem(write, VectorClock({"A": 1, "B C": 1, "D": 5})) is None
    problem = "A:3 depends on B C:1, which cannot be"
    assert write_problem(write, VectorClock({"A": 2, "D": 5})) == problem
    assert write_problem(write, VectorClock({"B C": 2})) == problem


@pytest.mark.parametrize(
    ("put", "problem"),
    [
        (Put("k", b"", "t", 1), None),
        (Put("k", b"", "t", TTL_MAX_S * 1_000_000), None),
        (Put("k", b"", "t", -1), "lives at most"),
        (Put("k", b"", "t", TTL_MAX_S * 1_000_000 + 1), "lives at most"),
        (Put("\0member/B", b"", "t", 1), "does not expire"),
    ],
)
def test_how_long_a_version_may_live(put: Put, problem: str | None) -> None:
    found = operations_problem([put])
    assert found is None if problem is None else found and problem in found


# --- what expires --------------------------------------------------------------------------------


def test_a_version_is_there_until_its_time_has_come() -> None:
    version = Version(Dot("A", 1), 100, "t", b"", expires_us(100, 50))
    assert [version.is_there(now_us) for now_us in (0, 149, 150, 151)] == [True, True, False, False]
    assert Version(Dot("A", 1), 100, "t", b"", expires_us(100, 0)).is_there(TIMESTAMP_MAX)


def test_no_version_expires_later_than_timestamps_go() -> None:
    assert expires_us(TIMESTAMP_MAX - 5, 50) == TIMESTAMP_MAX


@pytest.mark.parametrize(
    "seconds", [0, -1, 1e-7, TTL_MAX_S + 1, 1e300, 1.4e308, math.inf, math.nan]
)
def test_what_is_no_time_to_live_is_told_so(seconds: float) -> None:
    assert "more than 0 and at most" in (ttl_problem(seconds) or "")


@pytest.mark.parametrize("seconds", [1e-6, 0.5, 1, TTL_MAX_S])
def test_what_is_one_is_a_number_of_microseconds(seconds: float) -> None:
    assert ttl_problem(seconds) is None
    assert 1 <= microseconds(seconds) <= TTL_MAX_S * 1_000_000


# --- the winner ----------------------------------------------------------------------------------


def version(dot: str, timestamp: int) -> Version:
    return Version(Dot.parse(dot), timestamp, "text/plain", dot.encode())


def test_the_latest_timestamp_wins_whatever_the_actor() -> None:
    early, late = version("Z:9", 10), version("A:1", 11)
    assert winner_first([early, late]) == winner_first([late, early]) == [late, early]


def test_at_equal_timestamps_the_greater_actor_wins_whatever_the_sequence() -> None:
    a, b = version("A:9", 10), version("B:1", 10)
    assert winner_first([a, b]) == winner_first([b, a]) == [b, a]


def test_every_order_of_arrival_gives_the_same_winner_and_the_same_siblings() -> None:
    versions = [version("A:1", 3), version("B:7", 3), version("C:2", 1), version("A~x1:1", 3)]
    orders = {tuple(winner_first(order)) for order in itertools.permutations(versions)}
    assert len(orders) == 1
    assert [str(v.dot) for v in orders.pop()] == ["B:7", "A~x1:1", "A:1", "C:2"]


def test_no_version_has_no_winner() -> None:
    assert winner_first([]) == []


@patient
@given(st.sets(st.tuples(st.sampled_from("ABC"), st.integers(1, 3)), max_size=6))
def test_winner_first_keeps_every_version(seen: set[tuple[str, int]]) -> None:
    versions = [Version(Dot(actor, 1), timestamp, "t", b"") for actor, timestamp in seen]
    ordered = winner_first(versions)
    assert sorted(ordered, key=repr) == sorted(versions, key=repr)
    ranks = [(v.timestamp, v.dot.actor) for v in ordered]
    assert ranks == sorted(ranks, reverse=True)
