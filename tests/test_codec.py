"""The shapes of what is stored: what is packed comes back."""

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app import codec
from app.codec import Waiting
from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock
from app.write import (
    Delete,
    Operation,
    Put,
    Version,
    Write,
)
from tests.strategies import (
    actors,
    clocks,
    content_types,
    operations_lists,
    patient,
    sequences,
    timestamps,
    writes,
)

# --- operations ----------------------------------------------------------------------------------


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


# --- versions, clocks, log, pending --------------------------------------------------------------


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


def test_when_a_version_expires_stands_in_the_name_of_its_field() -> None:
    fields = {b"A:7@1795379363289593": b"12 t\nnoon", b"B~x1:1": b"13 t\n"}
    state = codec.unpack_key_state("k", fields)
    assert state.versions == (
        Version(Dot("A", 7), 12, "t", b"noon", 1795379363289593),
        Version(Dot("B~x1", 1), 13, "t", b""),
    )
    flat = codec.pack_key_state(state)
    assert flat == ["A:7@1795379363289593", b"12 t\nnoon", "B~x1:1", b"13 t\n"]


def test_how_long_a_value_lives_stands_after_the_verb() -> None:
    operations = (Put("k", b"v", "t", 60000), Put("l", b"", "t"))
    packed = codec.pack_operations(operations)
    assert packed == b"9:put 60000,1:k,1:t,1:v,3:put,1:l,1:t,0:,"
    assert codec.unpack_operations(packed) == operations


def test_an_absent_key_holds_neither() -> None:
    assert codec.unpack_versions({}) == []
    assert codec.unpack_deletes({}) == VectorClock()


def test_a_clock_is_stored_as_a_hash() -> None:
    assert codec.unpack_clock({b"A": b"7", b"B~x1": b"3"}) == VectorClock({"A": 7, "B~x1": 3})
    assert codec.unpack_clock({}) == VectorClock()


def log_entry(write: Write) -> tuple[bytes, dict[bytes, bytes]]:
    return b"%d-0" % write.dot.sequence, {
        b"timestamp": b"%d" % write.timestamp,
        b"dependencies": write.dependencies.entries_text().encode(),
        b"operations": codec.pack_operations(write.operations),
    }


@patient
@given(writes())
def test_a_log_entry_comes_back_as_the_write(write: Write) -> None:
    assert codec.unpack_log_entries(write.dot.actor, [log_entry(write)]) == [write]


@patient
@given(writes(), st.lists(st.tuples(clocks, writes())))
def test_log_entries_come_back_each_with_its_own_past(
    write: Write, later: list[tuple[VectorClock, Write]]
) -> None:
    assume(write.dot.sequence <= SEQUENCE_MAX - len(later))
    log = [write]
    for learned, other in later:
        past = log[-1].dependencies.with_dot(log[-1].dot)
        past = past.merge(VectorClock({**learned, write.dot.actor: 0}))
        log.append(
            msgspec.structs.replace(other, dot=past.next_dot(write.dot.actor), dependencies=past)
        )
    assert codec.unpack_log_entries(write.dot.actor, map(log_entry, log)) == log


@patient
@given(writes(), timestamps)
def test_a_waiting_write_comes_back_with_the_time_it_came(write: Write, since_us: int) -> None:
    head = f"{since_us} {write.timestamp} {write.dependencies.entries_text()}\n".encode()
    packed = head + codec.pack_operations(write.operations)
    waiting = codec.unpack_waiting(write.dot.actor, write.dot.sequence, packed)
    assert waiting == Waiting(write, since_us)


# --- members -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_member", [True, False])
def test_a_record_of_a_member_comes_back(is_member: bool) -> None:
    record = codec.MemberRecord("http://d:1", is_member)
    assert codec.unpack_member(codec.pack_member(record)) == record
    later = codec.pack_member(record).replace(b"{", b'{"weight":2,', 1)
    assert codec.unpack_member(later) == record, "a later release may say more"


def test_what_settings_name_comes_back() -> None:
    urls = {"A": "", "B": "http://b"}
    assert codec.unpack_urls(codec.pack_urls(urls)) == urls
