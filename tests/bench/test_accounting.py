"""CPU time: as the system tells it, of real processes and of texts it could have written."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import accounting
from bench.accounting import Machine, ProcessGone, described, used_s
from tests.processes import until

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def until_used(pid: int, least_s: float) -> None:
    asyncio.run(until(lambda: used_s([pid]) >= least_s))


def test_a_process_that_works_has_used_what_the_system_says_at_its_end() -> None:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        until_used(process.pid, 0.2)
        before = used_s([process.pid])
    finally:
        process.kill()
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = -signal.SIGKILL
    assert 0.2 <= before <= usage.ru_utime + usage.ru_stime + 2 * TICK_S


def test_threads_and_children_that_ended_are_counted_with_their_process() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    code = f"""if True:
        import subprocess, sys, threading
        thread = threading.Thread(target=lambda: exec({burn!r}))
        thread.start()
        thread.join()
        subprocess.run([sys.executable, "-c", {burn!r}])
        sys.stdin.read()"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        until_used(process.pid, 0.4 - 2 * TICK_S)
    finally:
        process.communicate()


def test_a_process_that_is_gone_is_no_process_that_did_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessGone, match=f"{process.pid} ended"):
        used_s([process.pid])


def test_a_name_with_spaces_and_parentheses_hides_no_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "7").mkdir()
    fields = " ".join(
        ["S", *map(str, range(4, 14)), "100", "20", "3", "4", *map(str, range(18, 53))]
    )
    (tmp_path / "7" / "stat").write_text(f"7 (a) b (c 1 2)) {fields}\n")
    monkeypatch.setattr(accounting, "_PROC", tmp_path)
    assert used_s([7]) == pytest.approx(127 * TICK_S)


def test_what_the_machine_did_is_read_by_kind() -> None:
    text = "cpu  100 10 40 500 7 3 2 5 99 98\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    now = Machine.parse(text)
    assert now.busy_s == pytest.approx(150 * TICK_S)
    assert now.interrupts_s == pytest.approx(5 * TICK_S)
    assert now.steal_s == pytest.approx(5 * TICK_S)
    assert now.all_s == pytest.approx(667 * TICK_S), "guests' time is in that of user and nice"
    assert now.since(now) == Machine(0, 0, 0, 0)


def test_a_machine_that_works_is_seen_to_be_busy() -> None:
    before = Machine.now()

    async def is_seen() -> bool:
        sum(number * number for number in range(100_000))
        return Machine.now().since(before).busy_s >= 0.1

    asyncio.run(until(is_seen))
    used = Machine.now().since(before)
    assert used.all_s > used.busy_s - TICK_S / 2, "not by rounding, where it was never idle"


def test_a_machine_is_described_by_what_its_figures_depend_on() -> None:
    assert set(described()) == {"cores", "processor", "system", "python"}
    assert all(described().values())
