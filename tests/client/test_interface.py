"""What a client can ask of a node beyond reading and writing one key, asked of a real one."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from app import wire
from app.vector_clock import VectorClock
from app.wire import Batch
from app.write import Put
from client import (
    BadInput,
    Lightcone,
    NotCaughtUp,
    OutcomeUnknown,
    PreconditionFailed,
    ReplicasMissing,
)
from tests.checker.check import check
from tests.checker.history import Read, Seen, Write, read_history
from tests.client.fake_node import FakeNode, Holds, Misbehaviour, answers, breaks_off, refuses
from tests.model import Node
from tests.one_node import Client


async def conflict(node: Client, kv: Lightcone) -> None:
    """The menu has two siblings."""
    await kv.put("menu", "soup")
    write = Node("B").write([Put("menu", b"\xff\xfe", "image/x")], 9_000_000_000_000_000)
    batch = wire.encode_batch(Batch("B", "A", VectorClock(), (write,)))
    assert (await node.post("/replicate", data=batch)).status == 200


async def test_a_write_is_done_only_if_the_key_holds_what_is_wanted(kv: Lightcone) -> None:
    first = await kv.put("lunch", "noon?", if_none_match="*")
    assert first.etag == '"A:1"'
    with pytest.raises(PreconditionFailed) as refusal:
        await kv.put("lunch", "one?", if_none_match="*")
    assert (refusal.value.outcome, refusal.value.keys) == ("not_applied", {"lunch": '"A:1"'})
    second = await kv.put("lunch", "one?", if_match=first.etag)
    with pytest.raises(PreconditionFailed):
        await kv.delete("lunch", if_match=first.etag)
    assert (await kv.delete("lunch", if_match=second.etag)).dot == "A:3"
    with pytest.raises(PreconditionFailed) as refusal:
        await kv.put("lunch", "two?", if_match="*")
    assert refusal.value.keys == {"lunch": None}


async def test_who_was_refused_has_seen_what_is_there(node: Client, kv: Lightcone) -> None:
    await conflict(node, kv)
    newcomer = kv.session()
    with pytest.raises(PreconditionFailed):
        await newcomer.put("menu", "x", if_none_match="*")
    assert newcomer.context == "lc1;A:1;B:1"


async def test_a_write_that_too_few_nodes_hold_stands(kv: Lightcone) -> None:
    assert (await kv.put("lunch", "noon?", replicas=1)).replicas == ("A",)
    with pytest.raises(ReplicasMissing) as missing:
        await kv.put("lunch", "one?", replicas=2, patience_s=0.1)
    assert (missing.value.outcome, missing.value.dot) == ("applied", "A:2")
    assert missing.value.nodes == ("A",)
    assert kv.context == "lc1;A:2"
    version = await kv.get("lunch")
    assert version is not None and version.text == "one?"
    with pytest.raises(BadInput, match="from 1 to 3"):
        await kv.put("lunch", "x", replicas=4)


async def test_a_request_with_an_idempotency_key_is_done_once(kv: Lightcone) -> None:
    first = await kv.put("lunch", "noon?", idempotency_key="1")
    assert await kv.put("lunch", "noon?", idempotency_key="1") == first
    with pytest.raises(BadInput, match="came before"):
        await kv.delete("lunch", idempotency_key="1")


async def test_a_stale_read_says_so_and_is_no_part_of_the_session(kv: Lightcone) -> None:
    await kv.put("lunch", "noon?")
    ahead = kv.session(context="lc1;B:7", patience_s=0)
    with pytest.raises(NotCaughtUp):
        await ahead.get("lunch")
    version = await ahead.get("lunch", stale=True)
    assert version is not None and version.stale
    assert ahead.context == "lc1;B:7"
    version = await kv.get("lunch", stale=True)
    assert version is not None and not version.stale


async def test_transactions_are_recorded_as_the_checker_reads_them(
    node: Client, tmp_path: Path
) -> None:
    path = tmp_path / "history.jsonl"
    async with Lightcone([str(node.make_url("/"))], record=path) as kv:
        async with kv.txn() as txn:
            txn.get("x")
            txn.put("x", "1")
            txn.put("y", b"\xff")
        async with kv.txn() as txn:
            txn.get("x")
            txn.get("z")
        async with kv.txn() as txn:
            txn.delete("x")
        with pytest.raises(PreconditionFailed):
            async with kv.txn() as txn:
                txn.put("y", "2", if_none_match="*")
    told = read_history(path.read_text().splitlines())
    assert check(told).is_good
    first, reads, delete, refused = (replace(op, start=None, end=None, line=0) for op in told)
    assert first.reads == (Read("x", (), complete=True),)
    assert first.writes == (Write("x", "1"), Write("y", "base64:/w=="))
    assert (str(first.dot), first.dependencies) == ("A:1", {})
    assert reads.reads == (Read("x", (Seen("1", first.dot),), True), Read("z", (), True))
    assert (reads.writes, reads.dot) == ((), None)
    assert delete.writes == (Write("x", None),) and str(delete.dot) == "A:2"
    assert (refused.writes, refused.outcome) == ((Write("y", "2"),), "not_applied")


async def test_a_transaction_is_done_at_the_end_of_its_block(kv: Lightcone) -> None:
    await kv.put("stock", "3")
    stock = await kv.get("stock")
    assert stock is not None
    async with kv.txn() as txn:
        txn.get("stock")
        txn.get("nothing")
        txn.put("stock", "2", if_match=stock.etag)
        txn.put("order/1", b"\xff\xfe", "image/x", if_none_match="*")
        txn.delete("cart")
    done = txn.result
    assert (done.dot, done.clock) == ("A:2", {"A": 2})
    before = done.winner("stock")
    assert before is not None and before.text == "3"
    assert done.winner("nothing") is None
    assert done.etags == {"stock": '"A:2"', "order/1": '"A:2"'}
    order = await kv.get("order/1")
    assert order is not None and (order.value, order.content_type) == (b"\xff\xfe", "image/x")
    assert await txn.commit() is done, "it is done once"
    with pytest.raises(BadInput, match="is done"):
        txn.get("stock")


async def test_a_transaction_whose_block_fails_is_not_sent(kv: Lightcone) -> None:
    with pytest.raises(ZeroDivisionError):
        async with kv.txn() as txn:
            txn.put("lunch", "noon?")
            raise ZeroDivisionError
    assert await kv.get("lunch") is None
    with pytest.raises(BadInput, match="not committed"):
        _ = txn.result


async def test_a_transaction_that_was_sent_in_its_block_is_not_sent_again_at_its_end(
    a: FakeNode,
) -> None:
    a.misbehaviours.append(breaks_off)
    async with Lightcone([a.url]) as kv:
        async with kv.txn() as txn:
            txn.put("lunch", "noon?")
            with pytest.raises(OutcomeUnknown):
                await txn.commit()
        with pytest.raises(BadInput, match="not committed"):
            _ = txn.result
    assert [seen.path for seen in a.seen] == ["/txn?wait=1.000"]


async def test_a_transaction_that_is_under_way_takes_nothing_more_and_is_sent_once(
    kv: Lightcone,
) -> None:
    txn = kv.txn()
    txn.put("lunch", "noon?")
    committing = asyncio.create_task(txn.commit())
    await asyncio.sleep(0)
    with pytest.raises(BadInput, match="under way"):
        await txn.commit()
    with pytest.raises(BadInput, match="begin another one"):
        txn.put("dinner", "seven?")
    assert (await committing).dot == "A:1"
    assert (await kv.put("next", "x")).dot == "A:2"


async def test_a_transaction_that_fails_a_condition_names_the_keys(kv: Lightcone) -> None:
    await kv.put("a", "1")
    with pytest.raises(PreconditionFailed) as refusal:
        async with kv.txn() as txn:
            txn.get("a", if_none_match="*")
            txn.put("b", "2", if_match="*")
    assert refusal.value.keys == {"a": '"A:1"', "b": None}
    with pytest.raises(BadInput, match=r"ops\[0\]"):
        async with kv.txn() as txn:
            txn.get("")


async def test_keys_are_listed_through_all_pages(kv: Lightcone) -> None:
    async with kv.txn() as txn:
        for number in range(30):
            txn.put(f"user/{number:02}", "x")
        txn.put("other é", "x")
    users = [key async for key in kv.list("user/", page=7)]
    assert users == [f"user/{number:02}" for number in range(30)]
    assert [key async for key in kv.list()] == ["other é", *users]


async def test_conflicts_are_found_explained_and_settled(node: Client, kv: Lightcone) -> None:
    await conflict(node, kv)
    [found] = [found async for found in kv.conflicts()]
    assert found == {"key": "menu", "etag": '"A:1,B:1"', "siblings": 2}
    explanation = await kv.explain("menu")
    assert (explanation["winner"], explanation["complete"]) == ("B:1", True)
    assert explanation["versions"][0]["concurrent_with"] == ["A:1"]
    await kv.put("menu", "both", if_match=found["etag"])
    assert [found async for found in kv.conflicts()] == []


# --- repeating ------------------------------------------------------------------------------------


async def test_a_write_with_an_idempotency_key_is_repeated_at_its_node_until_it_is_known(
    a: FakeNode, b: FakeNode
) -> None:
    async with Lightcone([a.url, b.url]) as kv:
        a.misbehaviours += [
            breaks_off,
            refuses("redis-unavailable", 503, outcome="not_applied"),
            refuses("internal", 500, outcome="unknown"),
        ]
        written = await kv.put("lunch", "noon?", idempotency_key="once")
    assert written.dot == "A:1"
    assert [seen.idempotency_key for seen in a.seen] == ["once"] * 4
    assert b.seen == []


@pytest.mark.parametrize(
    "refusal", [answers(429), refuses("precondition-failed", 412, outcome="not_applied", keys=[])]
)
async def test_what_refuses_the_repetition_says_nothing_of_what_was_sent_before(
    a: FakeNode, b: FakeNode, refusal: Misbehaviour
) -> None:
    held = Holds(a)
    a.misbehaviours += [held, refusal]
    async with Lightcone([a.url, b.url], patience_s=0) as kv:
        with pytest.raises(OutcomeUnknown):
            await kv.put("lunch", "noon?", idempotency_key="once")
        held.release()
        written = await kv.get("lunch")
        assert written is not None and written.text == "noon?"
    assert [seen.method for seen in a.seen] == ["PUT", "PUT", "GET"] and b.seen == []


async def test_a_write_with_an_idempotency_key_goes_to_another_node_only_if_it_certainly_may(
    a: FakeNode, b: FakeNode
) -> None:
    async with Lightcone([a.url, b.url]) as kv:
        a.misbehaviours.append(refuses("not-ready", 503, outcome="not_applied"))
        assert (await kv.put("lunch", "noon?", idempotency_key="once")).dot == "B:1"
    assert len(a.seen) == len(b.seen) == 1


async def test_a_write_that_stays_unknown_is_told_to_be_at_the_deadline(
    a: FakeNode, b: FakeNode
) -> None:
    async with Lightcone([a.url, b.url], timeout_s=1.5) as kv:
        a.misbehaviours += [breaks_off] * 100
        with pytest.raises(OutcomeUnknown):
            await kv.put("lunch", "noon?", idempotency_key="once")
    assert len(a.seen) > 1
    assert b.seen == []
