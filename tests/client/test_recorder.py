"""What is written down of what sessions do, against the checker that reads it."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from client import BadInput, Lightcone, NotApplied, OutcomeUnknown
from client.recorder import value_text
from tests.checker.check import check
from tests.checker.history import read_history
from tests.client.fake_node import FakeNode, Holds, breaks_off, refuses

Until = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def recorded(path: Path) -> list[dict[str, Any]]:
    """The lines, which the checker can read and finds nothing wrong with."""
    assert check(read_history(path.read_text().splitlines())).is_good
    return lines_of(path)


@pytest.fixture
def older(path: Path) -> Path:
    path.write_text("an older history")
    return path


async def test_each_kind_of_operation_is_a_line_that_the_checker_can_read(
    a: FakeNode, path: Path
) -> None:
    async with Lightcone([a.url], record=path) as kv:
        await kv.put("lunch", "noon?")
        await kv.get("lunch")
        await kv.siblings("lunch")
        await kv.delete("lunch")
        await kv.get("lunch")
        await kv.siblings("lunch")
    seen = [{"value": "noon?", "dot": "A:1"}]
    told = [{k: line.get(k) for k in ("kind", "key", "value", "seen")} for line in recorded(path)]
    assert told == [
        {"kind": "put", "key": "lunch", "value": "noon?", "seen": None},
        {"kind": "get", "key": "lunch", "value": None, "seen": seen},
        {"kind": "siblings", "key": "lunch", "value": None, "seen": seen},
        {"kind": "delete", "key": "lunch", "value": None, "seen": None},
        {"kind": "get", "key": "lunch", "value": None, "seen": []},
        {"kind": "siblings", "key": "lunch", "value": None, "seen": []},
    ]
    assert {(line["node"], line["outcome"]) for line in recorded(path)} == {(a.url, "ok")}


async def test_a_delete_tells_its_dot(a: FakeNode, path: Path) -> None:
    async with Lightcone([a.url], record=path) as kv:
        await kv.put("lunch", "noon?")
        await kv.delete("lunch")
    assert [line["dot"] for line in recorded(path)] == ["A:1", "A:2"]


async def test_a_put_tells_its_dot_and_what_it_depends_on(
    a: FakeNode, b: FakeNode, path: Path
) -> None:
    async with Lightcone([a.url], record=path) as kv:
        await kv.put("lunch", "noon?")
        await b.learn(a)
        await kv.at(b.url).put("reply", "yes")
        await kv.at(b.url).put("reply", "no")
    told = [(line["dot"], line["dependencies"]) for line in recorded(path)]
    assert told == [("A:1", {}), ("B:1", {"A": 1}), ("B:2", {"A": 1, "B": 1})]


async def test_a_get_names_the_siblings_that_it_does_not_show(a: FakeNode, path: Path) -> None:
    async with Lightcone([a.url], record=path) as kv:
        await kv.put("lunch", "noon?")
        a.siblings_of["lunch"] = ["B:4", "C:2"]
        await kv.get("lunch")
    line = lines_of(path)[-1]
    assert line["seen"] == [{"value": "noon?", "dot": "A:1"}, {"dot": "B:4"}, {"dot": "C:2"}]
    assert line["complete"] is True


async def test_contexts_are_those_before_and_after(a: FakeNode, path: Path) -> None:
    async with Lightcone([a.url], record=path) as kv:
        await kv.put("lunch", "noon?")
        await kv.get("lunch")
    told = [(line["context_in"], line["context_out"]) for line in recorded(path)]
    assert told == [("", "lc1;A:1"), ("lc1;A:1", "lc1;A:1")]


async def test_a_request_is_one_line_however_many_nodes_it_was_tried_at(
    a: FakeNode, b: FakeNode, path: Path
) -> None:
    a.misbehaviours.append(refuses("redis-unavailable", 503, outcome="not_applied"))
    async with Lightcone([a.url, b.url], record=path) as kv:
        await kv.put("lunch", "noon?")
    [line] = recorded(path)
    assert (line["node"], line["dot"], line["outcome"]) == (b.url, "B:1", "ok")


async def test_what_was_refused_and_what_is_in_doubt_are_told_apart(
    a: FakeNode, b: FakeNode, path: Path
) -> None:
    await b.stop()
    async with Lightcone([a.url], record=path, timeout_s=0.3) as kv:
        a.misbehaviours.append(refuses("redis-unavailable", 503, outcome="unknown"))
        with pytest.raises(OutcomeUnknown) as told:
            await kv.put("lunch", "noon?")
        assert told.value.node == a.url
        with pytest.raises(NotApplied):
            await kv.at(b.url).put("lunch", "one?")
        with pytest.raises(NotApplied):
            await kv.at(b.url).get("lunch")
    lines = recorded(path)
    assert [(line["kind"], line["outcome"]) for line in lines] == [
        ("put", "unknown"),
        ("put", "not_applied"),
        ("get", "not_applied"),
    ]
    assert [line["node"] for line in lines] == [a.url, b.url, b.url]
    assert not any("dot" in line or "seen" in line for line in lines)


async def test_a_write_whose_connection_breaks_is_in_doubt(a: FakeNode, path: Path) -> None:
    a.misbehaviours.append(breaks_off)
    async with Lightcone([a.url], record=path) as kv:
        with pytest.raises(OutcomeUnknown):
            await kv.delete("lunch")
    assert [line["outcome"] for line in recorded(path)] == ["unknown"]


async def test_a_cancelled_write_is_in_doubt_and_a_cancelled_read_saw_nothing(
    a: FakeNode, path: Path, until: Until
) -> None:
    held = Holds(a)
    async with Lightcone([a.url], record=path) as kv:
        for ask in (lambda: kv.put("lunch", "noon?"), lambda: kv.get("lunch")):
            a.misbehaviours.append(held)
            asked = len(a.seen)
            task = asyncio.ensure_future(ask())
            await until(lambda n=asked: len(a.seen) > n)  # type: ignore[misc]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        held.release()
    told = [(line["kind"], line["outcome"]) for line in recorded(path)]
    assert told == [("put", "unknown"), ("get", "not_applied")]


async def test_requests_that_are_under_way_together_overlap_in_time(
    a: FakeNode, path: Path, until: Until
) -> None:
    held = Holds(a)
    a.misbehaviours.extend([held, held])
    async with Lightcone([a.url], record=path) as kv:
        puts = [asyncio.create_task(kv.put(key, "x")) for key in ("lunch", "dinner")]
        await until(lambda: len(a.seen) == 2)
        held.release()
        await asyncio.gather(*puts)
        await kv.get("lunch")
    first, second, after = recorded(path)
    assert first["start"] <= second["end"] and second["start"] <= first["end"]
    assert after["start"] >= max(first["end"], second["end"])


async def test_every_session_has_a_name_of_its_own(a: FakeNode, path: Path) -> None:
    async with Lightcone([a.url], record=path) as kv:
        sessions = [
            kv,
            kv.session(),
            kv.session(name="alice"),
            kv.session(name="alice-2"),
            kv.session(name="alice"),
        ]
        for number, session in enumerate(sessions):
            await session.at(a.url).put("lunch", str(number))
    names = [line["session"] for line in recorded(path)]
    assert names == ["session-1", "session-2", "alice", "alice-2", "alice-3"]
    assert names == [session.name for session in sessions]


async def test_only_requests_about_keys_are_recorded(a: FakeNode, path: Path) -> None:
    async with Lightcone([a.url], record=path) as kv:
        await kv.status()
        await kv.pending()
        await kv.ready()
        await kv.set_fault(a.url, "B", cut=True)
        with pytest.raises(BadInput):
            await kv.put("", "a key that cannot be, so nothing was sent")
    assert recorded(path) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"noon?", "noon?"),
        (b"", ""),
        ("Grüße".encode(), "Grüße"),
        (b"\xff\xfe", "base64://4="),
        (b"base64://4=", "base64:YmFzZTY0Oi8vND0="),
    ],
)
def test_every_value_has_a_text_of_its_own(value: bytes, text: str) -> None:
    assert value_text(value) == text


async def test_a_value_that_is_no_text_is_recorded_the_same_when_it_is_read(
    a: FakeNode, path: Path
) -> None:
    async with Lightcone([a.url], record=path) as kv:
        await kv.put("lunch", b"\xff\xfe")
        await kv.get("lunch")
        await kv.siblings("lunch")
    put, get, siblings = recorded(path)
    assert put["value"] == get["seen"][0]["value"] == siblings["seen"][0]["value"]


async def test_a_file_that_is_there_is_replaced(a: FakeNode, older: Path) -> None:
    async with Lightcone([a.url], record=older) as kv:
        await kv.put("lunch", "noon?")
    assert len(recorded(older)) == 1


async def test_what_has_ended_is_in_the_file_whatever_becomes_of_the_process(
    a: FakeNode, path: Path
) -> None:
    async with Lightcone([a.url], record=path) as kv:
        await kv.put("lunch", "noon?")
        assert len(recorded(path)) == 1
        await kv.get("lunch")
        assert len(recorded(path)) == 2


async def test_a_file_that_cannot_be_is_told_at_once(a: FakeNode, path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with Lightcone([a.url], record=path / "below" / "nothing"):
            pass


async def test_nothing_is_written_unless_it_is_asked_for(
    a: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with Lightcone([a.url]) as kv:
        await kv.session(name="alice").put("lunch", "noon?")
    assert not os.listdir()
