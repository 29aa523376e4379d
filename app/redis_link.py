"""The way to this node's Redis: a client for it, and what a failure means.

Assumes redis-py, on connections of ours (`redis_connections.py`). Guarantees that no command is
ever sent twice by itself (a write that is repeated is two writes), and that every failure of Redis
reaches the caller as `RedisUnavailable`, with the cause in Redis' own words and an honest outcome.

Does not know what is kept in Redis.
"""

import re
import weakref
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from app import metrics, redis_url
from app.errors import InvariantError, Outcome, RedisUnavailable
from app.redis_connections import (
    NOT_SENT,
    Admits,
    Client,
    NamedTcp,
    NamedTls,
    Pool,
    SentinelPool,
    Tcp,
    Tls,
    Unix,
    run_in,
)
from app.redis_url import Sentinels

CONNECTIONS_MAX: Final = 64
"""Connections of one worker; requests beyond them wait their turn."""

_SENTINEL_MS_MAX: Final = 1000
"""A Sentinel that takes longer to answer is passed over: another one knows the same."""
_SCRIPT: Final = re.compile(
    r"^Error running script \(call to \w+\): (@user_script: ?\d+: )*-?"  # Redis 6.2
    r"|,? script: \w+, on @user_script:\d+\.?$"
)
"""What Redis says of the script that it refused. Where in our code that was helps nobody."""
_CLASSES: Final[dict[str, type[AbstractConnection]]] = {
    "redis": Tcp,
    "rediss": Tls,
    "unix": Unix,
}


def connect(url: str, timeout_ms: int, admits: Admits | None = None) -> Redis:
    """A client for the Redis at `url`, or for the primary that the Sentinels there name.

    It connects when first used; close it with `aclose`.

    With `admits`, it sends nothing in a run of Redis that is not admitted.
    """
    options: dict[str, Any] = {
        "max_connections": CONNECTIONS_MAX,
        "timeout": timeout_ms / 1000,
        **_connection_options(timeout_ms),
    }
    if sentinels := redis_url.behind_sentinels(url):
        pool = _sentinel_pool(sentinels, options, timeout_ms)
    else:
        pool = Pool.from_url(url, **options)
        # from_url picks the class by the scheme, and leaves no way to name another.
        pool.connection_class = _CLASSES[redis_url.scheme(url)]
    pool.connection_kwargs["admits"] = admits
    return Client.from_pool(pool)


def _connection_options(timeout_ms: int) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_ms / 1000,
        "socket_connect_timeout": timeout_ms / 1000,
        "retry": Retry(NoBackoff(), 0),
        # With them on ("auto" is the default for TCP) a connection that ended while it was idle is
        # not noticed, and the next command is lost on it.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _sentinel_pool(sentinels: Sentinels, options: dict[str, Any], timeout_ms: int) -> Pool:
    pool = SentinelPool.from_url(sentinels.primary_url, **options)
    is_tls = redis_url.scheme(sentinels.primary_url) == "rediss"
    pool.connection_class = NamedTls if is_tls else NamedTcp
    pool.connection_kwargs["named_by"] = weakref.proxy(pool)
    tls = {k: v for k, v in pool.connection_kwargs.items() if k.startswith("ssl_")}
    pool.service = sentinels.service
    pool.sentinel = Sentinel(  # type: ignore[no-untyped-call]
        sentinels.addresses,
        sentinel_kwargs={
            **_connection_options(min(timeout_ms, _SENTINEL_MS_MAX)),
            "username": sentinels.username,
            "password": sentinels.password,
            **({"ssl": True, **tls} if is_tls else {}),
        },
    )
    return pool


async def run_of(redis: Redis) -> str:
    """The id of the run of Redis that is on.

    Another one after each start, and after each promotion of a replica.
    """
    return run_in(await redis.info())


def took_over(run: str) -> bool:
    """Whether Redis was a replica before this run: it may lack the last that its primary had."""
    return "/" in run


class translated:
    """Within it, what redis-py raises becomes RedisUnavailable.

    Its outcome can only be `unknown` where `changes` says that something is changed.

    A script that fails for a reason of its own (a wrong type of key, an error in the script)
    becomes InvariantError: somebody has changed what only scripts change (G1-G5).
    """

    __slots__ = ("_changes",)

    def __init__(self, *, changes: bool = False) -> None:
        self._changes = changes

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind_of_error: object, error: BaseException | None, _where: object) -> None:
        if not isinstance(error, RedisError):
            return
        if isinstance(error, ResponseError) and not _refused(error):
            raise InvariantError(
                f"Redis holds what our scripts cannot have written: {error}"
            ) from error
        metrics.REDIS_FAILURES.labels(_kind(error)).inc()
        outcome = _outcome(error) if self._changes else "not_applied"
        raise RedisUnavailable(_cause(error), outcome=outcome) from error


_REFUSALS: Final = (
    "OOM",
    "MISCONF",
    "READONLY",
    "LOADING",
    "BUSY",
    "NOAUTH",
    "NOPERM",
    "WRONGPASS",
    "MASTERDOWN",
    "NOREPLICAS",
    "CLUSTERDOWN",
    "NOSCRIPT",
    "command not allowed",
)


_REFUSAL_CLASSES: Final = (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
)


_KINDS: Final[tuple[tuple[str, tuple[type[RedisError], ...], str], ...]] = (
    ("timeout", (RedisTimeoutError,), ""),
    ("loading", (BusyLoadingError,), ""),
    ("out_of_memory", (OutOfMemoryError,), "OOM"),
    ("read_only", (ReadOnlyError,), "READONLY"),
    ("not_allowed", (AuthenticationError, NoPermissionError), "NOAUTH"),
    ("cannot_save", (), "MISCONF"),
    ("too_few_replicas", (), "NOREPLICAS"),
    ("busy", (), "BUSY"),
    ("too_many_clients", (), "max number of clients reached"),
)


def _refused(error: RedisError) -> bool:
    """Whether Redis refused the command for the state it is in, and before it changed anything."""
    # redis-py takes the code off the text of the errors that it has a class for.
    if isinstance(error, _REFUSAL_CLASSES):
        return True
    if str(error) == "max number of clients reached":
        return True
    # Nothing but Redis' own words is searched: what else failed may name a path or a host.
    return isinstance(error, ResponseError) and any(word in str(error) for word in _REFUSALS)


def _outcome(error: RedisError) -> Outcome:
    if NOT_SENT in getattr(error, "__notes__", ()) or _refused(error):
        return "not_applied"
    return "unknown"


def _kind(error: RedisError) -> str:
    """The cause in a word: one of few, for counting."""
    text = str(error)
    for kind, kinds_of_error, word in _KINDS:
        if isinstance(error, kinds_of_error) or (word and word in text):
            return kind
    return "connection" if isinstance(error, RedisConnectionError) else "other"


def _cause(error: RedisError) -> str:
    match error:
        case RedisTimeoutError():
            return f"it did not answer in time ({error})"
        case RedisConnectionError():
            return f"the connection failed ({error})"
    return _SCRIPT.sub("", str(error))
