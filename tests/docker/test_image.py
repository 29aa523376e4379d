"""The image and the containers made from it: what is in them, and what they may do."""

import json
import re

import pytest

from tests.docker.compose import MARKER, NUMBERS, CommandFailed, ComposeCluster, docker

pytestmark = pytest.mark.timeout(1200)

BUILD_TOOLS = ("cc", "gcc", "g++", "ld", "make", "cargo", "git", "/opt/venv/bin/pip")


async def test_neither_the_image_nor_its_history_has_a_secret(cluster: ComposeCluster) -> None:
    history = await docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", cluster.image)
    about = await docker("inspect", cluster.image)
    assert MARKER not in history + about
    assert "PIP_INDEX_URL" not in history
    # It was given, and in the container it is: so the marker would have been found.
    assert MARKER in json.dumps(await cluster.inspect("node1"))


async def test_no_build_tool_is_in_the_image(cluster: ComposeCluster) -> None:
    present = await cluster.execute(
        "node1", "sh", "-c", f"for tool in {' '.join(BUILD_TOOLS)}; do command -v $tool; done; :"
    )
    assert present == ""


async def test_the_image_says_what_it_is(cluster: ComposeCluster) -> None:
    labels = json.loads(await docker("inspect", cluster.image))[0]["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "Lightcone"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == "test"


async def test_nothing_runs_as_root_or_can_become_it(cluster: ComposeCluster) -> None:
    for number in NUMBERS.values():
        for service in (f"node{number}", f"redis{number}"):
            status = await cluster.execute(service, "cat", "/proc/1/status")
            fields = dict(re.findall(r"^(\w+):\s+(.*)$", status, re.M))
            assert fields["Uid"].split()[0] != "0"
            assert int(fields["CapBnd"], 16) == 0, "capabilities are left"
            assert fields["NoNewPrivs"] == "1"


async def test_a_container_cannot_write_to_its_own_files(cluster: ComposeCluster) -> None:
    for service in ("node1", "redis1"):
        for place in ("/probe", "/usr/probe"):
            with pytest.raises(CommandFailed, match="Read-only file system"):
                # As root, so that it is not the permissions that refuse it.
                container = await cluster.container(service)
                await docker("exec", "--user", "0", container, "touch", place)


async def test_every_container_has_its_limits(cluster: ComposeCluster) -> None:
    for number in NUMBERS.values():
        for service in (f"node{number}", f"redis{number}"):
            limits = (await cluster.inspect(service))["HostConfig"]
            assert limits["Memory"] > 0 and limits["NanoCpus"] > 0 and limits["PidsLimit"] > 0
            assert limits["RestartPolicy"]["Name"] == "unless-stopped"


async def test_only_the_ports_of_the_nodes_are_published_and_on_this_machine_only(
    cluster: ComposeCluster,
) -> None:
    for node, number in NUMBERS.items():
        published = (await cluster.inspect(f"node{number}"))["NetworkSettings"]["Ports"]
        port = cluster.urls[node].rpartition(":")[2]
        assert published == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]}
        redis = (await cluster.inspect(f"redis{number}"))["NetworkSettings"]["Ports"]
        assert not any(redis.values())


async def test_a_node_reaches_its_own_redis_and_no_other(cluster: ComposeCluster) -> None:
    connect = "import socket, sys; socket.create_connection((sys.argv[1], 6379), 2).close()"
    for number in NUMBERS.values():
        await cluster.execute(f"node{number}", "python", "-c", connect, "redis")
        for other in set(NUMBERS.values()) - {number}:
            networks = (await cluster.inspect(f"redis{other}"))["NetworkSettings"]["Networks"]
            addresses = [network["IPAddress"] for network in networks.values()]
            assert addresses
            for address in (*addresses, f"redis{other}"):
                with pytest.raises(CommandFailed):
                    await cluster.execute(f"node{number}", "python", "-c", connect, address)


async def test_a_node_that_is_told_to_stop_ends_cleanly(cluster: ComposeCluster) -> None:
    await docker("stop", await cluster.container("node3"))
    state = (await cluster.inspect("node3"))["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    assert "stopped" in await cluster.last_lines("node3")
    await cluster.start("node3")


async def test_a_node_whose_process_dies_is_started_again_by_the_engine(
    cluster: ComposeCluster,
) -> None:
    before = (await cluster.inspect("node2"))["RestartCount"]
    # The child of tini: the supervisor of the node.
    child = (await cluster.execute("node2", "cat", "/proc/1/task/1/children")).split()[0]
    await cluster.execute("node2", "sh", "-c", f"kill -9 {child}")
    await cluster.until_restarted("node2", before)
    await cluster.until_healthy("node2")
