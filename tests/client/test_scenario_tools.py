"""What the scenario stands on: names of nodes, commands, waiting, and links that get healed."""

import shlex
import sys
import unittest
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.console import Console

from client import BadInput, scenario_stage
from client.scenario_cluster import ClusterError, OwnCluster, RunningCluster
from client.scenario_stage import Stage, covers, latest, printed
from client.test_scenario import main, named_nodes
from tests.checker.check import check
from tests.checker.history import read_history
from tests.client.fake_node import FakeNode, refuses

NO_ROUTE = refuses("not-found", 404, outcome="not_applied")


@pytest.fixture
async def c() -> AsyncIterator[FakeNode]:
    node = FakeNode("C")
    await node.start()
    yield node
    await node.stop()


@pytest.fixture
async def stage(a: FakeNode, b: FakeNode, c: FakeNode) -> AsyncIterator[Stage]:
    cluster = RunningCluster({node.name: node.url for node in (a, b, c)}, "", "")
    async with Stage(cluster, Console(quiet=True)) as stage:
        yield stage


def test_the_whole_scenario_is_recorded_and_the_checker_finds_nothing_in_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "history.jsonl"
    assert main(["--record", str(path)]) == 0
    operations = read_history(path.read_text().splitlines())
    assert check(operations).is_good
    assert {operation.kind for operation in operations} == {"put", "get", "siblings", "delete"}
    assert {"alice", "bob", "carol", "dora", "eve"} <= {o.session for o in operations}


def test_nodes_are_named_on_the_command_line() -> None:
    assert named_nodes(["A=http://127.0.0.1:8001/", "b=http://b"]) == {
        "A": "http://127.0.0.1:8001",
        "b": "http://b",
    }


@pytest.mark.parametrize(
    "texts", [["http://127.0.0.1:8001"], ["=http://a"], ["A=http://a", "A=http://b"], ["A=a"]]
)
def test_what_names_no_node_is_refused(texts: list[str]) -> None:
    with pytest.raises(BadInput):
        named_nodes(texts)


@pytest.mark.parametrize(
    "arguments", [["A=http://127.0.0.1:1"], ["--kill", "true"], ["A=http://a", "B", "C"]]
)
def test_wrong_usage_is_told_before_anything_runs(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_commands_are_given_the_node(tmp_path: Path) -> None:
    writes = "import pathlib, sys; pathlib.Path(sys.argv[1], sys.argv[2]).touch()"
    command = shlex.join([sys.executable, "-c", writes, str(tmp_path), "node-{node}"])
    cluster = RunningCluster({}, command, command)
    assert cluster.why_no_crash() == ""
    cluster.kill("B")
    assert [path.name for path in tmp_path.iterdir()] == ["node-B"]


@pytest.mark.parametrize("command", ["no-such-command-here", f"{sys.executable} -c 1/0", "'"])
def test_a_command_that_fails_is_told(command: str) -> None:
    with pytest.raises(ClusterError, match="`"):
        RunningCluster({}, command, command).kill("B")


def test_without_commands_nobody_is_killed_and_the_reason_names_the_options() -> None:
    assert "--kill and --start" in RunningCluster({}, "", "").why_no_crash()
    assert "--kill" not in RunningCluster({}, "true", "").why_no_crash()


def test_a_cluster_that_cannot_start_says_why(tmp_path: Path) -> None:
    too_long_for_a_socket = tmp_path / ("x" * 120)
    too_long_for_a_socket.mkdir()
    with pytest.raises(ClusterError, match="DATA_DIR"):
        OwnCluster(too_long_for_a_socket)


async def test_links_are_healed_when_a_step_fails(stage: Stage, a: FakeNode, c: FakeNode) -> None:
    async def step() -> None:
        async with stage.links() as links:
            await links.isolate("A")
            assert set(a.faults) == {"B", "C"}
            assert c.faults == {"A": {"cut": True}}
            raise AssertionError("the step fails")

    with pytest.raises(AssertionError, match="the step fails"):
        await step()
    assert (a.faults, c.faults) == ({}, {})


async def test_a_link_that_cannot_be_healed_is_named(
    stage: Stage, a: FakeNode, b: FakeNode
) -> None:
    async def step() -> None:
        async with stage.links() as links:
            await links.hold_back("A", "C", delay_ms=10)
            assert a.faults == {"C": {"delay_ms": 10}}
            assert b.faults == {"C": {"no_relay": True}}
            a.misbehaviours.append(refuses("bad-fault", 400, outcome="not_applied"))

    with pytest.raises(AssertionError, match="could not be healed: A to C"):
        await step()
    assert b.faults == {}


async def test_where_faults_are_not_enabled_the_step_is_skipped(stage: Stage, a: FakeNode) -> None:
    async with stage.links() as links:
        a.misbehaviours.append(NO_ROUTE)
        with pytest.raises(unittest.SkipTest, match="FAULTS=1"):
            await links.set("A", "C", cut=True)
    assert [seen.method for seen in a.seen] == ["PUT"]


async def test_a_peer_that_a_node_does_not_know_is_no_reason_to_skip(
    stage: Stage, a: FakeNode
) -> None:
    async with stage.links() as links:
        a.misbehaviours.append(refuses("unknown-peer", 403, outcome="not_applied"))
        with pytest.raises(BadInput):
            await links.set("A", "C", cut=True)


async def test_a_wait_that_was_in_vain_tells_what_it_saw(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenario_stage, "DEADLINE_S", 0.1)

    async def never() -> list[str]:
        return []

    with pytest.raises(AssertionError, match=r"the sun rises\. Last seen: \[\]"):
        await stage.until(never, "the sun rises")


async def test_a_node_under_another_name_is_told(stage: Stage, a: FakeNode) -> None:
    a.name = "X"
    with pytest.raises(BadInput, match="is node X, not A"):
        await stage.check_names()


def test_fewer_than_three_nodes_are_refused() -> None:
    with pytest.raises(BadInput, match="three nodes"):
        Stage(RunningCluster({"A": "http://127.0.0.1:1"}, "", ""), Console(quiet=True))


def test_clocks_print_and_compare_as_everywhere() -> None:
    clock = {"B": 3, "A~x": 7}
    assert printed(clock) == "{A~x:7 B:3}"
    assert covers(clock, "A~x:7")
    assert not covers(clock, "B:4")
    assert not covers(clock, "C:1")
    assert latest(["A:2", "A:7", "A~x:1"]) == {"A": 7, "A~x": 1}
