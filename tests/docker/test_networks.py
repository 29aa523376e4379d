"""Real networks that are cut and slowed down: by the engine, by iptables and by tc."""

import itertools
import time
from collections.abc import AsyncIterator

import pytest

from client import Lightcone
from tests.docker.compose import BUILD_MAX_S, CommandFailed, ComposeCluster
from tests.load import Load, assert_nothing_lost, while_loaded
from tests.processes import until, until_equal_clocks

pytestmark = pytest.mark.timeout(600)

FAULTS = "docker-compose.faults.yml"
CUT_S = 30.0
WRITES = 10


async def test_a_node_taken_off_the_mesh_for_30_s_under_load_comes_back_with_nothing_lost(
    cluster: ComposeCluster, kv: Lightcone, load: Load
) -> None:
    b = cluster.urls["B"]

    async def cut_and_heal() -> None:
        await cluster.disconnect("node2")
        ends = time.monotonic() + CUT_S
        await until(lambda: _unreachable(kv, b, {"A", "C"}))
        # Both sides serve, for as long as it lasts.
        while time.monotonic() < ends:
            await load.progress(*cluster.urls, writes=1)
        there, here = await kv.status(b), await kv.status(cluster.urls["A"])
        for ahead, behind in ((there, here), (here, there)):
            own = ahead["actor"] or ""  # an earlier test may have begun another incarnation
            assert ahead["clock"][own] > behind["clock"].get(own, 0), "nothing was cut"
        await cluster.connect("node2")

    await while_loaded(load, cut_and_heal)
    await assert_nothing_lost(load)


async def _unreachable(kv: Lightcone, url: str, peers: set[str]) -> bool:
    about = (await kv.status(url))["peers"]
    return {peer for peer in about if not about[peer]["reachable"]} == peers


@pytest.fixture
async def net1(cluster: ComposeCluster) -> AsyncIterator[str]:
    """The service in which the network of node1 can be changed."""
    await cluster.compose("build", "net1", files=FAULTS, max_s=BUILD_MAX_S)
    await cluster.compose("up", "-d", "--no-build", "--no-deps", "net1", files=FAULTS)
    try:
        yield "net1"
    finally:
        await cluster.compose("rm", "--stop", "--force", "net1", files=FAULTS)


async def test_a_one_way_cut_by_iptables_is_bridged_by_the_third_node(
    cluster: ComposeCluster, kv: Lightcone, net1: str
) -> None:
    a, c = cluster.urls["A"], cluster.urls["C"]
    await until_equal_clocks(cluster.urls)
    # What A sends to C's port is lost; that C asks A, and is answered, goes on.
    rule = ("OUTPUT", "--destination", "node3.mesh", "--protocol", "tcp", "--dport", "8000")
    await cluster.execute(net1, "iptables", "--append", *rule, "--jump", "DROP")
    try:
        await until(lambda: _unreachable(kv, a, {"C"}))
        assert await _unreachable(kv, c, set())
        written = await kv.session().at(a).put("one-way", "by way of B")
        await until(lambda: _has(kv, c, written.dot))
        assert await _unreachable(kv, a, {"C"}), "it went the direct way"
    finally:
        await cluster.execute(net1, "iptables", "--flush")
    await until(lambda: _unreachable(kv, a, set()))
    await until_equal_clocks(cluster.urls)


async def _has(kv: Lightcone, url: str, dot: str) -> bool:
    actor, _, sequence = dot.partition(":")
    return (await kv.status(url))["clock"].get(actor, 0) >= int(sequence)


async def test_a_slow_network_delays_nobody_but_its_own_writes(
    cluster: ComposeCluster, kv: Lightcone, net1: str
) -> None:
    a, b, c = cluster.urls.values()
    interface = await _mesh_interface(cluster, net1)
    await _slow_down(cluster, net1, interface)
    # Each value at A tells how many went before it, and C must never see a gap.
    session = kv.session()
    for number in range(WRITES):
        await session.at(a).put(f"slow/{number}", str(number))
        await kv.session().at(b).put(f"fast/{number}", str(number))
    seen = [await _shows(kv, c, f"slow/{number}") for number in reversed(range(WRITES))]
    assert seen == sorted(seen), "a later write was there before an earlier one"
    await until_equal_clocks(cluster.urls)
    for number, url in itertools.product(range(WRITES), (a, b, c)):
        assert await _shows(kv, url, f"slow/{number}") and await _shows(kv, url, f"fast/{number}")


async def _slow_down(cluster: ComposeCluster, service: str, interface: str) -> None:
    """What leaves by the interface is late. Skips where the kernel cannot do that."""
    add = ("tc", "qdisc", "add", "dev", interface, "root")
    # Either the delay itself, or so little bandwidth that a queue makes one.
    kinds = "netem delay 800ms 200ms", "tbf rate 40kbit burst 2kb latency 60s"
    problem = ""
    for kind in kinds:
        try:
            await cluster.execute(service, *add, *kind.split())
            return
        except CommandFailed as error:
            problem = str(error)
    pytest.skip(f"this kernel has neither netem nor tbf: {problem}")


async def _shows(kv: Lightcone, url: str, key: str) -> bool:
    return await kv.session().at(url).get(key) is not None


async def _mesh_interface(cluster: ComposeCluster, service: str) -> str:
    """The interface by which the service is on the mesh."""
    networks = (await cluster.inspect("node1"))["NetworkSettings"]["Networks"]
    address = networks[f"{cluster.project}_mesh"]["IPAddress"]
    lines = (await cluster.execute(service, "ip", "-brief", "address")).splitlines()
    [name] = [line.split("@")[0] for line in lines if f" {address}/" in line]
    return name
