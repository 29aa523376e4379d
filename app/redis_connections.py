"""The client for this node's Redis, its connections, and pools of them, as this node wants them.

Assumes redis-py. Guarantees that a command is sent once at most, on a connection to a run of Redis
that is admitted, and, behind Sentinels, to the server that is the primary then; and that a failure
says so (`NOT_SENT`) where nothing can have been applied.

Does not know what is sent.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import (
    AuthenticationError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

NOT_SENT: Final = "the command was not sent"
"""The note on errors after which nothing can have been applied."""
_UNSENT_MAX_BYTES: Final = 64 * 1024
"""What may wait in a connection to be sent while its sender waits for the answer already: as much
as asyncio's own streams hold before they want to be waited for."""
_ID_LENGTH: Final = 40
_NOT_A_REPLICA: Final = {"", "master"}

Admits = Callable[[str], bool]
"""Whether commands may be sent to Redis in the run with this id."""


def run_in(info: Mapping[str, Any]) -> str:
    """The id of the run of Redis whose INFO this is."""
    # redis-py makes a number of an id that has only digits.
    run_id, now, before = (
        str(info.get(name, "")).zfill(_ID_LENGTH)
        for name in ("run_id", "master_replid", "master_replid2")
    )
    # Whoever is promoted takes a new replication id, and keeps that of its primary as the second.
    return f"{run_id}/{now}" if before.strip("0") else run_id


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
            error.add_note(NOT_SENT)
            raise

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[safe-super,no-untyped-call]  # that of redis-py
        writer: Any = self._writer
        # uvloop would keep a command until all callbacks of this turn have run.
        writer.transport.set_write_buffer_limits(high=0)

    def pack_command(self, *args: Any) -> list[bytes]:
        # redis-py copies what it has packed so far for each argument.
        name, *rest = args
        return [hiredis.pack_command((*name.split(), *rest))]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """What was packed is on its way. redis-py begins a task for that, which takes longer than
        all the rest."""
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        try:
            writer: Any = self._writer  # there is one, for it is connected
            writer.writelines(command)
            if writer.transport.get_write_buffer_size() > _UNSENT_MAX_BYTES:
                async with asyncio.timeout(self.socket_timeout):
                    await writer.drain()
        except BaseException as error:  # what is half sent spoils the connection
            await self.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise RedisTimeoutError("Timeout writing to socket") from None
            # uvloop raises a RuntimeError where the other side has closed it.
            if isinstance(error, OSError) or type(error) is RuntimeError:
                raise RedisConnectionError(f"Error while writing to socket: {error}") from error
            raise

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """What Redis answers. For each answer redis-py begins a timeout of asyncio, which takes
        longer than to read it."""
        if args or kwargs:  # it is a subscriber that waits, and how long is for it to say
            return await super().read_response(*args, **kwargs)
        parser: Any = self._parser
        patience_s: Any = self.socket_timeout  # all of ours have one
        patience = asyncio.get_running_loop().call_later(patience_s, self._give_up)
        try:
            answer = await parser.read_response()
        except BaseException as error:  # what may still come is the answer to nothing
            await self.disconnect(nowait=True)
            if isinstance(error, OSError):
                raise RedisConnectionError(f"Error while reading from socket: {error}") from error
            raise
        finally:
            patience.cancel()
        reader: Any = self._reader
        if reader is not None and reader.exception() is not None:
            # It came in the very instant in which it was given up: the next one would be failed.
            await self.disconnect(nowait=True)
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    def _give_up(self) -> None:
        reader: Any = self._reader
        if reader is not None:
            reader.set_exception(RedisTimeoutError("Timeout reading from socket"))

    @property
    def is_idle(self) -> bool:
        """Whether it can be used as it is: it is open, and nothing is left on it."""
        reader, parser = cast(Any, self._reader), cast(Any, self._parser)
        return self.is_connected and not (
            reader.at_eof() or reader.exception() or reader._buffer or parser._reader.has_data()
        )

    async def can_read(self) -> bool:
        """Whether a new one has to be made. redis-py overlooks that it was reset."""
        return not self.is_idle

    async def _locate(self) -> None:
        """It is known where to connect to."""

    async def _look_who_it_is(self) -> None:
        await self.send_command("INFO", check_health=False)
        lines = (line.partition(b":") for line in (await self.read_response()).splitlines())
        info = {name.decode(): value.decode(errors="replace") for name, _, value in lines}
        if self._primary_only and info.get("role", "") not in _NOT_A_REPLICA:
            await self.disconnect()
            raise RedisConnectionError("the Sentinels name a server that is a replica")
        if self._admits is not None and not self._admits(run_in(info)):
            await self.disconnect()
            raise RedisConnectionError("Redis was started again, and what it holds is looked into")


