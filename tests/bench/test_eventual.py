"""The eventual twin: it is made of today's tree, and its causality is gone."""

from pathlib import Path

import aiohttp
import pytest

from app import scripts
from app.keys import Keys
from app.scripts import Received, Scripts
from app.vector_clock import Dot, VectorClock
from app.write import Put, Write
from bench.contenders import CONTENDERS
from bench.eventual import EDITS, ROOT, Edit, eventual_tree
from tests.conftest import MakeRedis, begin

WAITS = Write(Dot("A", 1), VectorClock({"C": 5}), 1, (Put("a", b"x"),))


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.what)
def test_an_edit_fits_the_tree(edit: Edit) -> None:
    assert (ROOT / edit.file).read_text().count(edit.old) == 1
    assert edit.old != edit.new


def test_the_copy_is_edited_and_the_tree_is_not(tmp_path: Path) -> None:
    before = {edit.file: (ROOT / edit.file).read_text() for edit in EDITS}
    tree = eventual_tree(tmp_path)
    for edit in EDITS:
        assert edit.new in (tree / edit.file).read_text()
        assert edit.old not in (tree / edit.file).read_text()
    assert before == {edit.file: (ROOT / edit.file).read_text() for edit in EDITS}
    assert eventual_tree(tmp_path) == tree, "made once"


def test_an_edit_that_does_not_fit_is_told_of_and_nothing_runs(tmp_path: Path) -> None:
    edit = Edit("pigs fly", "app/lua/receive_writes.lua", "no such text", "")
    with pytest.raises(ValueError, match=r"pigs fly.*0 times"):
        eventual_tree(tmp_path, [edit])


@pytest.mark.parametrize("is_edited", [False, True])
async def test_the_twin_applies_what_our_node_makes_wait(
    is_edited: bool, make_redis: MakeRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_edited:
        monkeypatch.setattr(scripts, "LUA", eventual_tree(tmp_path) / "app" / "lua")
    scripts.source.cache_clear()
    try:
        loaded = Scripts(make_redis(), Keys())
    finally:
        scripts.source.cache_clear()
    await begin(loaded, "B")
    received = await loaded.receive_writes("B", [WAITS], 1, 10, 10)
    assert isinstance(received, Received)
    assert (received.applied, received.pending) == ((1, 0) if is_edited else (0, 1))


@pytest.mark.timeout(300)
async def test_three_of_them_replicate_and_keep_no_siblings(tmp_path: Path) -> None:
    twin = CONTENDERS["eventual"]
    async with twin.start(tmp_path, "always") as running, aiohttp.ClientSession() as http:
        urls = [f"http://127.0.0.1:{port}/kv/a" for port in running.ports]
        for url in (*urls, urls[0]):
            async with http.put(url, data=b"x") as response:
                assert response.status == 200, await response.text()
        await running.settle()
        for url in urls:
            async with http.get(url, headers={"Causal-Context": "no context"}) as response:
                assert response.status == 200 and response.headers["Siblings"] == "1"
        assert len(running.processes["peers"]) == 6
