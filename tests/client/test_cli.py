"""The command line: what is on stdout, what on stderr, and with which code it ends."""

import asyncio
import base64
import contextlib
import errno
import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import typer.main
from aiohttp import web
from typer.testing import CliRunner, Result

import app
import client
from app import wire
from app.local_nodes import LocalCluster
from app.vector_clock import VectorClock
from app.wire import Batch
from app.write import Put
from client import BadInput, backups, cli_input
from client.cli import made
from client.cli_errors import Code
from client.cli_output import Result as Said
from client.cli_output import Screen, clean
from tests.client.fake_node import (
    FakeNode,
    Holds,
    Misbehaviour,
    answers,
    breaks_off,
    loses,
    refuses,
)
from tests.model import Node
from tests.one_node import Client, Logs

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:1"

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def run(tmp_path: Path, logs: Logs) -> Run:
    """Runs a command, beside the event loop of the test, in which the nodes are. What these log
    does not come among what the command says."""

    async def run(*arguments: str, stdin: bytes = b"", **variables: str) -> Result:
        # Nothing of the machine that the tests run on: neither its nodes nor its sessions.
        environment: dict[str, str | None] = {
            "LIGHTCONE_NODES": None,
            "LIGHTCONE_SESSION": None,
            "LIGHTCONE_DEBUG": None,
            "COLUMNS": None,  # tables are as wide as they need to be
            "XDG_STATE_HOME": str(tmp_path / "state"),
            **variables,
        }
        runner = CliRunner(env=environment)
        return await asyncio.to_thread(
            runner.invoke, made(completion=False), arguments, input=stdin
        )

    return run


def at(node: Client | FakeNode) -> tuple[str, str]:
    """The option that names the node."""
    return ("--node", node.url if isinstance(node, FakeNode) else str(node.make_url("/")))


async def replicate(node: Client, key: str, value: bytes) -> None:
    """The node has a write of B to the key, concurrent with all of its own."""
    write = Node("B").write([Put(key, value, "image/x")], 9_000_000_000_000_000)
    batch = wire.encode_batch(Batch("B", "A", VectorClock(), (write,)))
    assert (await node.post("/replicate", data=batch)).status == 200


def cells(line: str) -> list[str]:
    """The cells of a row of a table that are not empty."""
    return re.split(r" {2,}", line.strip())


def document(result: Result, code: int = 0) -> dict[str, Any]:
    """The one document on stdout."""
    assert result.exit_code == code, result.output
    said = json.loads(result.stdout)
    assert isinstance(said, dict)
    return said


# --- get, put, del --------------------------------------------------------------------------------


async def test_a_value_comes_out_byte_for_byte(run: Run, a: FakeNode) -> None:
    value = bytes(range(256)) + b"\r\n"
    assert (await run("put", "x", "-", *at(a), stdin=value)).exit_code == 0
    result = await run("get", "x", *at(a))
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, value, "")
    assert a.stored["x"].content_type == "application/octet-stream"


async def test_a_put_says_the_name_of_the_write(run: Run, a: FakeNode) -> None:
    result = await run("put", "lunch", "noon?", *at(a))
    assert (result.exit_code, result.stdout) == (0, f"A:1 at {a.url}\n")
    assert a.stored["lunch"].content_type == "text/plain; charset=utf-8"
    said = document(await run("put", "lunch", "one?", "--content-type", "text/x", "--json", *at(a)))
    assert (said["dot"], said["context"]) == ("A:2", "lc1;A:2")
    assert a.stored["lunch"].content_type == "text/x"


async def test_a_value_may_be_a_file_and_go_to_one(run: Run, a: FakeNode, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"\xff\x00")
    assert (await run("put", "x", "--file", str(source), *at(a))).exit_code == 0
    result = await run("get", "x", "-o", str(target), *at(a))
    assert (result.exit_code, result.stdout) == (0, "")
    assert target.read_bytes() == b"\xff\x00"
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


async def test_values_are_text_or_base64_for_programs(run: Run, node: Client) -> None:
    await run("put", "text", "né", *at(node))
    await run("put", "bytes", "-", *at(node), stdin=b"\xff\xfe")
    said = document(await run("get", "text", "--json", *at(node)))
    assert (said["found"], said["text"], said["siblings"]) == (True, "né", 1)
    said = document(await run("get", "bytes", "--json", *at(node)))
    assert base64.b64decode(said["base64"]) == b"\xff\xfe"


async def test_a_key_without_a_value_is_a_no(run: Run, a: FakeNode) -> None:
    result = await run("get", "nothing", *at(a))
    assert (result.exit_code, result.stdout) == (Code.NO, "")
    assert "has no value" in result.stderr
    said = document(await run("get", "nothing", "--json", *at(a)), Code.NO)
    assert said["found"] is False
    assert (await run("get", "nothing", "--siblings", *at(a))).exit_code == Code.NO


async def test_siblings_are_told_of_and_shown(run: Run, node: Client) -> None:
    await run("put", "menu", "soup", *at(node))
    await replicate(node, "menu", b"\xff\xff")
    result = await run("get", "menu", *at(node))
    assert result.stdout_bytes == b"\xff\xff"
    assert "2 versions side by side" in result.stderr
    result = await run("get", "menu", "--siblings", *at(node))
    first, second = result.stdout.splitlines()[2:4]
    assert first.split()[:3] == ["wins", "B:1", "image/x"] and "2 B of binary" in first
    assert second.split()[0] == "A:1" and second.rstrip().endswith("soup")
    said = document(await run("get", "menu", "--siblings", "--json", *at(node)))
    assert [one["dot"] for one in said["siblings"]] == ["B:1", "A:1"]
    assert said["etag"] == '"A:1,B:1"'


async def test_a_delete_takes_the_value_away(run: Run, node: Client) -> None:
    await run("put", "x", "1", *at(node))
    result = await run("del", "x", *at(node))
    assert (result.exit_code, result.stdout) == (0, f"A:2 at {at(node)[1].rstrip('/')}\n")
    said = document(await run("del", "x", "--json", *at(node)))
    assert (said["deleted"], said["dot"], said["replicas"]) == (True, "A:3", [])
    assert (await run("get", "x", *at(node))).exit_code == Code.NO


