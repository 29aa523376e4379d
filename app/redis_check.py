"""Whether a Redis is what the guarantees assume (DESIGN.md, section 6), before a node relies on it.

Assumes that it answers `CONFIG GET` and `INFO`, or that `FSYNC=trust` says not to ask. Guarantees
that a Redis that would forget, evict or refuse writes is turned down, with what to change.
"""

import asyncio
import re
from typing import Any, Final, Literal

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from app.errors import RedisUnavailable, StartupError
from app.keys import Keys
from app.log import get_logger
from app.redis_link import translated

log = get_logger(__name__)

OLDEST: Final = (6, 2)
_ASKED_FOR: Final = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy")
_DURABLE_ENOUGH: Final = {"always": {"always"}, "everysec": {"always", "everysec"}}


async def until_it_answers(redis: Redis) -> None:
    """Redis answers, and has loaded its data.

    Raises RedisUnavailable if the password is wrong: that does not mend itself.
    """
    said = ""
    while True:
        try:
            with translated():
                await redis.ping()
                return
        except RedisUnavailable as error:
            if _wrong_password(error):
                raise
            if error.cause != said:
                said = error.cause
                log.info("waiting for redis", cause=said)
            await asyncio.sleep(0.2)


def _wrong_password(error: BaseException | None) -> bool:
    # redis-py wraps what fails while it connects.
    while error is not None and not isinstance(error, AuthenticationError):
        error = error.__cause__
    return error is not None


async def check(redis: Redis, fsync: Literal["always", "everysec", "trust"]) -> None:
    """Redis is new enough, a primary, keeps what it is given, and persists as `fsync` says.

    Raises StartupError that lists everything to change; RedisUnavailable.
    """
    with translated():
        info: dict[str, Any] = await redis.info()
    problems = []
    version = str(info.get("redis_version", "0"))
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
        problems.append(f"it is version {version}, and the oldest supported is 6.2")
    if info.get("role", "master") != "master":
        problems.append("it is a replica: name its primary instead")
    problems += await _channel_problems(redis)
    if fsync != "trust":
        problems += await _configuration_problems(redis, fsync)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise StartupError(f"REDIS_URL: this Redis cannot keep the guarantees:\n{listed}")


async def _channel_problems(redis: Redis) -> list[str]:
    try:
        with translated():
            await redis.publish(Keys.of(redis).applied_channel, "")  # the empty clock, no news
    except RedisUnavailable as error:
        if not isinstance(error.__cause__, NoPermissionError):
            raise
        # From Redis 7 on a new user may not, whatever commands it is given.
        return [f"its user may not publish ({error.cause}): give it the channels, `&*`"]
    return []


async def _configuration_problems(redis: Redis, fsync: str) -> list[str]:
    try:
        config: dict[Any, Any] = {}
        for name in _ASKED_FOR:
            config |= await redis.config_get(name)
    except ResponseError as error:
        return [f"it hides its configuration ({error}): set FSYNC=trust if you know that it is fit"]
    except RedisError as error:
        raise RedisUnavailable(str(error)) from error
    problems = []
    if config.get("appendonly") != "yes":
        problems.append("appendonly is off, so a restart loses writes: set `appendonly yes`")
    elif config.get("appendfsync") not in _DURABLE_ENOUGH[fsync]:
        problems.append(
            f"appendfsync is {config.get('appendfsync')}, less than FSYNC={fsync} promises: set "
            f"`appendfsync {fsync}`, or FSYNC to what it is"
        )
    if config.get("no-appendfsync-on-rewrite") == "yes":
        problems.append(
            "no-appendfsync-on-rewrite is on, so what is written while Redis rewrites its file is "
            "not synced: set `no-appendfsync-on-rewrite no`"
        )
    if config.get("maxmemory-policy") != "noeviction":
        problems.append(
            f"maxmemory-policy is {config.get('maxmemory-policy')}, so it may evict acknowledged "
            "writes: set `maxmemory-policy noeviction`"
        )
    return problems
