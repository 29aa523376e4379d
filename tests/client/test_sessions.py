"""A session carries what it has seen, wherever its requests go (G7)."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from client import BadInput, Lightcone, Lost, LostWrites, NotCaughtUp
from client.context import UNDER_WAY_MAX, Context
from tests.client.fake_node import FakeNode, Holds, answers, joined, loses

Until = Callable[[Callable[[], bool]], Awaitable[None]]


async def test_a_new_session_has_seen_nothing(a: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        await kv.get("lunch")
    assert a.seen[0].context == ""


async def test_a_session_reads_its_own_write_at_a_node_that_comes_to_have_it(
    a: FakeNode, b: FakeNode
) -> None:
    async with Lightcone([a.url], patience_s=20) as kv:
        await kv.put("lunch", "noon?")
        reading = asyncio.create_task(kv.at(b.url).get("lunch"))
        await b.learn(a)
        version = await reading
        assert version is not None
        assert version.text == "noon?"
        assert version.node == b.url


async def test_a_node_that_has_not_seen_the_session_s_write_refuses_and_names_it(
    a: FakeNode, b: FakeNode
) -> None:
    async with Lightcone([a.url], patience_s=0) as kv:
        written = await kv.put("lunch", "noon?")
        with pytest.raises(NotCaughtUp) as refused:
            await kv.at(b.url).get("lunch")
    assert [missing.dot for missing in refused.value.missing] == [written.dot]
    assert refused.value.missing[0].known_for_s == 0.5
    assert refused.value.outcome == "not_applied"
    assert refused.value.kind == "not-caught-up"


async def test_sessions_share_connections_and_no_context(a: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        other = kv.session()
        await kv.put("lunch", "noon?")
        await other.get("dinner")
    assert a.seen[1].context == ""


async def test_a_context_can_be_printed_and_handed_over(a: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        await kv.put("lunch", "noon?")
        handed_over = kv.context
    async with Lightcone([a.url], context=handed_over) as kv:
        await kv.get("lunch")
        await kv.session(context=handed_over).get("lunch")
    assert [seen.context for seen in a.seen] == ["", "lc1;A:1", "lc1;A:1"]


async def test_an_answer_replaces_only_the_tokens_that_its_request_carried(
    a: FakeNode, until: Until
) -> None:
    held = Holds(a)
    async with Lightcone([a.url]) as kv:
        a.misbehaviours.append(held)
        slow = asyncio.create_task(kv.put("slow", "1"))
        await until(lambda: len(a.seen) == 1)
        await kv.put("quick", "2")
        held.release()
        await slow
        assert joined(kv.context) == {"A": 2}
        assert len(kv.context.split(",")) == 2
        await kv.get("quick")
        assert joined(a.seen[-1].context) == {"A": 2}
        assert kv.context == "lc1;A:2"


async def test_whatever_is_under_way_together_a_session_never_forgets(
    a: FakeNode, b: FakeNode
) -> None:
    async with Lightcone([a.url], patience_s=20) as kv:

        async def write(number: int) -> None:
            node = (a, b)[number % 2]
            written = await kv.at(node.url).put(f"key-{number}", "x")
            sequence = int(written.dot.partition(":")[2])
            assert joined(kv.context)[node.name] >= sequence

        async def keep_learning() -> None:
            while True:
                await a.learn(b)
                await b.learn(a)
                await asyncio.sleep(0)

        learning = asyncio.create_task(keep_learning())
        await asyncio.gather(*(write(number) for number in range(200)))
        learning.cancel()
        assert joined(kv.context) == {"A": a.clock["A"], "B": b.clock["B"]}
        most = max(len(seen.context.split(",")) for seen in a.seen + b.seen)
        assert most <= UNDER_WAY_MAX


async def test_however_long_tokens_are_those_of_requests_side_by_side_fit_into_a_header(
    a: FakeNode,
) -> None:
    a.clock = {f"A~{number:07}": 1_000_000 + number for number in range(60)}
    async with Lightcone([a.url]) as kv:
        other = kv.session()
        for _ in range(3):
            # What is absent is vouched for by the whole clock, which is another each time.
            reading = [kv.get(f"dinner {number}") for number in range(50)]
            await asyncio.gather(*reading, *(other.put("lunch", "noon?") for _ in range(50)))
        assert joined(kv.context) == a.clock
        assert len(kv.context) > 1000, "such tokens are long"
        assert max(len(seen.context) for seen in a.seen) <= 8192
        assert max(seen.context.count(",") for seen in a.seen) > 0, "some were side by side"


async def test_a_refusal_changes_nothing_that_was_seen(a: FakeNode, b: FakeNode) -> None:
    async with Lightcone([a.url], patience_s=0) as kv:
        await kv.put("lunch", "noon?")
        with pytest.raises(NotCaughtUp):
            await kv.at(b.url).put("dinner", "seven?")
        assert kv.context == "lc1;A:1"


@pytest.mark.parametrize("token", ["", "lc1;é:1", "lc1;A:1\tx"])
async def test_an_answer_that_says_nothing_of_what_was_seen_is_none(
    a: FakeNode, b: FakeNode, token: str
) -> None:
    async with Lightcone([a.url, b.url]) as kv:
        await kv.put("lunch", "noon?")
        await b.learn(a)
        headers = {"ETag": '"A:1"', "Siblings": "1", "Dot": "A:1", "Causal-Context": token}
        a.misbehaviours.append(answers(200, "noon?", **headers))
        version = await kv.get("lunch")
        assert version is not None and version.node == b.url
        assert kv.context == "lc1;A:1"
        b.misbehaviours.append(answers(412, "{}", **{"Causal-Context": token}))
        with pytest.raises(BadInput):
            await kv.at(b.url).put("lunch", "one?")
        assert kv.context == "lc1;A:1"


async def test_nothing_found_is_something_seen(a: FakeNode, b: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        await kv.session().put("lunch", "noon?")
        assert await kv.get("dinner") is None
        assert kv.context == "lc1;A:1"


async def test_what_asks_about_a_node_is_no_part_of_the_session(a: FakeNode) -> None:
    async with Lightcone([a.url]) as kv:
        await kv.put("lunch", "noon?")
        assert (await kv.status())["clock"] == {"A": 1}
        assert (await kv.pending(a.url))["total"] == 0
        assert kv.context == "lc1;A:1"
    assert [seen.context for seen in a.seen[1:]] == ["", ""]


@pytest.mark.parametrize("printed", ["lc1;A:1\r\nHost: evil", "lc1;é:1"])
def test_what_cannot_be_a_context_is_refused_at_once(printed: str) -> None:
    with pytest.raises(BadInput, match="printable"):
        Lightcone(["http://127.0.0.1:1"], context=printed)


def test_a_context_prints_and_reads_back() -> None:
    context = Context("lc1;A:7;B:3, lc1;C:1,")
    assert str(context) == "lc1;A:7;B:3,lc1;C:1"
    assert str(Context(str(context))) == str(context)


async def test_a_session_that_has_seen_what_is_lost_goes_on_only_when_it_is_told_to(
    a: FakeNode, b: FakeNode
) -> None:
    async with Lightcone([a.url, b.url], context="lc1;A:5,lc1;C:9") as kv:
        a.misbehaviours += [loses("C", 7)] * 2
        with pytest.raises(Lost):
            await kv.put("lunch", "noon?")
        with pytest.raises(Lost) as raised:
            await kv.put("lunch", "noon?")
        assert kv.context == "lc1;A:5,lc1;C:9"
        error = raised.value
        assert error.outcome == "not_applied"
        assert error.kind == "lost"
        assert error.writes == (LostWrites("C", 7, 9),)
        assert not b.seen, "no other node has it either"
        kv.go_on(error)
        assert kv.context == "lc1;A:5;C:7"
        a.clock = {"A": 5, "C": 7}
        await kv.put("lunch", "noon?")
        assert kv.context == "lc1;A:6;C:7"


async def test_what_a_session_saw_meanwhile_it_has_seen_when_it_goes_on(a: FakeNode) -> None:
    async with Lightcone([a.url], context="lc1;C:9") as kv:
        a.misbehaviours.append(loses("C", 7))
        with pytest.raises(Lost) as raised:
            await kv.get("lunch")
        a.clock = {"A": 2, "C": 9}  # it was under way all the same
        await kv.put("lunch", "noon?")
        kv.go_on(raised.value)
        assert joined(kv.context) == {"A": 3, "C": 9}
