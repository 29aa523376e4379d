"""The checks of what expires find what they are there for."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from app.codec import pack_operations
from app.write import Put
from tests.chaos.evidence import Evidence
from tests.chaos.expiring import what_has_expired_does_not_come_back
from tests.chaos.good_runs import GOOD, bad, changed, with_book
from tests.checker.history import Dot, Operation, Read, Seen, Write

GONE, BACK = "what expires is gone", "what has expired does not come back"
[SHORT, *_] = [key for key in GOOD.plan.expiring_keys() if key.startswith("ttl/1/")]
LONG = next(op.reads[0].key for op in GOOD.expiring if op.final and len(op.reads[0].seen) == 1)


def with_node(node: str, key: str, fields: dict[bytes, bytes] | None, **listed: bool) -> Evidence:
    """The good evidence, but for what a Redis holds of a key, and where the key is listed."""
    versions, lists = copy.deepcopy(dict(GOOD.versions)), copy.deepcopy(dict(GOOD.listed))
    if fields is None:
        versions[node].pop(f"kv:{key}", None)
    else:
        versions[node][f"kv:{key}"] = fields
    changed_lists = {name: set(keys) for name, keys in lists[node].items()}
    for name, is_in in listed.items():
        (changed_lists[name].add if is_in else changed_lists[name].discard)(key)
    return changed(versions=versions, listed={**lists, node: changed_lists})


def with_final(node: str, key: str, *seen: Seen) -> Evidence:
    """The good evidence, but for what the node shows of the key at the end."""
    expiring = [
        replace(op, reads=(Read(key, seen, complete=True),))
        if op.final and op.node == node and op.reads[0].key == key
        else op
        for op in GOOD.expiring
    ]
    return changed(expiring=expiring)


def test_what_has_expired_may_not_be_held() -> None:
    assert GONE in bad(with_node("B", SHORT, {b"A:1@1000000": b"0 text/plain\nx"}))


@pytest.mark.parametrize("name", ["keys", "conflicts", "expiring"])
def test_what_has_expired_may_not_be_listed(name: str) -> None:
    fields = GOOD.versions["B"].get(f"kv:{SHORT}")
    assert bad(with_node("B", SHORT, fields, **{name: True})) == {GONE}


def test_nothing_may_be_left_of_a_key_that_is_gone() -> None:
    assert GONE in bad(with_node("B", SHORT, {b"deletes": b"A:1"}))


def test_what_has_expired_may_not_be_shown() -> None:
    assert bad(with_final("B", SHORT, Seen("old", Dot("A", 1)))) == {GONE}


def test_what_lives_for_days_must_be_held_listed_and_shown_everywhere() -> None:
    assert GONE in bad(with_node("B", LONG, None))
    fields = GOOD.versions["B"][f"kv:{LONG}"]
    assert bad(with_node("B", LONG, fields, keys=False)) == {GONE}
    assert bad(with_node("B", LONG, fields, expiring=False)) == {GONE}
    assert bad(with_final("B", LONG)) == {GONE}


def test_a_key_that_was_not_read_in_the_end_shows_nothing() -> None:
    final = next(op for op in GOOD.expiring if op.final)
    assert bad(changed(expiring=[op for op in GOOD.expiring if op is not final])) == {GONE}


def test_a_node_for_which_no_time_has_passed_shows_nothing() -> None:
    assert bad(changed(timestamps={**GOOD.timestamps, "B": 1})) == {GONE}


def test_a_run_in_which_nothing_expired_or_nothing_lived_has_not_shown_enough() -> None:
    for ttl in ("ttl/1/", "ttl/2/", "ttl/5/"), ("ttl/360000/",):
        sessions = [
            replace(s, keys=tuple(key for key in s.keys if not key.startswith(ttl)))
            for s in GOOD.plan.sessions
        ]
        plan = replace(GOOD.plan, sessions=tuple(sessions))
        assert bad(changed(plan=plan)) == {GONE}


def test_a_value_that_was_put_for_another_time_than_was_asked_is_found() -> None:
    put = next(op for op in GOOD.expiring if op.kind == "put" and op.outcome == "ok")

    def change(entries: dict[str, Any]) -> None:
        [written] = put.writes
        one = Put(written.key, (written.value or "").encode(), "text/plain", 7)
        entries[str(put.dot)][b"operations"] = pack_operations([one])

    assert GONE in bad(with_book(change))


def test_what_was_acknowledged_for_a_time_may_not_be_missing_in_the_logs() -> None:
    put = next(op for op in GOOD.expiring if op.kind == "put" and op.outcome == "ok")
    assert "nothing acknowledged is lost" in bad(with_book(lambda e: e.pop(str(put.dot))))


def test_what_is_gone_may_not_be_shown_again() -> None:
    put = Operation("own", "A", "put", (), (Write(SHORT, "1"),), Dot("A", 1))
    empty = Operation("own", "B", "get", (Read(SHORT, (), complete=True),))
    again = replace(empty, reads=(Read(SHORT, (Seen("1", Dot("A", 1)),), complete=True),))

    def found(*asked: Operation, odd_clock: str = "C") -> bool:
        plan = replace(GOOD.plan, odd_clock=odd_clock)
        evidence = changed(plan=plan, expiring=[*asked, *GOOD.expiring])
        return not what_has_expired_does_not_come_back(evidence).is_good

    assert found(put, empty, again) and found(again, empty, again)
    assert not found(put, again, empty) and not found(empty, put, again)
    assert not found(put, empty, again, odd_clock="B"), "whose wall clock is no measure"
    other = replace(again, session="another")
    assert not found(put, empty, other), "who has not found it gone"


def test_a_run_in_which_nobody_saw_anything_go_has_not_shown_enough() -> None:
    seen = [op for op in GOOD.expiring if op.final or not op.reads]
    assert BACK in bad(changed(expiring=seen))
