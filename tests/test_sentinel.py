"""A node whose Redis is watched over by Sentinels, while the primary is killed under load (G4, G8).

All are processes as they run for people: a primary and its replica, three Sentinels, a node before
them, and a peer with a Redis of its own.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.errors import StartupError
from app.local_nodes import HOST, LocalCluster
from app.write import Put
from tests.clusters import status
from tests.contents import covers, redis_contents, unequal, writes_of
from tests.processes import until, until_equal_clocks
from tests.redis_processes import NodesWithRedis, RedisProcess
from tests.writers import Writers, held, writing

pytestmark = pytest.mark.timeout(300)

PASSWORD, SENTINELS_PASSWORD = "of-redis", "of-the-sentinels"
SENTINELS = 3


@dataclass
class Service:
    """A primary, its replica, and those who watch over them."""

    primary: RedisProcess
    replica: RedisProcess
    sentinels: list[RedisProcess]

    def url(self, sentinels_password: str = SENTINELS_PASSWORD) -> str:
        addresses = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://:{PASSWORD}@{addresses}/main/0?sentinel_password={sentinels_password}"

    def watch_over(self) -> bool:
        """Whether every Sentinel knows the replica and the other Sentinels."""
        for sentinel in self.sentinels:
            with sentinel.client() as admin:
                state = admin.sentinel_master("main")
            if (state["num-slaves"], state["num-other-sentinels"]) != (1, SENTINELS - 1):
                return False
        return self.is_replicated()

    def is_replicated(self) -> bool:
        with self.replica.client() as admin:
            return bool(admin.info("replication")["master_link_status"] == "up")

    def cut_off_the_replica(self) -> None:
        """It is given nothing from here on, and still runs, in a way."""
        self.replica.pause()
        with self.primary.client() as admin:
            admin.execute_command("CLIENT", "KILL", "TYPE", "replica")


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    own = (f"masterauth {PASSWORD}", "repl-diskless-sync-delay 0")
    primary = RedisProcess(tmp_path / "primary", *own, password=PASSWORD)
    replicaof = f"replicaof {HOST} {primary.port}"
    replica = RedisProcess(tmp_path / "replica", *own, replicaof, password=PASSWORD)
    watched = (
        f"sentinel monitor main {HOST} {primary.port} 2",
        f"sentinel auth-pass main {PASSWORD}",
        f"sentinel sentinel-pass {SENTINELS_PASSWORD}",
        "sentinel down-after-milliseconds main 700",
        "sentinel failover-timeout main 3000",
    )
    sentinels = [
        RedisProcess(
            tmp_path / f"sentinel-{n}", *watched, sentinel=True, password=SENTINELS_PASSWORD
        )
        for n in range(SENTINELS)
    ]
    everyone = [primary, replica, *sentinels]
    try:
        for process in everyone:
            process.start()
        service = Service(primary, replica, sentinels)
        await until(service.watch_over)
        yield service
    finally:
        for process in everyone:
            process.kill()


@pytest.fixture
def nodes(tmp_path: Path, service: Service) -> Iterator[LocalCluster]:
    """A before the Sentinels, B with a Redis of its own; neither runs yet."""
    yield NodesWithRedis(
        tmp_path / "data",
        {"A": service.url()},
        nodes=2,
        env={"WORKERS": "2", "REDIS_TIMEOUT_MS": "1000"},
    )


async def assert_no_dot_names_two_writes(
    service: Service, nodes: LocalCluster, acknowledged: dict[str, str]
) -> None:
    """Both nodes hold the same, and under each dot the write that was acknowledged so."""
    socket = nodes.data_dir / "B" / "redis.sock"
    for pattern in ("kv:*", "log:*"):
        contents: dict[str, Any] = {
            "A": await held(service.replica, pattern),
            "B": await redis_contents(socket, pattern),
        }
        assert contents["A"] and not unequal(contents)
    logged = {
        write.dot: write.operations for write in writes_of(await redis_contents(socket, "log:*"))
    }
    for key, dot in acknowledged.items():
        if dot in logged:
            [put] = logged[dot]
            assert isinstance(put, Put) and put.key == key, f"{dot} names two writes"


async def test_a_node_follows_a_failover_under_load(
    nodes: LocalCluster, service: Service, http: aiohttp.ClientSession
) -> None:
    async with nodes:
        workers = nodes.worker_pids("A")
        a, b = Writers("a", nodes.urls["A"], http), Writers("b", nodes.urls["B"], http)
        async with writing(a, b):
            await a.more(50)
            service.primary.kill()
            await b.more()
            before = len(a.acknowledged)
            await until(lambda: len(a.acknowledged) > before + 50)
        clock = await until_equal_clocks(nodes.urls)
        assert nodes.worker_pids("A") == workers, "a worker died"
        told = await status(http, nodes.urls["A"])
        assert told["actor"].startswith("A~") and "took over" in told["incarnation"]["reason"]
        assert len({*a.acknowledged.values()}) == len(a.acknowledged), "a dot was given twice"
        assert all(covers(clock, dot) for dot in b.acknowledged.values())
        await assert_no_dot_names_two_writes(service, nodes, a.acknowledged | b.acknowledged)

        # The one that was killed comes back as a replica, and nothing changes hands.
        service.primary.start()
        goes_on = await a.write()
        assert not goes_on, goes_on
        assert (await status(http, nodes.urls["A"]))["actor"] == told["actor"]


async def test_what_a_failover_loses_comes_home_under_its_old_name(
    nodes: LocalCluster, service: Service, http: aiohttp.ClientSession
) -> None:
    async with nodes:
        a = Writers("a", nodes.urls["A"], http)
        for _ in range(5):
            assert not await a.write()
        service.cut_off_the_replica()
        for _ in range(20):
            assert not await a.write()
        lost = dict(a.acknowledged)
        clock = await until_equal_clocks(nodes.urls)  # the peer has them
        assert clock == {"A": 25}
        service.primary.kill()
        service.replica.resume()

        async def writes() -> bool:
            return not await a.write()

        await until(writes)
        told = await status(http, nodes.urls["A"])
        assert told["actor"].startswith("A~"), told
        clock = await until_equal_clocks(nodes.urls)
        assert clock["A"] == 25
        assert all(covers(clock, dot) for dot in a.acknowledged.values())
        assert not set(lost.values()) & {a.acknowledged[k] for k in a.acknowledged.keys() - lost}
        await assert_no_dot_names_two_writes(service, nodes, a.acknowledged)


async def test_sentinels_that_do_not_know_the_password_are_named_without_it(
    tmp_path: Path, service: Service
) -> None:
    wrong = NodesWithRedis(tmp_path / "data", {"A": service.url("hush")}, nodes=1)
    with pytest.raises(
        StartupError, match=r"cannot be used: .*the Sentinels do not accept"
    ) as told:
        async with wrong:
            pass
    assert "hush" not in str(told.value) and PASSWORD not in str(told.value)
