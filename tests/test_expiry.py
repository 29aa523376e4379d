"""What expires: what clients are told of it, that it reads as absent at once, and is removed."""

import email.utils
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from app import expiry, redis_link
from app.errors import RedisUnavailable
from app.keys import Keys
from app.scripts import Scripts
from app.write import Put
from tests.conftest import MakeStore
from tests.events import watching
from tests.model import Node
from tests.one_node import Client, kv, node_a, problem, put_by, replicated
from tests.one_redis import redis_server
from tests.processes import until

BEGIN_US = 1_800_000_000_250_000
A_DATE = "Fri, 15 Jan 2027 08:01:00 GMT"


class Clock:
    """A wall clock that stands still."""

    now_us = BEGIN_US

    def __call__(self) -> int:
        return self.now_us

    def pass_s(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)


@asynccontextmanager
async def a_node(redis_url: str, **settings: Any) -> AsyncIterator[tuple[Client, Clock]]:
    """A node that removes nothing, so that what it tells is what it tells before it does."""
    clock = Clock()
    async with node_a(redis_url, now_us=clock, expiry_ms=3_600_000, **settings) as client:
        yield client, clock


async def put_for(client: Client, key: str, ttl: str) -> None:
    async with client.session.put(kv(client, key, f"?ttl={ttl}"), data=b"noon?") as response:
        assert response.status == 200, await response.text()


# --- what clients are told ------------------------------------------------------------------------


async def test_a_value_says_when_it_expires(redis_url: str) -> None:
    async with a_node(redis_url) as (client, _):
        put = await client.put("/kv/lunch?ttl=60", data=b"noon?")
        assert put.headers["Expires"] == A_DATE
        for answer in (await client.get("/kv/lunch"), await client.head("/kv/lunch")):
            assert answer.headers["Expires"] == A_DATE
            assert answer.headers["Cache-Control"] == "no-cache"
        known = await client.get("/kv/lunch", headers={"If-None-Match": put.headers["ETag"]})
        assert (known.status, known.headers["Expires"]) == (304, A_DATE)
        assert email.utils.parsedate_to_datetime(A_DATE).timestamp() == (
            (BEGIN_US + 60_000_000) // 1_000_000
        )
        shown = await (await client.get("/kv/lunch?siblings=true")).json()
        assert shown["siblings"][0]["expires"] == BEGIN_US + 60_000_000
        explained = await (await client.get("/explain/lunch")).json()
        assert explained["versions"][0]["expires"] == BEGIN_US + 60_000_000
        assert explained["history"][0]["expires"] == BEGIN_US + 60_000_000


async def test_one_that_lives_for_ever_says_nothing(redis_url: str) -> None:
    async with a_node(redis_url) as (client, _):
        put = await client.put("/kv/lunch", data=b"noon?")
        get = await client.get("/kv/lunch")
        assert not {"Expires", "Cache-Control"} & (set(put.headers) | set(get.headers))
        shown = await (await client.get("/kv/lunch?siblings=true")).json()
        assert "expires" not in shown["siblings"][0]


@pytest.mark.parametrize(
    ("ttl", "lives_us"), [("0.000001", 1), ("1.5", 1_500_000), ("3153600000", 3153600000_000_000)]
)
async def test_how_long_it_may_live(redis_url: str, ttl: str, lives_us: int) -> None:
    async with a_node(redis_url) as (client, clock):
        await put_for(client, "lunch", ttl)
        for now_us, status in ((lives_us - 1, 200), (lives_us, 404)):
            clock.now_us = BEGIN_US + now_us
            assert (await client.get("/kv/lunch")).status == status


@pytest.mark.parametrize(
    "ttl",
    [
        "0",
        "-1",
        "0.0000001",
        "3153600001",
        "1e300",
        "1.4e308",
        "1e999",
        "inf",
        "nan",
        "",
        "60s",
        "1_0",
        "٣",
    ],
)
async def test_a_ttl_that_is_none_is_refused_and_nothing_written(redis_url: str, ttl: str) -> None:
    async with a_node(redis_url) as (client, _):
        response = await client.put("/kv/lunch", params={"ttl": ttl}, data=b"x")
        told = await problem(response, 400, "bad-parameter")
        assert "?ttl= is a number of seconds, more than 0" in told["detail"]
        assert (await client.get("/kv/lunch")).status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/kv/lunch?ttl=1&ttl=2"), ("DELETE", "/kv/lunch?ttl=1"), ("GET", "/kv/lunch?ttl=1")],
)
async def test_a_ttl_where_none_belongs_is_refused(redis_url: str, method: str, path: str) -> None:
    async with a_node(redis_url) as (client, _):
        await put_for(client, "lunch", "60")
        told = await problem(await client.request(method, path, data=b"x"), 400, "bad-parameter")
        assert "ttl" in told["detail"]
        assert await (await client.get("/kv/lunch")).text() == "noon?"


