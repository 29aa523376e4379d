"""A session that has seen what is lost with a disk is begun anew, and no other."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from client import Lightcone
from tests.chaos.clients import SessionPlan
from tests.chaos.load import Load
from tests.chaos.losses import Loss, Losses
from tests.chaos.plan import plan_for
from tests.client.fake_node import FakeNode
from tests.processes import until

ONE = SessionPlan(
    *("writer-A", "A"),
    roams=0.0,
    fails_over=False,
    timeout_s=1.0,
    pause_s=0.005,
    writes=0.7,
    deletes=0.0,
    keys=("x",),
)


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    node = FakeNode("A")
    await node.start()
    yield node
    await node.stop()


async def test_a_session_that_saw_what_is_lost_is_begun_anew(node: FakeNode) -> None:
    losses = Losses()
    async with Lightcone([node.url]) as kv:
        plan = replace(plan_for(1), nodes=("A",), sessions=(ONE,))
        load = Load(plan, kv, {"A": node.url}, losses)
        tally = load.tally
        running = asyncio.create_task(load.run())
        await until(lambda: tally.writes["ok"] > 3)

        node.clock, node.stored = {}, {}
        node.name = "A~1"
        await until(lambda: tally.refusals["not-caught-up"] > 1)
        assert tally.begun_anew == 0, "it might still come"

        losses.taken.append(Loss("A", "A", at_us=0, held=0, kept=0))
        before = tally.writes["ok"]
        await until(lambda: tally.writes["ok"] > before)
        assert tally.begun_anew == 1
        load.stop()
        await running
