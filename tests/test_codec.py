"""The shapes of what is stored and sent: what is packed comes back, and garbage is refused."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import codec
from app.codec import Answer, Batch, Waiting
from app.errors import BadBatch
from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock
from app.write import (
    KEY_MAX_BYTES,
    TIMESTAMP_MAX,
    Delete,
    Operation,
    Put,
    Version,
    Write,
    key_problem,
    write_problem,
)
from tests.effort import effort, time_enough
from tests.fuzzing.damage import damaged

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# --- what there can be ---------------------------------------------------------------------------

keys = st.text(min_size=1, max_size=KEY_MAX_BYTES // 4).filter(lambda key: not key_problem(key))
content_types = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1)
puts = st.builds(Put, keys, st.binary(), content_types)
operations_lists: st.SearchStrategy[list[Operation]] = st.lists(
    puts | st.builds(Delete, keys),
    min_size=1,
    max_size=4,
    unique_by=lambda operation: operation.key,
)
actors = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}(~[A-Za-z0-9]{1,9})?", fullmatch=True)
sequences = st.integers(1, SEQUENCE_MAX)
clocks = st.dictionaries(actors, sequences, max_size=4).map(VectorClock)
timestamps = st.integers(1, TIMESTAMP_MAX)


@st.composite
def writes(draw: st.DrawFn) -> Write:
    dot = Dot(draw(actors), draw(sequences))
    dependencies = VectorClock({**draw(clocks), dot.actor: dot.sequence - 1})
    return Write(dot, dependencies, draw(timestamps), tuple(draw(operations_lists)))


batches = st.builds(Batch, actors, actors, clocks, st.lists(writes(), max_size=3).map(tuple))
counts = st.integers(0, 10_000)
answers = st.builds(
    Answer, actors, clocks, clocks, clocks, counts, counts, counts, counts, timestamps
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


# --- Redis: operations ---------------------------------------------------------------------------


def test_operations_are_stored_as_netstrings_that_a_person_can_read() -> None:
    packed = codec.pack_operations([Put("lunch", b"noon?", "text/plain"), Delete("é")])
    assert packed == b"3:put,5:lunch,10:text/plain,5:noon?,6:delete," + "2:é,".encode()


@patient
@given(operations_lists)
def test_stored_operations_come_back(operations: list[Operation]) -> None:
    assert codec.unpack_operations(codec.pack_operations(operations)) == tuple(operations)


def test_a_value_may_hold_every_byte_and_look_like_a_netstring() -> None:
    for value in (bytes(range(256)), b"", b"3:put,", b",,,:", b"6:delete,1:k,", b"\n", b"0:,"):
        operations = (Put("k", value), Delete("6:delete,"), Put("3:put,", value))
        assert codec.unpack_operations(codec.pack_operations(operations)) == operations


def test_no_operations_are_stored_as_nothing() -> None:
    assert codec.pack_operations([]) == b""
    assert codec.unpack_operations(b"") == ()


# --- Redis: versions, clocks, log, pending -------------------------------------------------------


@patient
@given(st.builds(Dot, actors, sequences), timestamps, content_types, st.binary())
def test_a_stored_version_comes_back(
    dot: Dot, timestamp: int, content_type: str, value: bytes
) -> None:
    fields = {str(dot).encode(): f"{timestamp} {content_type}\n".encode() + value}
    assert codec.unpack_versions(fields) == [Version(dot, timestamp, content_type, value)]


def test_a_key_holds_versions_and_the_deletes_beside_them() -> None:
    fields = {
        b"A:7": b"12 text/plain; charset=utf-8\nnoon\n1 2\n",
        b"deletes": b"B:3 C:1",
        b"B~x1:1": b"13 application/json\n",
    }
    assert codec.unpack_versions(fields) == [
        Version(Dot("A", 7), 12, "text/plain; charset=utf-8", b"noon\n1 2\n"),
        Version(Dot("B~x1", 1), 13, "application/json", b""),
    ]
    assert codec.unpack_deletes(fields) == VectorClock({"B": 3, "C": 1})


def test_an_absent_key_holds_neither() -> None:
    assert codec.unpack_versions({}) == []
    assert codec.unpack_deletes({}) == VectorClock()


def test_a_clock_is_stored_as_a_hash() -> None:
    assert codec.unpack_clock({b"A": b"7", b"B~x1": b"3"}) == VectorClock({"A": 7, "B~x1": 3})
    assert codec.unpack_clock({}) == VectorClock()


@patient
@given(writes())
def test_a_log_entry_comes_back_as_the_write(write: Write) -> None:
    fields = {
        b"timestamp": b"%d" % write.timestamp,
        b"dependencies": write.dependencies.entries_text().encode(),
        b"operations": codec.pack_operations(write.operations),
    }
    entry_id = b"%d-0" % write.dot.sequence
    assert codec.unpack_log_entry(write.dot.actor, entry_id, fields) == write


@patient
@given(writes(), timestamps)
def test_a_waiting_write_comes_back_with_the_time_it_came(write: Write, since_us: int) -> None:
    head = f"{since_us} {write.timestamp} {write.dependencies.entries_text()}\n".encode()
    packed = head + codec.pack_operations(write.operations)
    waiting = codec.unpack_waiting(write.dot.actor, write.dot.sequence, packed)
    assert waiting == Waiting(write, since_us)


# --- between nodes: round trips ------------------------------------------------------------------


@patient
@given(batches)
def test_a_batch_comes_back(batch: Batch) -> None:
    assert codec.decode_batch(codec.encode_batch(batch)) == batch


@patient
@given(answers)
def test_an_answer_comes_back(answer: Answer) -> None:
    assert codec.decode_answer(codec.encode_answer(answer)) == answer


def test_a_heartbeat_is_a_batch_without_writes() -> None:
    heartbeat = replace(BATCH, writes=(), asks_clocks=True)
    assert codec.decode_batch(codec.encode_batch(heartbeat)) == heartbeat


def test_a_batch_holds_no_more_writes_than_a_receiver_takes() -> None:
    write, most = BATCH.writes[0], codec.BATCH_WRITES_MAX
    assert len(
        codec.decode_batch(codec.encode_batch(replace(BATCH, writes=(write,) * most))).writes
    )
    detail = refusal(codec.encode_batch(replace(BATCH, writes=(write,) * (most + 1))))
    assert str(most) in detail


# --- between nodes: garbage ----------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> bytes:
    """The body of BATCH with something in it changed."""
    form = msgspec.msgpack.decode(codec.encode_batch(BATCH))
    change(form)
    return msgspec.msgpack.encode(form)


def refusal(body: bytes) -> str:
    """Why `body` is refused as a batch: in words that end with what to make of it."""
    with pytest.raises(BadBatch) as caught:
        codec.decode_batch(body)
    assert caught.value.outcome == "not_applied"
    assert "Nothing of it was applied." in caught.value.detail
    return caught.value.detail


def test_what_the_tests_change_is_a_good_batch_before() -> None:
    assert codec.decode_batch(changed(lambda form: None)) == BATCH


def test_a_batch_that_is_truncated_anywhere_is_refused() -> None:
    body = codec.encode_batch(BATCH)
    for size in range(len(body)):
        refusal(body[:size])


def test_an_answer_that_is_truncated_anywhere_is_refused() -> None:
    body = codec.encode_answer(ANSWER)
    for size in range(len(body)):
        with pytest.raises(BadBatch, match="The answer cannot be read"):
            codec.decode_answer(body[:size])


@pytest.mark.parametrize("body", [codec.encode_batch(BATCH), codec.encode_answer(ANSWER)])
def test_bytes_after_the_end_are_refused(body: bytes) -> None:
    for decode in (codec.decode_batch, codec.decode_answer):
        with pytest.raises(BadBatch):
            decode(body + b"\0")


@pytest.mark.parametrize(
    "change",
    [
        lambda form: form.update(version=2),
        lambda form: form.update(version=0),
        lambda form: form.update(version="1.1"),
        # What a later release may send: other fields, and then the version is still what is said.
        lambda form: (form.clear(), form.update(version=2, from_="B", items=[])),
    ],
)
def test_a_batch_of_another_version_is_told_apart_from_garbage(change: Change) -> None:
    detail = refusal(changed(change))
    assert "is of protocol version" in detail
    assert "this node speaks 1" in detail
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
        write_field(4, [["delete", "k"], ["put", "k", b"", "text/plain"]]),
        operation(["delete", ""]),
        operation(["delete", "x" * 513]),
        operation(["delete", "k", "extra"]),
        operation(["delete"]),
        operation(["increment", "k"]),
        operation([]),
        operation({"type": "delete", "key": "k"}),
        operation(["put", "k", b"v"]),
        operation(["put", "k", "text, not bytes", "text/plain"]),
        operation(["put", "k", b"v", "text/plain\n"]),
        operation(["put", "k", b"v", ""]),
        operation(["put", "k", b"v", "x" * 256]),
        operation(["put", "k", b"v", "text/plain", "extra"]),
        operation(["put", b"k", b"v", "text/plain"]),
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
    form = msgspec.msgpack.decode(codec.encode_answer(ANSWER))
    form[name] = {actor: 1}
    with pytest.raises(BadBatch):
        codec.decode_answer(msgspec.msgpack.encode(form))


@pytest.mark.parametrize("removed", ["A", "A:0", "a b:1", "x" * 100, 7])
def test_an_answer_that_names_no_write_as_a_removal_is_refused(removed: object) -> None:
    form = msgspec.msgpack.decode(codec.encode_answer(ANSWER))
    form["removed"] = removed
    with pytest.raises(BadBatch, match="The answer cannot be read"):
        codec.decode_answer(msgspec.msgpack.encode(form))


def test_an_answer_that_names_members_and_a_removal_comes_back() -> None:
    answer = replace(
        ANSWER,
        members={"A": "", "B": "http://b"},
        removed=Dot("B~x1", 7),
        clocks={"C": VectorClock({"A": 1}), "D": VectorClock()},
    )
    assert codec.decode_answer(codec.encode_answer(answer)) == answer


@pytest.mark.parametrize("is_member", [True, False])
def test_a_record_of_a_member_comes_back(is_member: bool) -> None:
    record = codec.MemberRecord("http://d:1", is_member)
    assert codec.unpack_member(codec.pack_member(record)) == record
    later = codec.pack_member(record).replace(b"{", b'{"weight":2,', 1)
    assert codec.unpack_member(later) == record, "a later release may say more"


def test_what_settings_name_comes_back() -> None:
    urls = {"A": "", "B": "http://b"}
    assert codec.unpack_urls(codec.pack_urls(urls)) == urls


def test_a_key_that_is_not_utf_8_is_refused() -> None:
    body = codec.encode_batch(BATCH)
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
        codec.decode_answer(msgspec.msgpack.encode(form))


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
                codec.decode_batch(body)
            with pytest.raises(BadBatch):
                codec.decode_answer(body)


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
            codec.decode_answer(body)


# --- between nodes: anything ---------------------------------------------------------------------

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
        batch = codec.decode_batch(body)
    except BadBatch:
        pass
    else:
        assert not any(map(write_problem, batch.writes))
        assert codec.decode_batch(codec.encode_batch(batch)) == batch
    try:
        answer = codec.decode_answer(body)
    except BadBatch:
        pass
    else:
        assert codec.decode_answer(codec.encode_answer(answer)) == answer


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
@given(damaged([codec.encode_batch(BATCH), codec.encode_answer(ANSWER)]))
def test_a_damaged_message_is_read_or_refused(body: bytes) -> None:
    decodes_or_is_refused(body)
