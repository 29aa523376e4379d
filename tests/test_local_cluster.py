"""`python -m app.local_cluster`: what people and programs can do, and that no node is left."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.embedded_redis import redis_pid
from app.local_cluster import main
from app.local_nodes import children_of, free_ports
from client import Lightcone
from tests.processes import alive, until


class Runner:
    """`python -m app.local_cluster`, as another program uses it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = await self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(command.encode() + b"\n")
        return await self.answer()


@contextlib.asynccontextmanager
async def runner(*arguments: str) -> AsyncIterator[Runner]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.local_cluster", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Runner(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def in_machine_mode(
    tmp_path: Path, nodes: int = 1
) -> contextlib.AbstractAsyncContextManager[Runner]:
    return runner(*f"--json --ports auto --nodes {nodes} --data-dir {tmp_path}".split())


async def test_a_program_can_command_it(tmp_path: Path) -> None:
    async with in_machine_mode(tmp_path, nodes=2) as cluster:
        nodes = (await cluster.answer())["nodes"]
        assert list(nodes) == ["A", "B"]
        async with Lightcone([nodes["A"]["url"]], timeout_s=30) as kv:
            await kv.put("lunch", "noon?")
            assert await cluster.ask("kill A") == {"ok": True, "node": "A"}
            assert not alive(nodes["A"]["pid"])
            assert (await cluster.ask("kill A"))["error"] == "A does not run."
            assert await cluster.ask("start A") == {"ok": True, "node": "A"}
            lunch = await kv.session().get("lunch")
            assert lunch is not None and lunch.text == "noon?"
        assert await cluster.ask("stop B") == {"ok": True, "node": "B"}
        assert not alive(nodes["B"]["pid"])
        assert await cluster.ask("stop C") == {"ok": False, "error": "`C` is none of A, B."}
        assert await cluster.ask("burn A") == {
            "ok": False, "error": "`burn` is none of start, stop, kill, quit."
        }  # fmt: skip
        assert await cluster.ask("quit") == {"ok": True}
        assert await cluster.process.wait() == 0
    assert redis_pid(tmp_path / "A") is None


@pytest.mark.parametrize("end", ["eof", "SIGTERM", "SIGINT", "SIGKILL"])
async def test_however_it_ends_no_node_is_left(tmp_path: Path, end: str) -> None:
    async with in_machine_mode(tmp_path) as cluster:
        pid = (await cluster.answer())["nodes"]["A"]["pid"]
        processes = [pid, *children_of(pid)]
        assert len(processes) == 3
        if end == "eof":
            assert cluster.process.stdin
            cluster.process.stdin.close()
        else:
            cluster.process.send_signal(signal.Signals[end])
        assert await cluster.process.wait() == (-signal.SIGKILL if end == "SIGKILL" else 0)
        await until(lambda: not any(map(alive, processes)))


async def test_people_are_told_what_to_try(tmp_path: Path) -> None:
    (first,) = free_ports(1)
    async with runner(
        "--ports", str(first), "--nodes", "1", "--data-dir", str(tmp_path)
    ) as cluster:
        assert cluster.process.stdout
        told = ""
        while "Ctrl-C" not in told:
            line = await cluster.process.stdout.readline()
            assert line, (await cluster.process.communicate())[1]
            told += line.decode()
        assert told.count("  curl ") + told.count("(curl ") == 3
        assert f"http://127.0.0.1:{first}/kv/lunch" in told
        cluster.process.send_signal(signal.SIGINT)
        assert await cluster.process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "trouble"),
    [
        ("--nodes 0", "not a number from 1 to 26"),
        ("--nodes 27", "not a number from 1 to 26"),
        ("--ports x", "neither `auto` nor a port"),
        ("--env VALUE_MAX=1", "VALUE_MAX is no setting"),
        ("--env WORKERS", "WORKERS is no setting, or has no value"),
        ("--env PORT=1", "PORT differs from node to node"),
        ("--env REDIS_URL=redis://x", "REDIS_URL differs from node to node"),
    ],
)
def test_bad_arguments_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: str, trouble: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())
    assert trouble in capsys.readouterr().err
