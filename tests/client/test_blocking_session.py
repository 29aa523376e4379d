"""The client for scripts: what it gives back is what the other one would have been awaited for."""

import asyncio
import inspect
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import assert_type

import pytest
from redis import Redis as BlockingRedis

from client import (
    BadInput,
    BlockingSession,
    Lightcone,
    NotCaughtUp,
    Session,
    Status,
    Transaction,
    Unreachable,
    Version,
    Written,
    blocking,
)
from tests.client.fake_node import FakeNode, Holds
from tests.one_node import node_a

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def node(redis_socket: Path) -> AsyncIterator[str]:
    """The URL of a real node A, alone and empty, in the event loop of the test."""
    with BlockingRedis(unix_socket_path=str(redis_socket)) as redis:
        redis.flushall()
    async with node_a(f"unix://{redis_socket}?db=8") as client:
        yield str(client.make_url("/"))


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_it_has_all_that_a_session_has_in_the_same_words() -> None:
    assert public(BlockingSession) == public(Session)
    for name in public(Session) - {"go_on"}:
        ours, theirs = getattr(BlockingSession, name), getattr(Session, name)
        assert inspect.getdoc(ours) == inspect.getdoc(theirs)


def reads_and_writes(url: str) -> None:
    with blocking(Lightcone([url])) as kv:
        written = kv.put("lunch", "noon?", replicas=1)
        assert_type(written, Written)
        assert (written.dot, kv.context) == ("A:1", "lc1;A:1")
        lunch = kv.get("lunch")
        assert_type(lunch, Version | None)
        assert lunch is not None and lunch.text == "noon?"
        assert [version.dot for version in kv.siblings("lunch")] == ["A:1"]
        assert kv.delete("lunch").dot == "A:2"
        assert kv.get("lunch") is None
        status = kv.status()
        assert_type(status, Status)
        assert status["node"] == "A"
        assert kv.ready() is True
        assert kv.explain("lunch")["history"][0]["does"] == "delete"
        assert kv.nodes == (url.rstrip("/"),)


async def test_a_script_reads_and_writes(node: str) -> None:
    await asyncio.to_thread(reads_and_writes, node)


def transacts(url: str) -> None:
    with blocking(Lightcone([url])) as kv:
        with kv.txn() as txn:
            assert_type(txn, Transaction)
            txn.get("stock")
            txn.put("order", "1 pizza", if_none_match="*")
        assert txn.result.dot == "A:1" and txn.result.winner("stock") is None
        with pytest.raises(ZeroDivisionError), kv.txn() as txn:
            txn.delete("order")
            raise ZeroDivisionError
        order = kv.get("order")
        assert order is not None and order.text == "1 pizza"


async def test_a_transaction_is_done_at_the_end_of_its_block_if_that_does_not_fail(
    node: str,
) -> None:
    await asyncio.to_thread(transacts, node)


def lists(url: str) -> None:
    with blocking(Lightcone([url])) as kv:
        with kv.txn() as txn:
            for number in range(30):
                txn.put(f"user/{number:02}", "x")
        users = kv.list("user/", page=7)
        assert_type(users, Iterator[str])
        assert list(users) == [f"user/{number:02}" for number in range(30)]
        for user in kv.list("user/", page=7):
            if user == "user/08":
                break
        left_open = kv.list("user/", page=7)
        assert next(left_open) == "user/00"
        assert list(kv.conflicts()) == []
    with pytest.raises(RuntimeError, match="not open"):
        next(left_open)


async def test_what_is_listed_can_be_gone_through_to_its_end_or_not(node: str) -> None:
    await asyncio.to_thread(lists, node)


def refused(url: str) -> None:
    with blocking(Lightcone([url], timeout_s=2)) as kv:
        with pytest.raises(BadInput, match="512"):
            kv.put("k" * 513, "x")
        with pytest.raises(BadInput, match="seconds"):
            kv.session(timeout_s=-1)
        ahead = kv.session(context="lc1;B:7", patience_s=0)
        with pytest.raises(NotCaughtUp):
            ahead.get("lunch")
        with pytest.raises(Unreachable):
            kv.at("http://127.0.0.1:1").get("lunch")