async def test_conditions_hold_or_nothing_is_done(run: Run, node: Client) -> None:
    assert (await run("put", "x", "1", "--if-none-match", *at(node))).exit_code == 0
    result = await run("put", "x", "2", "--if-none-match", *at(node))
    assert (result.exit_code, result.stdout) == (Code.PRECONDITION_FAILED, "")
    assert 'x has the ETag "A:1"' in result.stderr and "Nothing was changed" in result.stderr
    assert (await run("put", "x", "2", "--if-match", "A:1", *at(node))).exit_code == 0
    assert (await run("del", "x", "--if-match", '"A:1"', *at(node))).exit_code == (
        Code.PRECONDITION_FAILED
    )
    said = document(await run("put", "y", "1", "--if-match", "*", "--json", *at(node)), 5)
    assert (said["error"]["kind"], said["error"]["outcome"]) == (
        "precondition-failed",
        "not_applied",
    )
    assert (await run("get", "x", *at(node))).stdout == "2"


async def test_a_write_that_too_few_nodes_hold_stands(run: Run, node: Client) -> None:
    result = await run("put", "x", "1", "--replicas", "2", "--wait", "0.1", *at(node))
    assert result.exit_code == Code.REPLICAS_MISSING
    assert "A:1 is held by A" in result.stderr and "stands" in result.stderr
    assert (await run("get", "x", *at(node))).stdout == "1"


async def test_a_stale_read_says_so(run: Run, node: Client, tmp_path: Path) -> None:
    await run("put", "x", "1", *at(node))
    file = tmp_path / "ahead"
    file.write_text("lc1;B:7\n")
    session = ("--session-file", str(file), "--wait", "0")
    result = await run("get", "x", *session, *at(node))
    assert result.exit_code == Code.NOT_APPLIED and "B:7" in result.stderr
    result = await run("get", "x", "--stale", *session, *at(node))
    assert (result.exit_code, result.stdout) == (0, "1")
    assert "Stale" in result.stderr
    assert file.read_text() == "lc1;B:7\n"


# --- lists, transactions, explanations ------------------------------------------------------------


async def test_keys_are_listed_one_a_line(run: Run, node: Client) -> None:
    for key in ("b", "a/2", "a/1", "line\nbreak \x1b[31m[bold]"):
        await run("put", key, "x", *at(node))
    result = await run("ls", *at(node))
    assert result.stdout == "a/1\na/2\nb\nline\\nbreak \\x1b[31m[bold]\n"
    assert (await run("ls", "a/", *at(node))).stdout == "a/1\na/2\n"
    result = await run("ls", "--limit", "2", *at(node))
    assert result.stdout == "a/1\na/2\n" and "more than 2" in result.stderr
    said = document(await run("ls", "--limit", "4", "--json", *at(node)))
    assert (said["keys"][3], said["more"]) == ("line\nbreak \x1b[31m[bold]", False)
    result = await run("ls", "zzz", *at(node))
    assert (result.exit_code, result.stdout) == (0, "")


OPS = b'{"ops": [{"get": "stock"}, {"put": "order", "value": "1", "if": null}, {"delete": "cart"}]}'


