"""What a seed decides: the same each time, everything struck, and nobody parted for ever."""

import itertools

import pytest

from tests.chaos.clients import Request, ttl_s_of
from tests.chaos.plan import (
    NEMESES,
    PROCESSES,
    TOPOLOGIES,
    Plan,
    plan_for,
)

SEEDS = range(30)
SIZES = (3, 4, 5)


@pytest.mark.parametrize("nodes", SIZES)
def test_the_same_seed_gives_the_same_plan(nodes: int) -> None:
    plans = [plan_for(seed, nodes=nodes) for seed in SEEDS]
    assert plans == [plan_for(seed, nodes=nodes) for seed in SEEDS]
    assert len({str(plan) for plan in plans}) == len(plans)


def test_the_same_seed_gives_the_same_requests() -> None:
    plan = plan_for(7)
    assert asked(plan) == asked(plan_for(7)) != asked(plan_for(8))


def asked(plan: Plan, count: int = 200) -> list[Request]:
    return [
        request
        for session in plan.sessions
        for request in itertools.islice(plan.requests_of(session), count)
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_value_is_put_twice_on_a_key(seed: int) -> None:
    puts = [(key, r.value) for r in asked(plan_for(seed)) if r.value for key in r.keys]
    assert puts and len(puts) == len(set(puts))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_nemesis_strikes_before_any_strikes_twice(seed: int) -> None:
    plan = plan_for(seed, seconds=1)
    assert sorted(strike.nemesis for strike in plan.strikes()) == sorted(NEMESES)
    longer = plan_for(seed, seconds=600)
    for track in longer.tracks:
        names = [strike.nemesis for strike in track]
        deck = set(names)
        assert set(names[: len(deck)]) == deck


def test_more_time_is_more_strikes() -> None:
    counts = [len(plan_for(1, seconds=seconds).strikes()) for seconds in (60, 120, 600)]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("nodes", SIZES)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_what_is_severed_leaves_all_nodes_connected_in_both_directions(
    topology: str, nodes: int
) -> None:
    for seed in SEEDS:
        plan = plan_for(seed, nodes=nodes, topology=topology)
        assert plan.topology == topology
        severed = set(plan.severed)
        assert severed == {(target, source) for source, target in severed}
        reached = {plan.nodes[0]}
        for _ in plan.nodes:
            reached |= {
                other
                for node in reached
                for other in plan.nodes
                if other != node and (node, other) not in severed
            }
        assert reached == set(plan.nodes)


def test_in_a_line_most_nodes_never_reach_each_other() -> None:
    plan = plan_for(1, nodes=5, topology="line")
    assert len(plan.severed) == 2 * (10 - 4)


@pytest.mark.parametrize("nodes", SIZES)
def test_every_strike_is_at_a_node_or_at_wires_that_are_not_severed(nodes: int) -> None:
    for seed in SEEDS:
        plan = plan_for(seed, nodes=nodes)
        for strike in plan.strikes():
            assert (strike.nemesis == "in-snapshot") == bool(strike.kills)
            if strike.nemesis in ("lose-data", "old-data", "in-snapshot"):
                assert all(strike.node in wire for wire in strike.wires), strike
            else:
                assert bool(strike.node) != bool(strike.wires), strike
            assert not set(strike.wires) & set(plan.severed)
            assert strike.lasts_s >= 0 and strike.gap_s > 0
            if strike.nemesis == "old-data":
                assert all(target == strike.node for _, target in strike.wires)
            elif strike.nemesis == "one-way":
                assert len(strike.wires) == 1 and not strike.refuses
            elif strike.wires:
                assert set(strike.wires) == {(b, a) for a, b in strike.wires}


def test_strikes_at_processes_follow_each_other() -> None:
    """Else one would wait for a node that another keeps from being ready."""
    for seed in SEEDS:
        tracks = plan_for(seed, seconds=300).tracks
        assert sum(any(s.nemesis in PROCESSES for s in track) for track in tracks) == 1


def test_a_node_that_loses_its_disk_is_cut_off_from_all_from_some_or_from_none() -> None:
    cut_off = {
        len(strike.wires)
        for seed in SEEDS
        for strike in plan_for(seed, nodes=3, topology="mesh").strikes()
        if strike.nemesis == "lose-data"
    }
    assert cut_off == {0, 2, 4}


def test_a_node_that_is_put_back_heard_nothing_before_or_was_not_cut_off() -> None:
    deaf_to = {
        len(strike.wires)
        for seed in SEEDS
        for strike in plan_for(seed, nodes=3, topology="mesh").strikes()
        if strike.nemesis == "old-data"
    }
    assert deaf_to == {0, 2}


def test_only_what_is_known_by_its_values_is_deferred() -> None:
    deferred = [request for request in asked(plan_for(7)) if request.deferred]
    assert {request.kind for request in deferred} == {"put", "txn"}
    assert all(request.value for request in deferred)


def test_what_expires_has_keys_of_its_own_some_short_and_some_long() -> None:
    plan = plan_for(7)
    ttls_s = [ttl_s_of(key) or 0.0 for key in plan.expiring_keys()]
    assert min(ttls_s) == 1 and max(ttls_s) > 24 * 3600, "beyond what a clock jumps"
    assert not set(plan.keys()) & set(plan.expiring_keys())
    for session in plan.sessions:
        assert len({ttl_s_of(key) is None for key in session.keys}) == 1
        assert not (session.transactions and ttl_s_of(session.keys[0]))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_node_that_needs_a_snapshot_is_cut_off_from_all_that_it_reaches(topology: str) -> None:
    kills = set()
    for seed in SEEDS:
        plan = plan_for(seed, nodes=4, topology=topology)
        [strike] = [s for s in plan.strikes() if s.nemesis == "in-snapshot"]
        kills.add(strike.kills)
        peers = {b for a, b in itertools.permutations(plan.nodes, 2) if a == strike.node}
        reached = {peer for peer in peers if (strike.node, peer) not in plan.severed}
        assert reached and {b for a, b in strike.wires if a == strike.node} == reached
    assert kills == {"sender", "receiver"}


def test_what_this_machine_lacks_is_left_out_and_the_reason_is_kept() -> None:
    plan = plan_for(1, without={"full-disk": "no root", "clock-jump": "no library"})
    assert {s.nemesis for s in plan.strikes()} == set(NEMESES) - {"full-disk", "clock-jump"}
    assert plan.skipped == {"full-disk": "no root", "clock-jump": "no library"}
    assert plan.small_disk == plan.odd_clock == ""


@pytest.mark.parametrize("nodes", [2, 6])
def test_other_numbers_of_nodes_are_refused(nodes: int) -> None:
    with pytest.raises(ValueError, match="3 to 5 nodes"):
        plan_for(1, nodes=nodes)
