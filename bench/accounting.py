"""Whose CPU time was used, as the operating system counts it.

What it is: `used_s`, the CPU time of processes, and `machine`, that of everything on the machine.

What it assumes and guarantees: Linux. Times are in seconds, user and system together, threads and
children that have ended included; they come in ticks of 10 ms, so that what is shorter than a
second or so is measured coarsely.

What it does not know: what the processes do.
"""

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_PROC: Final = Path("/proc")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class ProcessGone(Exception):
    """A process that was measured has ended, so that its time is not known."""


def used_s(pids: Iterable[int]) -> float:
    """The CPU time that these processes have used. Raises ProcessGone."""
    return sum(map(_ticks, pids)) / _TICKS_PER_S


def _ticks(pid: int) -> int:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGone(f"Process {pid} ended while it was measured.") from None
    # After the name, which may hold anything, in parentheses: the state is field 3 of proc(5);
    # utime, stime, cutime and cstime are fields 14 to 17.
    fields = text.rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))


@dataclass(frozen=True, slots=True)
class Machine:
    """CPU time of the whole machine, in seconds, since it was started or between two moments."""

    busy_s: float
    """Of processes: user, nice and system."""
    interrupts_s: float
    steal_s: float
    """What the machine that this one runs on gave to others."""
    all_s: float
    """Idle time too: so many seconds for each core."""

    @classmethod
    def now(cls) -> Self:
        """Since it was started."""
        return cls.parse((_PROC / "stat").read_text())

    @classmethod
    def parse(cls, text: str) -> Self:
        """As the first line of /proc/stat says."""
        fields = [int(field) / _TICKS_PER_S for field in text.splitlines()[0].split()[1:9]]
        user, nice, system, idle, iowait, irq, softirq, steal = fields
        return cls(
            user + nice + system,
            irq + softirq,
            steal,
            user + nice + system + idle + iowait + irq + softirq + steal,
        )

    def since(self, before: Self) -> Self:
        """What was used since then."""
        return type(self)(
            self.busy_s - before.busy_s,
            self.interrupts_s - before.interrupts_s,
            self.steal_s - before.steal_s,
            self.all_s - before.all_s,
        )


def described() -> dict[str, str]:
    """What machine this is."""
    models = [
        line.partition(":")[2].strip()
        for line in (_PROC / "cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cores": str(os.cpu_count()),
        "processor": models[0] if models else platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
