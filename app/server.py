"""The processes of a node: one supervisor, its workers, and a redis-server where it needs one.

What it is: `run` is the supervisor. It takes the port, starts Redis unless there is a REDIS_URL,
claims it for this node, starts the workers and keeps them running. `run_as_worker` is a worker.

What it assumes and guarantees: workers hold nothing that matters, so that any of them may die at
any instant and is replaced at once. The listening sockets belong to the supervisor and are shared:
a connection that is still in the queue of a killed worker is taken by the next one. (With
SO_REUSEPORT each worker has a queue of its own, which is lost with it.) No worker outlives its
supervisor: its standard input ends, and so does it. SIGTERM and SIGINT stop the node cleanly: what
is in flight is finished, then the workers end, then Redis; a second signal ends all at once.

What it does not know: keys, clocks, HTTP. `node.run_worker` serves; here is only who runs it. A
supervisor does not even import that, and is up sooner.

Where the idea is from: the pre-fork servers (gunicorn's arbiter) and Erlang's supervisors.
"""

import asyncio
import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from app import claim, log, metrics
from app.config import Config
from app.embedded_redis import EmbeddedRedis
from app.errors import InvariantError, StartupError
from app.port import BACKLOG, port_taken, take_port

logger = log.get_logger(__name__)

EXIT_CANNOT_START = 2
EXIT_INVARIANT = 3
#: Codes with which a worker says that another one would end the same way.
FINAL = {EXIT_CANNOT_START, EXIT_INVARIANT}
#: A worker that lived so long did not die of its start: the next one is started at once again.
STABLE_AFTER_S = 5.0
RESTART_PAUSE_MIN_S = 0.1
RESTART_PAUSE_MAX_S = 5.0
#: Beyond SHUTDOWN_GRACE_MS: what a worker may take to close its own connections.
LAST_STEPS_S = 2.0
POLL_S = 0.05


def run(config: Config, *, until_eof: bool = False) -> int:
    """The node has run until it was told to stop; the result is the exit code.

    With `until_eof`, the end of standard input tells it to stop, too. Raises StartupError.
    """
    return asyncio.run(_Supervisor(config).run(until_eof=until_eof))


