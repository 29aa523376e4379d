"""Threads that a command does not wait for when it ends.

What it is: `Unawaited`, a pool for calls that may wait as long as others like: for a terminal, for
another program, for the name of a node to be looked up.

What it assumes and guarantees: what is called changes nothing that has to be whole. A command ends
when it wants to, whatever such a call is waiting for.

What it does not know: what is called.

Where the idea is from: `asyncio.to_thread`, whose threads are waited for at the end.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Unawaited(ThreadPoolExecutor):
    """A thread for each call, that ends with the process. An event loop takes no other kind."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """What the call returns or raises."""
        ended: Future[Any] = Future()
        ended.set_running_or_notify_cancel()  # and cannot be cancelled from here on

        def run() -> None:
            try:
                ended.set_result(fn(*args, **kwargs))
            except Exception as error:
                ended.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return ended
