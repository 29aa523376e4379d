"""Measurements that tests make up: what they say is known beforehand."""

from collections.abc import Mapping

from bench.accounting import Machine
from bench.results import Result
from bench.samples import Answered, LoadName, Operation, Sample

QUIET = Machine(busy_s=1.0, interrupts_s=0.0, steal_s=0.0, all_s=100.0)


def answered(
    requests: int = 1000,
    *,
    seconds: float = 1.0,
    errors: int = 0,
    p99_us: float = 2000.0,
    cpu_s: float = 0.1,
) -> Answered:
    return Answered(requests, seconds, errors, 1000.0, p99_us, 3000.0, 4000.0, cpu_s)


def sample(
    contender: str,
    cpu_s: Mapping[str, float],
    *,
    round: int = 0,
    operation: Operation = "PUT",
    load: LoadName = "full",
    came: Answered | None = None,
    machine: Machine = QUIET,
    settled_s: float = 0.0,
) -> Sample:
    came = came or answered()
    return Sample(contender, operation, load, round, came, cpu_s, settled_s, machine)


def result(*samples: Sample, left_out: Mapping[str, str] | None = None) -> Result:
    return Result({"rounds": "2 of 2"}, {"cores": "2"}, left_out or {}, samples)


def full_run() -> Result:
    """All contenders, operations and loads, two rounds each."""
    cpu = {
        "bare": {"worker": 0.05},
        "naive": {"worker": 0.16, "redis": 0.04},
        "alone": {"worker": 0.07, "redis": 0.01, "supervisor": 0.0},
        "three": {"worker": 0.08, "redis": 0.01, "supervisor": 0.0, "peers": 0.06},
        "eventual": {"worker": 0.07, "redis": 0.01, "supervisor": 0.0, "peers": 0.05},
    }
    operations: tuple[Operation, ...] = ("PUT", "GET")
    loads: tuple[LoadName, ...] = ("full", "half")
    return result(
        *(
            sample(name, used, round=number, operation=operation, load=load)
            for number in (0, 1)
            for name, used in cpu.items()
            for operation in operations
            for load in loads
        ),
        left_out={"etcd": "etcd is not installed"},
    )