class _Supervisor:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._sockets: list[socket.socket] = []
        self._redis: EmbeddedRedis | None = None
        self._counts = ""
        self._workers: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = False
        self._exit_code = 0

    async def run(self, *, until_eof: bool) -> int:
        """The node has run and has ended."""
        work = asyncio.current_task()
        assert work is not None

        def begin_to_stop() -> None:
            self._stopping = True
            work.cancel()

        stops = on_stop(begin_to_stop, self._kill_everything)
        if until_eof:
            _when_standard_input_ends(stops)
        with contextlib.suppress(asyncio.CancelledError):
            async with contextlib.AsyncExitStack() as cleanup:
                await self._start(cleanup)
                # Asked again, for the wait_for of Python 3.11, which redis-py calls, may forget
                # that it was cancelled.
                if not self._stopping:
                    await self._keep_workers()
        logger.info("stopped")
        return self._exit_code

    async def _start(self, cleanup: contextlib.AsyncExitStack) -> None:
        try:
            directory = tempfile.TemporaryDirectory(prefix="lightcone-metrics-")
            self._counts = cleanup.enter_context(directory)
        except OSError as error:
            raise StartupError(f"TMPDIR: no temporary file can be written: {error}") from error
        cleanup.callback(self._close_sockets)
        self._sockets = await take_port(self._config.host, self._config.port)
        port = self._sockets[0].getsockname()[1]
        redis_url = self._config.redis_url
        if redis_url is None:
            data = self._config.data_dir / self._config.node_id
            self._redis = EmbeddedRedis(data, self._config.fsync)
            await self._redis.start()
            cleanup.push_async_callback(self._redis.stop)
            redis_url = self._redis.url
        self._config = self._config.model_copy(update={"port": port, "redis_url": redis_url})
        await claim.claim_redis(self._config)
        cleanup.push_async_callback(self._rest)
        try:
            # Only now, so that until then clients are refused at once and try another node.
            for sock in self._sockets:
                sock.listen(BACKLOG)
        except OSError as error:
            raise port_taken(self._config.host, port, error) from error

    async def _rest(self) -> None:
        if self._exit_code == 0:  # else the state is in doubt, and is not to be vouched for
            await claim.rest(self._config)

    async def _keep_workers(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            announcing = tasks.create_task(self._announce())
            places = range(self._config.workers)
            workers = [tasks.create_task(self._keep_worker(place)) for place in places]
            await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
            # A worker is given up only when no other could do better: then the node ends.
            for task in (announcing, *workers):
                task.cancel()

    async def _keep_worker(self, place: int) -> None:
        """A worker runs, and another one whenever it dies, until one says that it is no use."""
        loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            started = loop.time()
            code = await self._run_worker(place)
            if code in FINAL:
                self._exit_code = code
                return
            if loop.time() - started > STABLE_AFTER_S:
                pause = 0.0
            logger.error("a worker has died and is replaced", code=code, pause_s=pause)
            await asyncio.sleep(pause)
            pause = min(RESTART_PAUSE_MAX_S, max(RESTART_PAUSE_MIN_S, 2 * pause))

    async def _run_worker(self, place: int) -> int:
        """A worker has run and has ended, by itself or because this task was cancelled."""
        descriptors = [sock.fileno() for sock in self._sockets]
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "app", "--worker", ",".join(map(str, descriptors))),
            stdin=subprocess.PIPE,
            pass_fds=descriptors,
            env=metrics.environment_of_worker(self._counts, place),
        )
        self._workers[worker.pid] = worker
        try:
            assert worker.stdin is not None
            with contextlib.suppress(ConnectionError):
                # Not on the command line, which everybody can read. The pipe stays open: that it
                # ends is how the worker learns that its supervisor is gone.
                worker.stdin.write(self._config.to_json().encode() + b"\n")
                await worker.stdin.drain()
            return await worker.wait()
        finally:
            await self._end_worker(worker)
            del self._workers[worker.pid]

    async def _end_worker(self, worker: asyncio.subprocess.Process) -> None:
        if worker.returncode is not None:
            return
        # Nobody accepts from here on, so a new connection must be refused, not left waiting.
        self._close_sockets()
        worker.terminate()
        try:
            async with asyncio.timeout(self._config.shutdown_grace_ms / 1000 + LAST_STEPS_S):
                await worker.wait()
        except TimeoutError:
            logger.warning("a worker does not end, so it is killed", pid=worker.pid)
            worker.kill()
            await worker.wait()

    async def _announce(self) -> None:
        """The log says `ready` as soon as the node answers so to a client."""
        host, port = self._sockets[0].getsockname()[:2]
        pause_s = POLL_S
        while not await is_ready({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port):
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)  # one that joins, or was removed, may take for ever
        redis = "embedded" if self._redis else "REDIS_URL"
        shown = f"[{host}]" if ":" in host else host
        logger.info("ready", url=f"http://{shown}:{port}", redis=redis, pid=os.getpid())

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()

    def _kill_everything(self) -> NoReturn:
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
        if self._redis:
            self._redis.kill()
        os._exit(1)


def run_as_worker(descriptors: str) -> int:
    """This process has served the sockets `descriptors` until it was told to stop.

    Its standard input gives the configuration, and ends when the supervisor does.
    """
    # Ctrl-C reaches every process of the terminal; the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 0  # the supervisor ended before it could say what to do
    config = Config.from_json(line)
    configure_log(config)
    sockets = [socket.socket(fileno=int(descriptor)) for descriptor in descriptors.split(",")]
    code = 0
    try:
        _run_in_fastest_loop(_serve(config, sockets))
    except* StartupError as group:
        logger.error("the worker cannot start", error=_messages(group))
        code = EXIT_CANNOT_START
    except* InvariantError as group:
        logger.critical("the node stops: a guarantee is in doubt", error=_messages(group))
        code = EXIT_INVARIANT
    return code


async def _serve(config: Config, sockets: list[socket.socket]) -> None:
    stop = asyncio.Event()

    def begin_to_stop() -> None:
        stop.set()
        # However stuck this process is: the alarm's default action ends it.
        signal.alarm(math.ceil(config.shutdown_grace_ms / 1000 + LAST_STEPS_S))

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, begin_to_stop)
    _when_standard_input_ends(begin_to_stop)
    from app import node  # here, for a supervisor does without

    await node.run_worker(config, sockets, stop)


def configure_log(config: Config) -> None:
    """This process logs as `config` says, with the node's name on each line."""
    log.configure(config.log_level, config.log_format, node=config.node_id)


def _messages(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_messages(inner) for inner in error.exceptions)
    return str(error)


def _run_in_fastest_loop(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def on_stop(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], None]:
    """SIGTERM and SIGINT call `first`, and then `second`; so does the function returned."""
    steps = iter((first, second))

    def stop() -> None:
        if step := next(steps, None):
            step()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return stop


def _when_standard_input_ends(call: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def read() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            call()

    try:
        loop.add_reader(descriptor, read)
    except PermissionError:  # no pipe or terminal but a file, such as /dev/null: it has ended
        loop.call_soon(call)


async def is_ready(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