async def test_a_transaction_is_done_as_one(run: Run, node: Client, tmp_path: Path) -> None:
    await run("put", "stock", "3", *at(node))
    result = await run("txn", "-", *at(node), stdin=OPS)
    assert result.exit_code == 0 and "Done as A:2" in result.stdout
    said = document(
        await run("txn", "-", "--json", *at(node), stdin=b'[{"get": "order"}, {"get": "none"}]')
    )
    assert (said["dot"], said["read"]["order"][0]["text"], said["read"]["none"]) == (None, "1", [])
    file = tmp_path / "ops.json"
    file.write_bytes(OPS)
    result = await run("txn", str(file), *at(node))
    assert result.exit_code == Code.PRECONDITION_FAILED and "order has the ETag" in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("1", "a list"),
        ('{"ops": [1]}', "a list"),
        ('{"ops": [], "more": 1}', "a list"),
        ('[{"take": "x"}]', "ops[0]"),
        ('[{"get": "x"}, {"get": "x", "put": "x"}]', "ops[1]"),
        ('[{"get": "x", "value": "1"}]', "'value'"),
        ('[{"put": "x"}]', "'value' or 'base64'"),
        ('[{"put": "x", "value": 1}]', "'value' is no text"),
        ('[{"put": "x", "value": null}]', "'value' is no text"),
        ('[{"put": "x", "base64": "?"}]', "'base64'"),
        ('[{"put": "x", "value": "1", "if": 1}]', "'if' is no text"),
        ("\xff", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
async def test_a_bad_transaction_is_refused(run: Run, a: FakeNode, text: str, said: str) -> None:
    result = await run("txn", "-", *at(a), stdin=text.encode("latin-1"))
    assert (result.exit_code, result.stdout) == (Code.BAD_INPUT, "")
    assert said in result.stderr
    assert a.seen == []


async def test_a_conflict_is_listed_explained_and_settled(run: Run, node: Client) -> None:
    await run("put", "menu", "soup", *at(node))
    await replicate(node, "menu", b"salad")
    result = await run("conflicts", *at(node))
    assert result.stdout.splitlines()[2].split() == ["menu", "2", '"A:1,B:1"']
    said = document(await run("conflicts", "me", "--json", *at(node)))
    assert said["conflicts"] == [{"key": "menu", "etag": '"A:1,B:1"', "siblings": 2}]
    result = await run("explain", "menu", *at(node))
    assert result.stdout.startswith("menu is B:1. ")
    assert "all writes ever made" in result.stdout
    [winner] = [line for line in result.stdout.splitlines() if line.startswith("wins")]
    assert winner.split()[1] == "B:1" and winner.rstrip().endswith("A:1")
    said = document(await run("explain", "menu", "--json", *at(node)))
    assert (said["winner"], said["complete"]) == ("B:1", True)
    assert (await run("put", "menu", "both", "--if-match", "A:1,B:1", *at(node))).exit_code == 0
    result = await run("conflicts", *at(node))
    assert (result.exit_code, result.stdout) == (0, "") and "No conflicts" in result.stderr
    assert "has no value" in (await run("explain", "nothing", *at(node))).stdout


async def test_an_explanation_shows_what_is_deferred(
    run: Run, node: Client, tmp_path: Path
) -> None:
    b, session = Node("B"), tmp_path / "session"
    _, late = (b.write([Put(key, b"x")], 1) for key in ("first", "second"))
    batch = wire.encode_batch(Batch("B", "A", VectorClock(), (late,)))
    assert (await node.post("/replicate", data=batch)).status == 200
    session.write_text("lc1;B:2")
    put = ("put", "menu", "soup", "--deferred", "--session-file", str(session))
    assert (await run(*put, *at(node))).exit_code == 0
    shown = (await run("explain", "menu", *at(node))).stdout
    assert shown.startswith("menu has no value. ")
    [line] = [cells(line) for line in shown.splitlines() if line.startswith("A+:1")]
    assert line[:3] == ["A+:1", "put", "B:2"]


# --- nodes ----------------------------------------------------------------------------------------


async def test_the_status_of_all_nodes_is_shown(run: Run, node: Client) -> None:
    await run("put", "x", "1", *at(node))
    result = await run("status", *at(node), "--node", NOWHERE)
    assert result.exit_code == 0
    lines = [cells(line) for line in result.stdout.splitlines()]
    url = at(node)[1].rstrip("/")
    assert lines[:2] == [
        ["Nodes"],
        ["node", "address", "actor", "clock", "pending", "deferred", "log", "state"],
    ]
    assert lines[3][:6] + lines[3][7:] == ["A", url, "A", "A:1", "0", "0", "ok"]
    assert re.fullmatch(r"1, \d\.\d kB", lines[3][6])
    assert lines[4] == ["held back by B (1), C (1)"]
    assert lines[5][:2] == ["?", NOWHERE] and f"{NOWHERE} cannot be reached" in lines[5][2]
    assert lines[7][0] == "Links"
    assert lines[8] == ["link", "state", "lag", "behind by", "skew", "heard"]
    for line, peer in zip(lines[10:], ("B", "C"), strict=True):
        link, state, lag, behind_by, *rest = line
        assert (link, state, lag) == (f"A → {peer}", "unreachable", "1")
        assert re.fullmatch(r"\d+\.\d s", behind_by)
        assert rest == ["-", "-", f"there is no {peer} in this test"]
    said = document(await run("status", "--json", *at(node), "--node", NOWHERE))
    assert said["nodes"][at(node)[1].rstrip("/")]["clock"] == {"A": 1}
    assert "cannot be reached" in said["nodes"][NOWHERE]["error"]


async def test_writes_that_wait_are_listed(run: Run, node: Client) -> None:
    result = await run("pending", *at(node))
    assert (result.exit_code, result.stdout) == (0, "") and "No writes wait" in result.stderr
    origin = Node("B")
    origin.write([Put("question", b"?", "text/plain")], 1)
    late = origin.write([Put("answer", b"!", "text/plain")], 2)
    batch = wire.encode_batch(Batch("B", "A", VectorClock(), (late,)))
    assert (await node.post("/replicate", data=batch)).status == 200
    [line] = (await run("pending", *at(node))).stdout.splitlines()[2:]
    *shown, since = cells(line)
    url = at(node)[1].rstrip("/")
    assert shown == [url, "B:2", "answer", "B:1", "B:1", "B:1 from B"]
    assert re.fullmatch(r"\d+\.\d s", since)
    said = document(await run("pending", "--json", *at(node)))
    [waiting] = said["nodes"].values()
    assert waiting["writes"][0]["waiting_for"] == ["B:1"]


async def test_readiness_is_an_exit_code(run: Run, a: FakeNode) -> None:
    assert (await run("ready", *at(a))).exit_code == 0
    result = await run("ready", *at(a), "--node", NOWHERE)
    assert result.exit_code == Code.NO and "not ready" in result.stdout
    said = document(await run("ready", "--any", "--json", *at(a), "--node", NOWHERE))
    assert said == {"ready": True, "nodes": {a.url: True, NOWHERE: False}}


async def test_a_node_is_added_and_removed(run: Run, node: Client) -> None:
    added = await run("members", "add", "D", "http://127.0.0.1:4", *at(node))
    assert added.exit_code == 0, added.stderr
    assert "D is a member" in added.stdout
    said = document(await run("members", "list", "--json", *at(node)))
    assert [one["id"] for one in said["members"]] == ["A", "B", "C", "D"]
    assert (await run("members", "remove", "D", *at(node))).exit_code == 0
    assert "removed" in (await run("members", "list", *at(node))).stdout
    assert (await run("members", "remove", "Q", *at(node))).exit_code == Code.BAD_INPUT
    assert (await run("members", "add", "E", "nowhere", *at(node))).exit_code == Code.BAD_INPUT


async def test_links_are_broken_and_healed(run: Run, a: FakeNode) -> None:
    result = await run("fault", "set", "A", "B", "--cut", "--delay-ms", "5", *at(a))
    assert result.stdout == "The link from A to B has: delay_ms 5, cut\n"
    assert a.faults["B"]["cut"] is True
    assert (await run("fault", "heal", a.url, "B", *at(a))).exit_code == 0
    assert a.faults == {}
    result = await run("fault", "heal", "--all", *at(a))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No link had a fault.\n")
    result = await run("fault", "set", "Q", "B", "--cut", *at(a))
    assert result.exit_code == Code.BAD_INPUT and "are A" in result.stderr


async def test_who_heals_all_links_hears_of_the_nodes_that_do_not_answer(
    run: Run, a: FakeNode
) -> None:
    heal = ("fault", "heal", "--all", *at(a), "--node", NOWHERE)
    result = await run(*heal)
    assert (result.exit_code, result.stdout) == (Code.NOT_APPLIED, "")
    assert result.stderr == f"No answer from {NOWHERE}: what faults there are stay there.\n"
    said = document(await run(*heal, "--json"), Code.NOT_APPLIED)
    assert said == {"healed": [], "unanswered": [NOWHERE]}


# --- sessions -------------------------------------------------------------------------------------


async def test_a_session_goes_on_from_command_to_command(
    run: Run, a: FakeNode, b: FakeNode, tmp_path: Path
) -> None:
    assert (await run("put", "x", "1", "--session", "ann", *at(a))).exit_code == 0
    file = tmp_path / "state" / "lightcone" / "sessions" / "ann"
    assert file.read_text() == "lc1;A:1\n"
    assert file.stat().st_mode & 0o777 == 0o600
    result = await run("get", "x", *at(b), "--wait", "0", LIGHTCONE_SESSION="ann")
    assert result.exit_code == Code.NOT_APPLIED and "A:1" in result.stderr
    await b.learn(a)
    assert (await run("get", "x", "--session", "ann", *at(b))).stdout == "1"
    assert (await run("get", "x", "--session", "bob", *at(b))).stdout == "1"
    assert b.seen[-1].context == ""
    other = tmp_path / "other"
    given = ("get", "x", "--session-file", str(other), *at(b))
    assert (await run(*given, LIGHTCONE_SESSION="ann")).stdout == "1"
    assert other.exists() and b.seen[-1].context == ""


async def test_a_refusal_is_part_of_the_session(run: Run, node: Client, tmp_path: Path) -> None:
    await run("put", "x", "1", *at(node))
    file = tmp_path / "session"
    result = await run("put", "x", "2", "--if-none-match", "--session-file", str(file), *at(node))
    assert result.exit_code == Code.PRECONDITION_FAILED
    assert file.read_text() == "lc1;A:1\n"


def takes_away(file: Path, serves: Misbehaviour) -> Misbehaviour:
    """Meanwhile the file cannot be written any more."""

    def take_away(request: web.Request) -> Awaitable[web.StreamResponse]:
        file.mkdir()
        return serves(request)

    return take_away


async def test_a_session_that_cannot_be_kept_is_said_after_the_result(
    run: Run, a: FakeNode, tmp_path: Path
) -> None:
    file = tmp_path / "session"
    a.misbehaviours.append(takes_away(file, a._serve))
    result = await run("put", "x", "1", "--session-file", str(file), *at(a))
    assert (result.exit_code, result.stdout) == (Code.LOCAL, f"A:1 at {a.url}\n")
    assert "The request itself is done" in result.stderr


async def test_a_session_that_cannot_be_kept_is_said_before_what_failed(
    run: Run, a: FakeNode, tmp_path: Path
) -> None:
    file = tmp_path / "session"
    held = refuses("replicas-missing", 504, dot="A:1", nodes=["A"], outcome="applied")
    a.misbehaviours.append(takes_away(file, held))
    result = await run("put", "x", "1", "--replicas", "2", "--session-file", str(file), *at(a))
    assert result.exit_code == Code.REPLICAS_MISSING
    assert result.stderr.index("it lacks the last request") < result.stderr.index("is held by A")


@pytest.mark.parametrize("held", [b"\xff", b"one\ntwo"])
async def test_a_file_that_is_no_session_is_refused(
    run: Run, a: FakeNode, tmp_path: Path, held: bytes
) -> None:
    file = tmp_path / "session"
    file.write_bytes(held)
    result = await run("get", "x", "--session-file", str(file), *at(a))
    assert result.exit_code == Code.BAD_INPUT and "holds no context" in result.stderr
    assert (file.read_bytes(), a.seen) == (held, [])


# --- loading --------------------------------------------------------------------------------------


async def test_a_file_of_puts_is_loaded(run: Run, node: Client, tmp_path: Path) -> None:
    file = tmp_path / "puts.jsonl"
    file.write_text("".join(f'{{"key": "k{n}", "value": "{n}"}}\n' for n in range(150)))
    result = await run("load", str(file), *at(node))
    assert result.exit_code == 0 and result.stdout == f"150 puts are done: {file} to line 150.\n"
    assert document(await run("get", "k149", "--json", *at(node)))["text"] == "149"
    said = document(
        await run("load", "-", "--skip", "148", "--json", *at(node), stdin=file.read_bytes())
    )
    assert (said["lines"], said["puts"]) == (150, 2)


async def test_a_load_that_fails_says_how_to_go_on(run: Run, node: Client, tmp_path: Path) -> None:
    file = tmp_path / "puts.jsonl"
    file.write_text('{"key": "x", "value": "1"}\n' * 3 + "garbage\n")
    result = await run("load", str(file), "--skip", "1", *at(node))
    assert result.exit_code == Code.BAD_INPUT
    assert "Line 4 is no put" in result.stderr and "--skip 3" in result.stderr
    result = await run("load", str(tmp_path / "none"), *at(node))
    assert result.exit_code == Code.LOCAL and "cannot be read" in result.stderr
    file.write_text('{"key": "x", "value": "1"}')
    result = await run("load", str(file), "--node", NOWHERE)
    assert result.exit_code == Code.NOT_APPLIED and "--skip 0" in result.stderr


async def test_a_load_that_fails_says_what_became_of_all_its_lines(run: Run, node: Client) -> None:
    """Of the bad line alone it would be certain that it changed nothing."""
    good, bad = b'{"key": "x", "value": "1"}\n', b"garbage\n"
    for lines, outcome in ((good + bad, "unknown"), (b"\n" + bad, "not_applied")):
        result = await run("load", "-", "--json", *at(node), stdin=lines)
        error = document(result, Code.BAD_INPUT)["error"]
        assert (error["outcome"], "Line 2 is no put" in error["detail"]) == (outcome, True)


class BreaksOff(io.RawIOBase):
    """A file of which nothing can be read after its beginning, which is there at once."""

    def __init__(self, beginning: bytes) -> None:
        self._beginning = beginning

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._beginning:
            raise OSError(errno.EIO, "Input/output error")
        part, self._beginning = self._beginning[: len(buffer)], self._beginning[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def loads(monkeypatch: pytest.MonkeyPatch, beginning: bytes) -> None:
    """The file that is loaded breaks off after that."""
    monkeypatch.setattr(cli_input, "_opened", lambda _: nullcontext(BreaksOff(beginning)))


@pytest.mark.parametrize("skip", [0, 20])
async def test_a_load_whose_file_breaks_off_says_how_to_go_on(
    run: Run, node: Client, skip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(f'{{"key": "k{n}", "value": "{n}"}}\n' for n in range(150)).encode()
    loads(monkeypatch, lines)
    result = await run("load", "-", "--skip", str(skip), "--json", *at(node))
    error = document(result, Code.LOCAL)["error"]
    assert (error["outcome"], error["kind"]) == ("unknown", "local-trouble")
    assert "cannot be read any more" in error["detail"]
    assert f"The first {skip + 100} lines are in" in result.stderr
    assert f"--skip {skip + 100}" in result.stderr
    there = [f"k{n}" for n in range(skip, skip + 100)]
    said = document(await run("ls", "--json", *at(node)))
    assert sorted(said["keys"]) == sorted(there)


async def test_a_load_whose_file_breaks_off_in_what_is_skipped_has_sent_nothing(
    run: Run, a: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads(monkeypatch, b"\n" * 9)
    result = await run("load", "-", "--skip", "10", *at(a))
    assert (result.exit_code, a.seen) == (Code.LOCAL, [])
    assert "cannot be read any more" in result.stderr


@pytest.mark.parametrize("command", [("put", "x", "-"), ("txn", "-")], ids=" ".join)
async def test_standard_input_that_breaks_off_is_not_sent(
    run: Run, a: FakeNode, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_input, "_opened", lambda _: nullcontext(BreaksOff(b"[")))
    result = await run(*command, *at(a))
    assert (result.exit_code, a.seen) == (Code.BAD_INPUT, [])
    assert "Standard input cannot be read: Input/output error. Nothing was sent" in result.stderr


# --- backups --------------------------------------------------------------------------------------


async def test_a_name_that_no_file_can_have_is_told_as_one(run: Run, a: FakeNode) -> None:
    """And not as an output, after which the request would be done."""
    result = await run("backup", "x" * 300, *at(a))
    assert (result.exit_code, a.seen) == (Code.LOCAL, [])
    assert "cannot be written: File name too long" in result.stderr
    assert "is done" not in result.stderr


async def test_a_backup_is_made_and_put_back(run: Run, node: Client, tmp_path: Path) -> None:
    await run("put", "x", "1", *at(node))
    file = tmp_path / "a.backup"
    result = await run("backup", str(file), *at(node))
    assert result.exit_code == 0 and "1 keys" in result.stdout
    result = await run("backup", str(file), *at(node))
    assert result.exit_code == Code.BAD_INPUT and "--force" in result.stderr
    said = document(await run("backup", str(file), "--force", "--json", *at(node)))
    assert (said["keys"], said["bytes"]) == (1, file.stat().st_size)
    said = document(await run("restore", str(file), "--json", *at(node)))
    assert (said["keys"], said["cut"]) == (1, {"A": 1})
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    result = await run("restore", str(file), *at(node))
    assert result.exit_code == Code.BAD_INPUT and "cut short" in result.stderr
    result = await run("backup", str(tmp_path / "none" / "x"), *at(node))
    assert result.exit_code == Code.LOCAL
    file.write_bytes(whole)
    assert (await run("restore", str(file), "--node", NOWHERE)).exit_code == Code.NOT_APPLIED


async def test_that_a_disk_is_full_is_not_taken_for_a_trouble_of_the_node(
    run: Run, node: Client, a: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def full(_file: Path) -> Iterator[BinaryIO]:
        with open("/dev/full", "wb", buffering=0) as out:
            yield out

    a.misbehaviours.append(answers(200, "no backup at all\n"))
    result = await run("backup", str(tmp_path / "a.backup"), *at(a))
    assert result.exit_code == Code.NOT_APPLIED and "it is no backup" in result.stderr
    monkeypatch.setattr("client.backups.replaced", full)
    result = await run("backup", str(tmp_path / "a.backup"), *at(node))
    assert result.exit_code == Code.LOCAL
    assert "a.backup cannot be written: No space left on device" in result.stderr


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (answers(502, "<html>"), Code.UNKNOWN),
        (answers(502), Code.UNKNOWN),
        (answers(504, '{"message": "too slow"}'), Code.UNKNOWN),
        (answers(200, '{"keys": 1e999, "cut": {}}'), Code.UNKNOWN),
        (answers(302, Location="/status"), Code.UNKNOWN),
        (answers(404, "<html>"), Code.NOT_APPLIED),
        (refuses("syncing", 503, outcome="not_applied"), Code.NOT_APPLIED),
    ],
)
async def test_what_answers_a_restore_may_be_no_node(
    run: Run, node: Client, a: FakeNode, tmp_path: Path, answer: Misbehaviour, code: Code
) -> None:
    file, other = tmp_path / "a.backup", tmp_path / "other.backup"
    await run("backup", str(file), *at(node))
    a.misbehaviours += [answer, answer]
    result = await run("restore", str(file), *at(a))
    assert result.exit_code == code
    assert ("may or may not" in result.stderr) == (code == Code.UNKNOWN)
    assert (await run("backup", str(other), *at(a))).exit_code == Code.NOT_APPLIED
    assert [seen.path for seen in a.seen] == ["/restore", "/backup"] and not other.exists()


async def test_what_cannot_be_put_back_is_not_sent(
    run: Run, node: Client, a: FakeNode, tmp_path: Path
) -> None:
    file, pipe = tmp_path / "a.backup", tmp_path / "pipe"
    await run("backup", str(file), *at(node))
    whole = file.read_bytes()
    for total in (b"null", b"1e999", b"[" * 50_000):
        file.write_bytes(re.sub(rb'"total": ?\d+', b'"total":' + total, whole, count=1))
        result = await run("restore", str(file), *at(a))
        assert result.exit_code == Code.BAD_INPUT and "its first line" in result.stderr
    # It is looked through before it is sent, and would be read to its end then.
    os.mkfifo(pipe)
    writing = asyncio.create_task(asyncio.to_thread(pipe.write_bytes, whole))
    result = await run("restore", str(pipe), *at(a))
    assert result.exit_code == Code.BAD_INPUT and "read twice" in result.stderr
    await asyncio.gather(writing, return_exceptions=True)
    assert a.seen == []


async def test_other_requests_go_on_while_a_backup_is_looked_through(
    a: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()

    def look(_file: Path) -> backups.Progress:
        assert goes_on.wait(5), "the event loop stands still"
        raise BadInput("enough")

    monkeypatch.setattr(backups, "check", look)
    asyncio.get_running_loop().call_soon(goes_on.set)
    with pytest.raises(BadInput, match="enough"):
        await backups.restore(a.url, tmp_path / "a.backup")


# --- failures -------------------------------------------------------------------------------------


async def test_a_write_with_an_unknown_outcome_says_so(run: Run, a: FakeNode) -> None:
    a.misbehaviours.append(breaks_off)
    result = await run("put", "x", "1", *at(a))
    assert (result.exit_code, result.stdout) == (Code.UNKNOWN, "")
    assert "may or may not" in result.stderr and "Read before" in result.stderr
    a.misbehaviours.append(refuses("internal", 500, outcome="unknown"))
    said = document(await run("del", "x", "--json", *at(a)), Code.UNKNOWN)
    assert (said["error"]["outcome"], said["error"]["problem"]["status"]) == ("unknown", 500)


@pytest.mark.parametrize("listed", [None, "x", [7], [{"other": 1}]])
async def test_a_problem_that_lists_what_nobody_understands_is_told_all_the_same(
    run: Run, a: FakeNode, listed: object
) -> None:
    for kind, outcome, name, code in (
        ("precondition-failed", "not_applied", "keys", Code.PRECONDITION_FAILED),
        ("replicas-missing", "applied", "nodes", Code.REPLICAS_MISSING),
        ("too-far-back", "not_applied", "missed", Code.BAD_INPUT),
        ("lost", "not_applied", "lost", Code.BAD_INPUT),
    ):
        a.misbehaviours.append(refuses(kind, 410, outcome=outcome, **{name: listed}))
        result = await run("put", "x", "1", *at(a))
        assert result.exit_code == code and "what to do" in result.stderr


async def test_a_node_that_is_not_there_changes_nothing(run: Run) -> None:
    result = await run("put", "x", "1", "--node", NOWHERE, "--timeout", "0.5")
    assert result.exit_code == Code.NOT_APPLIED
    assert "Nothing was changed" in result.stderr and "--node" in result.stderr
    assert (await run("status", "--node", NOWHERE, "--timeout", "0.5")).exit_code == 3


async def test_who_has_seen_what_is_lost_is_told_how_to_go_on(
    run: Run, a: FakeNode, tmp_path: Path
) -> None:
    session = tmp_path / "session"
    session.write_text("lc1;A:5,lc1;C:9")
    put = ("put", "x", "1", *at(a), "--session-file", str(session))
    a.misbehaviours.append(loses("C", 7))
    result = await run(*put)
    assert result.exit_code == Code.BAD_INPUT
    assert "Nothing was changed" in result.stderr and "put lc1;A:5;C:7 in" in result.stderr
    assert "x" not in a.stored
    session.write_text("lc1;A:5;C:7")
    a.clock = {"A": 5, "C": 7}
    assert (await run(*put)).exit_code == 0


BAD = [
    *(["get"], ["get", ""], ["get", "x", "--wait", "-1"], ["get", "k" * 513]),
    *(["get", "x", "--node", "nonsense"], ["get", "x", "--node", ""], ["get", "x", "--nonsense"]),
    *(["get", "x", "--siblings", "--stale"], ["get", "x", "--session", "../x"]),
    ["get", "x", "--session", "a", "--session-file", "b"],
    *(["put", "x"], ["put", "x", "1", "--file", "y"], ["put", "x", "--file", "/nonexistent"]),
    *(
        ["put", "x", "1", "--if-match", "*", "--if-none-match"],
        ["put", "x", "1", "--replicas", "n"],
    ),
    *(["put", "x", "1", "--content-type", "\n"], ["del"], ["del", ""], ["ls", "--limit", "0"]),
    *(
        ["txn"],
        ["txn", "/nonexistent"],
        ["explain"],
        ["explain", ""],
        ["conflicts", "--limit", "x"],
    ),
    *(["put", "x", "1", "--ttl", "0"], ["put", "x", "1", "--ttl", "x"], ["del", "x", "--ttl", "1"]),
    *(["status", "x"], ["status", "--watch", "--json"], ["pending", "--session", "x"]),
    *(["ready", "--timeout", "0"], ["backup"], ["restore", "/nonexistent"], ["nonsense"]),
    *(["backup", "x", "--timeout", "1"], ["restore", "x", "--timeout", "1"]),
    *(["fault", "set", "A", "B"], ["fault", "set", "A"], ["fault", "heal"], ["fault", "heal", "A"]),
    *(["fault", "set", "A", "B", "--drop", "2"], ["fault", "heal", "A", "B", "--all"]),
    *(["declare-lost"], ["declare-lost", "A:1", "--session", "x"]),
    *(["members", "add", "D"], ["members", "remove", ""], ["members", "nonsense"]),
]


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
async def test_bad_input_is_refused_before_anything_is_sent(
    run: Run, a: FakeNode, arguments: list[str]
) -> None:
    nodes = () if "--node" in arguments else at(a)
    result = await run(*arguments, *nodes)
    assert result.exit_code == Code.BAD_INPUT, result.output
    assert "--json" in arguments or result.stdout == ""
    assert result.stderr.strip() and "Traceback" not in result.stderr
    assert a.seen == [] and a.stored == {}


async def test_what_nobody_expects_is_told_without_a_traceback(
    run: Run, a: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("client.answers.written", break_)
    result = await run("put", "x", "1", *at(a))
    assert (result.exit_code, result.stdout) == (Code.INTERNAL, "")
    assert "ZeroDivisionError: oh" in result.stderr and "may or may not" in result.stderr
    assert "Traceback" not in result.stderr
    result = await run("put", "x", "1", *at(a), LIGHTCONE_DEBUG="1")
    assert isinstance(result.exception, ZeroDivisionError)


async def test_what_the_system_refuses_before_a_write_is_done_is_not_told_as_done(
    run: Run, a: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("client.lightcone.Lightcone.__aenter__", refuse)
    result = await run("put", "x", "1", *at(a))
    assert result.exit_code == Code.INTERNAL and "Too many open files" in result.stderr
    assert "may or may not" in result.stderr and "is done" not in result.stderr


async def test_nodes_may_come_from_the_environment(run: Run, a: FakeNode) -> None:
    both = f"X={NOWHERE}, A={a.url}"
    assert (await run("put", "x", "1", LIGHTCONE_NODES=both)).exit_code == 0
    assert (await run("get", "x", LIGHTCONE_NODES=a.url)).stdout == "1"


# --- terminals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"\x1b[31mred", b"\xff\xfe", b"a\x00b"])
def test_a_value_that_would_speak_to_the_terminal_is_not_shown(
    value: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert Screen(as_json=False).show(Said({}, value)) == Code.BAD_INPUT
    shown = capsys.readouterr()
    assert shown.out == "" and "-o FILE" in shown.err


def test_a_value_on_a_terminal_ends_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for value in (b"noon?", "né\n".encode()):
        assert Screen(as_json=False).show(Said({}, value)) == Code.DONE
    assert capsys.readouterr().out == "noon?\nné\n"


def test_nothing_that_comes_from_a_node_can_move_the_cursor() -> None:
    assert clean("a\x1b[2J\r\u202eb\udcff[bold]") == "a\\x1b[2J\\r\\u202eb\\udcff[bold]"
    assert clean("a\nb\x07", keep="\n") == "a\nb\\x07"


# --- processes, and documents ---------------------------------------------------------------------


def interruptible() -> None:
    """Signals do what they do by default, also where the tests run with some of them ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def under_nohup() -> None:
    """SIGHUP is ignored, as by nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


async def process(
    *arguments: str,
    stdin: int = asyncio.subprocess.DEVNULL,
    begin: Callable[[], None] = interruptible,
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "client", *arguments),
        cwd=ROOT,
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
        preexec_fn=begin,
    )


async def test_output_that_cannot_be_written_is_told(a: FakeNode) -> None:
    command = f"{sys.executable} -m client put x 1 --node {a.url} > /dev/full"
    running = await asyncio.create_subprocess_shell(
        command, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    _, err = await running.communicate()
    assert running.returncode == Code.LOCAL
    assert b"No space left" in err and b"itself is done" in err and b"Exception" not in err
    assert a.stored["x"].value == b"1"


@pytest.mark.parametrize("command", ["put x -", "txn -", "load -"])
async def test_standard_input_that_is_closed_is_told(a: FakeNode, command: str) -> None:
    running = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m client {command} --node {a.url} <&-",
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await running.communicate()
    assert (running.returncode, a.seen) == (Code.BAD_INPUT, [])
    assert b"Standard input is closed. Nothing was sent." in err


async def test_what_the_output_has_no_characters_for_is_shown_as_an_escape(node: Client) -> None:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "client", "status", *at(node)),
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await running.communicate()
    assert running.returncode == 0
    assert b"A \\u2192 B" in out


@pytest.mark.parametrize("asked", ["--help", "get --help", "--version"])
async def test_a_help_that_cannot_be_written_is_told(asked: str) -> None:
    running = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m client {asked} > /dev/full", cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    _, err = await running.communicate()
    assert running.returncode == Code.LOCAL
    assert b"No space left" in err and b"Traceback" not in err and b"Exception" not in err


async def test_output_that_nobody_reads_ends_the_command_quietly(a: FakeNode) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "client", "put", "x", "1", *at(a)),
        cwd=ROOT,
        stdout=writer,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writer)
    _, err = await running.communicate()
    assert (running.returncode, err) == (Code.CLOSED, b"")


ENDS = pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)


@ENDS
async def test_an_interrupted_write_says_that_its_outcome_is_unknown(
    a: FakeNode, until: Callable[..., Awaitable[None]], number: signal.Signals
) -> None:
    holds = Holds(a)
    a.misbehaviours.append(holds)
    running = await process("put", "x", "1", "--timeout", "60", *at(a))
    await until(lambda: len(a.seen) == 1)
    running.send_signal(number)
    out, err = await running.communicate()
    holds.release()
    assert (running.returncode, out) == (Code.INTERRUPTED, b"")
    assert b"may or may not" in err and b"Traceback" not in err


async def test_what_nohup_has_a_command_ignore_it_ignores(
    a: FakeNode, until: Callable[..., Awaitable[None]]
) -> None:
    holds = Holds(a)
    a.misbehaviours.append(holds)
    running = await process("put", "x", "1", "--timeout", "60", *at(a), begin=under_nohup)
    await until(lambda: len(a.seen) == 1)
    running.send_signal(signal.SIGHUP)
    holds.release()
    _, err = await running.communicate()
    assert (running.returncode, err) == (0, b"")
    assert a.stored["x"].value == b"1"


INTERRUPTED_AMID_ITS_OWN = """
import asyncio, os, typer
from client.cli_command import Call, command
from client.cli_output import Result

async def run(call: Call) -> Result:
    async def other() -> None:
        os.kill(os.getpid(), NUMBER)
    task = asyncio.create_task(other())
    await asyncio.Event().wait()

typer.run(command(run, writes=True))
"""


@ENDS
async def test_an_interruption_ends_no_task_but_the_commands(number: signal.Signals) -> None:
    """It comes in a step of another one, which would have to tell of what it knows nothing of."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", INTERRUPTED_AMID_ITS_OWN.replace("NUMBER", str(int(number)))),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=interruptible,
    )
    _, err = await running.communicate()
    assert running.returncode == Code.INTERRUPTED
    assert b"may or may not" in err and b"Traceback" not in err


@ENDS
@pytest.mark.parametrize("command", ["put x -", "txn -", "load -"])
async def test_a_command_that_waits_for_its_input_can_be_interrupted(
    a: FakeNode,
    until: Callable[..., Awaitable[None]],
    command: str,
    number: signal.Signals,
) -> None:
    running = await process(*command.split(), *at(a), stdin=asyncio.subprocess.PIPE)
    await until(lambda: len(os.listdir(f"/proc/{running.pid}/task")) > 1)  # one of them reads
    running.send_signal(number)
    assert running.stderr is not None
    async with asyncio.timeout(20):
        err = await running.stderr.read()
        assert await running.wait() == Code.INTERRUPTED
    assert b"may or may not" in err and b"Traceback" not in err and b"Fatal" not in err
    assert a.seen == []


SLOW_NAMES = """
import socket, time
from client.__main__ import main
socket.getaddrinfo = lambda *_, **__: time.sleep(60)
main()
"""


async def test_a_command_does_not_wait_for_a_name_longer_than_it_may() -> None:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SLOW_NAMES, "get", "x"),
        *("--node", "http://slow.example", "--timeout", "0.5"),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(20):
            _, err = await running.communicate()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    assert running.returncode == Code.NOT_APPLIED and b"cannot be reached" in err


async def test_a_load_sends_what_it_has_while_it_waits_for_more(node: Client) -> None:
    running = await process("load", "-", *at(node), stdin=asyncio.subprocess.PIPE)
    assert running.stdin is not None
    async with client.Lightcone([str(node.make_url("/"))]) as kv, asyncio.timeout(20):
        for first in (0, 150):
            lines = [f'{{"key": "k{n}", "value": "x"}}\n' for n in range(first, first + 150)]
            running.stdin.write("".join(lines).encode())
            while await kv.get(f"k{first + 149}") is None:
                await asyncio.sleep(0.01)
    out, err = await running.communicate(b"")
    assert (running.returncode, err) == (0, b"")
    assert out == b"300 puts are done: - to line 300.\n"


async def test_input_that_another_program_has_set_not_to_wait_is_waited_for(a: FakeNode) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    running = await process("put", "x", "-", *at(a), stdin=reader)
    os.close(reader)
    os.write(writer, b"no")
    os.write(writer, b"on?")
    os.close(writer)
    _, err = await running.communicate()
    assert (running.returncode, err) == (0, b"")
    assert a.stored["x"].value == b"noon?"


@ENDS
async def test_an_interrupted_backup_leaves_no_file(
    a: FakeNode, until: Callable[..., Awaitable[None]], number: signal.Signals, tmp_path: Path
) -> None:
    holds = Holds(a)
    a.misbehaviours.append(holds)
    running = await process("backup", str(tmp_path / "a.backup"), *at(a))
    await until(lambda: len(a.seen) == 1)
    assert os.listdir(tmp_path)
    running.send_signal(number)
    await running.communicate()
    holds.release()
    assert running.returncode == Code.INTERRUPTED
    assert os.listdir(tmp_path) == []


async def test_a_status_is_watched_until_it_is_interrupted(
    a: FakeNode, until: Callable[..., Awaitable[None]]
) -> None:
    running = await process("status", "--watch", "--interval", "0.1", *at(a))
    await until(lambda: len(a.seen) > 3)
    running.send_signal(signal.SIGINT)
    out, err = await running.communicate()
    assert (running.returncode, err) == (Code.INTERRUPTED, b"")
    assert a.url in out.decode()


async def test_a_status_that_is_watched_through_a_pipe_is_told_each_time(a: FakeNode) -> None:
    running = await process("status", "--watch", "--interval", "0.1", *at(a))
    assert running.stdout is not None
    async with asyncio.timeout(60):
        for _ in range(3):
            while (line := await running.stdout.readline()).strip() != b"Nodes":
                assert line
    running.send_signal(signal.SIGINT)
    await running.communicate()
    assert running.returncode == Code.INTERRUPTED


@pytest.mark.timeout(180)
async def test_a_script_talks_to_real_nodes(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, nodes=2) as cluster:
        first, second = cluster.urls.values()
        session = ("--session-file", str(tmp_path / "session"), "--wait", "20", "--timeout", "30")

        async def run(*arguments: str, code: int = 0) -> Any:
            running = await process(*arguments, "--json", "--timeout", "30")
            out, err = await running.communicate()
            assert running.returncode == code, err
            return json.loads(out)

        assert (await run("put", "lunch", "noon?", "--node", first, *session))["dot"] == "A:1"
        assert (await run("get", "lunch", "--node", second, *session))["text"] == "noon?"
        refused = await run("put", "lunch", "x", "--if-none-match", "--node", second, code=5)
        assert refused["error"]["exit_code"] == 5
        assert (await run("get", "none", "--node", first, code=1))["found"] is False
        assert (await run("get", "", "--node", first, code=2))["error"]["outcome"] == "not_applied"
        both = ("--node", first, "--node", second)
        await run("fault", "set", "A", "B", "--cut", *both)
        status = (await run("status", *both))["nodes"]
        assert {node["node"] for node in status.values()} == {"A", "B"}
        heal = ("fault", "heal", "--all", *both)
        healed = await run(*heal, "--node", NOWHERE, code=3)
        assert healed == {"healed": [{"node": first, "peer": "B"}], "unanswered": [NOWHERE]}
        assert await run(*heal) == {"healed": [], "unanswered": []}
        assert (await run("ready", *both))["ready"] is True


def commands() -> list[str]:
    found = []
    for name, command in typer.main.get_command(made(completion=False)).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        found += [name] if below is None else [f"{name} {one}" for one in below]
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_is_documented_and_has_a_help(command: str) -> None:
    assert f"`{command}" in (ROOT / "docs" / "cli.md").read_text()
    result = CliRunner().invoke(made(completion=False), [*command.split(), "--help"])
    assert result.exit_code == 0 and "--json" in result.stdout


@pytest.mark.parametrize("code", list(Code))
def test_every_exit_code_is_documented(code: Code) -> None:
    assert f"| {int(code)} |" in (ROOT / "docs" / "cli.md").read_text()


def test_the_client_is_of_the_version_of_the_node() -> None:
    assert client.__version__ == app.__version__
    result = CliRunner().invoke(made(completion=False), ["--version"])
    assert result.stdout == f"lightcone {app.__version__}\n"
