"""A node's processes: whichever ends, and however, the node goes on, or ends as a whole."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from app import __version__
from app.__main__ import main
from app.config import Config
from app.embedded_redis import redis_pid
from app.local_nodes import children_of
from tests.processes import alive, until


@dataclass
class RunningNode:
    """One `python -m app`, by what can be seen of it from outside."""

    process: asyncio.subprocess.Process
    directory: Path
    log_file: Path
    url: str = ""

    def log(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        lines = self.log_file.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def events(self) -> list[str]:
        return [line["event"] for line in self.log()]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def redis_pid(self) -> int | None:
        return redis_pid(self.directory)

    def workers(self) -> list[int]:
        return [pid for pid in children_of(self.process.pid) if pid != self.redis_pid()]

    async def ready(self) -> None:
        await until(lambda: "ready" in self.events() or self.process.returncode is not None)
        assert "ready" in self.events(), self.log_file.read_text()
        self.url = next(line["url"] for line in self.log() if line["event"] == "ready")


@contextlib.asynccontextmanager
async def started(tmp_path: Path, *arguments: str, **settings: str) -> AsyncIterator[RunningNode]:
    """A node that was started, ready or not; nothing of it is left behind."""
    ours = {name.upper() for name in Config.model_fields}
    others = {name: value for name, value in os.environ.items() if name.upper() not in ours}
    wanted = {"NODE_ID": "A", "PORT": "0", "DATA_DIR": str(tmp_path), "LOG_FORMAT": "json"}
    log_file = tmp_path / "log"
    with log_file.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app", *arguments),
            env={**others, **wanted, **settings},
            stdin=asyncio.subprocess.PIPE,
            stderr=output,
        )
    node = RunningNode(process, tmp_path / wanted["NODE_ID"], log_file)
    try:
        yield node
    finally:
        workers = node.workers() if process.returncode is None else []
        for pid in (process.pid if process.returncode is None else None, *workers):
            if pid:
                os.kill(pid, signal.SIGKILL)
        await process.wait()
        if left := node.redis_pid():
            os.kill(left, signal.SIGKILL)


@contextlib.asynccontextmanager
async def running(tmp_path: Path, *arguments: str, **settings: str) -> AsyncIterator[RunningNode]:
    """A node that is ready."""
    async with started(tmp_path, *arguments, **settings) as node:
        await node.ready()
        yield node


async def put(node: RunningNode, key: str, value: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.put(f"{node.url}/kv/{key}", data=value, raise_for_status=True),
    ):
        pass


async def get(node: RunningNode, key: str) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{node.url}/kv/{key}", raise_for_status=True) as response,
    ):
        return await response.text()


async def open_put(node: RunningNode) -> asyncio.StreamWriter:
    """A PUT that a worker has begun to handle, and whose body has not come yet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(
        b"PUT /kv/lunch HTTP/1.1\r\nHost: node\r\nConnection: close\r\n"
        b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    assert b" 100 " in await reader.readline()
    return writer


async def refuses_connections(node: RunningNode) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", node.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def refusal(node: RunningNode) -> str:
    """What a node says that ends because it cannot start."""
    assert await node.process.wait() == 2
    told = node.log_file.read_text()
    assert "Traceback" not in told
    assert node.redis_pid() is None
    return told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_cleanly_and_it_comes_back_with_its_data(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with running(tmp_path, WORKERS="2") as node:
        ready = next(line for line in node.log() if line["event"] == "ready")
        assert (ready["node"], ready["redis"]) == ("A", "embedded")
        await put(node, "lunch", "noon?")
        processes = [*node.workers(), node.redis_pid()]
        assert len(processes) == 3
        node.process.send_signal(number)
        assert await node.process.wait() == 0
        assert node.events()[-1] == "stopped"
        assert not any(pid and alive(pid) for pid in processes)
    async with running(tmp_path) as node:
        assert await get(node, "lunch") == "noon?"


async def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    async with running(tmp_path, WORKERS="2") as node:
        await put(node, "lunch", "noon?")
        before = node.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: len(set(node.workers()) - set(before)) == 2)
        assert await get(node, "lunch") == "noon?"
        assert node.events().count("a worker has died and is replaced") == 2


async def test_a_connection_in_the_queue_outlives_the_worker(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        (worker,) = node.workers()
        os.kill(worker, signal.SIGSTOP)
        asked = asyncio.create_task(put(node, "lunch", "noon?"))
        await until(lambda: connections_to(node.port))
        os.kill(worker, signal.SIGKILL)
        await asked
        assert await get(node, "lunch") == "noon?"


def connections_to(port: int) -> bool:
    """Whether Linux shows an established connection from here to `port`."""
    established, suffix = "01", f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return any(line[2].endswith(suffix) and line[3] == established for line in fields)


async def test_workers_end_with_their_supervisor_and_the_next_one_takes_over(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, WORKERS="2") as node:
        await put(node, "lunch", "noon?")
        workers, redis = node.workers(), node.redis_pid()
        node.process.kill()
        await node.process.wait()
        await until(lambda: not any(alive(pid) for pid in workers))
        assert redis and node.redis_pid() == redis
        async with running(tmp_path, PORT=str(node.port)) as successor:
            assert await get(successor, "lunch") == "noon?"
            assert not alive(redis)


async def test_a_request_in_flight_is_finished(tmp_path: Path) -> None:
    async with (
        running(tmp_path, PEERS="B=http://127.0.0.1:9") as node,
        aiohttp.ClientSession(headers={"Causal-Context": "lc1;B:1"}) as session,
    ):
        # It waits for a write that does not come. That a later request was answered meanwhile
        # shows that the worker has taken it up.
        waiting = asyncio.create_task(session.get(f"{node.url}/kv/lunch?wait=2"))
        await until(lambda: connections_to(node.port))
        await put(node, "lunch", "noon?")
        node.process.terminate()
        await until(lambda: refuses_connections(node))
        assert (await waiting).status == 503
        assert await node.process.wait() == 0


async def test_a_request_that_never_ends_keeps_no_worker_beyond_its_grace(tmp_path: Path) -> None:
    async with running(tmp_path, SHUTDOWN_GRACE_MS="2000") as node:
        writer = await open_put(node)
        node.process.terminate()
        assert await node.process.wait() == 0
        assert "a worker does not end, so it is killed" not in node.events()
        writer.close()


async def test_a_request_that_never_ends_does_not_keep_it(tmp_path: Path) -> None:
    async with running(tmp_path, SHUTDOWN_GRACE_MS="100") as node:
        writer = await open_put(node)
        node.process.terminate()
        assert await node.process.wait() == 0
        writer.close()


async def test_a_worker_that_hangs_does_not_keep_it(tmp_path: Path) -> None:
    async with running(tmp_path, SHUTDOWN_GRACE_MS="100") as node:
        (worker,) = node.workers()
        os.kill(worker, signal.SIGSTOP)
        node.process.terminate()
        assert await node.process.wait() == 0
        assert "a worker does not end, so it is killed" in node.events()
        assert not alive(worker)


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, SHUTDOWN_GRACE_MS="86400000") as node:
        (worker,), redis = node.workers(), node.redis_pid()
        os.kill(worker, signal.SIGSTOP)
        node.process.terminate()
        await until(lambda: supervisor_let_go(node))
        node.process.terminate()
        assert await node.process.wait() == 1
        await until(lambda: not alive(worker) and redis and not alive(redis))


def supervisor_let_go(node: RunningNode) -> bool:
    """Whether the supervisor has let go of its listening socket, as it does when it stops."""
    descriptors = Path(f"/proc/{node.process.pid}/fd").iterdir()
    listening = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{node.port:04X}") and line.split()[3] == "0A"
    }
    held = set()
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            held.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    return not listening & held


