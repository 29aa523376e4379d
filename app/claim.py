"""A node's Redis: claimed when the node starts, and told when it rests.

What it is: `claim_redis` and `rest`, which a supervisor does before its workers start and after
they have ended, and what a worker needs to claim for itself a Redis that was emptied meanwhile.

What it assumes and guarantees: a Redis that is fit to keep the guarantees, and this node's, when
`claim_redis` returns. It imports nothing that serves: a supervisor is up sooner and takes less
memory without that.

What it does not know: who serves, and what.
"""

import asyncio
import random
import time
from typing import Final

from app import identity, redis_check, redis_link, redis_url
from app.config import Config
from app.errors import InvariantError, RedisUnavailable, StartupError
from app.keys import Keys
from app.log import get_logger
from app.scripts import Scripts

log = get_logger(__name__)

_REDIS_COMES_WITHIN_S: Final = 20.0
"""How long a node that starts waits for a Redis that starts beside it, or loads its data."""


def wall_clock_us() -> int:
    """Microseconds since 1970, by this machine's clock."""
    return time.time_ns() // 1000


def new_birth(now_us: int, rng: random.Random) -> str:
    """A name for a new Redis that no other has had."""
    return f"{now_us:x}-{rng.randrange(16**8):08x}"


async def claim_redis(config: Config) -> None:
    """The Redis of `config` is fit to keep the guarantees, and this node's.

    Raises StartupError.
    """
    assert config.redis_url is not None
    redis = redis_link.connect(config.redis_url, config.redis_timeout_ms)
    try:
        async with asyncio.timeout(_REDIS_COMES_WITHIN_S):
            await redis_check.until_it_answers(redis)
        await redis_check.check(redis, config.fsync)
        birth = new_birth(wall_clock_us(), random.Random())
        scripts = Scripts(redis, Keys.of(redis))
        await identity.claim(scripts, config.node_id, birth)
        await identity.check_logs(scripts)
    except InvariantError as error:
        raise StartupError(f"REDIS_URL: {error}.") from error
    except (RedisUnavailable, TimeoutError) as error:
        cause = error.cause if isinstance(error, RedisUnavailable) else "it does not answer"
        raise StartupError(
            f"REDIS_URL: the Redis at {redis_url.shown(config.redis_url)} cannot be used: {cause}"
        ) from error
    finally:
        await redis.aclose()


async def rest(config: Config) -> None:
    """All workers have ended, and the node's Redis knows it, if it answers."""
    assert config.redis_url is not None
    redis = redis_link.connect(config.redis_url, config.redis_timeout_ms)
    try:
        await identity.rest(redis, Keys.of(redis))
    except RedisUnavailable as error:
        log.warning("redis does not know that the node rests", cause=error.cause)
    finally:
        await redis.aclose()
