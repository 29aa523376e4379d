"""Containers that are killed, and disks that are lost, while clients write."""

import pytest

from client import Lightcone
from tests.docker.compose import NUMBERS, ComposeCluster, docker
from tests.load import Load, assert_nothing_lost, while_loaded
from tests.processes import until, until_equal_clocks

pytestmark = pytest.mark.timeout(600)


async def test_a_killed_container_recovers_clock_values_and_buffer(
    cluster: ComposeCluster, kv: Lightcone
) -> None:
    a, b, c = cluster.urls.values()
    await until_equal_clocks(cluster.urls)
    await kv.at(c).put("crash/kept", "safe")
    clock = await until_equal_clocks(cluster.urls)
    await kv.set_fault(a, "C", cut=True)
    await kv.set_fault(b, "C", no_relay=True)
    try:
        cause = await kv.session().at(a).put("crash/question", "Still there?")
        session = kv.session()
        await until(lambda: _shows(kv, b, "crash/question"))
        await session.at(b).get("crash/question")
        effect = await session.at(b).put("crash/answer", "Yes.")
        sequence = effect.dot.partition(":")[2]

        async def waits_at_c() -> bool:
            return sequence in await cluster.redis_cli("C", "HKEYS", "pending:B")

        await until(waits_at_c)
        await cluster.kill("node3")
        # Redis has it while no node runs; and so it has when the node is back.
        for _ in range(2):
            seen = await cluster.redis_cli("C", "HGETALL", "clock")
            assert {actor: int(count) for actor, count in seen.items()} == clock
            assert await waits_at_c()
            assert await cluster.redis_cli("C", "EXISTS", "kv:crash/kept") == 1
            assert await cluster.redis_cli("C", "EXISTS", "kv:crash/answer") == 0
            await cluster.start("node3")
        waiting = {write["dot"]: write["waiting_for"] for write in (await kv.pending(c))["writes"]}
        assert waiting == {effect.dot: [cause.dot]}
        assert (await kv.status(c))["clock"] == clock
        kept = await kv.session().at(c).get("crash/kept")
        assert kept is not None and kept.text == "safe"
    finally:
        await kv.heal(a, "C")
        await kv.heal(b, "C")
    await until(lambda: _shows(kv, c, "crash/answer"))
    assert await _shows(kv, c, "crash/question")
    assert not await cluster.redis_cli("C", "EXISTS", "pending:B")


async def _shows(kv: Lightcone, url: str, key: str) -> bool:
    return await kv.session().at(url).get(key) is not None


@pytest.mark.parametrize(
    "kinds",
    [("redis",), ("node", "redis")],
    ids=["its-redis", "it-and-its-redis"],
)
async def test_each_node_in_turn_has_its_containers_killed_under_load_and_nothing_is_lost(
    kinds: tuple[str, ...], cluster: ComposeCluster, load: Load
) -> None:
    async def kill_in_turn() -> None:
        for node, number in NUMBERS.items():
            services = [f"{kind}{number}" for kind in kinds]
            await cluster.kill(*services)
            await load.progress(*(other for other in NUMBERS if other != node))
            await cluster.start(*reversed(services))
            await load.progress(node)

    await while_loaded(load, kill_in_turn)
    await assert_nothing_lost(load)


async def test_a_wiped_volume_is_filled_again_by_the_peers(
    cluster: ComposeCluster, kv: Lightcone, load: Load
) -> None:
    async def some_writes() -> None:
        await load.progress(*cluster.urls)

    await while_loaded(load, some_writes)
    clock = await until_equal_clocks(cluster.urls)

    await cluster.compose("rm", "--stop", "--force", "node1", "redis1")
    await docker("volume", "rm", f"{cluster.project}_redis1")
    await cluster.up("redis1", "node1")
    written = await kv.session().at(cluster.urls["A"]).put("after-the-loss", "here again")
    actor, _, number = written.dot.rpartition(":")
    assert actor.startswith("A~") and number == "1", "it may have had that name before"
    assert await until_equal_clocks(cluster.urls) == {**clock, actor: 1}
    await assert_nothing_lost(load)
    await until_equal_clocks(cluster.urls)
    for url in cluster.urls.values():
        assert await _shows(kv, url, "after-the-loss")
