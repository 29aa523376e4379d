"""Each final check finds what it is there for: good evidence, made bad in one way after another."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.codec import pack_operations
from app.write import Put
from tests.chaos.conduct import Firing
from tests.chaos.evidence import Evidence
from tests.chaos.final import CHECKS, verdicts
from tests.chaos.model_run import model_run
from tests.checker.history import Operation, Read, Write

GOOD = model_run()
#: And one in which a disk is lost.
LOSSY = model_run(loses="A")


def bad(evidence: Evidence) -> set[str]:
    """The names of the checks that find something."""
    return {verdict.name for verdict in verdicts(evidence) if not verdict.is_good}


def changed(**fields: Any) -> Evidence:
    """The good evidence but for these fields."""
    return replace(GOOD, **fields, _writes={})


def with_logs(change: Callable[[dict[str, Any]], object]) -> Evidence:
    """The good evidence, but for a change to the logs of all nodes."""
    logs = copy.deepcopy(dict(GOOD.logs))
    change(logs)
    return changed(logs=logs)


def first(kind: str, outcome: str = "ok") -> Operation:
    return next(op for op in GOOD.history if op.kind == kind and op.outcome == outcome)


def without(operation: Operation, *instead: Operation) -> list[Operation]:
    return [op for op in GOOD.history if op is not operation] + list(instead)


def test_every_check_finds_a_good_run_good_and_says_what_it_looked_at() -> None:
    told = verdicts(GOOD)
    assert not bad(GOOD), [str(verdict) for verdict in told if not verdict.is_good]
    assert len(told) == len(CHECKS) == len({verdict.name for verdict in told})
    assert all(verdict.looked_at for verdict in told)


def test_a_run_that_left_nothing_behind_is_bad_in_every_way_that_takes_something() -> None:
    nothing = changed(
        history=[], firings=[], settled_s=None, clocks={}, versions={}, logs={}, pending={}
    )
    assert {
        "every strike fired",
        "there was load",
        "nodes settled",
        "every key was read everywhere",
        "nodes hold the same",
        "nothing refused took effect",
        "timestamps agree with causality",
    } <= bad(nothing)


# --- strikes -------------------------------------------------------------------------------------


def test_a_strike_that_was_never_seen_to_work_fails_the_run() -> None:
    failed = Firing(GOOD.firings[0].strike, 1.0, problem="nothing showed within 60 s")
    assert bad(changed(firings=[failed, *GOOD.firings[1:]])) == {"every strike fired"}


def test_a_strike_that_could_not_be_healed_fails_the_run() -> None:
    failed = replace(GOOD.firings[0], problem="it did not start")
    assert bad(changed(firings=[failed, *GOOD.firings[1:]])) == {"every strike fired"}


def test_a_strike_that_was_left_out_without_a_reason_fails_the_run() -> None:
    assert bad(changed(firings=GOOD.firings[1:])) == {"every strike fired"}


# --- load ----------------------------------------------------------------------------------------


def test_a_session_that_was_never_served_fails_the_run() -> None:
    name = next(s.name for s in GOOD.plan.sessions if not s.writes)
    history = [op for op in GOOD.history if op.session != name]
    assert bad(changed(history=history)) == {"there was load"}


def test_a_run_without_siblings_has_not_shown_enough() -> None:
    history = [
        op for op in GOOD.history if op.final or not any(len(read.seen) > 1 for read in op.reads)
    ]
    assert "there was load" in bad(changed(history=history))


# --- settling ------------------------------------------------------------------------------------


def test_nodes_that_took_too_long_fail_the_run() -> None:
    assert bad(changed(settled_s=None)) == {"nodes settled"}


def test_what_each_node_lacked_is_told() -> None:
    clocks = {**GOOD.clocks, "B": {**GOOD.clocks["B"], "A": GOOD.clocks["B"]["A"] - 2}}
    told = verdicts(changed(settled_s=None, clocks=clocks))
    [settled] = [verdict for verdict in told if verdict.name == "nodes settled"]
    assert list(settled.problems)[1:] == ["B lacks 2 of A"]


def test_a_write_that_waits_at_the_end_fails_the_run() -> None:
    assert bad(changed(pending={**GOOD.pending, "B": ["pending:A"]})) == {"nodes settled"}


def test_a_node_that_does_not_answer_at_the_end_fails_the_run() -> None:
    pending = {node: waiting for node, waiting in GOOD.pending.items() if node != "B"}
    assert bad(changed(pending=pending)) == {"nodes settled"}


def test_a_key_that_was_not_read_at_a_node_fails_the_run() -> None:
    final = next(op for op in GOOD.history if op.final)
    assert bad(changed(history=without(final))) == {"every key was read everywhere"}


def test_a_final_read_that_failed_does_not_count() -> None:
    final = next(op for op in GOOD.history if op.final)
    failed = replace(final, outcome="not_applied")
    assert bad(changed(history=without(final, failed))) == {"every key was read everywhere"}


# --- what clients saw ----------------------------------------------------------------------------


def test_a_final_read_that_differs_is_found_by_the_checker() -> None:
    final = next(op for op in GOOD.history if op.final and op.reads[0].seen)
    empty = replace(final, reads=(Read(final.reads[0].key, (), complete=True),))
    assert bad(changed(history=without(final, empty))) == {"clients saw causal order"}


def test_a_history_that_cannot_be_checked_fails_the_run() -> None:
    put = first("put")
    assert "clients saw causal order" in bad(changed(history=[*GOOD.history, put]))


# --- what nodes hold -----------------------------------------------------------------------------


def test_a_version_that_differs_is_found() -> None:
    versions = copy.deepcopy(dict(GOOD.versions))
    key = next(iter(versions["B"]))
    del versions["B"][key]
    assert bad(changed(versions=versions)) == {"nodes hold the same"}


def test_what_was_deleted_beside_a_version_may_differ() -> None:
    versions = copy.deepcopy(dict(GOOD.versions))
    next(iter(versions["B"].values()))[b"deletes"] = b"A:1"
    assert not bad(changed(versions=versions))


def test_a_clock_that_differs_is_found() -> None:
    clocks = {**GOOD.clocks, "B": {**GOOD.clocks["B"], "A": 1}}
    assert bad(changed(clocks=clocks)) == {"nodes hold the same", "dots name one write"}


def test_an_acknowledged_put_that_no_node_has_is_found() -> None:
    put = first("put")
    assert put.dot is not None
    lost = replace(put, dot=replace(put.dot, sequence=10_000), writes=(Write("hot/0", "lost"),))
    found = bad(changed(history=[*GOOD.history, lost]))
    assert "nothing acknowledged is lost" in found and "clients saw causal order" in found


def test_a_put_that_is_another_write_in_a_log_is_found() -> None:
    dot = first("put").dot
    assert dot is not None

    def change(logs: dict[str, Any]) -> None:
        for log in logs.values():
            entry = log[f"log:{dot.actor}"][dot.sequence - 1]
            entry[1][b"operations"] = pack_operations([Put("hot/0", b"other", "text/plain")])

    assert bad(with_logs(change)) == {"nothing acknowledged is lost"}


def test_a_put_that_depends_on_other_writes_than_the_client_was_told_is_found() -> None:
    put = next(op for op in GOOD.history if op.kind == "put" and op.dependencies)
    told = replace(put, dependencies={})
    found = bad(changed(history=without(put, told)))
    assert "nothing acknowledged is lost" in found


def test_an_acknowledged_delete_that_is_in_no_log_is_found() -> None:
    delete = first("delete")
    assert bad(changed(history=[*GOOD.history, *[delete] * 100])) == {
        "nothing acknowledged is lost"
    }


def test_a_refused_put_that_took_effect_is_found() -> None:
    put = first("put")
    refused = replace(put, outcome="not_applied", dot=None, dependencies=None)
    found = bad(changed(history=without(put, refused)))
    assert "nothing refused took effect" in found


def test_a_dot_that_was_given_twice_is_found() -> None:
    put = first("put")
    twice = replace(put, writes=(Write("hot/0", "another"),))
    found = bad(changed(history=[*GOOD.history, twice]))
    assert "dots name one write" in found and "clients saw causal order" in found


def test_a_gap_in_a_log_is_found() -> None:
    def change(logs: dict[str, Any]) -> None:
        for log in logs.values():
            del log["log:A"][0]

    assert "dots name one write" in bad(with_logs(change))


def test_a_write_that_is_in_a_log_twice_is_found() -> None:
    def change(logs: dict[str, Any]) -> None:
        for log in logs.values():
            entries = log["log:A"]
            puts = [e for e in entries if e[1][b"operations"].startswith(b"3:put")]
            puts[1][1][b"operations"] = puts[0][1][b"operations"]

    assert "dots name one write" in bad(with_logs(change))


def test_a_timestamp_that_contradicts_causality_is_found() -> None:
    def change(logs: dict[str, Any]) -> None:
        for log in logs.values():
            log["log:A"][-1][1][b"timestamp"] = b"0"

    assert bad(with_logs(change)) == {"timestamps agree with causality"}


def test_what_a_node_complained_of_fails_the_run() -> None:
    complaint = "A: Traceback (most recent call last)"
    assert bad(changed(complaints=[complaint])) == {"nodes did not complain"}


@pytest.mark.parametrize("loses", ["", "B"])
@pytest.mark.parametrize("seed", range(5))
def test_the_model_is_good_whatever_the_seed(seed: int, loses: str) -> None:
    assert not bad(model_run(seed, loses=loses))


# --- what is lost with a disk --------------------------------------------------------------------

LOST = "only what one disk had is lost"


def lossy(operation: Operation, *instead: Operation, **fields: Any) -> Evidence:
    """The evidence with a lost disk, but for an operation and these fields."""
    history = [op for op in LOSSY.history if op is not operation] + list(instead)
    return replace(LOSSY, history=history, **fields, _writes={})


def lost(kind: str) -> Operation:
    return next(op for op in LOSSY.history if op.lost and op.kind == kind)


def test_what_only_the_lost_disk_had_may_be_lost_and_is_counted() -> None:
    assert not bad(LOSSY)
    assert {op.kind for op in LOSSY.lost_writes()} == {"put", "delete"}
    [told] = [verdict for verdict in verdicts(LOSSY) if verdict.name == LOST]
    assert f"1 disks were lost, and with them {len(LOSSY.lost_writes())} " in told.looked_at


def test_a_loss_that_no_disk_explains_is_found() -> None:
    assert bad(replace(LOSSY, losses=[], _writes={})) == {LOST}


def test_a_write_that_another_disk_had_may_not_be_lost() -> None:
    [loss] = LOSSY.losses
    more = replace(loss, held=loss.held + 1)
    assert bad(replace(LOSSY, losses=[more], _writes={})) == {LOST}


def test_a_write_that_nobody_calls_lost_may_not_be_missing() -> None:
    put = lost("put")
    assert "nothing acknowledged is lost" in bad(lossy(put, replace(put, lost=None)))


def test_a_delete_that_nobody_calls_lost_may_not_be_missing() -> None:
    delete = lost("delete")
    found = bad(lossy(delete, *[replace(delete, lost=None)] * 100))
    assert "nothing acknowledged is lost" in found


def test_a_write_that_is_there_may_not_be_called_lost() -> None:
    put = next(op for op in LOSSY.history if op.kind == "put" and op.dot and not op.lost)
    assert LOST in bad(lossy(put, replace(put, lost=put.dot)))


def test_a_session_that_saw_what_is_lost_may_not_be_served_at_another_node() -> None:
    read = lost("get")
    assert LOST in bad(lossy(read, replace(read, node="B")))


def test_a_session_that_saw_what_is_lost_may_not_be_served_after_the_loss() -> None:
    read, [loss] = lost("get"), LOSSY.losses
    late = replace(read, start=loss.at_us + 1, end=loss.at_us + 1)
    assert LOST in bad(lossy(read, late))


def test_a_session_may_not_forget_what_is_lost() -> None:
    delete = lost("delete")
    first_again = next(op for op in LOSSY.history if op.session == f"{delete.session}-1")
    forgot = replace(first_again, session=delete.session)
    assert "clients saw causal order" in bad(lossy(first_again, forgot))


def test_a_node_that_lost_its_disk_may_not_go_on_under_its_name() -> None:
    [loss] = LOSSY.losses
    put = next(op for op in LOSSY.history if op.dot and op.dot.actor == loss.actor and not op.lost)
    late = replace(put, start=loss.at_us + 1, end=loss.at_us + 1)
    assert LOST in bad(lossy(put, late))


def test_a_name_that_is_lost_may_not_be_given_again() -> None:
    put, [loss] = lost("put"), LOSSY.losses
    again = replace(
        put, lost=None, session="another", writes=(Write("hot/0", "another"),), start=loss.at_us + 1
    )
    found = bad(replace(LOSSY, history=[*LOSSY.history, again], _writes={}))
    assert {"dots name one write", LOST} <= found
