"""Who a worker writes as: whose Redis it is, and when that is settled anew."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
import structlog

from app import identity, redis_link
from app.buffer import PendingBuffer
from app.errors import InvariantError, NotReady, PeerUnreachable, RedisUnavailable, StartupError
from app.identity import Ask, Identity
from app.keys import Keys
from app.links import end
from app.progress import Progress
from app.redis_link import run_of
from app.scripts import Scripts
from app.vector_clock import Dot, VectorClock
from app.wire import Answer
from app.write import Put
from tests.commits import commit_one
from tests.conftest import SERVERS, MakeRedis, begin
from tests.model import Node

real_redis_only = pytest.mark.parametrize("make_redis", SERVERS, indirect=True)

NOW_US = 1_000_000
A_NEW_REDIS = {"node": "A", "layout": "3", "birth": "a birth"}


# --- whose Redis it is ----------------------------------------------------------------------------


async def test_an_empty_redis_becomes_the_nodes_and_stays_it(make_redis: MakeRedis) -> None:
    scripts = Scripts(make_redis(), Keys())
    assert await identity.claim(scripts, "A", "a birth") == A_NEW_REDIS
    assert await identity.claim(scripts, "A", "a birth") == A_NEW_REDIS


async def test_the_redis_of_another_node_is_refused(make_redis: MakeRedis) -> None:
    scripts = Scripts(make_redis(), Keys())
    await identity.claim(scripts, "A", "a birth")
    with pytest.raises(StartupError, match=r"REDIS_URL: .* belongs to node A, and NODE_ID is B"):
        await identity.claim(scripts, "B", "a birth")
    assert (await identity.claim(scripts, "A", "a birth"))["node"] == "A"


async def test_a_redis_with_somebody_elses_data_is_refused(make_redis: MakeRedis) -> None:
    redis = make_redis()
    await redis.set("theirs", "1")
    with pytest.raises(StartupError, match=r"REDIS_URL: .* not Lightcone's.*database of its own"):
        await identity.claim(Scripts(redis, Keys()), "A", "a birth")
    assert await redis.keys() == [b"theirs"]


@pytest.mark.parametrize("meta", [{"node": "A", "layout": "2"}, {"node": "A"}])
async def test_data_of_another_layout_is_refused(
    make_redis: MakeRedis, meta: dict[str, str]
) -> None:
    redis = make_redis()
    for field, value in {"actor": "A", **meta}.items():
        await redis.hset("meta", field, value)
    with pytest.raises(StartupError, match=r"REDIS_URL: the data is of layout .*reads layout 3"):
        await identity.claim(Scripts(redis, Keys()), "A", "a birth")


async def test_a_meta_of_somebody_else_is_refused(make_redis: MakeRedis) -> None:
    redis = make_redis()
    await redis.hset("meta", "theirs", "1")
    with pytest.raises(StartupError, match="REDIS_URL"):
        await identity.claim(Scripts(redis, Keys()), "A", "a birth")


# --- who writes -----------------------------------------------------------------------------------


def says(clock: str, first_birth: str = "") -> Ask:
    """A peer that has seen so much, and has heard of this birth first; if of none, of yours."""

    async def ask(birth: str) -> Answer:
        seen = VectorClock.parse(clock)
        return Answer("B", seen, seen, VectorClock(), 0, 0, 0, 0, NOW_US, first_birth or birth)

    return ask


async def silence(_birth: str) -> Answer:
    raise PeerUnreachable("nobody")


async def no_change() -> None:
    """The members are those that they were."""


class Worker:
    """One worker of A, as far as it is about its name. Its Redis is a real one."""

    def __init__(self, redis: Any, **options: Any) -> None:
        self.redis = redis
        self.scripts = Scripts(redis, Keys())
        self.progress = Progress()
        self.identity = Identity(
            "A",
            redis,
            Keys(),
            self.scripts,
            self.progress,
            lambda: NOW_US,
            "a birth",
            **{"durable": True, "first_start_wait_s": 0.3, **options},
        )

    @asynccontextmanager
    async def at_work(self, peers: Mapping[str, Ask]) -> AsyncIterator["Worker"]:
        task = asyncio.create_task(self.identity.keep(no_change, lambda _told: peers))
        try:
            yield self
        finally:
            await end([task])

    async def writes_as(self, condition: Callable[[str], bool] = bool) -> str:
        """The name, once it is one that will do."""
        async with asyncio.timeout(30):
            while True:
                with suppress(NotReady):
                    if condition(self.identity.actor):
                        return self.identity.actor
                await asyncio.sleep(0.005)


@real_redis_only
async def test_a_new_node_writes_under_its_own_name_when_all_peers_have_said_so(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    async with Worker(redis).at_work({"B": says("B:3"), "C": says("")}) as worker:
        with pytest.raises(NotReady):
            assert worker.identity.actor
        assert await worker.writes_as() == "A"
    async with Worker(redis).at_work({"B": silence}) as another:
        assert await another.writes_as() == "A", "it is the same run of Redis"


@real_redis_only
@pytest.mark.parametrize(
    ("those", "name"),
    [({"C": says("")}, "A"), ({"C": says("A:7")}, "A~"), ({"C": silence}, "A~")],
    ids=["they know nothing", "they know it", "they are silent"],
)
async def test_a_new_node_asks_those_too_of_whom_its_peers_tell(
    make_redis: MakeRedis, those: dict[str, Ask], name: str
) -> None:
    async def tells(birth: str) -> Answer:
        return replace(await says("B:3")(birth), members={"B": "", "C": "http://c", "D": ""})

    def peers(told: Mapping[str, str]) -> Mapping[str, Ask]:
        return {"B": tells, **(those if "C" in told else {})}

    worker = Worker(make_redis())
    keeping = asyncio.create_task(worker.identity.keep(no_change, peers))
    try:
        assert (await worker.writes_as())[:2] == name
        joining = "A:7 B:3" if those["C"] is not silence and name == "A~" else "B:3"
        assert await worker.redis.hget("meta", "joining") == joining.encode()
    finally:
        await end([keeping])


@real_redis_only
async def test_the_members_are_learned_from_a_redis_before_anybody_is_asked_or_served(
    make_redis: MakeRedis,
) -> None:
    worker = Worker(make_redis())
    peers: dict[str, Ask] = {}
    tries = 0

    async def learn_members() -> None:
        nonlocal tries
        tries += 1
        assert worker.identity.is_in_doubt
        if tries < 3:
            raise RedisUnavailable("it is down")
        peers["B"] = says("A:7")

    keeping = asyncio.create_task(worker.identity.keep(learn_members, lambda _told: peers))
    try:
        async with asyncio.timeout(30):
            while worker.identity.is_in_doubt:
                await asyncio.sleep(0.005)
        assert worker.identity.actor.startswith("A~"), "B was not asked"
        assert tries == 3
    finally:
        await end([keeping])


@real_redis_only
async def test_a_node_that_had_another_redis_is_remembered_though_nothing_it_wrote_is(
    make_redis: MakeRedis,
) -> None:
    """It may have acknowledged writes that no peer has had yet."""
    peers = {"B": says(""), "C": says("", "an earlier birth")}
    async with Worker(make_redis()).at_work(peers) as worker:
        assert (await worker.writes_as()).startswith("A~")


@real_redis_only
async def test_a_peer_that_comes_in_time_is_heard(make_redis: MakeRedis) -> None:
    asked = 0

    async def late(birth: str) -> Answer:
        nonlocal asked
        asked += 1
        return await (says("")(birth) if asked > 2 else silence(birth))

    worker = Worker(make_redis(), first_start_wait_s=60)
    async with worker.at_work({"B": late, "C": says("B:1")}):
        assert await worker.writes_as() == "A"
    assert asked == 3


@real_redis_only
async def test_workers_that_settle_at_once_write_under_one_name(make_redis: MakeRedis) -> None:
    redis = make_redis()
    first, second = Worker(redis), Worker(redis)
    async with first.at_work({"B": silence}), second.at_work({"B": silence}):
        name = await first.writes_as()
        assert name.startswith("A~")
        assert await second.writes_as() == name


@real_redis_only
async def test_a_redis_that_was_started_again_is_written_to_once_that_is_settled(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    await begin(Scripts(redis, Keys()), "A", run="an earlier run")
    worker = Worker(redis)
    assert not worker.identity.admits("an earlier run")
    async with worker.at_work({"B": says("B:1")}):
        await worker.writes_as(lambda name: name == "A")
        run = await run_of(redis)
        assert worker.identity.admits(run)
        assert not worker.identity.admits("another run")
        assert await worker.identity.writer() == "A"
        assert worker.identity.admits(run)
        assert worker.identity.doubts == 2


@real_redis_only
async def test_who_begins_to_serve_knows_who_writes_though_a_doubt_came_up_meanwhile(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    await begin(Scripts(redis, Keys()), "A", run="an earlier run")
    worker = Worker(redis)

    async def meanwhile(birth: str) -> Answer:
        assert not worker.identity.admits("a run that was not looked at")
        return await says("B:1")(birth)

    async with worker.at_work({"B": meanwhile}), asyncio.timeout(30):
        await worker.identity.serves.wait()
        assert worker.identity.actor == "A"


@real_redis_only
async def test_with_less_than_fsync_always_a_restart_of_redis_begins_a_new_incarnation(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    await begin(Scripts(redis, Keys()), "A", run="an earlier run")
    with structlog.testing.capture_logs() as logs:
        async with Worker(redis, durable=False).at_work({}) as worker:
            name = await worker.writes_as()
    assert name.startswith("A~")
    [alert] = [entry for entry in logs if entry["event"] == "new incarnation"]
    assert alert["actor"] == name and "started again" in alert["reason"]


@real_redis_only
async def test_with_a_redis_that_fails_over_each_new_run_begins_a_new_incarnation(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    async with Worker(redis, fails_over=True).at_work({}) as worker:
        assert await worker.writes_as() == "A", "nothing was there to fail over from"
    async with Worker(redis, fails_over=True).at_work({}) as worker:
        assert await worker.writes_as() == "A", "it is the same run"
    await redis.hset("meta", mapping={"run": "an earlier run", "rested": "an earlier run"})
    async with Worker(redis, fails_over=True).at_work({}) as worker:
        assert (await worker.writes_as()).startswith("A~")
    assert "took over" in str(await redis.hget("meta", "reason"))


@real_redis_only
async def test_a_node_rests_in_a_run_in_which_it_was_at_work(make_redis: MakeRedis) -> None:
    redis = make_redis()
    run = await run_of(redis)
    await begin(Scripts(redis, Keys()), "A", run="an earlier run")
    await identity.rest(redis, Keys())
    assert not await redis.hexists("meta", "rested"), "it vouches for what it has not seen"
    async with Worker(redis).at_work({}) as worker:
        await worker.writes_as()
    await identity.rest(redis, Keys())
    assert await redis.hget("meta", "rested") == run.encode()


@real_redis_only
@pytest.mark.parametrize("durable", [True, False])
async def test_after_a_rest_a_redis_is_believed_that_does_not_forget(
    make_redis: MakeRedis, durable: bool
) -> None:
    redis = make_redis()
    await begin(Scripts(redis, Keys()), "A", run="an earlier run")
    await redis.hset("meta", "rested", "an earlier run")
    async with Worker(redis, durable=durable).at_work({}) as worker:
        assert (await worker.writes_as() == "A") == durable
    assert not await redis.hexists("meta", "rested")


@real_redis_only
async def test_what_a_worker_remembers_proves_a_loss_as_well(make_redis: MakeRedis) -> None:
    redis = make_redis()
    await begin(Scripts(redis, Keys()), "A")
    async with Worker(redis).at_work({}) as worker:
        await worker.writes_as()
        worker.progress.advance(VectorClock({"A": 7, "B": 2}))
        worker.identity.doubt()
        assert (await worker.writes_as(lambda name: name != "A")).startswith("A~")
        assert worker.progress.clock == VectorClock(), "what is lost is not applied"


@real_redis_only
async def test_a_peer_that_has_seen_more_is_believed_and_one_with_old_news_is_not(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    await begin(Scripts(redis, Keys()), "A")
    await redis.hset("clock", mapping={"A": 5})
    async with Worker(redis).at_work({}) as worker:
        await worker.writes_as()
        # Another worker has written A:5, of which this one has not heard yet.
        worker.identity.witness(VectorClock({"A": 5}))
        assert await worker.identity.writer() == "A"
        worker.identity.witness(VectorClock({"A": 6}))
        assert (await worker.identity.writer()).startswith("A~"), "it wrote in spite of the doubt"


@real_redis_only
async def test_a_write_that_comes_back_from_a_peer_proves_a_loss_to_a_worker_that_knew_it(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    await begin(Scripts(redis, Keys()), "A")
    lost = Node("A").write([Put("lunch", b"noon?")], NOW_US)
    async with Worker(redis).at_work({}) as worker:
        await worker.writes_as()
        worker.progress.advance(VectorClock({"A": 1}))
        buffer = PendingBuffer(
            *(redis, Keys(), worker.scripts, worker.progress, "A", worker.identity),
            lambda: NOW_US,
            pending_max=1,
            drain_max=1,
        )
        with pytest.raises(RedisUnavailable, match="it has lost A:1"):
            await buffer.receive([lost])
        assert (await worker.identity.writer()).startswith("A~"), "it goes on as if nothing were"
        assert (await buffer.receive([lost])).applied == 1


@real_redis_only
async def test_of_two_nodes_with_one_id_the_one_that_gave_way_stops(make_redis: MakeRedis) -> None:
    """Else each would begin another incarnation on account of the other, for ever."""
    redis = make_redis()
    await begin(Scripts(redis, Keys()), "A")
    worker = Worker(redis)
    keeping = asyncio.create_task(worker.identity.keep(no_change, lambda _told: {}))
    await worker.writes_as()
    worker.identity.witness(VectorClock({"A~1": 1}))
    name = await worker.writes_as(lambda name: name != "A")
    worker.identity.witness(VectorClock({"A~1": 1, name: 0, f"{name}z": 1}))
    with pytest.raises(InvariantError, match=r"two nodes have NODE_ID=A.*\(G4\)"):
        async with asyncio.timeout(30):
            await keeping


async def test_who_cannot_find_out_who_writes_says_what_redis_says() -> None:
    worker = Worker(redis_link.connect("unix:///nowhere", 1000))
    async with worker.at_work({}), asyncio.timeout(30):
        with pytest.raises(RedisUnavailable, match="the connection failed") as told:
            while True:
                with suppress(NotReady):
                    await worker.identity.writer()
    assert told.value.outcome == "not_applied"


@real_redis_only
async def test_nobody_writes_where_writes_are_missing_in_the_middle(make_redis: MakeRedis) -> None:
    redis = make_redis()
    scripts = Scripts(redis, Keys())
    await begin(scripts, "A", run="an earlier run")
    for _ in range(3):
        await commit_one(scripts, "A", [Put("key", b"x")], 1)
    await identity.check_logs(scripts)
    await redis.xdel("log:A", "2-0")
    with pytest.raises(InvariantError, match=r"lost writes in the middle.* the log of A has 2"):
        await Worker(redis).identity.keep(no_change, lambda _told: {})


@real_redis_only
async def test_a_redis_that_forgot_what_a_worker_accepted_costs_the_node_its_name(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    async with Worker(redis).at_work({"B": says("")}) as worker:
        assert await worker.writes_as() == "A"
        await redis.hset("deferred", "A+", 3)
        worker.identity.gave(Dot("A+", 3))
        worker.identity.doubt()
        assert await worker.writes_as() == "A", "it knows of it"
        await redis.delete("deferred")
        worker.identity.doubt()
        assert (await worker.writes_as(lambda actor: actor != "A")).startswith("A~")
