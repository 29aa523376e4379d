"""Several nodes at once: started, stopped and killed, and none left behind."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app import local_cluster
from app.embedded_redis import redis_pid
from app.errors import StartupError
from app.local_cluster import LocalCluster, children_of, free_ports, main
from tests.processes import alive, until


async def put(url: str, key: str, value: str) -> str:
    """The causal context of the answer."""
    async with (
        aiohttp.ClientSession() as session,
        session.put(f"{url}/kv/{key}", data=value, raise_for_status=True) as response,
    ):
        return response.headers["Causal-Context"]


async def get(url: str, key: str, context: str = "") -> str:
    headers = {"Causal-Context": context} if context else {}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/kv/{key}?wait=30", headers=headers, raise_for_status=True) as response,
    ):
        return await response.text()


def all_processes(cluster: LocalCluster) -> list[int]:
    found = []
    for node in cluster.names:
        pid, redis = cluster.pid(node), cluster.redis_pid(node)
        assert pid and redis
        found += [pid, redis, *cluster.worker_pids(node)]
    return found


async def test_nodes_know_each_other_and_end_together(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path) as cluster:
        context = await put(cluster.urls["A"], "lunch", "noon?")
        assert await get(cluster.urls["B"], "lunch", context) == "noon?"
        assert await get(cluster.urls["C"], "lunch", context) == "noon?"
        processes = all_processes(cluster)
        assert len(processes) == 9
    assert not any(map(alive, processes))


async def test_a_killed_node_is_wholly_dead_and_starts_with_its_data(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1, env={"WORKERS": "2"}) as cluster:
        await put(cluster.urls["A"], "lunch", "noon?")
        processes = all_processes(cluster)
        assert len(processes) == 4
        await cluster.kill("A")
        await until(lambda: not any(map(alive, processes)))
        assert cluster.pid("A") is None
        await cluster.start("A")
        assert await get(cluster.urls["A"], "lunch") == "noon?"


async def test_a_node_whose_supervisor_was_killed_leaves_nothing(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        processes = all_processes(cluster)
        pid = cluster.pid("A")
        assert pid
        os.kill(pid, signal.SIGKILL)
        await cluster.wait("A")
    await until(lambda: not any(map(alive, processes)))


async def test_a_node_that_hangs_is_killed_when_it_is_to_stop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local_cluster, "STOP_MAX_S", 0.1)
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        processes, pid = all_processes(cluster), cluster.pid("A")
        assert pid
        os.kill(pid, signal.SIGSTOP)
        await cluster.stop("A")
        await until(lambda: not any(map(alive, processes)))


async def test_all_nodes_can_be_killed_at_once(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=2) as cluster:
        processes = all_processes(cluster)
        cluster.kill_all()
        await until(lambda: not any(map(alive, processes)))


async def test_a_port_that_is_taken_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    (free,) = free_ports(1)
    before = children_of(os.getpid())
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(StartupError, match=f"cannot listen on 127.0.0.1:{taken}"):
            async with LocalCluster(tmp_path, nodes=2, ports=[free, taken]):
                raise AssertionError("it did start")
    assert redis_pid(tmp_path / "A") is None
    assert children_of(os.getpid()) == before


async def test_a_node_that_does_not_start_is_told_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"(?s)Node A ended with code 2 .*PENDING_MAX: must be"):
        async with LocalCluster(tmp_path, nodes=1, env={"PENDING_MAX": "0"}):
            raise AssertionError("it did start")


async def test_what_does_not_run_cannot_be_stopped(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        with pytest.raises(StartupError, match="A runs already"):
            await cluster.start("A")
        await cluster.stop("A")
        for step in (cluster.stop, cluster.kill):
            with pytest.raises(StartupError, match="A does not run"):
                await step("A")


class Runner:
    """`python -m app.local_cluster`, as another program uses it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = await self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(command.encode() + b"\n")
        return await self.answer()


@contextlib.asynccontextmanager
async def runner(*arguments: str) -> AsyncIterator[Runner]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.local_cluster", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Runner(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def in_machine_mode(
    tmp_path: Path, nodes: int = 1
) -> contextlib.AbstractAsyncContextManager[Runner]:
    return runner(*f"--json --ports auto --nodes {nodes} --data-dir {tmp_path}".split())


async def test_a_program_can_command_it(tmp_path: Path) -> None:
    async with in_machine_mode(tmp_path, nodes=2) as cluster:
        nodes = (await cluster.answer())["nodes"]
        assert list(nodes) == ["A", "B"]
        await put(nodes["A"]["url"], "lunch", "noon?")
        assert await cluster.ask("kill A") == {"ok": True, "node": "A"}
        assert not alive(nodes["A"]["pid"])
        assert (await cluster.ask("kill A"))["error"] == "A does not run."
        assert await cluster.ask("start A") == {"ok": True, "node": "A"}
        assert await get(nodes["A"]["url"], "lunch") == "noon?"
        assert await cluster.ask("stop B") == {"ok": True, "node": "B"}
        assert not alive(nodes["B"]["pid"])
        assert await cluster.ask("stop C") == {"ok": False, "error": "`C` is none of A, B."}
        assert await cluster.ask("burn A") == {
            "ok": False, "error": "`burn` is none of start, stop, kill, quit."
        }  # fmt: skip
        assert await cluster.ask("quit") == {"ok": True}
        assert await cluster.process.wait() == 0
    assert redis_pid(tmp_path / "A") is None


@pytest.mark.parametrize("end", ["eof", "SIGTERM", "SIGINT", "SIGKILL"])
async def test_however_it_ends_no_node_is_left(tmp_path: Path, end: str) -> None:
    async with in_machine_mode(tmp_path) as cluster:
        pid = (await cluster.answer())["nodes"]["A"]["pid"]
        processes = [pid, *children_of(pid)]
        assert len(processes) == 3
        if end == "eof":
            assert cluster.process.stdin
            cluster.process.stdin.close()
        else:
            cluster.process.send_signal(signal.Signals[end])
        assert await cluster.process.wait() == (-signal.SIGKILL if end == "SIGKILL" else 0)
        await until(lambda: not any(map(alive, processes)))


async def test_people_are_told_what_to_try(tmp_path: Path) -> None:
    (first,) = free_ports(1)
    async with runner(
        "--ports", str(first), "--nodes", "1", "--data-dir", str(tmp_path)
    ) as cluster:
        assert cluster.process.stdout
        told = ""
        while "Ctrl-C" not in told:
            line = await cluster.process.stdout.readline()
            assert line, (await cluster.process.communicate())[1]
            told += line.decode()
        assert told.count("  curl ") + told.count("(curl ") == 3
        assert f"http://127.0.0.1:{first}/kv/lunch" in told
        cluster.process.send_signal(signal.SIGINT)
        assert await cluster.process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "trouble"),
    [
        ("--nodes 0", "not a number from 1 to 26"),
        ("--nodes 27", "not a number from 1 to 26"),
        ("--ports x", "neither `auto` nor a port"),
        ("--env VALUE_MAX=1", "VALUE_MAX is no setting"),
        ("--env WORKERS", "WORKERS is no setting, or has no value"),
        ("--env PORT=1", "PORT differs from node to node"),
        ("--env REDIS_URL=redis://x", "REDIS_URL differs from node to node"),
    ],
)
def test_bad_arguments_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: str, trouble: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())
    assert trouble in capsys.readouterr().err


def test_free_ports_differ_and_are_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()
