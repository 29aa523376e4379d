"""The way to this node's Redis: connecting, and saying what a failure means.

Assumes redis-py. Guarantees that no command is ever sent twice by itself (a write that is repeated
is two writes), and that every failure of Redis reaches the caller as `RedisUnavailable`, with the
cause in Redis' own words and an honest outcome.

Does not know what is kept in Redis.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
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

from app.errors import InvariantError, Outcome, RedisUnavailable

CONNECTIONS_MAX: Final = 64
"""Connections of one worker; requests beyond them wait their turn."""

_RUN_ID_LENGTH: Final = 40
_RUN_ID: Final = re.compile(rb"^run_id:(\w+)", re.MULTILINE)
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

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        try:
            was_connected = self.is_connected
            await super().connect_check_health(*args, **kwargs)
            if self._admits is not None and not was_connected:
                await self._ask_whether_admitted(self._admits)
        except RedisError as error:
            error.add_note(_NOT_SENT)
            raise

    async def _ask_whether_admitted(self, admits: Admits) -> None:
        await self.send_command("INFO", "server", check_health=False)
        match = _RUN_ID.search(await self.read_response())
        if match is None or not admits(match[1].decode()):
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


_CLASSES: Final[dict[str, type[AbstractConnection]]] = {
    "redis": _Tcp,
    "rediss": _Tls,
    "unix": _Unix,
}


def connect(url: str, timeout_ms: int, admits: Admits | None = None) -> Redis:
    """A client for the Redis at `url`. It connects when first used; close it with `aclose`.

    With `admits`, it sends nothing in a run of Redis that is not admitted.
    """
    pool = _Pool.from_url(
        url,
        max_connections=CONNECTIONS_MAX,
        timeout=timeout_ms / 1000,
        socket_timeout=timeout_ms / 1000,
        socket_connect_timeout=timeout_ms / 1000,
        retry=Retry(NoBackoff(), 0),
        # With them on ("auto" is the default for TCP) a connection that ended while it was idle is
        # not noticed, and the next command is lost on it.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    # from_url picks the class by the scheme, and leaves no way to name another.
    pool.connection_class = _CLASSES[urlsplit(url).scheme]
    pool.connection_kwargs["admits"] = admits
    return Redis.from_pool(pool)


async def run_of(redis: Redis) -> str:
    """The id of the run of Redis that is on: another one after each start."""
    info: dict[str, Any] = await redis.info("server")
    # redis-py makes a number of one that has only digits.
    return str(info["run_id"]).zfill(_RUN_ID_LENGTH)


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


def _cause(error: RedisError) -> str:
    match error:
        case RedisTimeoutError():
            return f"it did not answer in time ({error})"
        case RedisConnectionError():
            return f"the connection failed ({error})"
    return _SCRIPT.sub("", str(error))
