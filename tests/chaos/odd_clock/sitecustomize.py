"""What a Python process under libfaketime needs, and imports by itself when it starts.

Since Python 3.11, `time.sleep` sleeps until a moment of the monotonic clock. libfaketime 0.9.10,
told to leave that clock alone, still takes the moment for one of the wall clock, and fails. To wait
for nothing, with a timeout, is the same and works.
"""

import select
import time
from typing import SupportsIndex


def sleep(seconds: float | SupportsIndex, /) -> None:
    """So many seconds have passed."""
    select.select([], [], [], float(seconds))


time.sleep = sleep