async def test_a_transaction_puts_what_expires(redis_url: str) -> None:
    async with a_node(redis_url) as (client, clock):
        ops = [{"put": "lock", "value": "me", "ttl": 60, "if": None}, {"put": "log", "value": "x"}]
        answer = await client.post("/txn", json={"ops": ops})
        first, second = (await answer.json())["results"]
        assert first["expires"] == BEGIN_US + 60_000_000 and "expires" not in second
        await problem(await client.post("/txn", json={"ops": ops}), 412, "precondition-failed")
        clock.pass_s(60)
        got = await client.post("/txn", json={"ops": [*ops, {"get": "lock"}, {"get": "log"}]})
        lock, log = (await got.json())["results"][2:]
        assert (lock["siblings"], lock["etag"]) == ([], None)
        assert [v["text"] for v in log["siblings"]] == ["x"]


async def test_repeated_with_its_idempotency_key_a_put_lives_no_longer(redis_url: str) -> None:
    async with a_node(redis_url) as (client, clock):
        headers = {"Idempotency-Key": "one"}
        await client.put("/kv/lunch?ttl=60", data=b"noon?", headers=headers)
        clock.pass_s(30)
        again = await client.put("/kv/lunch?ttl=60", data=b"noon?", headers=headers)
        assert again.headers["Expires"] == A_DATE
        other = await client.put("/kv/lunch?ttl=61", data=b"noon?", headers=headers)
        await problem(other, 422, "idempotency-key-reused")


# --- it reads as absent at once -------------------------------------------------------------------


async def test_what_has_expired_is_nowhere_to_be_seen(redis_url: str) -> None:
    async with a_node(redis_url) as (client, clock):
        await put_for(client, "lunch", "60")
        await put_for(client, "dinner", "90")
        clock.pass_s(60)
        gone = await client.get("/kv/lunch")
        await problem(gone, 404, "no-such-key")
        assert gone.headers["Causal-Context"] == "lc1;A:2"
        assert (await client.head("/kv/lunch")).status == 404
        page = await (await client.get("/kv")).json()
        assert page == {"keys": ["dinner"], "cursor": None}
        told = await (await client.get("/explain/lunch")).json()
        assert told["versions"] == [] and "has expired" in told["why"]
        async with watching(client.session, client.make_url("/watch")) as stream:
            events = await stream.until("cut")
        winners = {event.data["key"]: event.data["winner"] for event in events[1:-1]}
        assert {key for key, winner in winners.items() if winner} == {"dinner"}


async def test_its_memory_is_there_all_the_while(redis_url: str) -> None:
    """Or the tests above would show nothing."""
    async with a_node(redis_url) as (client, clock):
        await put_for(client, "lunch", "60")
        clock.pass_s(60)
        assert (await client.get("/kv/lunch")).status == 404
        async with Redis.from_url(redis_url) as redis:
            assert await redis.exists("kv:lunch")


async def test_pages_pass_over_what_has_expired_and_lead_to_the_end(redis_url: str) -> None:
    async with a_node(redis_url) as (client, clock):
        ops = [{"put": f"k{n}", "value": "x", **({"ttl": 9} if n < 6 else {})} for n in range(8)]
        assert (await client.post("/txn", json={"ops": ops})).status == 200
        clock.pass_s(9)
        pages, cursor = [], ""
        while cursor is not None:
            page = await (await client.get(f"/kv?limit=3&cursor={cursor}")).json()
            pages.append(page["keys"])
            cursor = page["cursor"]
        assert pages == [[], [], ["k6", "k7"]]


async def test_conditions_are_about_what_is_there(redis_url: str) -> None:
    async with a_node(redis_url) as (client, clock):
        first = await client.put("/kv/lock?ttl=60", data=b"me")
        taken = await client.put("/kv/lock", data=b"you", headers={"If-None-Match": "*"})
        await problem(taken, 412, "precondition-failed")
        clock.pass_s(60)
        late = await client.put("/kv/lock", data=b"me", headers={"If-Match": first.headers["ETag"]})
        told = await problem(late, 412, "precondition-failed")
        assert told["keys"] == [{"key": "lock", "etag": None, "siblings": 0}]
        free = await client.put("/kv/lock?ttl=60", data=b"you", headers={"If-None-Match": "*"})
        assert free.status == 200