async def test_the_end_of_standard_input_ends_it_if_so_asked(tmp_path: Path) -> None:
    async with running(tmp_path, "--until-eof") as node:
        assert node.process.stdin
        node.process.stdin.close()
        assert await node.process.wait() == 0


async def test_when_redis_dies_it_is_started_again_and_the_node_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await put(node, "lunch", "noon?")
        killed = node.redis_pid()
        assert killed
        os.kill(killed, signal.SIGKILL)

        async def serves_again() -> bool:
            try:
                return await get(node, "lunch") == "noon?"
            except aiohttp.ClientError:
                return False

        await until(serves_again)
        assert node.redis_pid() not in (None, killed)


async def test_a_signal_ends_it_while_it_starts(tmp_path: Path) -> None:
    async with started(tmp_path, REDIS_URL=f"unix://{tmp_path}/none") as node:
        await until(lambda: "waiting for redis" in node.events())
        node.process.terminate()
        assert await node.process.wait() == 0
        assert node.events()[-1] == "stopped"


async def test_a_worker_that_can_never_start_ends_the_node(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        async with Redis(unix_socket_path=str(node.directory / "redis.sock")) as redis:
            await redis.hset("meta", "node", "B")
        (worker,) = node.workers()
        os.kill(worker, signal.SIGKILL)
        assert "belongs to node B" in await refusal(node)


async def test_a_node_that_doubts_its_state_ends_and_says_why(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        async with Redis(unix_socket_path=str(node.directory / "redis.sock")) as redis:
            await redis.delete("clock")
            await redis.set("clock", "no hash")
        assert await node.process.wait() == 3
        assert "the node stops: a guarantee is in doubt" in node.events()


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        async with started(tmp_path, PORT=str(port)) as node:
            told = await refusal(node)
    assert f"PORT: cannot listen on 127.0.0.1:{port}: Address already in use" in told


async def test_an_address_that_is_none_is_named(tmp_path: Path) -> None:
    async with started(tmp_path, HOST="256.0.0.1") as node:
        assert "HOST: 256.0.0.1 is no address" in await refusal(node)


async def test_a_second_node_on_the_same_data_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        (tmp_path / "other").mkdir()
        async with started(tmp_path / "other", DATA_DIR=str(tmp_path)) as other:
            assert "DATA_DIR" in await refusal(other)
        await put(node, "lunch", "noon?")


async def test_bad_settings_are_told_plainly(tmp_path: Path) -> None:
    async with started(tmp_path, NODE_ID="?", PORT="x") as node:
        told = await refusal(node)
    assert "NODE_ID: must be" in told
    assert "PORT: must be" in told


async def test_a_name_that_is_nearly_a_setting_is_pointed_out(tmp_path: Path) -> None:
    async with running(tmp_path, NODEID="B") as node:
        assert "NODEID is set, but is no setting of a node. Was NODE_ID meant?" in node.events()


async def test_settings_of_a_file_count(tmp_path: Path) -> None:
    file = tmp_path / "a.env"
    file.write_text("WORKERS=2\n")
    async with running(tmp_path, "--env-file", str(file)) as node:
        assert len(node.workers()) == 2


async def test_a_worker_without_a_supervisor_ends(tmp_path: Path) -> None:
    async with started(tmp_path, "--worker", "3") as worker:
        assert worker.process.stdin
        worker.process.stdin.close()
        assert await worker.process.wait() == 0


def test_all_settings_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--settings"]) == 0
    assert "CLUSTER_SECRET" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "code", "said"), [("closed", 0, ""), ("full", 1, "No space left on device")]
)
async def test_settings_that_cannot_be_shown_end_without_a_traceback(
    output: str, code: int, said: str
) -> None:
    if output == "closed":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "--settings"),
        stdout=writer,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writer)
    _, err = await process.communicate()
    assert process.returncode == code
    assert said in err.decode() and len(err.splitlines()) == bool(said)


def test_the_version_can_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"lightcone {__version__}\n"
