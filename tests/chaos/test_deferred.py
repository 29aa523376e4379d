"""The check of deferred writes finds what it is there for; other names are found by what is put."""

from dataclasses import replace

from app.codec import pack_operations
from app.incarnation import is_lane
from app.write import Operation as Written
from app.write import Put
from tests.chaos.deferred import done_as, names_of
from tests.chaos.evidence import Evidence
from tests.chaos.final import verdicts
from tests.chaos.good_runs import GOOD, LOSSY, bad, changed, without
from tests.chaos.logbook import Logbook
from tests.checker.history import Operation, Write

DEFERRED = "deferred writes were done"


def deferred(evidence: Evidence) -> Operation:
    return next(op for op in evidence.history if op.dot and is_lane(op.dot.actor) and not op.lost)


def test_a_run_in_which_nothing_was_deferred_has_not_shown_enough() -> None:
    def was_direct(op: Operation) -> bool:
        return op.dot is None or not is_lane(op.dot.actor)

    history, expiring = filter(was_direct, GOOD.history), filter(was_direct, GOOD.expiring)
    assert DEFERRED in bad(changed(history=list(history), expiring=list(expiring)))


def test_an_accepted_write_that_was_never_done_is_found() -> None:
    accepted = deferred(GOOD)
    assert accepted.dot is not None
    other = replace(accepted.dot, sequence=10_000)
    never = replace(accepted, dot=other, dependencies=None, writes=(Write("hot/0", "never"),))
    found = bad(changed(history=[*GOOD.history, never]))
    assert {"nothing acknowledged is lost", "clients saw causal order"} <= found


def test_a_write_that_was_done_before_what_its_session_had_seen_is_found() -> None:
    accepted = deferred(GOOD)
    early = replace(accepted, dependencies={})
    assert "clients saw causal order" in bad(changed(history=without(accepted, early)))


def test_a_write_that_waits_in_a_lane_at_the_end_fails_the_run() -> None:
    assert bad(changed(pending={**GOOD.pending, "B": ["deferred:B+"]})) == {"nodes settled"}


def test_what_was_put_back_is_done_under_another_name_and_once() -> None:
    assert len(LOSSY.done_as) == 1 and not bad(LOSSY)
    [(first, other)] = LOSSY.done_as.items()
    assert first not in LOSSY.logbook.writes and other in LOSSY.logbook.writes
    [told] = [verdict for verdict in verdicts(LOSSY) if verdict.name == DEFERRED]
    assert "; 1 under another name" in told.looked_at and "; 1 were lost" in told.looked_at


def test_a_write_that_was_done_under_another_name_for_no_reason_is_found() -> None:
    *others, lane = LOSSY.losses
    not_put_back = replace(lane, accepted=0)
    assert bad(replace(LOSSY, losses=[*others, not_put_back])) == {DEFERRED}
    elsewhere = replace(lane, held=lane.accepted)
    assert DEFERRED in bad(replace(LOSSY, losses=[*others, elsewhere]))


def test_a_node_whose_clock_jumps_may_take_another_name_for_no_other_reason() -> None:
    *others, lane = LOSSY.losses
    not_put_back = replace(LOSSY, losses=[*others, replace(lane, accepted=0)], in_doubt=["A~1"])
    jumps, jumps_not = (replace(LOSSY.plan, odd_clock=node) for node in "AB")
    assert not bad(replace(not_put_back, plan=jumps))
    assert bad(replace(not_put_back, plan=jumps_not)) == {DEFERRED}
    for other_time in ("A", "A~2", "B~1"):
        assert bad(replace(not_put_back, plan=jumps, in_doubt=[other_time])) == {DEFERRED}


def test_a_write_that_was_in_the_copy_may_not_be_lost() -> None:
    *others, lane = LOSSY.losses
    both = replace(lane, accepted=lane.accepted + 1)
    assert bad(replace(LOSSY, losses=[*others, both])) == {DEFERRED}
    then_emptied = replace(lane, accepted=0, emptied=True)
    assert not bad(replace(LOSSY, losses=[*others, both, then_emptied]))


# --- names ---------------------------------------------------------------------------------------


def book_of(**writes: Written) -> Logbook:
    """The logs in which these writes stand, by dot."""
    book = Logbook()
    for name, operation in writes.items():
        actor, _, sequence = name.rpartition("_")
        fields = {
            b"timestamp": b"1",
            b"dependencies": b"",
            b"operations": pack_operations([operation]),
        }
        log = {f"log:{actor}": [(f"{sequence}-0".encode(), fields)]}
        book.note("A", log)
    return book


ONE, TWO = Put("x", b"1", "text/plain"), Put("x", b"2", "text/plain")


def test_a_write_has_another_name_if_nobody_has_it_under_its_first() -> None:
    book = book_of(**{"A~1_7": ONE, "A~1_8": TWO})
    accepted = [("A+:3", names_of([ONE]))]
    assert done_as(book, accepted, {"A+": 2, "A~1": 8}) == {"A+:3": "A~1:7"}
    assert done_as(book, accepted, {"A+": 3, "A~1": 8}) == {}, "it came home"


def test_who_was_not_told_of_the_first_name_need_not_be() -> None:
    book = book_of(**{"A+_3": ONE, "A~1_7": ONE})
    assert done_as(book, [], {"A+": 2, "A~1": 8}) == {"A+:3": "A~1:7"}


def test_another_name_is_one_of_a_later_incarnation_of_the_node() -> None:
    accepted = [("A~2+:3", names_of([ONE]))]
    for other in "A~1_7", "B_7", "B~3_7":
        assert done_as(book_of(**{other: ONE}), accepted, {}) == {}
    assert done_as(book_of(**{"A~3_7": ONE}), accepted, {}) == {"A~2+:3": "A~3:7"}


def test_only_what_was_deferred_has_another_name() -> None:
    assert done_as(book_of(**{"A~1_7": ONE}), [("A:3", names_of([ONE]))], {}) == {}


def test_of_several_names_that_counts_which_is_not_lost() -> None:
    book = book_of(**{"A~1_7": ONE, "A~2_2": ONE})
    accepted = [("A+:3", names_of([ONE]))]
    assert done_as(book, accepted, {"A~1": 6, "A~2": 2}) == {"A+:3": "A~2:2"}
    assert done_as(book, accepted, {"A~1": 7, "A~2": 1}) == {"A+:3": "A~1:7"}
