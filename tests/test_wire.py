"""The shapes of what is sent: what is encoded comes back, and garbage is refused."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app import wire
from app.errors import BadBatch, OtherBase
from app.standing import UNHEARD, Heard, Standing
from app.vector_clock import Dot, VectorClock
from app.wire import Answer, Batch
from app.write import (
    Delete,
    Operation,
    Put,
    Write,
    write_problem,
)
from tests.effort import effort, time_enough
from tests.fuzzing.damage import damaged
from tests.strategies import actors, clocks, patient, timestamps, writes

batches = st.builds(
    Batch, actors, actors, clocks, st.lists(writes(), max_size=3).map(tuple), base=clocks
)
counts = st.integers(0, 10_000)
heard = st.builds(Heard, st.builds(Standing, clocks, clocks), timestamps)
answers = st.builds(
    *(Answer, actors, clocks, clocks, clocks, counts, counts, counts, counts, timestamps),
    hearsay=st.dictionaries(actors, heard, max_size=2),
)

BATCH = Batch(
    "B",
    "A",
    VectorClock({"A": 1, "B": 2}),
    (
        Write(
            Dot("B", 2),
            VectorClock({"A": 1, "B": 1}),
            1_700_000_000_000_000,
            (Put("lunch", b"\0\xff,5:", "text/plain"), Delete("dinner")),
        ),
    ),
)
ANSWER = Answer(
    "A",
    VectorClock({"A": 1, "B": 2}),
    VectorClock({"A": 1, "B": 4}),
    VectorClock({"C": 1}),
    applied=1,
    duplicate=2,
    pending=3,
    refused=4,
    now_us=1_700_000_000_000_000,
)


# --- round trips ---------------------------------------------------------------------------------


@patient
@given(batches)
def test_a_batch_comes_back(batch: Batch) -> None:
    assert wire.decode_batch(wire.encode_batch(batch), batch.base) == batch


@patient
@given(answers, clocks)
def test_an_answer_comes_back(answer: Answer, base: VectorClock) -> None:
    assert wire.decode_answer(wire.encode_answer(answer, base), base) == answer


@patient
@given(batches, clocks)
def test_a_batch_that_was_said_from_another_base_is_never_read(
    batch: Batch, other: VectorClock
) -> None:
    assume(batch.base not in (other, VectorClock()))
    with pytest.raises(OtherBase) as caught:
        wire.decode_batch(wire.encode_batch(batch), other)
    assert caught.value.outcome == "not_applied"


@patient
@given(batches, clocks)
def test_a_batch_that_was_said_whole_is_read_whatever_the_reader_holds(
    batch: Batch, other: VectorClock
) -> None:
    whole = replace(batch, base=VectorClock())
    assert wire.decode_batch(wire.encode_batch(whole), other) == whole


def batch_after(ended: VectorClock) -> Batch:
    """A hundred writes of B where the actors in `ended` wrote before, and have ended."""
    follows = ended.merge(VectorClock({"A": 1, "B~z": 1}))
    dots = [Dot("B~z", n) for n in range(2, 102)]
    put = Put("lunch", b"soup", "text/plain")
    sent = [Write(d, follows.with_dot(Dot("B~z", d.sequence - 1)), 1, (put,)) for d in dots]
    return Batch("B", "A", follows.with_dot(dots[-1]), tuple(sent), base=ended)


def test_actors_that_have_ended_add_nothing_to_what_is_sent() -> None:
    ended = [VectorClock({f"B~{n}": 7 for n in range(count)}) for count in (1, 10, 1000)]
    batches = [wire.encode_batch(batch_after(clock)) for clock in ended]
    assert len({len(batch) for batch in batches}) == 1
    answers = [
        wire.encode_answer(
            replace(
                ANSWER, clock=clock, received=clock, hearsay={"C": Heard(Standing(clock, clock), 7)}
            ),
            clock,
        )
        for clock in ended
    ]
    assert len({len(answer) for answer in answers}) == 1


def test_a_batch_does_not_take_more_memory_than_a_receiver_has_for_it() -> None:
    follows = VectorClock({"B": 1, **{f"C~{n}": 7 for n in range(200)}})
    most = wire.ENTRIES_MAX // len(follows)
    write = Write(Dot("B", 2), follows, 1, (Delete("lunch"),))
    # The same write again, said in a few bytes: what it follows differs by one entry.
    full = replace(BATCH, writes=(write,) * most)
    assert wire.decode_batch(wire.encode_batch(full)) == full
    body = wire.encode_batch(replace(BATCH, writes=(write,) * (most + 1)))
    assert len(body) < 1024 * 1024
    assert str(wire.ENTRIES_MAX) in refusal(body)


def taken_by(*operations: Operation) -> tuple[int, int]:
    """What a batch of one write with these takes, and what the write is counted for."""
    write = Write(Dot("A", 1), VectorClock(), 1, operations)
    return len(wire.encode_batch(replace(BATCH, writes=(write,)))), wire.size_of(write)


@pytest.mark.parametrize(
    "operation",
    [
        Put("k" * 512, b"x" * 70_000, "text/" + "x" * 250, 2**40),
        Put("\U00020000" * 128, b"", "text/plain"),
        Delete("\U00020000" * 128),
        Delete("k"),
    ],
)
def test_an_operation_is_counted_for_what_it_takes_and_a_few_bytes(operation: Operation) -> None:
    (taken, counted), (before, counted_before) = taken_by(operation), taken_by()
    assert 0 <= counted - counted_before - (taken - before) < 24


@patient
@given(writes())
def test_a_write_takes_no_more_than_it_is_counted_for(write: Write) -> None:
    without = len(wire.encode_batch(replace(BATCH, writes=())))
    taken = len(wire.encode_batch(replace(BATCH, writes=(write,)))) - without
    # Names in clocks are counted as if they had some twenty characters; these have up to 42.
    longer = sum(max(0, len(actor) - 20) for actor in write.dependencies)
    assert taken <= wire.size_of(write) + longer


def test_a_heartbeat_is_a_batch_without_writes() -> None:
    heartbeat = replace(BATCH, writes=(), asks_hearsay=True)
    assert wire.decode_batch(wire.encode_batch(heartbeat)) == heartbeat


def test_a_batch_holds_no_more_writes_than_a_receiver_takes() -> None:
    write, most = BATCH.writes[0], wire.BATCH_WRITES_MAX
    assert len(wire.decode_batch(wire.encode_batch(replace(BATCH, writes=(write,) * most))).writes)
    detail = refusal(wire.encode_batch(replace(BATCH, writes=(write,) * (most + 1))))
    assert str(most) in detail


# --- garbage -------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> bytes:
    """The body of BATCH with something in it changed."""
    form = msgspec.msgpack.decode(wire.encode_batch(BATCH))
    change(form)
    return msgspec.msgpack.encode(form)


def refusal(body: bytes) -> str:
    """Why `body` is refused as a batch: in words that end with what to make of it."""
    with pytest.raises(BadBatch) as caught:
        wire.decode_batch(body)
    assert caught.value.outcome == "not_applied"
    assert "Nothing of it was applied." in caught.value.detail
    return caught.value.detail


def test_what_the_tests_change_is_a_good_batch_before() -> None:
    assert wire.decode_batch(changed(lambda form: None)) == BATCH


def test_a_batch_that_is_truncated_anywhere_is_refused() -> None:
    body = wire.encode_batch(BATCH)
    for size in range(len(body)):
        refusal(body[:size])


def test_an_answer_that_is_truncated_anywhere_is_refused() -> None:
    body = wire.encode_answer(ANSWER)
    for size in range(len(body)):
        with pytest.raises(BadBatch, match="The answer cannot be read"):
            wire.decode_answer(body[:size])


@pytest.mark.parametrize("body", [wire.encode_batch(BATCH), wire.encode_answer(ANSWER)])
def test_bytes_after_the_end_are_refused(body: bytes) -> None:
    for decode in (wire.decode_batch, wire.decode_answer):
        with pytest.raises(BadBatch):
            decode(body + b"\0")


@pytest.mark.parametrize(
    "change",
    [
        lambda form: form.update(version=1),
        lambda form: form.update(version=0),
        lambda form: form.update(version="1.1"),
        # What a later release may send: other fields, and then the version is still what is said.
        lambda form: (form.clear(), form.update(version=5, from_="B", items=[])),
    ],
)
def test_a_batch_of_another_version_is_told_apart_from_garbage(change: Change) -> None:
    detail = refusal(changed(change))
    assert "is of protocol version" in detail
    assert f"this node speaks {wire.PROTOCOL}" in detail
    assert "Run the same release on all nodes." in detail


def write_field(index: int, value: object) -> Change:
    def change(form: dict[str, Any]) -> None:
        form["writes"][0][index] = value

    return change


def operation(value: object) -> Change:
    return write_field(4, [value])


@pytest.mark.parametrize(
    "change",
    [
        # the batch
        lambda form: form.pop("version"),
        lambda form: form.pop("sender"),
        lambda form: form.pop("receiver"),
        lambda form: form.pop("clock"),
        lambda form: form.pop("writes"),
        lambda form: form.update(extra=1),
        lambda form: form.update(sender=7),
        lambda form: form.update(sender=None),
        lambda form: form.update(receiver=["A"]),
        lambda form: form.update(clock=[]),
        lambda form: form.update(clock={"A": 0}),
        lambda form: form["writes"][0].__setitem__(3, {"A": 1, "B": 1, "C": 0}),
        lambda form: form.update(base="B"),
        lambda form: form.update(base=b"x" * 17),
        lambda form: form.update(clock={"A": -1}),
        lambda form: form.update(clock={"A": 2**53}),
        lambda form: form.update(clock={"A": "1"}),
        lambda form: form.update(clock={"A": 1.5}),
        lambda form: form.update(clock={7: 1}),
        lambda form: form.update(writes={}),
        lambda form: form.update(writes=[None]),
        lambda form: form.update(writes=[[]]),
        # a write
        lambda form: form["writes"][0].append("extra"),
        lambda form: form["writes"][0].pop(),
        write_field(0, ""),
        write_field(0, "B C"),
        write_field(0, "B:1"),
        write_field(0, 7),
        write_field(1, 0),
        write_field(1, -1),
        write_field(1, 2**53),
        write_field(1, 2**64 - 1),
        write_field(1, "2"),
        write_field(1, 2.0e300),
        write_field(1, None),
        write_field(2, 0),
        write_field(2, -(2**63)),
        write_field(2, 2**53),
        write_field(2, 2**64 - 1),
        write_field(2, "now"),
        write_field(3, {"A": 1}),  # its own actor's dependency is missing
        write_field(3, {"A": 1, "B": 2}),  # ... is itself
        write_field(3, {"A": 1, "B": 1, "C": 0}),
        write_field(3, {"A": 1, "B": 1, "C": 2**53}),
        write_field(3, {"A": 1, "B": 1, "not an actor": 1}),
        write_field(3, {"A": 1, "B": 1, "": 1}),
        write_field(3, [["A", 1], ["B", 1]]),
        # its operations
        write_field(4, []),
        write_field(4, [["delete", f"k{i}"] for i in range(1001)]),
        write_field(4, [["delete", "k"], ["put", "k", b"", "text/plain", 0]]),
        operation(["delete", ""]),
        operation(["delete", "x" * 513]),
        operation(["delete", "k", "extra"]),
        operation(["delete"]),
        operation(["increment", "k"]),
        operation([]),
        operation({"type": "delete", "key": "k"}),
        operation(["put", "k", b"v"]),
        operation(["put", "k", "text, not bytes", "text/plain", 0]),
        operation(["put", "k", b"v", "text/plain\n", 0]),
        operation(["put", "k", b"v", "", 0]),
        operation(["put", "k", b"v", "x" * 256, 0]),
        operation(["put", "k", b"v", "text/plain", 0, "extra"]),
        operation(["put", "k", b"v", "text/plain"]),
        operation(["put", "k", b"v", "text/plain", -1]),
        operation(["put", "k", b"v", "text/plain", 1.5]),
        operation(["put", "k", b"v", "text/plain", 3153600000_000_001]),
        operation(["put", "\0k", b"v", "text/plain", 1]),
        operation(["put", b"k", b"v", "text/plain", 0]),
    ],
)
def test_a_batch_that_breaks_a_rule_is_refused(change: Change) -> None:
    refusal(changed(change))


@pytest.mark.parametrize("actor", ["", "B C", "B:1", "Ä", "x" * 65, "B\n"])
def test_a_clock_of_what_cannot_be_actors_is_refused(actor: str) -> None:
    """What is told of a peer's clock is stored as text, and has to be read again."""
    refusal(changed(lambda form: form.update(clock={actor: 1})))


