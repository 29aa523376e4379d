"""Whether a node runs, and can serve. That one joins, or was removed: tests/test_joining.py."""

from redis import Redis

from tests.one_node import node_a, problem, put


async def test_a_node_is_alive_and_ready(redis_url: str) -> None:
    async with node_a(redis_url) as client:
        assert await (await client.get("/healthz")).json() == {"status": "alive"}
        assert await (await client.get("/readyz")).json() == {"status": "ready"}


async def test_a_node_that_merges_is_not_ready_and_says_how_far_it_is(
    redis_url: str,
) -> None:
    async with node_a(redis_url) as client:
        await put(client, "lunch", b"soup")  # it is settled who writes here
        with Redis.from_url(redis_url) as redis:
            about = {"id": "s1", "source": "B", "last": "p1", "clock": "B:9", "begun": "1"}
            redis.hset("snapshot", mapping={**about, "keys": 300, "total": 300, "merged": 120})
            redis.hset("meta", "merging", "s1")
            said = await problem(await client.get("/readyz"), 503, "syncing")
            assert "120 of 300 keys are in" in said["detail"]
            said = await problem(await client.get("/kv/lunch"), 503, "syncing")
            assert "GET /status" in said["detail"]
            redis.delete("snapshot")
            redis.hdel("meta", "merging")
        assert (await client.get("/readyz")).status == 200
