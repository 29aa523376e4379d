"""Good evidence, to be made bad in one way after another.

What it is: `GOOD`, and `LOSSY`, in which a node is put back to an earlier state; functions that
change the first; and `bad`, which says what is found then.

What it assumes and guarantees: nothing is found in either as it is (test_final.py).

What it does not know: what the checks look at.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.chaos.evidence import Evidence
from tests.chaos.final import verdicts
from tests.chaos.logbook import Logbook
from tests.chaos.model_run import model_run
from tests.checker.history import Operation
from tests.contents import sequence_of

GOOD = model_run()
#: And one in which a disk is lost.
LOSSY = model_run(loses="A")


def bad(evidence: Evidence) -> set[str]:
    """The names of the checks that find something."""
    return {verdict.name for verdict in verdicts(evidence) if not verdict.is_good}


def changed(**fields: Any) -> Evidence:
    """The good evidence but for these fields."""
    return replace(GOOD, **fields)


def with_book(change: Callable[[dict[str, Any]], object]) -> Evidence:
    """The good evidence, but for a change to what always stood in the logs, by dot."""
    entries = copy.deepcopy(GOOD.logbook.entries)
    change(entries)
    book = Logbook()
    for node in GOOD.plan.nodes:
        book.note(node, as_logs(entries))
    # Only the book has changed: what is left in the logs agrees with it.
    logs = {
        node: {
            key: [(i, entries.get(f"{key[4:]}:{sequence_of(i)}", f)) for i, f in log]
            for key, log in held.items()
        }
        for node, held in GOOD.logs.items()
    }
    return changed(logs=logs, logbook=book)


def as_logs(entries: dict[str, Any]) -> dict[str, Any]:
    """The logs in which these entries, by dot, stand."""
    logs: dict[str, Any] = {}
    for dot, fields in entries.items():
        actor, _, sequence = dot.rpartition(":")
        logs.setdefault(f"log:{actor}", []).append((f"{sequence}-0".encode(), fields))
    return logs


def without(operation: Operation, *instead: Operation) -> list[Operation]:
    return [op for op in GOOD.history if op is not operation] + list(instead)
