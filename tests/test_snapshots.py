"""Nodes that were away for longer than the logs go back: they are sent a snapshot (G8, G9).

What is told of them is what clients and `redis-cli` see of real processes.
"""

import asyncio
import os
import random
import shutil
import signal
from pathlib import Path

import aiohttp
import pytest

from app.local_nodes import LocalCluster
from tests.clusters import (
    client_of,
    cut,
    heal,
    heal_links_to,
    put_many,
    status,
    until_same,
)
from tests.processes import until, until_equal_clocks

pytestmark = pytest.mark.timeout(300)

KILLS = 10
SHORT_LOGS = {
    **{"LOG_MAX_ENTRIES": "20", "LOG_MIN_ENTRIES": "5", "TRIM_MS": "50"},
    # Small parts, so that a snapshot has many.
    **{"BATCH_MAX_BYTES": "2000", "WORKERS": "2"},
    # And quick to find out that somebody died.
    **{"HEARTBEAT_MS": "100", "LEASE_MS": "400", "RETRY_MAX_MS": "100"},
}


# As little as a receiver may take in one batch, beside the values.
SMALL_BATCHES = {
    **{"VALUE_MAX_BYTES": "60000", "TXN_MAX_BYTES": "60000"},
    **{"BATCH_MAX_BYTES": "60000", "REPLICATE_MAX_BYTES": f"{120_000 + 65_536}"},
}


async def log_entries(http: aiohttp.ClientSession, url: str) -> int:
    entries = (await status(http, url))["log"]["entries"]
    assert isinstance(entries, int)
    return entries


async def assert_same_keys(cluster: LocalCluster, expected: dict[str, str | None]) -> None:
    """All nodes hold the same versions, and these values."""
    held = (await until_same(cluster, "kv:*"))[cluster.names[0]]
    for key, value in expected.items():
        versions = held.get(f"kv:{key}", {})
        values = {v.partition(b"\n")[2] for f, v in versions.items() if f != b"deletes"}
        assert values == (set() if value is None else {value.encode()}), key


