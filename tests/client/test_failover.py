"""Which node is asked next, and when a request may be repeated at all."""

import asyncio

import pytest

from client import BadInput, Lightcone, NotApplied, NotCaughtUp, OutcomeUnknown, Unreachable
from client.context import UNDER_WAY_MAX
from client.nodes import REST_MAX_S, REST_MIN_S, Resting
from tests.client.fake_node import FakeNode, Holds, Misbehaviour, answers, breaks_off, refuses

REDIS_IS_DOWN = refuses("redis-unavailable", 503, outcome="not_applied")


async def test_the_nearest_node_serves_as_long_as_it_can(a: FakeNode, b: FakeNode) -> None:
    async with Lightcone([a.url, b.url]) as kv:
        for number in range(5):
            assert (await kv.put(f"key-{number}", "x")).node == a.url
    assert b.seen == []


async def test_reads_and_writes_go_on_to_the_next_node_when_one_is_away(
    a: FakeNode, b: FakeNode
) -> None:
    await a.stop()
    async with Lightcone([a.url, b.url]) as kv:
        assert (await kv.put("lunch", "noon?")).node == b.url
        version = await kv.get("lunch")
        assert version is not None
        assert version.node == b.url


async def test_reads_and_writes_go_on_when_a_node_says_that_nothing_was_applied(
    a: FakeNode, b: FakeNode
) -> None:
    a.misbehaviours.append(REDIS_IS_DOWN)
    async with Lightcone([a.url, b.url]) as kv:
        assert (await kv.put("lunch", "noon?")).node == b.url
        # The node that failed rests, so it is not even asked.
        assert (await kv.put("dinner", "seven?")).node == b.url
    assert len(a.seen) == 1


async def test_other_sessions_too_leave_a_failed_node_for_last(a: FakeNode, b: FakeNode) -> None:
    a.misbehaviours.append(REDIS_IS_DOWN)
    async with Lightcone([a.url, b.url]) as kv:
        await kv.get("lunch")
        await kv.session().get("lunch")
    assert len(a.seen) == 1


async def test_a_node_that_is_behind_one_session_still_serves_another(
    a: FakeNode, b: FakeNode
) -> None:
    async with Lightcone([a.url, b.url], patience_s=0) as kv:
        await kv.at(b.url).put("lunch", "noon?")
        await kv.get("lunch")
        await kv.get("lunch")
        assert len(a.seen) == 1
        assert (await kv.session().put("dinner", "seven?")).node == a.url


async def test_a_node_that_was_started_again_serves_within_the_deadline(a: FakeNode) -> None:
    async with Lightcone([a.url], timeout_s=20) as kv:
        await a.stop()
        writing = asyncio.create_task(kv.put("lunch", "noon?"))
        await a.start()
        assert (await writing).dot == "A:1"


async def test_a_write_that_was_read_and_not_answered_is_unknown_and_never_repeated(
    a: FakeNode, b: FakeNode
) -> None:
    async with Lightcone([a.url, b.url]) as kv:
        # On a connection used before, which is where HTTP clients like to repeat by themselves.
        await kv.put("lunch", "noon?")
        for write in (kv.put("lunch", "one?"), kv.delete("lunch")):
            a.misbehaviours.append(breaks_off)
            with pytest.raises(OutcomeUnknown, match="read the key before repeating it") as raised:
                await write
            assert raised.value.outcome == "unknown"
            # Otherwise the node would rest, and the next write would go elsewhere.
            assert await kv.at(a.url).get("lunch") is not None
    assert [seen.method for seen in a.seen] == ["PUT", "PUT", "GET", "DELETE", "GET"]
    assert b.seen == []


async def test_a_read_that_was_not_answered_is_repeated_elsewhere(a: FakeNode, b: FakeNode) -> None:
    a.misbehaviours.append(breaks_off)
    async with Lightcone([a.url, b.url]) as kv:
        assert await kv.get("lunch") is None
    assert len(b.seen) == 1


async def test_a_write_that_gets_no_answer_before_the_deadline_is_unknown(a: FakeNode) -> None:
    held = Holds(a)
    a.misbehaviours.append(held)
    async with Lightcone([a.url], timeout_s=0.3) as kv:
        with pytest.raises(OutcomeUnknown, match="did not answer within"):
            await kv.put("lunch", "noon?")
    held.release()


async def test_a_read_leaves_a_node_that_says_nothing(a: FakeNode, b: FakeNode) -> None:
    held = Holds(a)
    a.misbehaviours.append(held)
    async with Lightcone([a.url, b.url], timeout_s=30, patience_s=0) as kv:
        assert await kv.get("lunch") is None
    assert len(b.seen) == 1
    held.release()


async def test_a_request_that_waits_for_its_turn_keeps_its_deadline(a: FakeNode) -> None:
    async with Lightcone([a.url], timeout_s=0.2) as kv:
        busy = kv.session(context="lc1;A:1")
        for _ in range(UNDER_WAY_MAX):
            await busy._context.begin()
        with pytest.raises(NotApplied, match=f"{UNDER_WAY_MAX} other .* use several sessions"):
            await busy.put("lunch", "noon?")
    assert a.seen == []


