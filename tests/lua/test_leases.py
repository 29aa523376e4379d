"""lua/hold_lease.lua and lua/release_lease.lua: one holder at a time, for a time."""

from redis.asyncio import Redis

from app.keys import Keys
from app.scripts import Scripts
from tests.conftest import MakeRedis

LONG_MS = 600_000


def leases(redis: Redis) -> Scripts:
    return Scripts(redis, Keys())


async def test_a_free_lease_is_taken_for_a_time(make_redis: MakeRedis) -> None:
    redis = make_redis()
    assert await leases(redis).hold_lease("B", "worker-1", LONG_MS)
    assert await redis.get("lease:B") == b"worker-1"
    assert 0 < await redis.pttl("lease:B") <= LONG_MS


async def test_a_held_lease_is_refused_to_others_and_not_prolonged(make_redis: MakeRedis) -> None:
    redis = make_redis()
    scripts = leases(redis)
    await scripts.hold_lease("B", "worker-1", LONG_MS)
    assert not await scripts.hold_lease("B", "worker-2", 10 * LONG_MS)
    assert await redis.get("lease:B") == b"worker-1"
    assert await redis.pttl("lease:B") <= LONG_MS


async def test_the_holder_prolongs_its_lease(make_redis: MakeRedis) -> None:
    redis = make_redis()
    scripts = leases(redis)
    await scripts.hold_lease("B", "worker-1", LONG_MS)
    assert await scripts.hold_lease("B", "worker-1", 10 * LONG_MS)
    assert await redis.pttl("lease:B") > LONG_MS


async def test_each_peer_has_a_lease_of_its_own(make_redis: MakeRedis) -> None:
    scripts = leases(make_redis())
    assert await scripts.hold_lease("B", "worker-1", LONG_MS)
    assert await scripts.hold_lease("C", "worker-2", LONG_MS)


async def test_a_lease_that_ran_out_is_free(make_redis: MakeRedis) -> None:
    redis = make_redis()
    scripts = leases(redis)
    await scripts.hold_lease("B", "worker-1", LONG_MS)
    await redis.pexpire("lease:B", 0)
    assert await scripts.hold_lease("B", "worker-2", LONG_MS)
    assert not await scripts.hold_lease("B", "worker-1", LONG_MS)


async def test_a_lease_that_a_clock_set_back_has_made_too_long_is_free(
    make_redis: MakeRedis,
) -> None:
    redis = make_redis()
    scripts = leases(redis)
    await scripts.hold_lease("B", "worker-1", LONG_MS)
    # As it looks to Redis when its wall clock is set back by two hours.
    await redis.pexpire("lease:B", LONG_MS + 7_200_000)
    assert await scripts.hold_lease("B", "worker-2", LONG_MS)
    assert 0 < await redis.pttl("lease:B") <= LONG_MS
    assert not await scripts.hold_lease("B", "worker-1", LONG_MS)


async def test_its_holder_frees_a_lease(make_redis: MakeRedis) -> None:
    redis = make_redis()
    scripts = leases(redis)
    await scripts.hold_lease("B", "worker-1", LONG_MS)
    await scripts.release_lease("B", "worker-1")
    assert not await redis.exists("lease:B")
    assert await scripts.hold_lease("B", "worker-2", LONG_MS)


async def test_nobody_else_frees_a_lease(make_redis: MakeRedis) -> None:
    redis = make_redis()
    scripts = leases(redis)
    await scripts.hold_lease("B", "worker-1", LONG_MS)
    await scripts.release_lease("B", "worker-2")
    assert await redis.get("lease:B") == b"worker-1"


async def test_freeing_a_free_lease_does_nothing(make_redis: MakeRedis) -> None:
    redis = make_redis()
    await leases(redis).release_lease("B", "worker-1")
    assert await redis.dbsize() == 0
