"""The scripts as Python sees them: their text, and their replies as values."""

import re
from pathlib import Path
from typing import Any

import pytest

from app.commits import Committed
from app.keys import Keys
from app.lane_scripts import LaneScripts
from app.scripts import LUA, Received, Scripts, source
from app.snapshot_scripts import SnapshotScripts
from app.vector_clock import Dot, VectorClock
from app.write import Put
from tests.commits import commit_one
from tests.conftest import MakeRedis, MakeStore, begin
from tests.model import Node

SCRIPTS = sorted(path.stem for path in LUA.glob("*.lua") if not path.name.endswith(".inc.lua"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_contains_what_it_includes(name: str) -> None:
    text = source(name)
    assert not re.search(r"^--@include", text, re.MULTILINE)
    for included in re.findall(r"^--@include (\w+)$", (LUA / f"{name}.lua").read_text(), re.M):
        assert (LUA / f"{included}.inc.lua").read_text() in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_has_one_typed_method(name: str) -> None:
    bound = (Scripts, LaneScripts, SnapshotScripts)
    assert len([one for one in bound if callable(getattr(one, name, None))]) == 1


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("kind", ["KEYS", "ARGV"])
def test_the_header_documents_exactly_what_the_script_is_given(name: str, kind: str) -> None:
    header, body = (LUA / f"{name}.lua").read_text().split("]]\n", 1)
    documented = {int(n) for n in re.findall(rf"^  {kind}\[(\d+)\]", header, re.MULTILINE)}
    used = {int(n) for n in re.findall(rf"{kind}\[(\d+)\]", body)}
    assert documented == used


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_header_says_what_is_returned_and_why_it_is_atomic(name: str) -> None:
    header = (LUA / f"{name}.lua").read_text().split("]]\n", 1)[0]
    assert re.search(r"^  Returns  ", header, re.MULTILINE)
    assert re.search(r"^  Atomic, ", header, re.MULTILINE)


def test_the_twin_named_in_a_header_exists() -> None:
    twins = {
        twin
        for name in SCRIPTS
        for twin in re.findall(r"Twin: tests/model.py, Node\.(\w+)\.", source(name))
    }
    deferred = {"accept", "commit_deferred", "commit_former"}
    assert twins == {"write", "receive", "merge", "remove_expired", *deferred}
    assert all(callable(getattr(Node, twin)) for twin in twins)


def test_the_scripts_are_data_of_the_package() -> None:
    assert Path(LUA).is_dir()
    assert {"commit_writes", "receive_writes", "claim_node", "settle_actor"} <= set(SCRIPTS)


async def test_replies_come_back_as_values(make_redis: MakeRedis) -> None:
    scripts = Scripts(make_redis(), Keys())
    await begin(scripts, "A", "A~x1")
    committed = await commit_one(scripts, "A~x1", [Put("lunch", b"noon?")], 77)
    assert committed == Committed(Dot("A~x1", 1), 77, VectorClock({"A~x1": 1}))
    b = Node("B")
    first, second, third = (b.write([Put("x", b"%d" % n)], n) for n in (1, 2, 3))
    received = await scripts.receive_writes("A", [first, first, third], 5, 10, 10)
    assert received == Received(
        applied=1,
        duplicate=1,
        pending=1,
        refused=0,
        drained=0,
        more=False,
        clock=VectorClock({"A~x1": 1, "B": 1}),
        received=VectorClock({"B": 1}),
        missing=VectorClock({"B": 2}),
    )
    assert await scripts.receive_writes("A", [second], 5, 10, 10) == Received(
        applied=1,
        duplicate=0,
        pending=0,
        refused=0,
        drained=1,
        more=False,
        clock=VectorClock({"A~x1": 1, "B": 3}),
        received=VectorClock(),
        missing=VectorClock(),
    )


async def test_an_empty_batch_is_answered_too(make_store: MakeStore) -> None:
    a = await make_store("A")
    received = await a.scripts.receive_writes("A", [], 5, 10, 10)
    empty = VectorClock()
    assert received == Received(0, 0, 0, 0, 0, False, empty, empty, empty)


async def test_names_of_keys_may_have_a_prefix(make_redis: MakeRedis) -> None:
    redis: Any = make_redis()
    scripts = Scripts(redis, Keys("{s3}"))
    await begin(scripts, "A")
    await commit_one(scripts, "A", [Put("lunch", b"noon?")], 5)
    b = Node("B")
    b.write([Put("x", b"1")], 1)
    await scripts.receive_writes("A", [b.write([Put("x", b"2")], 2)], 5, 10, 10)
    await scripts.hold_lease("B", "worker", 60_000)
    names = {name.decode() for name in await redis.keys()}
    assert names == {
        "{s3}" + name
        for name in (
            "clock",
            "meta",
            "births",
            "kv:lunch",
            "log:A",
            "pending:B",
            "received",
            "lease:B",
        )
        + ("keys", "keys:")
    }


async def test_scripts_are_loaded_again_when_redis_has_forgotten_them(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    scripts = Scripts(redis, Keys())
    await begin(scripts, "A")
    await commit_one(scripts, "A", [Put("lunch", b"noon?")], 5)
    await redis.script_flush()
    committed = await commit_one(scripts, "A", [Put("lunch", b"one?")], 5)
    assert isinstance(committed, Committed)
    assert committed is not None
    assert committed.dot == Dot("A", 2)