async def test_a_node_beyond_the_cap_keeps_what_it_wrote_and_gets_what_it_missed(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """Both sides wrote more than their logs hold, and deleted, while they were apart."""
    async with (
        LocalCluster(tmp_path, env=SHORT_LOGS) as cluster,
        client_of(cluster) as kv,
    ):
        a, b, c = cluster.urls.values()
        shared = [f"shared-{n}" for n in range(40)]
        await put_many(kv, a, shared, "before")
        await until_equal_clocks(cluster.urls)
        await cut(http, cluster, "C", "A", "B")
        await put_many(kv, a, [f"of-a-{n}" for n in range(60)], "a")
        await put_many(kv, c, [f"of-c-{n}" for n in range(60)], "c")
        for key in shared[:10]:
            await kv.session().at(b).delete(key)
        for key in shared[10:20]:
            await kv.session().at(c).delete(key)
        for url in (a, c):
            await until(lambda url=url: _trimmed(http, url))  # type: ignore[misc]
        await heal(http, cluster)
        await until_equal_clocks(cluster.urls)
        await assert_same_keys(
            cluster,
            {
                **dict.fromkeys(shared[:20]),
                **dict.fromkeys(shared[20:], "before"),
                **{f"of-a-{n}": "a" for n in range(60)},
                **{f"of-c-{n}": "c" for n in range(60)},
            },
        )
        # From there on the logs serve again, and are short.
        await put_many(kv, c, ["later"], "x")
        await until_equal_clocks(cluster.urls)
        await until(lambda: _trimmed(http, c))


async def test_a_member_that_was_removed_for_longer_than_the_logs_go_back_comes_home(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """With writes of its own, which are more than its log holds, too."""
    async with (
        LocalCluster(tmp_path, env=SHORT_LOGS) as cluster,
        client_of(cluster) as kv,
    ):
        a, b, c = cluster.urls.values()
        await put_many(kv, a, [f"shared-{n}" for n in range(20)], "before")
        await until_equal_clocks(cluster.urls)
        await cut(http, cluster, "C", "A", "B")
        await kv.session().at(b).remove_member("C")
        await put_many(kv, c, [f"of-c-{n}" for n in range(60)], "c")
        await put_many(kv, a, [f"of-a-{n}" for n in range(60)], "a")
        for n in range(10):
            await kv.session().at(a).delete(f"shared-{n}")
        [held] = (await status(http, c))["log"]["held_back_by"][:1]
        assert held["writes"] >= 60 and held["since_s"] > 0
        for url in (a, c):
            await until(lambda url=url: _trimmed(http, url))  # type: ignore[misc]
        # No log waits for who is no member.
        held_by = {one["peer"] for one in (await status(http, a))["log"]["held_back_by"]}
        assert "C" not in held_by
        await heal(http, cluster)
        await kv.session().at(a).add_member("C", c)
        await until_equal_clocks(cluster.urls)
        await assert_same_keys(
            cluster,
            {
                **dict.fromkeys(f"shared-{n}" for n in range(10)),
                **{f"shared-{n}": "before" for n in range(10, 20)},
                **{f"of-a-{n}": "a" for n in range(60)},
                **{f"of-c-{n}": "c" for n in range(60)},
            },
        )
        await put_many(kv, c, ["later"], "x")
        await until_equal_clocks(cluster.urls)


async def _trimmed(http: aiohttp.ClientSession, url: str) -> bool:
    """No log is longer than its cap."""
    told = await status(http, url)
    return bool(told["log"]["entries"] <= 20 * len(told["clock"]))


async def test_a_wiped_node_gets_all_that_the_logs_have_no_more(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with (
        LocalCluster(tmp_path, env=SHORT_LOGS) as cluster,
        client_of(cluster) as kv,
    ):
        a, _b, c = cluster.urls.values()
        keys = [f"key-{n}" for n in range(80)]
        await put_many(kv, a, keys, "a")
        await until_equal_clocks(cluster.urls)  # else C would write beside what it has not yet
        await put_many(kv, c, keys[:30], "c")
        await until_equal_clocks(cluster.urls)
        await cluster.kill("C")
        shutil.rmtree(cluster.data_dir / "C")
        await cluster.start("C")
        await until_equal_clocks(cluster.urls)
        expected = {**dict.fromkeys(keys[:30], "c"), **dict.fromkeys(keys[30:], "a")}
        await assert_same_keys(cluster, dict(expected))
        assert (await status(http, c))["actor"].startswith("C~")


async def test_a_snapshot_of_the_largest_values_arrives(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with (
        LocalCluster(tmp_path, env=SHORT_LOGS | SMALL_BATCHES, nodes=2) as cluster,
        client_of(cluster) as kv,
    ):
        a = cluster.urls["A"]
        await until_equal_clocks(cluster.urls)
        await cut(http, cluster, "A", "B")
        keys = [f"key-{n}" for n in range(40)]
        await put_many(kv, a, keys, "x" * 60_000)
        await until(lambda: _trimmed(http, a))
        await heal(http, cluster)
        await until_equal_clocks(cluster.urls)
        await assert_same_keys(cluster, {**dict.fromkeys(keys, "x" * 60_000)})


async def test_a_key_whose_siblings_are_too_many_for_a_part_comes_once_it_is_written_again(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    env = SHORT_LOGS | {
        **{"VALUE_MAX_BYTES": "300000", "TXN_MAX_BYTES": "300000"},
        **{"REPLICATE_MAX_BYTES": f"{2_000 + 300_000 + 65_536}"},
    }
    async with (
        LocalCluster(tmp_path, env=env) as cluster,
        client_of(cluster) as kv,
    ):
        a, b, c = cluster.urls.values()
        await until_equal_clocks(cluster.urls)
        await cut(http, cluster, "B", "A", "C")
        await cut(http, cluster, "A", "C")
        for url in (a, c):
            await put_many(kv, url, ["large"], "x" * 300_000)
        await heal_links_to(http, cluster, "A", "C")
        await heal_links_to(http, cluster, "C", "A")
        await until_equal_clocks({"A": a, "C": c})
        small = [f"small-{n}" for n in range(60)]
        await put_many(kv, a, small, "a")
        await until_equal_clocks({"A": a, "C": c})
        for url in (a, c):
            await until(lambda url=url: _trimmed(http, url))  # type: ignore[misc]
        await heal_links_to(http, cluster, "A", "B")
        await heal_links_to(http, cluster, "B", "A")

        async def is_refused() -> bool:
            error = (await status(http, a))["peers"]["B"]["error"]
            return "REPLICATE_MAX_BYTES" in (error or "")

        await until(is_refused)
        assert "A" not in (await status(http, b))["clock"]
        # Whoever has read the siblings writes after both.
        session = kv.session().at(a)
        await session.get("large")
        await session.put("large", "one")
        await until_equal_clocks(cluster.urls)
        await assert_same_keys(cluster, {"large": "one", **dict.fromkeys(small, "a")})


async def test_nodes_that_only_a_third_connects_keep_no_logs_for_each_other(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    env = SHORT_LOGS | {"LOG_MAX_ENTRIES": "1000000", "RELAY_AFTER_MS": "100"}
    async with (
        LocalCluster(tmp_path, env=env) as cluster,
        client_of(cluster) as kv,
    ):
        a, _b, c = cluster.urls.values()
        await cut(http, cluster, "A", "C")
        for url, node in ((a, "A"), (c, "C")):
            await put_many(kv, url, [f"of-{node}-{n}" for n in range(40)], node)
        await until_equal_clocks(cluster.urls)

        async def keeps_nothing(url: str) -> bool:
            log = (await status(http, url))["log"]
            return bool(log["held_back_by"] == [] and log["entries"] <= 10)

        for url in cluster.urls.values():
            await until(lambda url=url: keeps_nothing(url))  # type: ignore[misc]


@pytest.mark.parametrize("victim", ["sender", "receiver"])
async def test_killed_at_any_moment_of_a_snapshot_it_goes_on_or_begins_anew(
    tmp_path: Path, http: aiohttp.ClientSession, victim: str
) -> None:
    """Ten times, with everything that the victim is made of, at moments that chance picks."""
    rng = random.Random(victim)
    async with (
        LocalCluster(tmp_path, env=SHORT_LOGS, nodes=2) as cluster,
        client_of(cluster) as kv,
    ):
        a, b = cluster.urls.values()
        keys = [f"key-{n}" for n in range(30 * KILLS)]
        await put_many(kv, a, keys, "a")
        await until_equal_clocks(cluster.urls)
        node = {"sender": "A", "receiver": "B"}[victim]
        for kill in range(KILLS):
            await cut(http, cluster, "A", "B")
            await put_many(kv, a, keys[30 * kill : 30 * kill + 30], f"a{kill}")
            await put_many(kv, b, [f"of-b-{kill}-{n}" for n in range(3)], "b")
            await until(lambda: _trimmed(http, a))
            # By parts that came, or by the merge: it is killed after so many steps.
            steps = rng.randrange(0, 12)
            before = (await status(http, b))["clock"]
            await heal(http, cluster)
            await _until_steps(http, b, steps, before)
            if rng.random() < 0.5:
                for worker in cluster.worker_pids(node):
                    os.kill(worker, signal.SIGKILL)
            else:
                await cluster.kill(node)
                await cluster.start(node)
            await until_equal_clocks(cluster.urls)
        await assert_same_keys(
            cluster,
            {
                **{f"key-{30 * k + n}": f"a{k}" for k in range(KILLS) for n in range(30)},
                **{f"of-b-{k}-{n}": "b" for k in range(KILLS) for n in range(3)},
            },
        )


async def _until_steps(
    http: aiohttp.ClientSession, url: str, steps: int, before: dict[str, int]
) -> None:
    """So many changes of the snapshot's progress were seen at the receiver, or it is done: its
    clock is not the one of `before` any more."""
    seen: set[str] = set()
    while len(seen) <= steps:
        told = await status(http, url)
        seen.add(str(told["snapshot"]))
        if told["snapshot"] is None and told["clock"] != before:
            return
        await asyncio.sleep(0.001)
