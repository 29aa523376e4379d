"""Programs that are started for a measurement, and ended with it.

What it assumes and guarantees: a program that was started has ended when its context ends; what it
says is in a file of its name, whose end is told when it does not come up.

What it does not know: which programs.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from app.errors import StartupError
from app.local_nodes import HOST

WAIT_MAX_S: Final = 60.0
STOP_MAX_S: Final = 10.0
POLL_S: Final = 0.02
POLL_MAX_S: Final = 0.2
LOG_LINES_SHOWN: Final = 15


@asynccontextmanager
async def launched(
    name: str, directory: Path, *command: str, port: int | None = None
) -> AsyncIterator[int]:
    """The program runs, and takes connections on the port; the value is its process id.

    Raises StartupError.
    """
    log = directory / f"{name}.log"
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C is for this process, which then ends the others in good order.
            start_new_session=True,
        )

    async def is_up() -> bool:
        return process.returncode is not None or port is None or await connects(port)

    try:
        await until(is_up, f"{name} takes connections")
        if process.returncode is not None:
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
            raise StartupError(
                f"{name} ended with code {process.returncode} while it started. Last lines of "
                + "\n".join([f"{log}:", *(f"  {line}" for line in lines)])
            )
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_MAX_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def finished(name: str, *command: str, env: Mapping[str, str] | None = None) -> str:
    """The program has run to its end, and well; what it said. Raises StartupError."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=env,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = output.decode(errors="replace").strip()
    if process.returncode:
        raise StartupError(f"{name} failed with code {process.returncode}. It said:\n{said}")
    return said


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """The condition holds. Raises StartupError that says what did not come to be so."""
    give_up = time.monotonic() + WAIT_MAX_S
    pause_s = POLL_S
    while not await condition():
        if time.monotonic() > give_up:
            raise StartupError(f"After {WAIT_MAX_S:.0f} s it is still not so that {what}.")
        await asyncio.sleep(pause_s)
        # What is asked costs CPU time, which is measured.
        pause_s = min(2 * pause_s, POLL_MAX_S)


async def connects(port: int) -> bool:
    """Whether somebody takes connections on the port."""
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True
