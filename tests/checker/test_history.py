"""Reading and writing histories as JSON lines."""

import json

import pytest

from tests.checker.check import check
from tests.checker.history import (
    BadHistory,
    Dot,
    Operation,
    Read,
    Seen,
    Write,
    read_history,
    to_json,
)
from tests.checker.notation import parse
from tests.checker.workload import Workload


def _line(**changes: object) -> str:
    record = {"session": "s", "node": "A", "kind": "put", "key": "x", "value": "1"} | changes
    return json.dumps({name: value for name, value in record.items() if value is not ...})


def test_what_is_written_is_read_again() -> None:
    history = Workload(3, recorded="dependencies").history(300)
    history += parse("a@A get x: 1/A:1 /B:2 [complete] [3-4]\nb@B put x=1 [after nothing]")
    assert read_history(map(to_json, history)) == history


def test_every_field_is_understood() -> None:
    [operation] = read_history(
        [
            _line(
                dot="A~t1:7",
                dependencies={"A": 6, "B": 0},
                outcome="unknown",
                carries=False,
                start=10,
                end=20,
                context_in="lc1;A:6",
                context_out="lc1;A:7",
            )
        ]
    )
    assert operation == Operation(
        "s",
        "A",
        "put",
        (),
        (Write("x", "1"),),
        dot=Dot("A~t1", 7),
        dependencies={"A": 6},
        outcome="unknown",
        carries=False,
        start=10,
        end=20,
    )


def test_a_transaction_reads_and_writes() -> None:
    [operation] = read_history(
        [
            _line(
                kind="txn",
                key=...,
                value=...,
                reads=[{"key": "x", "seen": [{"value": "1", "dot": "A:1"}]}],
                writes=[{"key": "y", "value": "2"}, {"key": "z", "delete": True}],
            )
        ]
    )
    assert operation.reads == (Read("x", (Seen("1", Dot("A", 1)),), True),)
    assert operation.writes == (Write("y", "2"), Write("z", None))


def test_a_get_that_shows_nothing_shows_everything() -> None:
    [operation] = read_history([_line(kind="get", value=..., seen=[])])
    assert operation.reads == (Read("x", (), True),)


def test_a_final_read_is_no_part_of_a_session() -> None:
    [operation] = read_history([_line(kind="get", value=..., seen=[], final=True)])
    assert operation.final
    assert not operation.carries


def test_a_failed_read_need_not_say_what_it_saw() -> None:
    [operation] = read_history([_line(kind="siblings", value=..., outcome="not_applied")])
    assert check([operation]).is_good


def test_empty_lines_are_skipped_and_lines_are_counted() -> None:
    [operation] = read_history(["", _line(), "\n"])
    assert operation.line == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "Line 1:"),
        ("[]", "an operation is a JSON object"),
        (_line(session=...), "session is missing"),
        (_line(node=7), "node is missing, or is not text"),
        (_line(kind="increment"), "kind is one of put, delete, get, siblings, txn"),
        (_line(outcome="perhaps"), "outcome is one of ok, not_applied, unknown"),
        (_line(key=...), "key is missing"),
        (_line(value=...), "value is missing"),
        (_line(kind="delete"), "a delete has no field value"),
        (_line(colour="red"), "a put has no field colour"),
        (_line(dot="A7"), "'A7' is not a dot such as A:7"),
        (_line(dot="A:0"), "'A:0' is not a dot such as A:7"),
        (_line(dependencies=[]), "dependencies is a JSON object"),
        (_line(dependencies={"A": -1}), "dependencies['A'] is a whole number from 0"),
        (_line(dependencies={"A": True}), "dependencies['A'] is a whole number from 0"),
        (_line(dot="A:2", dependencies={"A": 2}), "applied before A:2, and these cover it"),
        (_line(carries=1), "carries is true or false"),
        (_line(start="now"), "start is a whole number of microseconds"),
        (_line(start=2, end=1), "ended before it started"),
        (_line(kind="get", value=...), "seen is missing, or is not a list"),
        (_line(kind="get", value=..., seen=["1"]), "a version in seen is a JSON object"),
        (_line(kind="get", value=..., seen=[{}]), "has value, dot or both"),
        (_line(kind="txn", key=..., value=..., final=True, writes=[{"key": "x", "value": "1"}]),
         "a final operation only reads"),
        (_line(kind="txn", key=..., value=..., writes=[{"key": "x", "delete": True}] * 2),
         "reads a key once at most"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_operation_is_refused_with_a_reason(line: str, said: str) -> None:
    with pytest.raises(BadHistory) as refused:
        read_history([line])
    assert said in str(refused.value)
    assert str(refused.value).startswith("Line 1: ")
    assert str(refused.value).endswith("Nothing was checked.")


def test_two_puts_of_one_value_cannot_be_checked() -> None:
    operations = read_history([_line(), _line(node="B")])
    with pytest.raises(BadHistory, match="Lines 1 and 2 both put '1' on 'x'"):
        check(operations)


def test_a_refused_put_may_be_tried_again() -> None:
    assert check(read_history([_line(outcome="not_applied"), _line(node="B")])).is_good