@pytest.mark.parametrize("name", ["clock", "received", "missing"])
@pytest.mark.parametrize("actor", ["", "B C", "B:1", "Ä", "x" * 65, "B\n"])
def test_an_answer_with_a_clock_of_what_cannot_be_actors_is_refused(name: str, actor: str) -> None:
    form = msgspec.msgpack.decode(wire.encode_answer(ANSWER))
    form[name] = {actor: 1}
    with pytest.raises(BadBatch):
        wire.decode_answer(msgspec.msgpack.encode(form))


@pytest.mark.parametrize("removed", ["A", "A:0", "a b:1", "x" * 100, 7])
def test_an_answer_that_names_no_write_as_a_removal_is_refused(removed: object) -> None:
    form = msgspec.msgpack.decode(wire.encode_answer(ANSWER))
    form["removed"] = removed
    with pytest.raises(BadBatch, match="The answer cannot be read"):
        wire.decode_answer(msgspec.msgpack.encode(form))


def test_an_answer_that_names_members_and_a_removal_comes_back() -> None:
    answer = replace(
        ANSWER,
        members={"A": "", "B": "http://b"},
        removed=Dot("B~x1", 7),
        hearsay={
            "C": Heard(Standing(VectorClock({"A": 1}), VectorClock({"A": 3, "B": 1})), 5),
            "D": UNHEARD,
        },
    )
    assert wire.decode_answer(wire.encode_answer(answer)) == answer


