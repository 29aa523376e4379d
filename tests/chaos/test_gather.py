"""The history of a run knows what was lost, what was deferred, and by which name it was done."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.codec import pack_operations
from app.vector_clock import SEQUENCE_MAX
from app.write import Put
from tests.chaos.ends import ends_of, within
from tests.chaos.gather import Record, Telling, as_history
from tests.chaos.logbook import Logbook
from tests.chaos.losses import Loss, Losses

URL = "http://a"


def record(session: str, context: str, kind: str = "put", **fields: Any) -> Record:
    """What a client has recorded of an operation on a key."""
    told = {"session": session, "node": URL, "kind": kind, "key": "x", "outcome": "ok"}
    return {**told, "context_in": "", "context_out": f"lc1;{context}", **fields}


@pytest.fixture
def telling() -> Telling:
    """A and its lane have lost what came after 2, in a Redis that was put back with `A+:3`, which
    is `A~1:1` since."""
    book = Logbook()
    fields = {
        b"timestamp": b"9",
        b"dependencies": f"B:4 A+:{SEQUENCE_MAX}".encode(),
        b"operations": pack_operations([Put("x", b"kept", "text/plain")]),
    }
    book.note("A", {"log:A~1": [(b"1-0", fields)]})
    losses = Losses([Loss("A", "A+", 5, 2, 3, 3), Loss("A", "A", 5, 2, 2)])
    return Telling(book, losses, {"A+": 2}, {"A": 2, "A+": 2, "A~1": 1, "B": 9})


def told(telling: Telling, tmp_path: Path, *records: Record) -> list[Record]:
    requests, finals = tmp_path / "requests", tmp_path / "finals"
    requests.write_text("".join(json.dumps(one) + "\n" for one in records))
    finals.write_text(json.dumps(record("final", "", "siblings", seen=[])) + "\n")
    *asked, final = telling.records(requests, finals, {URL: "A"})
    assert final["final"] and final["node"] == "A"
    return asked


def test_a_write_goes_by_the_name_under_which_it_was_done(telling: Telling, tmp_path: Path) -> None:
    seen = record("bob", "A+:3", "siblings", seen=[{"value": "kept", "dot": "A+:3"}])
    put, read = told(telling, tmp_path, record("ann", "A+:3", value="kept", dot="A+:3"), seen)
    assert telling.done_as == {"A+:3": "A~1:1"}
    assert put["dot"] == "A~1:1" and put["dependencies"] == {"B": 4, "A+": 2}
    assert read["seen"] == [{"value": "kept", "dot": "A~1:1"}]
    assert "lost" not in put and "lost" not in read, "who has seen that is served"


def test_what_was_accepted_after_the_copy_is_lost_and_so_is_what_follows(
    telling: Telling, tmp_path: Path
) -> None:
    kept, gone, read, other = told(
        telling,
        tmp_path,
        record("ann", "A+:3", value="kept", dot="A+:3"),
        record("ann", "A+:4", value="gone", dot="A+:4"),
        record("ann", "A+:4", "get", seen=[]),
        record("bob", "A:2;A+:3", "get", seen=[]),
    )
    assert gone["lost"] == read["lost"] == "A+:4"
    assert "lost" not in kept and "lost" not in other


def test_what_was_deferred_for_what_is_lost_is_there_and_follows_nothing(
    telling: Telling, tmp_path: Path
) -> None:
    deferred, doubtful, refused, direct = told(
        telling,
        tmp_path,
        record("ann", "A:3;B+:1", value="1", dot="B+:1"),
        record("ann", "A:3", value="2", outcome="unknown"),
        record("ann", "A:3", value="3", outcome="not_applied"),
        record("ann", "A:4", value="4", dot="A:4"),
    )
    for one in deferred, doubtful:
        assert one["carries"] is False and "lost" not in one
    assert refused["lost"] == "A:3" and direct["lost"] == "A:4"


def test_what_expires_is_told_apart(tmp_path: Path) -> None:
    records = [
        record("ann", "A:1", value="1", dot="A:1"),
        record("ann", "A:2", value="2", dot="A:2", key="ttl/5/0", ttl=5.0),
        record("ann", "A:2", "get", key="ttl/5/0", seen=[]),
    ]
    history, expiring = as_history(tmp_path / "history", records)
    assert [op.writes[0].key for op in history] == ["x"]
    assert [op.kind for op in expiring] == ["put", "get"]
    assert len((tmp_path / "history").read_text().splitlines()) == 1


def test_an_actor_that_is_closed_goes_up_to_its_declared_end() -> None:
    held = {
        "kv:\0end/A+": {b"B:3": b"7 text/plain\n12", b"deletes": b"B:2"},
        "kv:\0end/A": {b"B:4": b"8 text/plain\n5", b"C:1": b"8 text/plain\n4"},
        "kv:\0member/A": {b"B:1": b"1 text/plain\n{}"},
        "kv:end/B": {b"B:1": b"1 text/plain\n3"},
    }
    ends = ends_of([held, {}])
    assert ends == {"A+": 12, "A": 4}
    clock = {"A": SEQUENCE_MAX, "A+": 9, "B": 2}
    assert within(clock, ends) == {"A": 4, "A+": 9, "B": 2}
    assert within({"A": SEQUENCE_MAX, "B": 1}, {"A": 0}) == {"B": 1}
