"""An event loop on virtual time: it never sleeps, waits for nothing outside, and repeats exactly.

What it is: `VirtualLoop` and `run`, as `asyncio.run` on it.

What it assumes and guarantees: nothing on it uses sockets or threads. Then the order of all steps
follows from the program alone: when nothing is ready, the clock jumps to the next timer. A program
that waits for nothing at all is a Deadlock; one that goes on and on is a Livelock.
Tasks are numbered and hash by number, since sets of tasks would else be walked by memory address.

What it does not know: nodes, Redis, networks.

Where the idea is from: FoundationDB's Flow; the packages looptime and async-solipsism.
"""

import asyncio
import gc
import itertools
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, Final, TypeVar

T = TypeVar("T")

STEPS_MAX: Final = 250_000
"""Ten times what a simulation of ours takes."""

_numbers = itertools.count()


class Deadlock(Exception):
    """Every task waits for another one, and no timer will come."""


class Livelock(Exception):
    """The program does far more than it has to do."""


class _NoSockets:
    """What the loop takes for a selector: waiting moves the clock, and nothing ever comes."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.pass_time(timeout)
        return []

    def close(self) -> None:
        pass


class _NumberedTask(asyncio.Task[Any]):
    number: int

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "_NumberedTask":
        task = super().__new__(cls)
        task.number = next(_numbers)
        return task

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """Time starts at 0 and moves only when there is nothing else to do."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._steps = 0
        self._selector = _NoSockets(self)
        self._clock_resolution = 1e-9
        self.errors: list[str] = []
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]
        self.set_exception_handler(self._note_error)

    def time(self) -> float:
        return self._now

    def pass_time(self, timeout: float | None) -> None:
        """Nothing is ready for `timeout` seconds; None: for ever."""
        if timeout is None:
            raise Deadlock("nothing is ready, and no timer is set")
        self._now += timeout
        self._steps += 1
        if self._steps == STEPS_MAX:  # once: what is left is still to be cancelled
            raise Livelock(f"{STEPS_MAX} steps, and no end")

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any],
        context: Context | None = None,
    ) -> "asyncio.Task[Any]":
        return _NumberedTask(coroutine, loop=loop, context=context)

    def _note_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _process_events(self, _events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def run(main: Coroutine[Any, Any, T]) -> T:
    """The result of `main` on a virtual loop of its own.

    The garbage collector rests meanwhile: when it comes depends on what else the process did, and
    what it closes is seen.
    """
    global _numbers
    _numbers = itertools.count()
    collecting = gc.isenabled()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(main)
    finally:
        if collecting:
            gc.enable()
