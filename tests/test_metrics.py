"""What Prometheus is told: what happened, once, and where the node stands, whoever is asked."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import Histogram
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import (
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app import metrics
from app.errors import RedisUnavailable
from app.local_nodes import LocalCluster
from app.redis_link import translated
from tests.model import Node
from tests.one_node import Client, node_a, put_by, replicated
from tests.processes import until
from tests.redis_processes import RedisProcess

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """What a Prometheus would read in it: name and labels -> value."""
    return {
        (sample.name.removeprefix("lightcone_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Told:
    """What a node tells, and since when: counts of a process outlive the nodes of one test."""

    def __init__(self, now: Samples, before: Samples) -> None:
        self._now = now
        self._before = before

    def value(self, name: str, **labels: str) -> float | None:
        return self._now.get((name, frozenset(labels.items())))

    def more(self, name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return self._now.get(key, 0) - self._before.get(key, 0)


async def told(client: Client, since: Samples | None = None) -> Told:
    response = await client.get("/metrics")
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return Told(samples(await response.text()), since or {})


async def scrape(client: Client) -> Samples:
    return samples(await (await client.get("/metrics")).text())


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    process = RedisProcess(tmp_path / "redis")
    process.start()
    yield process
    process.kill()


async def test_writes_are_counted_by_what_became_of_them(redis: RedisProcess) -> None:
    async with node_a(redis.url) as client:
        before = await scrape(client)
        b = Node("B")
        writes = [put_by(b, "tea", b"%d" % n) for n in range(4)]
        await client.put("/kv/lunch", data=b"noon?")
        await client.delete("/kv/lunch")
        await replicated(client, *writes[1:3])  # too early
        await replicated(client, writes[0])  # and so all three are applied
        await replicated(client, writes[0])
        now = await told(client, before)
        assert {
            outcome: now.more("writes_total", outcome=outcome)
            for outcome in ("committed", "applied", "duplicate", "pending", "refused")
        } == {"committed": 2, "applied": 3, "duplicate": 1, "pending": 2, "refused": 0}


async def test_requests_are_timed_by_route_and_never_by_what_a_client_makes_up(
    redis: RedisProcess,
) -> None:
    async with node_a(redis.url) as client:
        before = await scrape(client)
        for n in range(3):
            await client.put(f"/kv/key-{n}", data=b"x")
        await client.get("/kv/nothing")
        await client.request("PROPFIND", "/coffee")
        now = await told(client, before)

        def requests(method: str, route: str, status: int) -> float:
            labels = {"method": method, "route": route, "status": str(status)}
            return now.more("request_duration_seconds_count", **labels)

        assert requests("PUT", "/kv/{key}", 200) == 3
        assert requests("GET", "/kv/{key}", 404) == 1
        assert requests("none", "none", 404) == 1
        assert "coffee" not in (await (await client.get("/metrics")).text())


async def test_requests_are_counted_together_as_each_would_be_by_itself() -> None:
    took = [0.0001, 0.0005, 0.00051, 0.1, 3.0, 30.0, 31.0, 0.1]
    alone = Histogram("alone", "", buckets=metrics._BUCKETS_S, registry=None)
    for seconds in took:
        alone.observe(seconds)
        metrics.answered("GET", "/of/this/test", 200, seconds)
    await asyncio.sleep(0)  # the next turn
    for seconds in took:
        alone.observe(seconds)
        metrics.answered("GET", "/of/this/test", 200, seconds)
    # These are counted no later than they are told.
    told = samples(metrics.exposition("A", "1", None).decode())
    labels = frozenset({"method": "GET", "route": "/of/this/test", "status": "200"}.items())
    [family] = alone.collect()
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            name = sample.name.replace("alone", "request_duration_seconds")
            assert told[name, labels | frozenset(sample.labels.items())] == pytest.approx(
                sample.value
            ), sample


async def test_where_the_node_stands_is_told(redis: RedisProcess) -> None:
    async with node_a(redis.url) as client:
        await client.put("/kv/lunch", data=b"noon?")
        b = Node("B")
        early = [put_by(b, "tea", b"%d" % n) for n in range(3)][1:]
        await replicated(client, *early)
        now = await told(client)
        assert now.value("redis_up") == 1
        assert now.value("applied_sequence", actor="A") == 1
        assert now.value("pending_writes", actor="B") == 2
        assert now.value("peer_reachable", peer="B") == 0
        assert now.value("peer_lag_writes", peer="C") == 1
        assert now.value("peer_clock_skew_seconds", peer="B") is None, "it was never heard"
        assert now.value("incarnation_start_time_seconds") == 0


async def test_without_its_redis_a_node_tells_that_and_what_it_has_counted(
    redis: RedisProcess,
) -> None:
    async with node_a(redis.url) as client:
        before = await scrape(client)
        redis.kill()
        assert (await client.put("/kv/lunch", data=b"noon?")).status == 503
        now = await told(client, before)
        assert now.value("redis_up") == 0
        assert now.value("pending_writes", actor="B") is None
        assert now.more("redis_failures_total", cause="connection") > 0
        route = {"method": "PUT", "route": "/kv/{key}", "status": "503"}
        assert now.more("request_duration_seconds_count", **route) == 1


async def test_a_new_incarnation_is_told_of(redis: RedisProcess) -> None:
    async with node_a(redis.url) as client:
        before = await scrape(client)
        await client.put("/kv/lunch", data=b"noon?")
        with redis.client() as admin:
            admin.flushall()
        assert (await client.put("/kv/lunch", data=b"one?")).status == 200
        actor = (await (await client.get("/status")).json())["actor"]
        now = await told(client, before)
        assert now.more("incarnations_total") == 1
        assert now.value("node_info", node="A", actor=actor, version="0.1.0") == 1
        assert now.value("incarnation_start_time_seconds") != 0


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RedisTimeoutError("slow"), "timeout"),
        (BusyLoadingError("loading"), "loading"),
        (OutOfMemoryError("full"), "out_of_memory"),
        (ReadOnlyError("a replica"), "read_only"),
        (ResponseError("MISCONF Redis is configured to save"), "cannot_save"),
        (ResponseError("NOREPLICAS Not enough"), "too_few_replicas"),
        (ResponseError("BUSY Redis is busy"), "busy"),
        (RedisConnectionError("max number of clients reached"), "too_many_clients"),
        (RedisConnectionError("refused"), "connection"),
        (ResponseError("CLUSTERDOWN The cluster is down"), "other"),
    ],
)
def test_failures_of_redis_are_counted_by_cause(error: RedisError, cause: str) -> None:
    def failures() -> float:
        return samples(metrics.exposition("A", "1", None).decode()).get(
            ("redis_failures_total", frozenset({("cause", cause)})), 0
        )

    before = failures()
    with pytest.raises(RedisUnavailable), translated():
        raise error
    assert failures() == before + 1


# --- several workers ------------------------------------------------------------------------------


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    # A new connection for each request, so that it may reach any worker.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@pytest.mark.timeout(120)
async def test_any_worker_tells_of_all_and_one_that_dies_takes_no_count_with_it(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with LocalCluster(tmp_path, nodes=1, env={"WORKERS": "3"}) as cluster:
        url = cluster.urls["A"]
        numbers = itertools.count()

        async def write(times: int) -> None:
            for number in itertools.islice(numbers, times):
                async with http.put(f"{url}/kv/key-{number}", data="x") as response:
                    assert response.status == 200

        async def committed() -> float:
            async with http.get(f"{url}/metrics") as response:
                text = await response.text()
            return samples(text)["writes_total", frozenset({("outcome", "committed")})]

        async def assert_all_tell(count: float) -> None:
            assert {await committed() for _ in range(20)} == {count}

        await write(30)
        await assert_all_tell(30)
        killed, *_ = before = cluster.worker_pids("A")
        os.kill(killed, signal.SIGKILL)
        await until(lambda: _is_whole(cluster.worker_pids("A"), before, killed))
        await assert_all_tell(30)
        await write(30)
        await assert_all_tell(60)


def _is_whole(now: Iterable[int], before: list[int], killed: int) -> bool:
    pids = set(now)
    return len(pids) == len(before) and killed not in pids
