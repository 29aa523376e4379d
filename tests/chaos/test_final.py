"""Each final check finds what it is there for: good evidence, made bad in one way after another."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.codec import pack_operations
from app.vector_clock import VectorClock
from app.write import Put
from tests.chaos.conduct import Firing
from tests.chaos.evidence import Evidence
from tests.chaos.final import CHECKS, verdicts
from tests.chaos.good_runs import GOOD, LOSSY, as_logs, bad, changed, with_book, without
from tests.chaos.logbook import Logbook
from tests.chaos.model_run import model_run
from tests.chaos.watched import Stretch, Told, as_ended
from tests.checker.history import Operation, Read, Write


def with_logs(change: Callable[[dict[str, Any]], object]) -> Evidence:
    """The good evidence, but for a change to what is left of the logs of all nodes."""
    logs = copy.deepcopy(dict(GOOD.logs))
    change(logs)
    return changed(logs=logs)


def first(kind: str, outcome: str = "ok") -> Operation:
    return next(op for op in GOOD.history if op.kind == kind and op.outcome == outcome)


def test_every_check_finds_a_good_run_good_and_says_what_it_looked_at() -> None:
    told = verdicts(GOOD)
    assert not bad(GOOD), [str(verdict) for verdict in told if not verdict.is_good]
    assert len(told) == len(CHECKS) == len({verdict.name for verdict in told})
    assert all(verdict.looked_at for verdict in told)


def test_a_run_that_left_nothing_behind_is_bad_in_every_way_that_takes_something() -> None:
    nothing = changed(
        history=[],
        firings=[],
        settled_s=None,
        clocks={},
        versions={},
        logs={},
        logbook=Logbook(),
        pending={},
        snapshots={},
        stretches=[],
        expiring=[],
        timestamps={},
        listed={},
    )
    assert {
        "deferred writes were done",
        "what expires is gone",
        "what has expired does not come back",
        "watchers were told each write once",
        "every strike fired",
        "there was load",
        "nodes settled",
        "every key was read everywhere",
        "nodes hold the same",
        "logs are short",
        "dots name one write",
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
    assert bad(changed(clocks=clocks)) == {
        "nodes hold the same",
        "logs are short",
        "nothing acknowledged is lost",
    }


def test_an_acknowledged_put_that_no_node_has_is_found() -> None:
    put = first("put")
    assert put.dot is not None
    lost = replace(put, dot=replace(put.dot, sequence=10_000), writes=(Write("hot/0", "lost"),))
    found = bad(changed(history=[*GOOD.history, lost]))
    assert "nothing acknowledged is lost" in found and "clients saw causal order" in found


@pytest.mark.parametrize("kind", ["put", "delete"])
def test_a_write_that_was_another_one_in_the_logs_is_found(kind: str) -> None:
    dot = str(first(kind).dot)

    def change(entries: dict[str, Any]) -> None:
        entries[dot][b"operations"] = pack_operations([Put("hot/0", b"other", "text/plain")])

    assert bad(with_book(change)) == {"nothing acknowledged is lost"}


def test_a_write_that_is_another_one_in_what_is_left_of_a_log_is_found() -> None:
    def change(logs: dict[str, Any]) -> None:
        logs["B"]["log:A"][-1][1][b"operations"] = b"another"

    assert bad(with_logs(change)) == {"nodes hold the same"}


def test_a_put_that_depends_on_other_writes_than_the_client_was_told_is_found() -> None:
    put = next(op for op in GOOD.history if op.kind == "put" and op.dependencies)
    told = replace(put, dependencies={})
    found = bad(changed(history=without(put, told)))
    assert "nothing acknowledged is lost" in found


def test_an_acknowledged_write_that_a_node_lacks_is_found() -> None:
    clocks = {node: dict(clock) for node, clock in GOOD.clocks.items()}
    clocks["B"]["A"] -= 1
    assert "nothing acknowledged is lost" in bad(changed(clocks=clocks))


@pytest.mark.parametrize("kind", ["put", "delete"])
def test_an_acknowledged_write_that_was_in_no_log_is_found(kind: str) -> None:
    dot = str(first(kind).dot)
    assert {"nothing acknowledged is lost", "dots name one write"} <= bad(
        with_book(lambda entries: entries.pop(dot))
    )


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


def test_a_delete_whose_dot_was_given_twice_is_found() -> None:
    delete = first("delete")
    twice = replace(delete, session="another")
    assert "dots name one write" in bad(changed(history=[*GOOD.history, twice]))


def test_a_dot_that_named_another_write_for_a_while_is_found() -> None:
    """Though nothing is left of it in the end."""
    book = copy.deepcopy(GOOD.logbook)
    book.note("B", {"log:A": [(b"1-0", {b"timestamp": b"1"})]})
    assert bad(changed(logbook=book)) == {"dots name one write"}


def test_a_write_that_was_in_no_log_is_found() -> None:
    assert "dots name one write" in bad(with_book(lambda entries: entries.pop("A:1")))


def test_logs_that_were_never_compared_show_nothing() -> None:
    book = Logbook()
    book.note("A", as_logs(GOOD.logbook.entries))
    assert bad(changed(logbook=book)) == {"dots name one write"}


def test_a_put_that_was_two_writes_is_found() -> None:
    def change(entries: dict[str, Any]) -> None:
        one, other = [e for e in entries.values() if e[b"operations"].startswith(b"3:put")][:2]
        other[b"operations"] = one[b"operations"]

    assert "dots name one write" in bad(with_book(change))


def test_a_timestamp_that_contradicts_causality_is_found() -> None:
    def change(entries: dict[str, Any]) -> None:
        last = max((d for d in entries if d.startswith("A:")), key=lambda d: int(d[2:]))
        entries[last][b"timestamp"] = b"0"

    assert bad(with_book(change)) == {"timestamps agree with causality"}


# --- the logs at the end -------------------------------------------------------------------------


def test_a_gap_in_a_log_is_found() -> None:
    assert bad(with_logs(lambda logs: logs["B"]["log:A"].pop(1))) == {"logs are short"}


def test_a_log_that_does_not_end_where_the_clock_does_is_found() -> None:
    assert bad(with_logs(lambda logs: logs["B"]["log:A"].pop())) == {"logs are short"}


def test_a_log_that_is_empty_is_found_where_no_merge_explains_it() -> None:
    assert bad(with_logs(lambda logs: logs["A"].pop("log:A"))) == {"logs are short"}
    assert not bad(with_logs(lambda logs: logs["B"].pop("log:A")))


def test_whoever_was_left_nothing_has_lost_the_logs_of_all_that_it_was_until_then() -> None:
    def lacking(log: str, last: str, *, emptied: bool) -> bool:
        """Whether that log is missed where the disk was lost under the name `last`."""
        logs = {**LOSSY.logs, "A": {k: v for k, v in LOSSY.logs["A"].items() if k != log}}
        losses = [replace(loss, actor=last, emptied=emptied) for loss in LOSSY.losses]
        return "logs are short" in bad(replace(LOSSY, logs=logs, losses=losses))

    for emptied in (False, True):
        assert not lacking("log:A", "A", emptied=emptied)
        assert lacking("log:A~1", "A", emptied=emptied), "that is who writes since"
        assert not lacking("log:A~1", "A~1", emptied=emptied)
    assert lacking("log:A", "A~1", emptied=False), "it was in the copy"
    assert not lacking("log:A", "A~1", emptied=True)


def test_a_log_of_somebody_who_is_in_no_clock_is_found() -> None:
    def change(logs: dict[str, Any]) -> None:
        logs["B"]["log:A~1"] = []

    assert bad(with_logs(change)) == {"logs are short"}


def test_a_log_that_is_not_trimmed_is_found() -> None:
    settings = {**GOOD.plan.settings, "LOG_MIN_ENTRIES": "3", "LOG_MAX_ENTRIES": "3"}
    assert bad(changed(plan=replace(GOOD.plan, settings=settings))) == {"logs are short"}


def test_a_run_in_which_nothing_was_trimmed_has_not_shown_enough() -> None:
    settings = {**GOOD.plan.settings, "LOG_MIN_ENTRIES": "1000", "LOG_MAX_ENTRIES": "1000"}
    logs = dict.fromkeys(GOOD.plan.nodes, as_logs(GOOD.logbook.entries))
    plan = replace(GOOD.plan, settings=settings)
    assert bad(changed(plan=plan, logs=logs)) == {"logs are short"}


def test_a_run_without_snapshots_has_not_shown_enough() -> None:
    assert bad(changed(snapshots={})) == {"there was load"}


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
    return replace(LOSSY, history=history, **fields)


def lost(kind: str) -> Operation:
    return next(op for op in LOSSY.history if op.lost and op.kind == kind)


def test_what_only_the_lost_disk_had_may_be_lost_and_is_counted() -> None:
    assert not bad(LOSSY)
    assert {op.kind for op in LOSSY.lost_writes()} == {"put", "delete", "txn"}
    [told] = [verdict for verdict in verdicts(LOSSY) if verdict.name == LOST]
    assert f"1 disks were lost, and with them {len(LOSSY.lost_writes())} " in told.looked_at


def test_a_loss_that_no_disk_explains_is_found() -> None:
    assert bad(replace(LOSSY, losses=[])) == {LOST, "deferred writes were done"}


def test_a_write_that_another_disk_had_may_not_be_lost() -> None:
    loss, lane = LOSSY.losses
    more = replace(loss, held=loss.held + 1)
    assert bad(replace(LOSSY, losses=[more, lane])) == {LOST}


@pytest.mark.parametrize("kind", ["put", "delete"])
def test_a_write_that_nobody_calls_lost_may_not_be_missing(kind: str) -> None:
    write = lost(kind)
    assert "nothing acknowledged is lost" in bad(lossy(write, replace(write, lost=None)))


def test_a_write_that_is_there_may_not_be_called_lost() -> None:
    put = next(op for op in LOSSY.history if op.kind == "put" and op.dot and not op.lost)
    assert LOST in bad(lossy(put, replace(put, lost=put.dot)))


def test_a_session_that_saw_what_is_lost_may_not_be_served_at_another_node() -> None:
    read = lost("get")
    assert LOST in bad(lossy(read, replace(read, node="B")))


def test_a_session_that_saw_what_is_lost_may_not_be_served_after_the_loss() -> None:
    read, loss = lost("get"), LOSSY.losses[0]
    late = replace(read, start=loss.at_us + 1, end=loss.at_us + 1)
    assert LOST in bad(lossy(read, late))


def test_a_session_may_not_forget_what_is_lost() -> None:
    delete = lost("delete")
    first_again = next(op for op in LOSSY.history if op.session == f"{delete.session}-1")
    forgot = replace(first_again, session=delete.session)
    assert "clients saw causal order" in bad(lossy(first_again, forgot))


def test_a_node_that_lost_its_disk_may_not_go_on_under_its_name() -> None:
    loss = LOSSY.losses[0]
    put = next(op for op in LOSSY.history if op.dot and op.dot.actor == loss.actor and not op.lost)
    late = replace(put, start=loss.at_us + 1, end=loss.at_us + 1)
    assert LOST in bad(lossy(put, late))


def test_what_is_lost_was_what_the_client_was_told() -> None:
    put = lost("put")
    told = replace(put, writes=(Write(put.writes[0].key, "another"),))
    assert "nothing acknowledged is lost" in bad(lossy(put, told))


def test_a_name_that_is_lost_may_not_be_given_again() -> None:
    put, loss = lost("put"), LOSSY.losses[0]
    again = replace(
        put, lost=None, session="another", writes=(Write("hot/0", "another"),), start=loss.at_us + 1
    )
    found = bad(replace(LOSSY, history=[*LOSSY.history, again]))
    assert {"dots name one write", LOST} <= found


# --- watchers ------------------------------------------------------------------------------------

WATCHED = "watchers were told each write once"


def with_stretch(change: Callable[[Stretch], object]) -> Evidence:
    """The good evidence, but for what the watcher was told."""
    [stretch] = copy.deepcopy(GOOD.stretches)
    change(stretch)
    return changed(stretches=[stretch])


def test_a_watcher_may_not_be_told_a_write_twice() -> None:
    assert bad(with_stretch(lambda stretch: stretch.told.insert(3, stretch.told[1]))) == {WATCHED}


def test_a_watcher_may_not_miss_a_write() -> None:
    assert bad(with_stretch(lambda stretch: stretch.told.pop(2))) == {WATCHED}
    assert bad(with_stretch(lambda stretch: stretch.told.pop())) == {WATCHED}


def test_a_watcher_may_not_be_told_a_write_before_what_it_depends_on() -> None:
    def too_early(stretch: Stretch) -> None:
        late = next(n for n, one in enumerate(stretch.told) if len(one.dependencies) > 1)
        told = stretch.told.pop(late)
        stretch.told.insert(0, replace(told, clock=VectorClock().with_dot(told.dot)))

    assert bad(with_stretch(too_early)) == {WATCHED}


def test_a_watcher_may_not_be_told_what_nobody_wrote() -> None:
    def made_up(stretch: Stretch) -> None:
        stretch.clock = stretch.clock.increment("A")
        dot = stretch.clock.dots()[0]
        stretch.told.append(Told(dot, stretch.told[-1].clock, stretch.clock))

    assert bad(with_stretch(made_up)) == {WATCHED}


def test_a_watcher_is_told_all_that_there_is_in_the_end() -> None:
    def ends_early(stretch: Stretch) -> None:
        del stretch.told[-1]
        stretch.clock = stretch.told[-1].clock

    assert bad(with_stretch(ends_early)) == {WATCHED}


def test_that_a_watcher_was_told_what_is_lost_is_known_in_the_end() -> None:
    [stretch] = GOOD.stretches
    last = stretch.clock["A"]
    assert as_ended(stretch, {}, {"A": last}) == stretch
    assert as_ended(stretch, {}, {"A": last - 1, "A~1": 3}) == replace(stretch, is_lost=True)


def test_what_a_watcher_was_told_before_a_loss_counts_but_for_what_is_lost() -> None:
    def loses(stretch: Stretch) -> None:
        del stretch.told[2]
        stretch.is_lost = True

    assert not bad(with_stretch(loses))