async def test_when_nobody_can_be_reached_the_error_names_them_all(
    a: FakeNode, b: FakeNode
) -> None:
    await a.stop()
    await b.stop()
    async with Lightcone([a.url, b.url], timeout_s=0.5) as kv:
        with pytest.raises(Unreachable) as raised:
            await kv.put("lunch", "noon?")
    assert raised.value.outcome == "not_applied"
    assert a.url in str(raised.value)
    assert b.url in str(raised.value)


async def test_a_node_that_is_behind_tells_more_than_one_that_is_away(
    a: FakeNode, b: FakeNode
) -> None:
    async with Lightcone([a.url, b.url], patience_s=0) as kv:
        await kv.put("lunch", "noon?")
        await a.stop()
        with pytest.raises(NotCaughtUp) as raised:
            await kv.get("lunch")
    assert [missing.dot for missing in raised.value.missing] == ["A:1"]
    assert a.url in str(raised.value)


async def test_a_node_that_is_unwell_tells_more_than_one_that_is_away(
    a: FakeNode, b: FakeNode
) -> None:
    await a.stop()
    b.misbehaviours.extend([REDIS_IS_DOWN] * 100)
    async with Lightcone([a.url, b.url], timeout_s=1) as kv:
        with pytest.raises(NotApplied) as raised:
            await kv.get("lunch")
    assert raised.value.kind == "redis-unavailable"


async def test_patience_is_spent_once_over_all_nodes(a: FakeNode, b: FakeNode) -> None:
    async with Lightcone([a.url, b.url], patience_s=0.2) as kv:
        seen_elsewhere = kv.session(context="lc1;C:1")
        with pytest.raises(NotCaughtUp):
            await seen_elsewhere.get("lunch")
    assert [a.seen[0].query["wait"], b.seen[0].query["wait"]] == ["0.200", "0.000"]
    assert len(a.seen) + len(b.seen) == 2


async def test_one_request_can_have_a_patience_of_its_own(a: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        await kv.get("lunch", patience_s=7.5)
        await kv.get("lunch")
    assert [seen.query["wait"] for seen in a.seen] == ["7.500", "1.000"]


async def test_a_mistake_of_the_caller_is_not_tried_elsewhere(a: FakeNode, b: FakeNode) -> None:
    a.misbehaviours.append(refuses("bad-context", 400, outcome="not_applied"))
    async with Lightcone([a.url, b.url]) as kv:
        with pytest.raises(BadInput) as raised:
            await kv.get("lunch")
        assert raised.value.kind == "bad-context"
    assert b.seen == []


async def test_ready_is_whether_anybody_serves(a: FakeNode, b: FakeNode) -> None:
    a.misbehaviours.append(REDIS_IS_DOWN)
    await b.stop()
    async with Lightcone([a.url, b.url]) as kv:
        assert not await kv.ready()
        assert await kv.ready()
        assert await kv.ready(a.url)
        assert not await kv.ready(b.url)


async def test_who_asks_whether_nodes_are_ready_keeps_the_deadline(
    a: FakeNode, b: FakeNode
) -> None:
    held = Holds(a)
    a.misbehaviours += [held, held]
    async with Lightcone([a.url, b.url], timeout_s=0.4) as kv, asyncio.timeout(1):
        assert not await kv.ready(a.url)
        assert await kv.ready()
    held.release()


@pytest.mark.parametrize(
    "misbehaviour",
    [
        answers(502, "<h1>Bad gateway</h1>"),
        answers(504),
        answers(302, Location="/elsewhere"),
        answers(200, "hello"),
        answers(200, "{}", **{"Causal-Context": "lc1;A:1"}),
        answers(200, '{"key": "x", "dot": "A:1", "clock": []}', **{"Causal-Context": "lc1;A:1"}),
        answers(
            200, '{"key": "x", "dot": "A:1", "clock": {"A": 1e999}}', **{"Causal-Context": "lc1;"}
        ),
        answers(200, "[" * 100_000, **{"Causal-Context": "lc1;A:1"}),
        answers(503, "[" * 100_000),
        refuses("internal", 500, outcome="unknown"),
        refuses("too-slow", 408, outcome="unknown"),
    ],
)
async def test_when_in_doubt_a_write_is_unknown_and_a_read_goes_on(
    a: FakeNode, b: FakeNode, misbehaviour: Misbehaviour
) -> None:
    async with Lightcone([a.url, b.url]) as kv:
        a.misbehaviours.append(misbehaviour)
        with pytest.raises(OutcomeUnknown):
            await kv.put("lunch", "noon?")
    # Another client, for which the node does not rest.
    async with Lightcone([a.url, b.url]) as kv:
        a.misbehaviours.append(misbehaviour)
        assert await kv.get("lunch") is None
    assert [seen.method for seen in a.seen] == ["PUT", "GET"]
    assert [seen.method for seen in b.seen] == ["GET"]


def test_a_node_rests_longer_with_every_failure_and_is_well_at_once_when_it_answers() -> None:
    now = 100.0
    resting = Resting(lambda: now)
    rests = []
    for _ in range(8):
        resting.failed("a")
        resting.failed("a")
        rests.append(resting.until("a") - now)
        now = resting.until("a")
        assert resting.until("a") == 0.0
    assert rests[0] == REST_MIN_S
    assert rests[1] == 2 * REST_MIN_S
    assert rests[-1] == REST_MAX_S
    resting.failed("a")
    resting.answered("a")
    assert resting.until("a") == 0.0
    resting.failed("a")
    assert resting.until("a") - now == REST_MIN_S
