"""Deferred writes on real nodes: accepted behind a cut link, and done everywhere after what they
follow, whatever is killed meanwhile."""

import asyncio
import itertools
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from app.local_nodes import LocalCluster
from client import Lightcone
from tests.clusters import assert_nodes_equal, client_of, contents_of, cut, heal
from tests.contents import writes_of
from tests.processes import WHOLE_LOGS, alive, until, until_equal_clocks

pytestmark = pytest.mark.timeout(300)

SIGNED = {"CLUSTER_SECRET": "a secret of this cluster", **WHOLE_LOGS}
WRITES = 8


async def _answer_at_c(kv: Lightcone, cluster: LocalCluster) -> list[str]:
    """Somebody asks at A, reads that at B, and replies at C again and again, which has not heard of
    the question."""
    session = kv.session()
    await session.at(cluster.urls["A"]).put("question", "noon?")
    dots = []
    for number in range(WRITES):
        reply = await session.at(cluster.urls["C"]).put(f"reply-{number}", "yes", deferred=True)
        assert reply.deferred
        dots.append(reply.dot)
    return dots


async def _cut_off_c(http: aiohttp.ClientSession, cluster: LocalCluster) -> None:
    await cut(http, cluster, "A", "C")
    async with http.put(f"{cluster.urls['B']}/faults/C", json={"no_relay": True}) as response:
        assert response.status == 200


async def test_a_deferred_write_is_done_everywhere_after_what_it_follows(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    env = {"WORKERS": "2", **SIGNED}
    async with LocalCluster(tmp_path, env=env) as cluster, client_of(cluster) as kv:
        await _cut_off_c(http, cluster)
        dots = await _answer_at_c(kv, cluster)
        assert dots == [f"C+:{number}" for number in range(1, WRITES + 1)]
        others = kv.session().at(cluster.urls["C"])
        assert (await others.put("lunch", "pizza")).dot == "C:1", "others write at once"
        assert await others.get("reply-0") is None
        pending = await kv.pending(cluster.urls["C"])
        assert [one["dot"] for one in pending["deferred"]] == dots
        assert pending["deferred"][0]["waiting_for"] == ["A:1"]

        async def shows_no_reply_before_the_question(node: str) -> None:
            reader = kv.session().at(cluster.urls[node])
            while True:
                replied = await reader.get(f"reply-{WRITES - 1}") is not None
                question = await reader.get("question")
                assert question is not None or not replied
                if replied:
                    return

        async with asyncio.TaskGroup() as group:
            for node in cluster.names:
                group.create_task(shows_no_reply_before_the_question(node))
            await heal(http, cluster)
        clock = await until_equal_clocks(cluster.urls)
        assert clock == {"A": 1, "C": 1, "C+": WRITES}
        await assert_nodes_equal(cluster)


@pytest.mark.parametrize("victim", ["workers", "redis", "node"])
async def test_what_was_accepted_outlives_kill_9(
    tmp_path: Path, http: aiohttp.ClientSession, victim: str
) -> None:
    async with LocalCluster(tmp_path, env=SIGNED) as cluster, client_of(cluster) as kv:
        await _cut_off_c(http, cluster)
        dots = await _answer_at_c(kv, cluster)
        if victim == "node":
            await cluster.kill("C")
            await cluster.start("C")
        else:
            redis = cluster.redis_pid("C")
            assert redis is not None
            victims = cluster.worker_pids("C") if victim == "workers" else [redis]
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            await until(lambda: not any(map(alive, victims)))
            await until(lambda: kv.ready(cluster.urls["C"]))
        await heal(http, cluster)
        session = kv.session(context=f"{kv.context}")
        for node, number in itertools.product(cluster.names, range(WRITES)):

            async def is_there(node: str = node, number: int = number) -> bool:
                return await session.at(cluster.urls[node]).get(f"reply-{number}") is not None

            await until(is_there)
        await until_equal_clocks(cluster.urls)
        logs = await contents_of(cluster, "B", "log:*")
        named = [write for write in writes_of(logs) if write.dot.startswith("C+")]
        assert [write.dot for write in named] == dots
        assert all(write.dependencies["A"] == 1 for write in named)
        await assert_nodes_equal(cluster)
