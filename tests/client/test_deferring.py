"""Writes that a node may do later: what the caller is told, and what its session goes on with."""

from pathlib import Path

import pytest

from client import BadInput, Lightcone, NotApplied
from client.answers import Deleted, Written
from tests.checker.check import check
from tests.checker.history import read_history
from tests.client.fake_node import FakeNode


async def test_a_write_is_deferred_where_the_node_lacks_what_the_session_has_seen(
    a: FakeNode, b: FakeNode
) -> None:
    async with Lightcone([a.url]) as kv:
        await kv.put("lunch", "noon?")
        at_b = kv.at(b.url)
        put = await at_b.put("reply", "yes", deferred=True)
        assert put == Written("reply", "B+:1", {}, b.url, deferred=True, waiting_for=("A:1",))
        gone = await at_b.delete("lunch", deferred=True)
        assert gone == Deleted("lunch", "B+:2", b.url, deferred=True, waiting_for=("A:1", "B+:1"))
        assert [seen.prefer for seen in b.seen] == ["respond-async"] * 2
        assert kv.context == "lc1;A:1;B+:2", "who reads with it sees both"
        assert float(b.seen[0].query["wait"]) == 0


async def test_a_write_that_can_be_done_is_done(a: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        put = await kv.put("lunch", "noon?", deferred=True)
        assert (put.dot, put.deferred, put.waiting_for) == ("A:1", False, ())
        gone = await kv.delete("lunch", deferred=True, patience_s=2)
        assert (gone.dot, gone.deferred) == ("A:2", False)
        assert float(a.seen[1].query["wait"]) > 1


async def test_without_the_word_it_is_not_deferred(a: FakeNode, b: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        await kv.put("lunch", "noon?")
        with pytest.raises(NotApplied):
            await kv.at(b.url).put("reply", "yes", patience_s=0)
        assert b.seen[0].prefer == ""


async def test_what_is_looked_at_when_a_write_is_done_does_not_go_with_it(a: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        for options in ({"if_match": "*"}, {"if_none_match": "*"}, {"replicas": 2}):
            with pytest.raises(BadInput, match=f"With {next(iter(options))} .* Nothing was sent"):
                await kv.put("x", "1", deferred=True, **options)
            with pytest.raises(BadInput):
                await kv.delete("x", deferred=True, **options)
    assert a.seen == []


async def test_a_deferred_write_is_in_the_history_as_one_that_was_acknowledged(
    a: FakeNode, b: FakeNode, tmp_path: Path
) -> None:
    path = tmp_path / "history.jsonl"
    async with Lightcone([a.url], record=path) as kv:
        await kv.put("lunch", "noon?")
        await kv.at(b.url).put("reply", "yes", deferred=True)
    lines = path.read_text().splitlines()
    history = read_history(lines)
    assert check(history).is_good
    operations = list(history)
    assert [(str(one.dot), one.outcome) for one in operations] == [("A:1", "ok"), ("B+:1", "ok")]
    assert operations[1].dependencies is None