def test_a_key_that_is_not_utf_8_is_refused() -> None:
    body = wire.encode_batch(BATCH)
    assert body.count(b"dinner") == 1
    refusal(body.replace(b"dinner", b"dinn\xff\xfe"))


def test_a_body_is_not_echoed_whole() -> None:
    assert len(refusal(changed(lambda form: form.update(version="x" * 100_000)))) < 1000
    assert len(refusal(changed(write_field(0, "x" * 100_000)))) < 1000
    assert len(refusal(changed(write_field(3, {"B": 1, "x" * 100_000: 1})))) < 1000


@pytest.mark.parametrize(
    "form", [None, True, 0, 1.5, "", "version", b"", [], {}, [1], {"version": 1}]
)
def test_another_kind_of_value_is_refused(form: object) -> None:
    refusal(msgspec.msgpack.encode(form))
    with pytest.raises(BadBatch):
        wire.decode_answer(msgspec.msgpack.encode(form))


NESTED = {
    "lists": (b"\x91", b"\x01"),
    "maps": (b"\x81\xa1k", b"\x01"),
    "maps as keys": (b"\x81", b"\x01\x01"),
}


@pytest.mark.parametrize("name", NESTED)
def test_nesting_of_any_depth_is_refused(name: str) -> None:
    opening, innermost = NESTED[name]
    limit = sys.getrecursionlimit()
    # Every depth at which one of several readers of it may give up, and one far beyond.
    for depth in [1, 2, *range(limit - 150, limit + 10), 100_000]:
        nested = opening * depth + innermost
        for body in (nested, b"\x81\xa7version" + nested):
            with pytest.raises(BadBatch):
                wire.decode_batch(body)
            with pytest.raises(BadBatch):
                wire.decode_answer(body)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xc1",  # never used
        b"\xd4\x05\x01",  # an extension
        b"\xd7\xff" + b"\xff" * 8,  # a timestamp that is none
        b"\xc7\x0c\xff" + b"\xff" * 12,
        b"\xdd\xff\xff\xff\xff",  # a list of four billion
        b"\xdf\xff\xff\xff\xff",  # a map of as many
        b"\xc6\xff\xff\xff\xff",  # as many bytes
        b"\xa2\xff\xfe",  # text that is not UTF-8
        b"\x81\x80\x01",  # a map with a map as a key
    ],
)
def test_garbage_is_refused_wherever_it_stands(garbage: bytes) -> None:
    for body in (
        garbage,
        b"\x81" + garbage + b"\x01",
        b"\x81\xa7version" + garbage,
        b"\x82\xa7version\x01\xa6writes" + garbage,
    ):
        refusal(body)
        with pytest.raises(BadBatch):
            wire.decode_answer(body)


