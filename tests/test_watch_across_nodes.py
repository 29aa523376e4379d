"""A watcher that dies again and again, and goes on at another node, on real processes under load.

What it misses, or is told twice, or too early, is looked for in what it was told: each event says
what its write depends on.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from app.local_nodes import LocalCluster
from app.vector_clock import Dot, VectorClock
from client import Lightcone
from tests.events import Event, watching
from tests.load import Load
from tests.processes import WHOLE_LOGS, until, until_equal_clocks

pytestmark = pytest.mark.timeout(300)

DEATHS = 50
SEED = 11


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Told:
    """What a watcher was told, each once and after all that it depends on."""

    def __init__(self) -> None:
        self.clock = VectorClock()
        self.operations: dict[str, list[dict[str, str]]] = {}

    def take(self, event: Event) -> None:
        assert event.kind == "write", event
        dot = Dot.parse(event.data["dot"])
        assert str(dot) not in self.operations, f"{dot} is told twice"
        assert VectorClock(event.data["dependencies"]) <= self.clock, f"{dot} is told too early"
        self.clock = self.clock.with_dot(dot)
        self.operations[str(dot)] = event.data["operations"]
        entries = event.id.removeprefix("lc1;").split(";")
        assert VectorClock.parse(" ".join(entries)) == self.clock, "the id is what has been told"


async def set_fault(http: aiohttp.ClientSession, cluster: LocalCluster, cut: bool) -> None:
    """The link between A and C is cut, or healed, both ways."""
    for node, peer in (("A", "C"), ("C", "A")):
        url = f"{cluster.urls[node]}/faults/{peer}"
        async with http.put(url, json={"cut": cut}) as response:
            assert response.status == 200


async def test_a_watcher_that_dies_50_times_is_told_each_write_once_in_causal_order(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    rng = random.Random(SEED)
    async with (
        LocalCluster(tmp_path, env={"WORKERS": "2", **WHOLE_LOGS}) as cluster,
        Lightcone(list(cluster.urls.values())) as kv,
    ):
        load = Load(kv, cluster.urls, "watched")
        told, last_id, node = Told(), "", "A"
        writing = asyncio.create_task(load.run())
        try:
            async with watching(http, f"{cluster.urls[node]}/watch?wait=0") as stream:
                events = await stream.until("cut")
                last_id = events[-1].id
                told.clock = begun = VectorClock(events[-1].data["clock"])
            for death in range(DEATHS):
                node = rng.choice([name for name in cluster.names if name != node])
                if death % 10 == 3:
                    await set_fault(http, cluster, cut=True)
                if death % 10 == 8:
                    await set_fault(http, cluster, cut=False)
                url = f"{cluster.urls[node]}/watch?wait={rng.choice([0, 30])}&since=now"
                try:
                    async with watching(http, url, last_id) as stream:
                        cut = await stream.next()
                        assert (cut.kind, cut.id) == ("cut", last_id)
                        if death % 10 == 5:
                            for pid in cluster.worker_pids(node):
                                os.kill(pid, signal.SIGKILL)
                        for _ in range(rng.randrange(1, 40)):
                            event = await stream.next()
                            told.take(event)
                            last_id = event.id
                except (aiohttp.ClientError, EOFError):
                    pass  # its worker was killed, or comes up
        finally:
            load.stop()
            await writing
        clock = VectorClock(await until_equal_clocks(cluster.urls))
        async with watching(http, f"{cluster.urls['B']}/watch", last_id) as stream:
            while told.clock != clock:
                event = await stream.next()
                if event.kind == "write":
                    told.take(event)
    assert len(told.operations) == sum(clock.values()) - sum(begun.values())
    for name, (key, value) in load.acknowledged.items():
        if not begun.covers(Dot.parse(name)):
            (operation,) = told.operations[name]
            assert (operation["put"], operation["text"]) == (key, value)
    assert len(load.acknowledged) > DEATHS


async def test_nodes_that_stop_end_their_streams_at_once(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with LocalCluster(tmp_path, nodes=1, env={"WORKERS": "2"}) as cluster:
        url = cluster.urls["A"]
        async with http.put(f"{url}/kv/x", data="1") as response:
            assert response.status == 200
        async with watching(http, f"{url}/watch") as stream:
            cut = (await stream.until("cut"))[-1]
            stopping = asyncio.create_task(cluster.stop("A"))
            end = await stream.next()
            assert (end.kind, end.data["type"]) == ("end", "urn:lightcone:stopping")
            with pytest.raises(EOFError):
                await stream.next()
            await stopping
        await cluster.start("A")
        async with watching(http, f"{url}/watch", cut.id) as stream:
            await stream.next()
            async with http.put(f"{url}/kv/x", data="2") as response:
                assert response.status == 200
            assert (await stream.next()).data["dot"] == "A:2"


async def test_watchers_hear_of_a_write_at_whichever_worker_it_was_made(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with LocalCluster(tmp_path, nodes=2, env={"WORKERS": "2"}) as cluster:
        heard: dict[int, list[str]] = {number: [] for number in range(8)}

        async def watch(number: int) -> None:
            url = cluster.urls["AB"[number % 2]]
            async with watching(http, f"{url}/watch?since=lc1;") as stream:
                await stream.next()
                while len(heard[number]) < 20:
                    heard[number].append((await stream.next()).data["dot"])

        async with asyncio.TaskGroup() as group:
            for number in heard:
                group.create_task(watch(number))
            for number in range(20):
                url = cluster.urls["AB"[number % 2]]
                async with (
                    aiohttp.ClientSession() as another,
                    another.put(f"{url}/kv/x", data="1") as response,
                ):
                    assert response.status == 200
            await until(lambda: all(len(dots) == 20 for dots in heard.values()))
        expected = sorted(f"{node}:{number}" for node in "AB" for number in range(1, 11))
        assert all(sorted(dots) == expected for dots in heard.values())
