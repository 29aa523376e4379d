"""Who is measured: how each is started, what it is asked, and which processes are its own.

What it is: `CONTENDERS`, by name, in the order in which they are measured.

What it assumes and guarantees: each starts fresh, in a directory of its own, with all its processes
on this machine, and has ended when its context ends. All are asked for the same keys and values,
and all keep them with the same fsync, where they keep them at all.

What it does not know: how much it is asked, and how it is measured.
"""

import base64
import contextlib
import json
import random
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from app.embedded_redis import EmbeddedRedis
from app.local_nodes import HOST, LocalCluster, free_ports
from bench.eventual import EventualCluster
from bench.launch import launched, until
from bench.requests import Request
from bench.samples import Operation

VALUE_BYTES: Final = 100
#: What no compression makes much smaller.
VALUE: Final = base64.b64encode(random.Random(0).randbytes(VALUE_BYTES))[:VALUE_BYTES]
ETCD_NODES: Final = 3
_ETCD_ANSWERS_WITHIN_S: Final = 2.0


async def nothing_to_wait_for() -> None:
    """All of it is in one place."""


@dataclass(frozen=True, slots=True)
class Running:
    """A contender that runs: where it is asked, and what it consists of."""

    ports: list[int]
    """The first is asked; the others are those of its peers."""
    processes: Mapping[str, list[int]]
    """`worker`, which answers, `redis`, behind it, and `peers`, all that the others consist of."""
    settle: Callable[[], Any] = nothing_to_wait_for
    """Waits until all of its nodes have what any of them has."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One that can be measured."""

    name: str
    about: str
    start: Callable[[Path, str], AbstractAsyncContextManager[Running]]
    """Is given a directory and how Redis is to sync: `always` or `everysec`."""
    request: Callable[[Operation, str], Request]
    """What asks for one key."""
    program: str | None = None
    """What must be installed for it."""
    always_syncs: bool = False
    """Whether it cannot do otherwise."""
    keeps: bool = True
    """Whether it keeps anything."""
    times: int = 1
    """It is asked on so many times the connections."""

    def lacks(self, fsync: str) -> str | None:
        """Why it cannot be measured here; None if it can."""
        if self.program and not shutil.which(self.program):
            return f"{self.program} is not installed"
        if self.always_syncs and fsync != "always":
            return f"it has no fsync {fsync}"
        return None


def under_kv(operation: Operation, key: str) -> Request:
    """As our nodes are asked, and the handlers that are like them."""
    return Request(operation, f"/kv/{key}", VALUE if operation == "PUT" else b"")


# --- what people write themselves ----------------------------------------------------------------


@asynccontextmanager
async def bare(directory: Path, fsync: str) -> AsyncIterator[Running]:
    """No Redis at all."""
    [port] = free_ports(1)
    command = (sys.executable, "-m", "bench.bare", str(port))
    async with launched("bare", directory, *command, port=port) as pid:
        yield Running([port], {"worker": [pid]})


@asynccontextmanager
async def naive(directory: Path, fsync: str) -> AsyncIterator[Running]:
    """One Redis, started as a node starts its own."""
    [port] = free_ports(1)
    async with own_redis(directory, fsync) as redis:
        command = (sys.executable, "-m", "bench.naive", str(port), redis.url)
        async with launched("naive", directory, *command, port=port) as pid:
            yield Running([port], {"worker": [pid], "redis": [pid_of(redis)]})


@asynccontextmanager
async def own_redis(directory: Path, fsync: str) -> AsyncIterator[EmbeddedRedis]:
    """A redis-server with the settings of a node's."""
    redis = EmbeddedRedis(directory / "redis", fsync)
    await redis.start()
    try:
        yield redis
    finally:
        await redis.stop()


def pid_of(redis: EmbeddedRedis) -> int:
    """The process id of a Redis that runs."""
    assert redis.pid is not None
    return redis.pid


# --- ours ----------------------------------------------------------------------------------------


@asynccontextmanager
async def cluster_of(
    kind: type[LocalCluster], nodes: int, directory: Path, fsync: str, **settings: str
) -> AsyncIterator[Running]:
    """So many nodes with these settings, of which the first is asked."""
    env = {"FSYNC": fsync, "FAULTS": "0", **settings}
    async with (
        kind(directory, nodes=nodes, env=env) as cluster,
        aiohttp.ClientSession() as http,
    ):
        first, *others = cluster.names
        processes = processes_of(cluster, first)
        if others:
            theirs = [processes_of(cluster, node).values() for node in others]
            processes["peers"] = [pid for node in theirs for pids in node for pid in pids]

        async def equal() -> bool:
            return await all_equal(http, cluster.urls.values())

        async def settle() -> None:
            if others:
                await until(equal, "all nodes have what one of them has")

        ports = [int(url.rpartition(":")[2]) for url in cluster.urls.values()]
        yield Running(ports, processes, settle)


async def all_equal(http: aiohttp.ClientSession, urls: Iterable[str]) -> bool:
    """Whether all of these nodes have what any of them has."""
    told = []
    for url in urls:
        async with http.get(f"{url}/status") as response:
            status = await response.json()
        told.append((status["clock"], status["pending"]["total"]))
    return all(one == (told[0][0], 0) for one in told)