# --- anything ------------------------------------------------------------------------------------

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


def decodes_or_is_refused(body: bytes) -> None:
    """No other exception, and what is decoded is well-formed and can be sent again."""
    try:
        batch = wire.decode_batch(body)
    except BadBatch:
        pass
    else:
        assert not any(map(write_problem, batch.writes))
        assert wire.decode_batch(wire.encode_batch(batch)) == batch
    try:
        answer = wire.decode_answer(body)
    except BadBatch:
        pass
    else:
        assert wire.decode_answer(wire.encode_answer(answer)) == answer


@settings(patient, max_examples=500)
@given(st.binary())
def test_random_bytes_are_refused(body: bytes) -> None:
    decodes_or_is_refused(body)


@patient
@given(anything)
def test_random_values_are_refused(form: object) -> None:
    decodes_or_is_refused(msgspec.msgpack.encode(form))


@patient
@given(
    st.fixed_dictionaries(
        {"version": st.just(1) | anything, "sender": anything, "receiver": anything},
        optional={"clock": anything, "writes": st.lists(st.lists(anything, max_size=6))},
    )
)
def test_random_values_in_the_right_places_are_refused(form: dict[str, object]) -> None:
    decodes_or_is_refused(msgspec.msgpack.encode(form))


@time_enough()
@effort(2000)
@given(damaged([wire.encode_batch(BATCH), wire.encode_answer(ANSWER)]))
def test_a_damaged_message_is_read_or_refused(body: bytes) -> None:
    decodes_or_is_refused(body)
