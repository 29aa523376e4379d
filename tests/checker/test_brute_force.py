"""The checker against the promises by definition, on random small histories.

`CHECKER_HISTORIES=50000 python -m pytest tests/checker/test_brute_force.py` tries that many of
each kind, rather than the few of a normal run.
"""

import os
import random
from dataclasses import dataclass, replace

import pytest

from tests.checker.brute_force import is_possible
from tests.checker.check import check
from tests.checker.explain import Explainer
from tests.checker.history import Operation, Outcome, Read, Seen, Write
from tests.checker.notation import line, parse
from tests.checker.workload import Fault, Level, Workload

HISTORIES = int(os.environ.get("CHECKER_HISTORIES", "400"))
#: The definition tries all orders of the writes, and there are 4231 of five.
WRITES_MAX = 4


@dataclass(frozen=True)
class Shape:
    """What occurs in random histories."""

    deletes: bool = False
    siblings: bool = False
    unknown: bool = False
    transactions: bool = False


def random_history(chance: random.Random, shape: Shape) -> list[Operation]:
    """Any operations in any order that show any values: mostly impossible in one way or another."""
    keys = "xy"[: chance.randint(1, 2)]
    count = chance.randint(2, 6)
    writers = sorted(chance.sample(range(count), min(WRITES_MAX, chance.randint(1, count))))
    written = {place: _random_writes(chance, shape, keys, place) for place in writers}
    values = {
        key: [w.value for writes in written.values() for w in writes if w.key == key and w.value]
        for key in keys
    }
    operations = []
    for place in range(count):
        session, carries = chance.choice("abc"), chance.random() < 0.9
        if place in written:
            operation = Operation(session, "A", "txn", (), written[place], carries=carries)
            if shape.unknown and chance.random() < 0.2:
                outcome: Outcome = chance.choice(["unknown", "not_applied"])
                operation = replace(operation, outcome=outcome)
        else:
            is_final = chance.random() < 0.15
            several = shape.transactions and chance.random() < 0.3
            reads = tuple(
                _random_read(chance, shape, key, values[key])
                for key in (keys if several else chance.choice(keys))
            )
            operation = Operation(
                session, "A", "txn", reads, carries=carries and not is_final, final=is_final
            )
        operations.append(operation)
    return operations


def _random_writes(chance: random.Random, shape: Shape, keys: str, place: int) -> tuple[Write, ...]:
    several = shape.transactions and chance.random() < 0.3
    return tuple(
        Write(key, None if shape.deletes and chance.random() < 0.3 else f"{place}{key}")
        for key in (keys if several else chance.choice(keys))
    )


def _random_read(chance: random.Random, shape: Shape, key: str, values: list[str]) -> Read:
    if shape.siblings and chance.random() < 0.6:
        shown = [value for value in values if chance.random() < 0.5]
        chance.shuffle(shown)
        return Read(key, tuple(map(Seen, shown)), True)
    value = chance.choice([*values, None])
    return Read(key, () if value is None else (Seen(value),), value is None)


def told(operations: list[Operation]) -> str:
    return "\n".join(map(line, operations))


def test_puts_and_gets_are_judged_exactly() -> None:
    verdicts = {True: 0, False: 0}
    for seed in range(HISTORIES):
        operations = random_history(random.Random(seed), Shape())
        possible = is_possible(operations)
        assert check(operations).is_good == possible, f"seed {seed}\n{told(operations)}"
        verdicts[possible] += 1
    assert min(verdicts.values()) > HISTORIES / 5, "the histories are too much alike"


@pytest.mark.parametrize(
    ("shape", "missed_max"),
    [
        (Shape(siblings=True), 0.05),
        (Shape(siblings=True, transactions=True), 0.05),
        (Shape(deletes=True, siblings=True), 0.15),
        (Shape(deletes=True, siblings=True, unknown=True, transactions=True), 0.15),
    ],
    ids=str,
)
def test_nothing_possible_is_blamed_and_little_else_is_missed(
    shape: Shape, missed_max: float
) -> None:
    impossible = missed = 0
    for seed in range(HISTORIES):
        chance = random.Random(seed)
        operations = random_history(chance, shape)
        report = check(operations, batch_bits=chance.choice([1, 2, 100]))
        if is_possible(operations):
            assert report.is_good, f"seed {seed}\n{told(operations)}\n{report.counts()}"
        else:
            impossible += 1
            missed += report.is_good
        for finding in report.findings:
            assert str(Explainer(report).explain(finding))
    assert missed <= missed_max * impossible, f"{missed} of {impossible} were missed"


@pytest.mark.parametrize("recorded", ["dots", "dependencies"])
@pytest.mark.parametrize("fault", [None, "no dependency check", "siblings dropped"])
def test_dots_and_dependencies_blame_nothing_possible(recorded: Level, fault: Fault | None) -> None:
    impossible = found = 0
    for seed in range(HISTORIES // 2):
        workload = Workload(
            seed,
            fault=fault,
            recorded=recorded,
            sessions=3,
            keys=2,
            nodes=2,
            with_transactions=seed % 2 == 0,
        )
        operations = _few_writes(workload.history(7))
        report = check(operations)
        if is_possible(operations):
            assert report.is_good, f"seed {seed}\n{told(operations)}\n{report.counts()}"
        else:
            impossible += 1
            found += not report.is_good
    assert found >= 0.8 * impossible
    if fault is None:
        assert not impossible


def _few_writes(operations: list[Operation]) -> list[Operation]:
    """The history, without reads of what comes after so many writes as the definition can take.

    A prefix of what happened, so that no read shows what is cut off.
    """
    writes = 0
    for place, operation in enumerate(operations):
        writes += bool(operation.writes)
        if writes > WRITES_MAX:
            return operations[:place]
    return operations


@pytest.mark.parametrize(
    ("text", "possible"),
    [
        ("a@A put x=1\na@A get x: 1", True),
        ("a@A put x=1\na@A get x: nothing", False),
        ("a@A put x=1\nb@A put x=2\nc@A siblings x: 2 1", True),
        ("a@A put x=1\na@A put x=2\nc@A siblings x: 2 1", False),
        ("a@A put x=1 -> A:1 [after nothing]\nb@B put x=2 -> B:1 [after A:1]", True),
        ("a@A put x=1\nb@B delete x\na@A get x: nothing\na@A get x: 1", False),
        ("a@A put x=1\nb@B put x=2\nc@A siblings x: 2 1\nc@A siblings x: 1 2", False),
    ],
)
def test_the_definition_itself_knows_good_from_bad(text: str, possible: bool) -> None:
    assert is_possible(parse(text)) == possible
