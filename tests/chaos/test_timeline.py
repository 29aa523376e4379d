"""What follows from samples: rates, distances and delays."""

from collections.abc import Mapping

from tests.chaos.timeline import Clock, Sample, Timeline, highest, peaks


def timeline(*moments: Mapping[str, Clock], writes: tuple[int, ...] = ()) -> Timeline:
    """A sample a second, with what the nodes that answered had applied."""
    samples = [
        Sample(float(at), {}, {"ok": writes[at]} if writes else {}, clocks, {})
        for at, clocks in enumerate(moments)
    ]
    return Timeline(("A", "B"), samples)


def test_rates_are_of_the_time_between_samples() -> None:
    seen = timeline({}, {}, {}, writes=(0, 30, 40))
    assert seen.rates("writes", "ok") == [(1.0, 30.0), (2.0, 10.0)]
    assert seen.rates("writes", "unknown") == [(1.0, 0.0), (2.0, 0.0)]


def test_many_rates_become_few_means() -> None:
    seen = timeline(*[{}] * 9, writes=(0, 1, 2, 3, 14, 15, 16, 17, 18))
    assert seen.rates("writes", "ok", most=4) == [(3.0, 1.0), (6.0, 13 / 3)]


def test_of_many_points_the_peaks_and_the_gaps_are_kept() -> None:
    points = [(0.0, 1.0), (1.0, 9.0), (2.0, 2.0), (3.0, None), (4.0, 5.0), (5.0, 0.0)]
    assert peaks(points) == points
    assert peaks(points, most=5) == [(1.0, 9.0), (3.0, None), (5.0, 5.0)]


def test_what_was_written_is_what_any_node_had_by_then() -> None:
    seen = timeline({"A": {"A": 1}}, {"B": {"A": 1, "B": 2}}, {"A": {"A": 3}})
    assert seen.written() == [{"A": 1}, {"A": 1, "B": 2}, {"A": 3, "B": 2}]


def test_the_distance_of_a_node_is_what_it_lacks_of_that() -> None:
    seen = timeline(
        {"A": {"A": 2}, "B": {}},
        {"A": {"A": 5}},
        {"A": {"A": 5}, "B": {"A": 5, "B": 4}},
    )
    assert seen.distances("B") == [(0.0, 2), (1.0, None), (2.0, 0)]
    assert seen.distances("A") == [(0.0, 0), (1.0, 0), (2.0, 4)]
    assert highest(seen.distances("B")) == 2


def test_what_is_lost_with_a_disk_is_lacked_by_nobody() -> None:
    seen = timeline({"A": {"A": 5}, "B": {"A": 2}}, {"A": {"A": 3, "A~1": 1}, "B": {"A": 3}})
    seen.lasting = {"A": 3}
    assert seen.written() == [{"A": 3}, {"A": 3, "A~1": 1}]
    assert seen.distances("A") == [(0.0, 0), (1.0, 0)]
    assert seen.distances("B") == [(0.0, 1), (1.0, 1)]


def test_the_delay_of_a_node_is_the_age_of_what_it_has_all_of() -> None:
    seen = timeline(
        {"A": {"A": 1}, "B": {"A": 1}},
        {"A": {"A": 2}, "B": {"A": 1}},
        {"A": {"A": 3}, "B": {"A": 2}},
        {"A": {"A": 3}, "B": {"A": 3}},
    )
    assert seen.delays_s("B") == [(0.0, 0.0), (1.0, 1.0), (2.0, 1.0), (3.0, 0.0)]
    assert seen.delays_s("A") == [(float(at), 0.0) for at in range(4)]


def test_the_delay_of_a_silent_node_grows() -> None:
    seen = timeline({"B": {}}, {"A": {"A": 1}}, {"A": {"A": 1}})
    assert seen.delays_s("B") == [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)]
