"""Memory over time: lines through what a test makes up, and what a real process has."""

import os
import subprocess
import sys

import pytest

from bench.accounting import ProcessGone
from bench.memory import Looked, course, findings, rss_mb, table, tenths, trend


def looks(*mb: float, every_s: float = 1.0) -> list[Looked]:
    return [Looked(number * every_s, size) for number, size in enumerate(mb)]


def test_what_grows_at_the_beginning_alone_is_flat() -> None:
    found = trend(looks(*(10.0 * n for n in range(10)), *([100.0] * 31)))
    assert found.growth_mb == pytest.approx(0.0)
    assert found.mb == pytest.approx(100.0)


def test_growth_is_the_rise_of_the_line_over_the_last_three_quarters() -> None:
    found = trend(looks(*(50 + 0.5 * n for n in range(121))))
    assert found.mb_per_minute == pytest.approx(30.0)
    assert found.growth_mb == pytest.approx(45.0)


def test_what_goes_up_and_down_is_flat() -> None:
    found = trend(looks(*([20.0, 24.0] * 200)))
    assert abs(found.growth_mb) < 0.1


@pytest.mark.parametrize(
    ("start_mb", "growth_mb", "verdict"),
    [(20.0, 0.9, "met"), (20.0, 1.1, "missed"), (500.0, 4.9, "met"), (500.0, 5.5, "missed")],
)
def test_flat_is_less_than_a_megabyte_or_a_hundredth(
    start_mb: float, growth_mb: float, verdict: str
) -> None:
    rising = [start_mb + growth_mb * (n - 25) / 75 for n in range(101)]
    [found] = findings({"worker": trend(looks(*rising))})
    assert list(found.rounds) == pytest.approx([growth_mb])
    assert found.verdict == verdict


def test_each_tenth_of_the_time_has_its_mean() -> None:
    assert tenths(looks(*(float(n) for n in range(11)))) == [
        *(float(n) for n in range(9)),
        pytest.approx(9.5),
    ]
    assert tenths(looks(1.0, 3.0)) == [1.0, *([None] * 8), 3.0]
    assert tenths(looks(7.0)) == [7.0, *([None] * 9)]


def test_every_kind_of_process_has_a_line() -> None:
    seen = {"worker": looks(1.0, 1.0, 1.0), "redis": looks(2.0, 2.0, 2.0)}
    assert course(seen).row_count == 2
    assert table({role: trend(one) for role, one in seen.items()}).row_count == 2


def test_memory_is_that_of_the_process() -> None:
    code = "x = b'x' * 50_000_000\nprint(flush=True)\ninput()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        one = rss_mb([process.pid])
        assert one > 50.0
        assert rss_mb([process.pid, os.getpid()]) > one
    finally:
        process.communicate()
    with pytest.raises(ProcessGone, match=f"{process.pid} ended"):
        rss_mb([process.pid])
