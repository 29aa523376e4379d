"""`python -m tests.checker.benchmark [OPERATIONS]`: how long the checker takes, on this machine.

What it is: a few workloads that are hard in different ways, and the processor time of each.

What it assumes and guarantees: the same histories every time. The time is printed, and asserted
nowhere.

What it does not know: how fast the machine is, or what else it does.
"""

import sys
import time

from tests.checker.check import check
from tests.checker.workload import Workload

WORKLOADS = {
    "100 sessions, 10 keys, values only": Workload(1, sessions=100, keys=10, recorded="values"),
    "100 sessions, 10 keys, dependencies": Workload(
        1, sessions=100, keys=10, recorded="dependencies"
    ),
    "1000 sessions, 1000 keys, dots": Workload(1, sessions=1000, keys=1000),
    "100 sessions, one key, no deletes": Workload(1, sessions=100, keys=1, with_deletes=False),
}


def main() -> None:
    """Checks each workload and prints what it took."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    for name, workload in WORKLOADS.items():
        history = workload.history(count)
        began = time.process_time()
        report = check(history)
        took_s = time.process_time() - began
        print(
            f"{name:<36} {len(history):>7} operations  {took_s:6.2f} s  "
            f"{report.patterns.joins:>9} joins  {report.patterns.words / 1e6:8.1f} M words  "
            f"{len(report.findings)} findings",
            flush=True,
        )


if __name__ == "__main__":
    main()
