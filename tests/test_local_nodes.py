"""Several nodes at once: started, stopped and killed, and none left behind."""

import os
import signal
import socket
from pathlib import Path

import aiohttp
import pytest

from app import local_nodes
from app.embedded_redis import redis_pid
from app.errors import StartupError
from app.local_nodes import LocalCluster, children_of, free_ports
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
    monkeypatch.setattr(local_nodes, "STOP_MAX_S", 0.1)
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


async def test_nodes_on_data_that_others_use_are_refused_and_harm_them_not(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=1) as cluster:
        redis = cluster.redis_pid("A")
        assert redis
        with pytest.raises(StartupError, match="is in use by another node"):
            async with LocalCluster(tmp_path, nodes=1):
                raise AssertionError("it did start")
        assert cluster.redis_pid("A") == redis and alive(redis)
        await put(cluster.urls["A"], "lunch", "noon?")


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


def test_free_ports_differ_and_are_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()
