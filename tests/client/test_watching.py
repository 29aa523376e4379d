"""Watching: what a watcher is told, and that it is told on when its node fails."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.local_nodes import LocalCluster
from client import (
    BadInput,
    Begin,
    Change,
    Cut,
    KeyState,
    Lightcone,
    Lost,
    MissedWrites,
    NotApplied,
    NotCaughtUp,
    TooFarBack,
    Unreachable,
    Watched,
)
from tests.client.fake_node import FakeNode, Misbehaviour, answers, breaks_off, loses, refuses
from tests.load import Load
from tests.processes import WHOLE_LOGS, until, until_equal_clocks


async def take(told: AsyncIterator[Watched], count: int) -> list[Watched]:
    return [await anext(told) for _ in range(count)]


def event(kind: str, at: str = "", **data: object) -> str:
    place = f"id: {at}\n" if at else ""
    return f"{place}event: {kind}\ndata: {json.dumps(data)}\n\n"


def cut(at: str) -> str:
    return event("cut", at, clock={})


def write(dot: str, at: str, key: str = "x") -> str:
    put = {"put": key, "content_type": "text/plain", "text": dot}
    return event("write", at, dot=dot, node="A", timestamp=1, dependencies={}, operations=[put])


def end(kind: str, status: int, at: str = "", **more: object) -> str:
    fields: dict[str, Any] = {"type": f"urn:lightcone:{kind}", "status": status, **more}
    return event("end", at, outcome="not_applied", detail=kind, **fields)


def streams(*texts: str | bytes, holds: bool = False) -> Misbehaviour:
    """The node streams this, in pieces as they are; then it breaks off, or says no more."""

    async def misbehave(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for text in texts:
            await response.write(text.encode() if isinstance(text, str) else text)
            await asyncio.sleep(0)
        while holds and request.transport is not None:
            await asyncio.sleep(0.01)
        return response

    return misbehave


def asked(node: FakeNode) -> list[tuple[str, str]]:
    """With what since and context each request for a watch came."""
    return [(seen.query.get("since", ""), seen.context) for seen in node.seen]


# --- one node -------------------------------------------------------------------------------------


async def test_the_state_is_told_and_then_each_write(kv: Lightcone) -> None:
    await kv.put("lunch", "noon?")
    await kv.put("image", b"\xff", "image/x")
    watcher = kv.session()
    async with aclosing(watcher.watch()) as told:
        begin, *states, at = await take(told, 4)
        assert (begin, at) == (Begin(), Cut({"A": 2}, "lc1;A:2"))
        held = {one.key: one.siblings for one in states if isinstance(one, KeyState)}
        assert held["image"][0].value == b"\xff"
        assert (held["lunch"][0].text, held["lunch"][0].etag) == ("noon?", '"A:1"')
        assert watcher.context == "lc1;A:2"
        async with kv.txn() as txn:
            txn.put("lunch", "one?")
            txn.delete("image")
        change = await anext(told)
        assert isinstance(change, Change)
        assert (change.dot, change.origin, change.dependencies) == ("A:3", "A", {"A": 2})
        put, delete = change.operations
        assert (put.key, put.text, put.is_delete) == ("lunch", "one?", False)
        assert (delete.key, delete.value, delete.is_delete) == ("image", None, True)
        with pytest.raises(ValueError, match="deleted"):
            _ = delete.text
        assert watcher.context == change.context == "lc1;A:3"


async def test_a_watch_begins_where_it_is_told_to(kv: Lightcone) -> None:
    for number in range(3):
        await kv.put(f"key-{number}", str(number))
    async with aclosing(kv.watch(since="lc1;A:1")) as told:
        assert [one.context for one in await take(told, 3)] == ["lc1;A:1", "lc1;A:2", "lc1;A:3"]  # type: ignore[union-attr]
    async with aclosing(kv.watch("other/", since="now")) as told:
        assert await anext(told) == Cut({"A": 3}, "lc1;A:3")
        await kv.put("key-0", "not told")
        await kv.put("other/1", "told")
        change = await anext(told)
        assert isinstance(change, Change) and change.dot == "A:5"


async def test_bad_input_is_raised(kv: Lightcone) -> None:
    for since in ("yesterday", "lc1;A:0"):
        with pytest.raises(BadInput):
            await anext(kv.watch(since=since))
    with pytest.raises(BadInput, match="printable"):
        kv.watch(since="now\r\n")
    with pytest.raises(BadInput, match="timeout_s"):
        kv.watch(timeout_s=-1)
    with pytest.raises(BadInput, match="512"):
        await anext(kv.watch("x" * 513))


# --- nodes that fail ------------------------------------------------------------------------------


async def test_another_node_goes_on_where_one_broke_off(a: FakeNode, b: FakeNode) -> None:
    half = write("A:2", "lc1;A:2")
    a.misbehaviours.append(streams(cut("lc1;"), write("A:1", "lc1;A:1"), half[:30]))
    b.misbehaviours.append(streams(cut("lc1;A:1"), half + write("A:3", "lc1;A:3"), holds=True))
    async with Lightcone([a.url, b.url]) as kv:
        told = kv.watch(since="now")
        first, *changes = await take(told, 4)
        assert first == Cut({}, "lc1;"), "and no other: it goes on"
        assert [one.dot for one in changes if isinstance(one, Change)] == ["A:1", "A:2", "A:3"]
        assert asked(a) == [("now", "")]
        assert asked(b) == [("", "")]
        await told.aclose()


async def test_a_node_that_says_that_it_ends_is_left(a: FakeNode, b: FakeNode) -> None:
    a.misbehaviours.append(streams(cut("lc1;"), end("stopping", 503, "lc1;A:1"), holds=True))
    b.misbehaviours.append(streams(write("B:1", "lc1;A:1;B:1"), holds=True))
    async with Lightcone([a.url, b.url]) as kv, aclosing(kv.watch(since="now")) as told:
        await anext(told)
        change = await anext(told)
        assert isinstance(change, Change) and change.dot == "B:1"


async def test_a_state_that_broke_off_is_told_anew(a: FakeNode, b: FakeNode) -> None:
    state = event("state", key="x", siblings=[], winner=None, etag=None)
    begin = event("begin")
    a.misbehaviours.append(streams(begin, state, end("redis-unavailable", 503)))
    b.misbehaviours.append(streams(begin, state, cut("lc1;A:1"), holds=True))
    async with Lightcone([a.url, b.url]) as kv, aclosing(kv.watch()) as told:
        kinds = [type(one).__name__ for one in await take(told, 5)]
        assert kinds == ["Begin", "KeyState", "Begin", "KeyState", "Cut"]


async def test_a_state_that_breaks_off_each_time_is_not_asked_for_without_a_pause(
    a: FakeNode,
) -> None:
    state = event("state", key="x", siblings=[], winner=None, etag=None)
    a.misbehaviours += [streams(event("begin"), state)] * 1000
    async with Lightcone([a.url]) as kv, aclosing(kv.watch()) as told:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await take(told, 2000)
    assert len(a.seen) < 20


async def test_what_was_told_is_part_of_the_session_and_of_no_other(a: FakeNode) -> None:
    a.misbehaviours.append(streams(cut("lc1;A:4"), write("A:5", "lc1;A:5"), holds=True))
    async with Lightcone([a.url]) as kv:
        session = kv.session(context="lc1;A:3")
        async with aclosing(session.watch(since="now")) as told:
            await anext(told)
            assert a.seen[-1].context == "lc1;A:3"
            assert session.context == "lc1;A:4"
            await anext(told)
        assert (session.context, kv.context) == ("lc1;A:5", "")


async def test_an_id_without_an_event_moves_the_place_to_go_on_from(a: FakeNode) -> None:
    a.misbehaviours.append(streams(cut("lc1;"), ": keep-alive\nid: lc1;A:7\n\n"))
    a.misbehaviours.append(streams(write("A:8", "lc1;A:8"), holds=True))
    async with Lightcone([a.url]) as kv, aclosing(kv.watch(since="now")) as told:
        await take(told, 2)
        assert kv.context == "lc1;A:8"
        assert asked(a) == [("now", ""), ("", "")]


async def test_who_is_too_far_back_at_every_node_is_told_so(a: FakeNode, b: FakeNode) -> None:
    gap = [{"actor": "A", "after": 1, "through": 6}]
    refusal = refuses("too-far-back", 410, outcome="not_applied", missed=gap, go_on="lc1;A:6")
    a.misbehaviours.append(refusal)
    b.misbehaviours.append(streams(write("A:2", "lc1;A:2"), end("too-far-back", 410)))
    a.misbehaviours.append(refusal)
    b.misbehaviours.append(refusal)
    async with Lightcone([a.url, b.url]) as kv:
        told = kv.watch(since="lc1;A:1")
        change = await anext(told)
        assert isinstance(change, Change) and change.dot == "A:2", "B's logs go back further"
        with pytest.raises(TooFarBack) as error:
            await anext(told)
        assert error.value.missed == (MissedWrites("A", 1, 6),)
        assert (error.value.go_on, error.value.outcome) == ("lc1;A:6", "not_applied")


async def test_what_is_lost_is_for_the_caller_to_decide(a: FakeNode) -> None:
    async def loses_what_was_told(request: web.Request) -> web.StreamResponse:
        losses = [{"actor": "A", "after": 5, "through": 7}]
        answer = await refuses("lost", 410, outcome="not_applied", lost=losses)(request)
        answer.headers["Causal-Context"] = "lc1;A:5"
        return answer

    a.misbehaviours.append(streams(cut("lc1;A:7")))
    a.misbehaviours.append(loses_what_was_told)
    async with Lightcone([a.url]) as kv:
        told = kv.watch(since="now")
        await anext(told)
        with pytest.raises(Lost) as error:
            await anext(told)
        kv.go_on(error.value)
        assert kv.context == error.value.context == "lc1;A:5"
        a.misbehaviours.append(loses("A", 4))
        with pytest.raises(Lost):
            await kv.get("x")


async def test_it_is_given_up_when_no_node_tells_anything(a: FakeNode) -> None:
    a.misbehaviours += [breaks_off, answers(500, "what?")]
    a.misbehaviours += [
        refuses("not-caught-up", 503, outcome="not_applied", missing=[{"dot": "A:9"}])
    ] * 100
    async with Lightcone([a.url, "http://127.0.0.1:1"]) as kv:
        with pytest.raises(NotCaughtUp, match="not-caught-up"):
            await anext(kv.watch(since="lc1;A:9", timeout_s=1))
    async with Lightcone(["http://127.0.0.1:1"]) as kv:
        with pytest.raises(Unreachable):
            await anext(kv.watch(timeout_s=0.3))


async def test_what_no_node_says_is_not_handed_on(a: FakeNode) -> None:
    for strange in (
        event("cut", "lc1;"),
        event("write", "lc1;A:1", dot="A:1"),
        "event: write\ndata: [1]\n\n",
        "event: end\ndata: what?\n\n",
        b'event: write\ndata: "\xff"\n\n',
        event("cut", "lc1;é:1", clock={}),
        "event: cut\ndata: " + "[" * 100_000 + "\n\n",
        write("A:1", "lc1;A:1").replace('"timestamp": 1', '"timestamp": 1e999'),
    ):
        a.misbehaviours.clear()
        a.misbehaviours += [streams(strange)] * 100
        async with Lightcone([a.url]) as kv:
            with pytest.raises(NotApplied, match="not tell as"):
                await anext(kv.watch(since="now", timeout_s=0.1))
    a.misbehaviours.clear()
    a.misbehaviours.append(streams(event("a later kind of event"), cut("lc1;"), holds=True))
    async with Lightcone([a.url]) as kv, aclosing(kv.watch(since="now")) as told:
        assert isinstance(await anext(told), Cut)


# --- real nodes -----------------------------------------------------------------------------------


@pytest.mark.timeout(300)
async def test_a_watch_outlives_its_nodes(tmp_path: Path) -> None:
    """Nodes are stopped and killed, one after the other, and the watcher is told everything."""
    async with LocalCluster(tmp_path, env={"WORKERS": "2", **WHOLE_LOGS}) as cluster:
        urls = list(cluster.urls.values())
        async with Lightcone(urls, timeout_s=60, patience_s=5) as kv:
            load = Load(kv, cluster.urls, "watched")
            changes: list[Change] = []
            begun: dict[str, int] = {}

            async def watch() -> None:
                async for told in kv.session().watch("watched/", since="now"):
                    if isinstance(told, Change):
                        changes.append(told)
                    elif isinstance(told, Cut):
                        begun.update(told.clock)

            watching = asyncio.create_task(watch())
            writing = asyncio.create_task(load.run(1))
            try:
                await until(lambda: changes)
                for node in "ABC":
                    seen = len(changes)
                    if node == "B":
                        await cluster.kill(node)
                    else:
                        await cluster.stop(node)
                    await until(lambda seen=seen: len(changes) > seen + 20)  # type: ignore[misc]
                    await cluster.start(node)
                for pid in cluster.worker_pids("A"):
                    os.kill(pid, signal.SIGKILL)
                seen = len(changes)
                await until(lambda: len(changes) > seen + 20)
            finally:
                load.stop()
                await writing
            clock = await until_equal_clocks(cluster.urls)
            await until(lambda: len(changes) >= sum(clock.values()) - sum(begun.values()))
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    clock_told = dict(begun)
    for change in changes:
        actor, _, sequence = change.dot.partition(":")
        assert int(sequence) == clock_told.get(actor, 0) + 1
        past = change.dependencies.items()
        assert all(number <= clock_told.get(other, 0) for other, number in past)
        clock_told[actor] = int(sequence)
    assert clock_told == clock