async def test_of_siblings_those_remain_that_live_longer(redis_url: str) -> None:
    async with a_node(redis_url) as (client, clock):
        await put_for(client, "lunch", "60")
        await replicated(client, put_by(Node("B"), "lunch", b"one?"))
        both = await client.get("/kv/lunch")
        assert (both.headers["ETag"], both.headers["Siblings"]) == ('"A:1,B:1"', "2")
        assert await both.text() == "noon?"  # its clock is ahead of B's
        assert (await (await client.get("/conflicts")).json())["keys"]
        clock.pass_s(60)
        left = await client.get("/kv/lunch")
        assert (left.headers["ETag"], left.headers["Siblings"]) == ('"B:1"', "1")
        assert await left.text() == "one?" and "Expires" not in left.headers
        # Its write superseded what another node may show still, so the reader has seen it.
        assert left.headers["Causal-Context"] == "lc1;A:1;B:1"
        assert (await (await client.get("/conflicts")).json())["keys"] == []
        told = await (await client.get("/explain/lunch")).json()
        assert "superseded or has expired" in told["why"]


async def test_the_clock_of_a_node_is_no_less_than_what_it_has_applied(redis_url: str) -> None:
    """So a node whose wall clock is behind agrees as soon as it has heard."""
    async with a_node(redis_url) as (client, _):
        await put_for(client, "lunch", "60")
        await replicated(client, Node("B").write([Put("tea", b"x")], BEGIN_US + 60_000_000))
        assert (await client.get("/kv/lunch")).status == 404
        assert (await (await client.get("/kv")).json())["keys"] == ["tea"]


async def test_a_put_without_a_ttl_makes_it_permanent(redis_url: str) -> None:
    async with a_node(redis_url) as (client, clock):
        await put_for(client, "lunch", "60")
        await client.put("/kv/lunch", data=b"later")
        clock.pass_s(1000)
        assert await (await client.get("/kv/lunch")).text() == "later"


async def test_what_has_expired_is_not_too_much_to_read(redis_url: str) -> None:
    async with a_node(redis_url, txn_max_bytes=300) as (client, clock):
        for _ in range(2):
            await client.put("/kv/lunch?ttl=60", data=b"x" * 250)
            await client.put("/kv/tea", data=b"y" * 250)
            clock.pass_s(60)
        gets = json.dumps({"ops": [{"get": "lunch"}, {"get": "tea"}]})
        assert (await client.post("/txn", data=gets)).status == 200


# --- and is removed -------------------------------------------------------------------------------


async def test_what_has_expired_is_removed_soon(redis_url: str) -> None:
    async with node_a(redis_url, expiry_ms=20) as client, Redis.from_url(redis_url) as redis:
        await put_for(client, "lunch", "0.05")
        await put_for(client, "dinner", "3600")

        async def is_gone() -> bool:
            return not await redis.exists("kv:lunch")

        await until(is_gone)
        assert await redis.exists("kv:dinner")
        metrics = await (await client.get("/metrics")).text()
        assert "lightcone_expired_versions_total" in metrics


async def test_all_of_it_however_much(make_store: MakeStore, monkeypatch: Any) -> None:
    monkeypatch.setattr(expiry, "KEYS_AT_ONCE", 7)
    a = await make_store("A")
    await a.store.commit([Put(f"k{n}", b"x", "t", 5) for n in range(50)])
    await expiry.remove_expired(a.scripts, "A", lambda: 1_000_010)
    assert await a.redis.keys("kv:*") == []
    assert await a.redis.zcard("expiring") == 0


async def test_a_redis_of_another_node_is_left_alone(make_store: MakeStore) -> None:
    a = await make_store("A")
    await a.store.commit([Put("lunch", b"x", "t", 5)])
    await expiry.remove_expired(a.scripts, "B", lambda: 1_000_010)
    assert await a.redis.exists("kv:lunch")


async def test_memory_is_freed_in_a_redis_that_is_full() -> None:
    """Also where it takes a note of what is gone."""
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as url:
        clock = Clock()
        async with (
            node_a(url, expiry_ms=20, now_us=clock) as client,
            Redis.from_url(url) as redis,
        ):
            await put_for(client, "beside", "60")
            await put_for(client, "lunch", "60")
            await replicated(client, put_by(Node("B"), "beside", b"one?"))
            await redis.config_set("maxmemory", 1)
            response = await client.put("/kv/tea", data=b"x")
            await problem(response, 503, "redis-unavailable")
            clock.pass_s(61)

            async def is_gone() -> bool:
                return not await redis.exists("kv:lunch")

            await until(is_gone)
            assert set(await redis.hkeys("kv:beside")) == {b"B:1", b"deletes"}


async def test_a_redis_that_is_away_is_told_as_that() -> None:
    redis = redis_link.connect("redis://127.0.0.1:1", 100)
    with pytest.raises(RedisUnavailable):
        await expiry.remove_expired(Scripts(redis, Keys()), "A", lambda: 1)
    await redis.aclose()
