"""What a worker imports by itself when it starts, and profiles itself with (bench/profiling.py).

Assumes that BENCH_PROFILE names a file, in which `{pid}` stands for the process id. Guarantees that
the file is written when the worker ends in good order. Does not know what the worker does.
"""

import atexit
import os
import sys
from pathlib import Path

if "--worker" in sys.orig_argv:
    from pyinstrument import Profiler

    _profiler = Profiler(async_mode="disabled")

    def _write() -> None:
        _profiler.stop()
        path = os.environ["BENCH_PROFILE"].format(pid=os.getpid())
        Path(path).write_text(_profiler.output_html(), encoding="utf-8")

    atexit.register(_write)
    _profiler.start()