def processes_of(cluster: LocalCluster, node: str) -> dict[str, list[int]]:
    """The process ids of one node."""
    redis, supervisor = cluster.redis_pid(node), cluster.pid(node)
    assert redis is not None and supervisor is not None
    return {
        "worker": cluster.worker_pids(node),
        "redis": [redis],
        "supervisor": [supervisor],
    }


def alone(directory: Path, fsync: str) -> AbstractAsyncContextManager[Running]:
    """One node."""
    return cluster_of(LocalCluster, 1, directory, fsync)


def three(directory: Path, fsync: str) -> AbstractAsyncContextManager[Running]:
    """Three nodes."""
    return cluster_of(LocalCluster, 3, directory, fsync)


def eventual(directory: Path, fsync: str) -> AbstractAsyncContextManager[Running]:
    """Three nodes that do not look at what depends on what."""
    return cluster_of(EventualCluster, 3, directory, fsync)


# --- what people would pick instead ---------------------------------------------------------------


@asynccontextmanager
async def webdis(directory: Path, fsync: str) -> AsyncIterator[Running]:
    """Webdis as its package sets it up, before one Redis."""
    [port] = free_ports(1)
    async with own_redis(directory, fsync) as redis:
        settings = {
            "redis_host": redis.url.removeprefix("unix://"),
            "redis_port": 0,
            "redis_auth": None,
            "http_host": HOST,
            "http_port": port,
            "threads": 2,
            "daemonize": False,
            "database": 0,
            "verbosity": 0,
            "logfile": str(directory / "webdis.requests.log"),
        }
        settings_file = directory / "webdis.json"
        settings_file.write_text(json.dumps(settings))
        command = ("webdis", str(settings_file))
        async with launched("webdis", directory, *command, port=port) as pid:
            yield Running([port], {"worker": [pid], "redis": [pid_of(redis)]})


def for_webdis(operation: Operation, key: str) -> Request:
    """A command of Redis in the path; what is put is its last argument."""
    if operation == "PUT":
        return Request("PUT", f"/SET/{key}", VALUE)
    return Request("GET", f"/GET/{key}.txt")


@asynccontextmanager
async def etcd(directory: Path, fsync: str) -> AsyncIterator[Running]:
    """Three members; the leader is asked, which need not pass anything on."""
    ports = free_ports(2 * ETCD_NODES)
    clients, peers = ports[:ETCD_NODES], ports[ETCD_NODES:]
    members = ",".join(f"m{n}=http://{HOST}:{port}" for n, port in enumerate(peers))
    async with contextlib.AsyncExitStack() as stack:
        pids = {}
        for n, (client, peer) in enumerate(zip(clients, peers, strict=True)):
            command = (
                *("etcd", "--name", f"m{n}", "--data-dir", str(directory / f"m{n}")),
                *("--listen-client-urls", f"http://{HOST}:{client}"),
                *("--advertise-client-urls", f"http://{HOST}:{client}"),
                *("--listen-peer-urls", f"http://{HOST}:{peer}"),
                *("--initial-advertise-peer-urls", f"http://{HOST}:{peer}"),
                *("--initial-cluster", members, "--initial-cluster-state", "new"),
                *("--logger", "zap", "--log-level", "error"),
            )
            starting = launched(f"etcd-{n}", directory, *command)
            pids[client] = await stack.enter_async_context(starting)
        patience = aiohttp.ClientTimeout(total=_ETCD_ANSWERS_WITHIN_S)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=patience))
        leader = 0

        async def has_leader() -> bool:
            nonlocal leader
            for port in clients:
                url = f"http://{HOST}:{port}/v3/maintenance/status"
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with http.post(url, data="{}") as response:
                        told = await response.json(content_type=None)
                    if told.get("leader") == told.get("header", {}).get("member_id"):
                        leader = port
                        return True
            return False

        await until(has_leader, "etcd has a leader")
        others = [port for port in clients if port != leader]
        processes = {"worker": [pids[leader]], "peers": [pids[port] for port in others]}
        yield Running([leader], processes)


def for_etcd(operation: Operation, key: str) -> Request:
    """As its gateway for JSON is asked."""
    asked = {"key": base64.b64encode(key.encode()).decode()}
    path = "/v3/kv/range"
    if operation == "PUT":
        asked["value"] = base64.b64encode(VALUE).decode()
        path = "/v3/kv/put"
    return Request("POST", path, json.dumps(asked).encode(), {"Content-Type": "application/json"})


CONTENDERS: Final = {
    contender.name: contender
    for contender in (
        Contender("bare", "aiohttp, router, fixed answer", bare, under_kv, keeps=False),
        Contender("naive", "aiohttp, one await of redis-py per request", naive, under_kv),
        Contender("alone", "this node, without peers", alone, under_kv),
        Contender("three", "this node with two peers", three, under_kv),
        Contender("eventual", "the same without causality", eventual, under_kv),
        Contender("webdis", "Webdis before one Redis", webdis, for_webdis, program="webdis"),
        Contender("etcd", "etcd, three members", etcd, for_etcd, program="etcd", always_syncs=True),
    )
}
