"""Members that come and go under load, as real processes: nothing acknowledged is lost (G8)."""

import itertools
import shutil
from pathlib import Path

import aiohttp
import pytest

from app.local_nodes import LocalCluster
from client import Lightcone, NotApplied
from tests.clusters import assert_nodes_equal, client_of, cut, heal, put, status, under_load
from tests.contents import covers
from tests.processes import until, until_equal_clocks

pytestmark = pytest.mark.timeout(300)


class Growing(LocalCluster):
    """A, B and C, whose settings name each other, and later D, whose settings name only A."""

    def __init__(self, data_dir: Path, **options: dict[str, str]) -> None:
        super().__init__(data_dir, nodes=4, **options)  # type: ignore[arg-type]
        self._all_urls = dict(self.urls)
        self.leave("D")

    def environment(self, node: str) -> dict[str, str]:
        peers = "A" if node == "D" else "ABC".replace(node, "")
        named = ",".join(f"{peer}={self._all_urls[peer]}" for peer in peers)
        return {**super().environment(node), "PEERS": named}

    async def join(self, node: str) -> None:
        """The node is ready, and is one of those that are to be equal."""
        self.names.append(node)
        self.urls[node] = self._all_urls[node]
        await self.start(node)

    def leave(self, node: str) -> None:
        """The node need not be equal to the others any more."""
        self.names.remove(node)
        del self.urls[node]

    async def add(self, at: str, node: str) -> None:
        """Asked at one node, the cluster has this member."""
        async with Lightcone([self.urls[at]], timeout_s=30) as kv:
            await kv.add_member(node, self._all_urls[node])


async def answer_of(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url) as response:
        return response.status


async def test_a_node_joins_under_load_and_is_ready_with_all_that_was_there(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    env = {"WORKERS": "2", "CLUSTER_SECRET": "not a secret in a test"}
    async with Growing(tmp_path, env=env) as cluster, under_load(cluster, http) as load:
        await load.progress(300)
        before = list(load.acknowledged)
        await cluster.add("B", "D")
        await cluster.join("D")
        told = await status(http, cluster.urls["D"])
        assert all(covers(told["clock"], dot) for dot in before), "it said that it was ready"
        assert told["actor"] == "D"
        await until_all_links(http, cluster)
        await load.progress(100)


async def until_all_links(http: aiohttp.ClientSession, cluster: LocalCluster) -> None:
    """Each node reaches each other one."""

    async def all_reach_all() -> bool:
        for node, url in cluster.urls.items():
            peers = (await status(http, url))["peers"]
            if {*cluster.names} - {node} != {n for n, peer in peers.items() if peer["reachable"]}:
                return False
        return True

    await until(all_reach_all)


async def test_a_node_leaves_under_load_and_its_last_writes_stay(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with Growing(tmp_path, env={"WORKERS": "2"}) as cluster:
        c = cluster.urls["C"]
        async with under_load(cluster, http) as load:
            await load.progress(200)
            async with Lightcone([cluster.urls["A"]]) as kv:
                await kv.remove_member("C")

            async def both_workers_refuse() -> bool:
                return [await answer_of(http, f"{c}/readyz") for _ in range(8)] == [410] * 8

            await until(both_workers_refuse)
            before = len(load.acknowledged)
            await load.progress(100)
            cluster.leave("C")  # the others end equal, with all that C has acknowledged
        assert before < len(load.acknowledged)
        assert any(dot.startswith("C:") for dot in load.acknowledged)
        # A client that knows another node is served there.
        async with Lightcone([c, cluster.urls["A"]]) as kv:
            await kv.put("x", "1")
            with pytest.raises(NotApplied, match="was removed"):
                await kv.at(c).session(timeout_s=1).get("x")


async def test_a_node_removed_while_cut_off_brings_its_own_writes_back(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with (
        Growing(tmp_path) as cluster,
        client_of(cluster) as kv,
    ):
        a, b, c = cluster.urls.values()
        await put(kv, a, "before", "x")
        await until_equal_clocks(cluster.urls)
        await cut(http, cluster, "C", "A", "B")
        acknowledged = [await put(kv, c, f"own-{n}", "of c") for n in range(20)]
        await kv.session().at(b).remove_member("C")
        acknowledged += [await put(kv, a, f"meanwhile-{n}", "x") for n in range(20)]
        await cluster.kill("C")
        await cluster.start("C")
        acknowledged.append(await put(kv, c, "late", "of c"))
        has = (await status(http, a))["clock"]
        assert not any(covers(has, dot) for dot in acknowledged[:20])
        await heal(http, cluster)

        async def c_knows_and_has_told() -> bool:
            have = [(await status(http, node))["clock"] for node in (a, b)]
            told = all(covers(has, acknowledged[-1]) for has in have)
            return told and await answer_of(http, f"{c}/kv/late") == 410

        await until(c_knows_and_has_told)
        assert await answer_of(http, f"{a}/kv/late") == 200
        await kv.session().at(a).add_member("C", c)
        clock = await until_equal_clocks(cluster.urls)
        assert all(covers(clock, dot) for dot in acknowledged)
        await until_all_links(http, cluster)
        assert await answer_of(http, f"{c}/readyz") == 200
        await put(kv, c, "again", "of c")
        await until_equal_clocks(cluster.urls)
        await assert_nodes_equal(cluster)


async def test_a_member_that_is_replaced_under_its_id_gives_no_name_again(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with (
        Growing(tmp_path) as cluster,
        client_of(cluster) as kv,
    ):
        await cluster.add("C", "D")
        await cluster.join("D")
        d = cluster.urls["D"]
        acknowledged = [await put(kv, d, f"d-{n}", "first life") for n in range(10)]
        await until_equal_clocks(cluster.urls)
        await cluster.kill("D")
        shutil.rmtree(cluster.data_dir / "D")
        await cluster.start("D")
        acknowledged.append(await put(kv, d, "after", "second life"))
        assert acknowledged[-1].startswith("D~")
        clock = await until_equal_clocks(cluster.urls)
        assert all(covers(clock, dot) for dot in acknowledged)
        await assert_nodes_equal(cluster)


async def test_members_and_what_was_said_of_them_outlast_the_end_of_all_nodes(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with Growing(tmp_path) as cluster:
        await cluster.add("A", "D")
        await cluster.join("D")
        async with Lightcone([cluster.urls["B"]], timeout_s=30) as kv:
            await kv.remove_member("C")

        async def c_knows() -> bool:
            return await answer_of(http, f"{cluster.urls['C']}/readyz") == 410

        await until(c_knows)
        cluster.leave("C")
        await until_equal_clocks(cluster.urls)
        await until_all_links(http, cluster)
        for node in cluster.names:
            await cluster.kill(node)
        # D was told by its settings of A alone, which stays away.
        for node in "BD":
            await cluster.start(node)
        b, d = cluster.urls["B"], cluster.urls["D"]
        async with Lightcone([d], timeout_s=30, patience_s=20) as kv:
            await kv.put("x", "of d")
            version = await kv.session(context=kv.context).at(b).get("x")
            assert version is not None and version.text == "of d"
            states = {m["id"]: m["state"] for m in await kv.at(b).members()}
        assert states == dict.fromkeys("ABD", "member") | {"C": "removed"}
        for one, other in itertools.permutations("BD"):
            assert (await status(http, cluster.urls[one]))["peers"][other]["reachable"]
