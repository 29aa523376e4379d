"""`python -m client watch`: what is told on stdout, as it happens, and with which code it ends."""

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from client import Lightcone
from client.cli_errors import Code
from tests.client.fake_node import FakeNode, refuses

ROOT = Path(__file__).parents[2]

Process = asyncio.subprocess.Process


async def watch(kv: Lightcone, *arguments: str) -> Process:
    """The command, with its output in pipes."""
    environment = {name: text for name, text in os.environ.items() if "LIGHTCONE" not in name}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "client", "watch", *arguments, "--node", kv.nodes[0]),
        cwd=ROOT,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


async def line(running: Process) -> str:
    assert running.stdout is not None
    async with asyncio.timeout(30):
        return (await running.stdout.readline()).decode().rstrip("\n")


async def document(running: Process) -> dict[str, Any]:
    said = json.loads(await line(running))
    assert isinstance(said, dict)
    return said


async def test_writes_are_a_line_each_and_a_transaction_one_a_key(kv: Lightcone) -> None:
    await kv.put("user/1", "ann")
    running = await watch(kv, "user/", "--state", "--limit", "2")
    assert await line(running) == "A:1 has user/1 ann"
    await kv.put("other", "x")
    await kv.put("user/2", b"\xff\x1b")
    async with kv.txn() as txn:
        txn.put("user/1", "anne\n")
        txn.delete("user/2")
    lines = [await line(running) for _ in range(3)]
    assert [re.sub(r"^[-\d]+ [:.\d]+Z ", "", one) for one in lines] == [
        "A:3 put user/2 2 B of binary",
        "A:4 put user/1 anne\\n",
        "A:4 del user/2",
    ]
    _, err = await running.communicate()
    assert (running.returncode, err) == (Code.DONE, b"")


async def test_programs_get_a_document_a_line_and_go_on_from_any(kv: Lightcone) -> None:
    await kv.put("x", "1")
    running = await watch(kv, "--json", "--state", "--limit", "1")
    assert await document(running) == {"event": "begin"}
    assert await document(running) == {
        "event": "state",
        "key": "x",
        "etag": '"A:1"',
        "siblings": [{"dot": "A:1", "content_type": "text/plain; charset=utf-8", "text": "1"}],
    }
    cut = await document(running)
    assert cut == {"event": "cut", "clock": {"A": 1}, "context": "lc1;A:1"}
    await kv.put("x", b"\xff", "image/x")
    told = await document(running)
    assert told.pop("timestamp") > 10**15
    assert told == {
        "event": "write",
        "dot": "A:2",
        "node": "A",
        "dependencies": {"A": 1},
        "operations": [{"put": "x", "content_type": "image/x", "base64": "/w=="}],
        "context": "lc1;A:2",
    }
    out, _ = await running.communicate()
    assert (running.returncode, out) == (Code.DONE, b"")
    await kv.delete("x")
    running = await watch(kv, "--json", "--since", told["context"], "--limit", "1")
    assert (await document(running))["context"] == "lc1;A:2"
    assert (await document(running))["operations"] == [{"delete": "x"}]
    assert await running.wait() == Code.DONE


async def test_it_goes_on_until_it_is_interrupted_and_its_session_has_seen_it(
    kv: Lightcone, tmp_path: Path
) -> None:
    session = tmp_path / "session"
    running = await watch(kv, "--session-file", str(session), "--json")
    assert (await document(running))["event"] == "cut"
    await kv.put("x", "1")
    assert (await document(running))["dot"] == "A:1"
    running.send_signal(signal.SIGINT)
    out, err = await running.communicate()
    assert (running.returncode, out, err) == (Code.INTERRUPTED, b"", b"")
    assert session.read_text() == "lc1;A:1\n"


async def test_who_is_too_far_back_is_told_what_to_do(a: FakeNode) -> None:
    gap = [{"actor": "A", "after": 1, "through": 6}]
    a.misbehaviours.append(
        refuses("too-far-back", 410, outcome="not_applied", missed=gap, go_on="lc1;A:6")
    )
    async with Lightcone([a.url]) as kv:
        running = await watch(kv, "--since", "lc1;A:1", "--json")
        out, err = await running.communicate()
    assert running.returncode == Code.BAD_INPUT
    [line] = out.splitlines()  # as what it tells otherwise
    error = json.loads(line)["error"]
    assert (error["kind"], error["problem"]["missed"]) == ("too-far-back", gap)
    assert "--state" in error["advice"] and "lc1;A:6" in error["advice"]
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [["--state", "--since", "lc1;"], ["--since", "yesterday"], ["--limit", "0"], ["x", "y"]],
)
async def test_bad_input_ends_it(kv: Lightcone, arguments: list[str]) -> None:
    running = await watch(kv, *arguments)
    out, err = await running.communicate()
    assert (running.returncode, out) == (Code.BAD_INPUT, b"")
    assert err and b"Traceback" not in err
