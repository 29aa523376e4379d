"""The way to this node's Redis: connecting, and saying what a failure means.

Behind Sentinels each new connection is to whichever server is the primary then.

Assumes redis-py. Guarantees that no command is ever sent twice by itself (a write that is repeated
is two writes), and that every failure of Redis reaches the caller as `RedisUnavailable`, with the
cause in Redis' own words and an honest outcome.

Does not know what is kept in Redis.
"""

import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
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
from app.redis_url import Sentinels

CONNECTIONS_MAX: Final = 64
"""Connections of one worker; requests beyond them wait their turn."""

_SENTINEL_MS_MAX: Final = 1000
"""A Sentinel that takes longer to answer is passed over: another one knows the same."""
_ID_LENGTH: Final = 40
_NOT_A_REPLICA: Final = {"", "master"}
_NOT_SENT: Final = "the command was not sent"
_SCRIPT: Final = re.compile(
    r"^Error running script \(call to \w+\): (@user_script: ?\d+: )*-?"  # Redis 6.2
    r"|,? script: \w+, on @user_script:\d+\.?$"
)
"""What Redis says of the script that it refused. Where in our code that was helps nobody."""


Admits = Callable[[str], bool]
"""Whether commands may be sent to Redis in the run with this id."""


class _NotesWhatWasNotSent(AbstractConnection):
    """A connection whose failures to connect say so: nothing can have been applied then.

    It is to one run of Redis: after a restart another one is made, and has to be admitted.
    """

    def __init__(self, *args: Any, admits: Admits | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._admits = admits
        self._primary_only = False

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        try:
            if not self.is_connected:
                await self._locate()
                await super().connect_check_health(*args, **kwargs)
                if self._primary_only or self._admits is not None:
                    await self._look_who_it_is()
        except RedisError as error:
            error.add_note(_NOT_SENT)
            raise

    def pack_command(self, *args: Any) -> list[bytes]:
        # redis-py copies what it has packed so far for each argument.
        name, *rest = args
        return [hiredis.pack_command((*name.split(), *rest))]

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().send_packed_command(*args, **kwargs)
        except RuntimeError as error:
            if type(error) is not RuntimeError:
                raise
            # So uvloop says that the other side has closed it, where asyncio raises an OSError.
            raise RedisConnectionError(f"the connection was closed: {error}") from error

    async def _locate(self) -> None:
        """It is known where to connect to."""

    async def _look_who_it_is(self) -> None:
        await self.send_command("INFO", check_health=False)
        lines = (line.partition(b":") for line in (await self.read_response()).splitlines())
        info = {name.decode(): value.decode(errors="replace") for name, _, value in lines}
        if self._primary_only and info.get("role", "") not in _NOT_A_REPLICA:
            await self.disconnect()
            raise RedisConnectionError("the Sentinels name a server that is a replica")
        if self._admits is not None and not self._admits(_run(info)):
            await self.disconnect()
            raise RedisConnectionError("Redis was started again, and what it holds is looked into")


class _Tcp(_NotesWhatWasNotSent, Connection):
    pass


class _Tls(_NotesWhatWasNotSent, SSLConnection):
    pass


class _Unix(_NotesWhatWasNotSent, UnixDomainSocketConnection):
    pass


class _Pool(BlockingConnectionPool):
    """A pool whose failure to give a connection says that nothing was sent."""

    async def get_connection(self, *args: Any, **kwargs: Any) -> AbstractConnection:
        get: Any = super().get_connection
        try:
            connection: AbstractConnection = await get(*args, **kwargs)
        except RedisError as error:
            error.add_note(_NOT_SENT)
            raise
        return connection


class _NamedBySentinels(_NotesWhatWasNotSent):
    """A connection to the server that is the primary when it is made."""

    host: str
    port: int

    def __init__(self, *args: Any, named_by: "_SentinelPool", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._named_by = named_by
        self._primary_only = True

    async def _locate(self) -> None:
        self.host, self.port = await self._named_by.primary()

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ReadOnlyError:  # it is the primary no longer
            await self.disconnect()
            raise


class _NamedTcp(_NamedBySentinels, Connection):
    pass


class _NamedTls(_NamedBySentinels, SSLConnection):
    pass


class _SentinelPool(_Pool):
    """A pool of connections to one server, the primary. Those to an earlier one are closed."""

    sentinel: Sentinel
    service: str

    async def primary(self) -> tuple[str, int]:
        """Where the primary is, as a Sentinel says. Raises RedisConnectionError."""
        try:
            host, port = await self.sentinel.discover_master(self.service)
        except MasterNotFoundError as error:
            # Its text is all that redis-py knows of each Sentinel, and behind it what failed.
            raise self._why_none(re.findall(r" - (\w+):", str(error))) from error
        connections: list[Any] = [*self._available_connections, *self._in_use_connections]
        for connection in connections:
            if connection.is_connected and (connection.host, connection.port) != (host, port):
                await connection.disconnect()
        return host, port

    def _why_none(self, failed: list[str]) -> RedisError:
        asked = len(self.sentinel.sentinels)
        if failed.count("auth") == asked:
            return AuthenticationError("the Sentinels do not accept the sentinel_password")
        return RedisConnectionError(
            f"of {asked} Sentinels {asked - len(failed)} answer, and none knows a primary of "
            f"{self.service} that is up"
        )

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel.aclose()


_CLASSES: Final[dict[str, type[AbstractConnection]]] = {
    "redis": _Tcp,
    "rediss": _Tls,
    "unix": _Unix,
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
        pool = _Pool.from_url(url, **options)
        # from_url picks the class by the scheme, and leaves no way to name another.
        pool.connection_class = _CLASSES[redis_url.scheme(url)]
    pool.connection_kwargs["admits"] = admits
    return Redis.from_pool(pool)


def _connection_options(timeout_ms: int) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_ms / 1000,
        "socket_connect_timeout": timeout_ms / 1000,
        "retry": Retry(NoBackoff(), 0),
        # With them on ("auto" is the default for TCP) a connection that ended while it was idle is
        # not noticed, and the next command is lost on it.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _sentinel_pool(sentinels: Sentinels, options: dict[str, Any], timeout_ms: int) -> _Pool:
    pool = _SentinelPool.from_url(sentinels.primary_url, **options)
    is_tls = redis_url.scheme(sentinels.primary_url) == "rediss"
    pool.connection_class = _NamedTls if is_tls else _NamedTcp
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
    return _run(await redis.info())


def took_over(run: str) -> bool:
    """Whether Redis was a replica before this run: it may lack the last that its primary had."""
    return "/" in run


def _run(info: Mapping[str, Any]) -> str:
    # redis-py makes a number of an id that has only digits.
    run_id, now, before = (
        str(info.get(name, "")).zfill(_ID_LENGTH)
        for name in ("run_id", "master_replid", "master_replid2")
    )
    # Whoever is promoted takes a new replication id, and keeps that of its primary as the second.
    return f"{run_id}/{now}" if before.strip("0") else run_id


@contextmanager
def translated(*, changes: bool = False) -> Iterator[None]:
    """Within it, what redis-py raises becomes RedisUnavailable.

    Its outcome can only be `unknown` where `changes` says that something is changed.

    A script that fails for a reason of its own (a wrong type of key, an error in the script)
    becomes InvariantError: somebody has changed what only scripts change (G1-G5).
    """
    try:
        yield
    except RedisError as error:
        if isinstance(error, ResponseError) and not _refused(error):
            raise InvariantError(
                f"Redis holds what our scripts cannot have written: {error}"
            ) from error
        metrics.REDIS_FAILURES.labels(_kind(error)).inc()
        outcome = _outcome(error) if changes else "not_applied"
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
    if _NOT_SENT in getattr(error, "__notes__", ()) or _refused(error):
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