async def test_its_errors_are_those_of_the_other_client(node: str) -> None:
    await asyncio.to_thread(refused, node)


def sessions(url: str) -> None:
    with blocking(Lightcone([url])) as kv:
        ann = kv.session(name="ann")
        assert ann.name == "ann"
        ann.put("lunch", "noon?")
        assert (ann.context, kv.context) == ("lc1;A:1", "")
        here = ann.at(url)
        here.put("lunch", "one?")
        assert ann.context == here.context == "lc1;A:2"
        handed_on = kv.session(context=ann.context)
        assert handed_on.context == "lc1;A:2"


async def test_sessions_are_made_of_it_as_of_the_other_client(node: str) -> None:
    await asyncio.to_thread(sessions, node)


def shared(url: str) -> None:
    with blocking(Lightcone([url], timeout_s=60)) as kv:

        def write(number: int) -> None:
            for turn in range(5):
                assert kv.put(f"{number}/{turn}", "x").dot and kv.context

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(kv.list())) == 40
        assert kv.context == "lc1;A:40"


async def test_threads_may_share_a_session(node: str) -> None:
    await asyncio.to_thread(shared, node)


def closes(url: str, nowhere: Path) -> None:
    with blocking(Lightcone([url])) as kv:
        kv.put("lunch", "noon?")
    with pytest.raises(RuntimeError, match="not open"):
        kv.get("lunch")
    assert not [one for one in threading.enumerate() if one.name == "lightcone"]
    with pytest.raises(OSError), blocking(Lightcone([url], record=nowhere)):
        pass
    assert not [one for one in threading.enumerate() if one.name == "lightcone"]


async def test_nothing_of_it_is_left_after_its_block(node: str, tmp_path: Path) -> None:
    await asyncio.to_thread(closes, node, tmp_path / "none" / "file")


@pytest.mark.timeout(30)
def test_who_comes_while_it_ends_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with blocking(Lightcone(["http://127.0.0.1:1"])) as kv:
        thread = kv._loop._thread
        join = thread.join

        def refused() -> None:
            with pytest.raises(RuntimeError, match="not open"):
                kv.get("lunch")

        def joins() -> None:
            refused()
            join()
            refused()

        monkeypatch.setattr(thread, "join", joins)


FORKED = """
import os
from client import Lightcone, blocking
with blocking(Lightcone(["http://127.0.0.1:1"])) as kv:
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    try:
        kv.get("lunch")
    except RuntimeError as error:
        os._exit("in the process" in str(error))
"""


async def test_a_process_that_was_forked_is_told_that_it_has_none() -> None:
    running = await asyncio.create_subprocess_exec(sys.executable, "-c", FORKED, cwd=ROOT)
    try:
        assert await asyncio.wait_for(running.wait(), 20) == 1
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


INTERRUPTED = """
import sys
from client import Lightcone, blocking
with blocking(Lightcone([sys.argv[1]], timeout_s=600)) as kv:
    try:
        kv.put("lunch", "noon?")
    except KeyboardInterrupt:
        print("interrupted")
    print(kv.get("dinner"))
"""


async def test_a_ctrl_c_ends_the_request_that_is_waited_for(
    a: FakeNode, until: Callable[..., Awaitable[None]]
) -> None:
    holds = Holds(a)
    a.misbehaviours.append(holds)
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", INTERRUPTED, a.url),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    await until(lambda: bool(a.seen))
    running.send_signal(signal.SIGINT)
    out, _ = await running.communicate()
    holds.release()
    assert (running.returncode, out.split()) == (0, [b"interrupted", b"None"])


@pytest.mark.parametrize(
    ("name", "says"),
    [("asyncio.run(", b"A:1 noon? lc1;A:1\n"), ("blocking(", b"stock/pizza 2\n")],
)
async def test_the_scripts_in_the_readme_do_what_they_say(
    node: str, name: str, says: bytes
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    [script] = [block for block in blocks if name in block]
    script = script.replace("http://127.0.0.1:8001", node)
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await running.communicate()
    assert (running.returncode, out) == (0, says)