class Tcp(_NotesWhatWasNotSent, Connection):
    pass


class Tls(_NotesWhatWasNotSent, SSLConnection):
    pass


class Unix(_NotesWhatWasNotSent, UnixDomainSocketConnection):
    pass


class Script:
    """A Lua script, which Redis is sent once and asked for by its digest from then on."""

    def __init__(self, redis: "Client", text: str) -> None:
        self._redis = redis
        self._text = text
        self._digest = hashlib.sha1(text.encode()).hexdigest()

    async def __call__(self, keys: Sequence[str] = (), args: Iterable[Any] = ()) -> Any:
        """What the script returns."""
        handed = (len(keys), *keys, *args)
        try:
            return await self._redis.asked(("EVALSHA", self._digest, *handed), _as_it_comes)
        except NoScriptError:
            return await self._redis.asked(("EVAL", self._text, *handed), _as_it_comes)


def _as_it_comes(connection: Any) -> Awaitable[Any]:
    return connection.read_response()  # type: ignore[no-any-return]


class Client(Redis):
    """A client that tries each command once.

    redis-py goes through what would try it again, and tells observers: a third of what a command
    costs.
    """

    def register_script(self, script: Any) -> Any:
        return Script(self, script)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        def read(connection: Any) -> Awaitable[Any]:
            return self.parse_response(connection, args[0], **options)

        return await self.asked(args, read)

    async def asked(self, command: Sequence[Any], read: Callable[[Any], Awaitable[Any]]) -> Any:
        """What `read` makes of the answer to this command, given its connection."""
        pool: Any = self.connection_pool
        connection = pool.free() or await pool.get_connection()
        try:
            await connection.send_command(*command)
            return await read(connection)
        finally:
            if not pool.put_back(connection):
                await pool.release(connection)


class Pool(BlockingConnectionPool):
    """A pool whose failure to give a connection says that nothing was sent.

    A connection that is free, and as it was left, is given and taken back at once. redis-py takes
    locks for that, and tells observers: a third of what a command costs.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting = 0

    async def get_connection(self, *args: Any, **kwargs: Any) -> AbstractConnection:
        if free := self.free():
            return free
        get: Any = super().get_connection
        self._waiting += 1
        try:
            connection: AbstractConnection = await get(*args, **kwargs)
        except RedisError as error:
            error.add_note(NOT_SENT)
            raise
        finally:
            self._waiting -= 1
        return connection

    def free(self) -> AbstractConnection | None:
        """A connection that can be used as it is, if there is one."""
        connections: Any = self._available_connections
        if self._waiting or not connections or not connections[-1].is_idle:
            return None
        connection: AbstractConnection = connections.pop()
        self._in_use_connections.add(connection)
        return connection

    async def release(self, connection: Any) -> None:
        if not self.put_back(connection):
            await super().release(connection)

    def put_back(self, connection: Any) -> bool:
        """Whether it could be taken back at once."""
        if self._waiting or connection.should_reconnect():
            return False
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)
        return True


class _NamedBySentinels(_NotesWhatWasNotSent):
    """A connection to the server that is the primary when it is made."""

    host: str
    port: int

    def __init__(self, *args: Any, named_by: "SentinelPool", **kwargs: Any) -> None:
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


class NamedTcp(_NamedBySentinels, Connection):
    pass


class NamedTls(_NamedBySentinels, SSLConnection):
    pass


class SentinelPool(Pool):
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
