"""A node's Redis in the simulation: fakeredis with the real scripts, and everything that ails it.

What it is: `Storage` is one Redis, which outlives the workers that use it. `Life` is one worker
process, as far as Redis and the network see it. `connect` gives a worker its client.

What it assumes and guarantees: the scripts, redis-py's pool and the node's own way of connecting
are the real ones. Each command takes a moment, so that workers interleave; what a dead worker
still does has no effect; what it had sent may still take effect after its death. `after_command`
is called after every command, wherever it came from.

As with `appendfsync always`, everything that Redis says, answers and published messages alike, is
held back until the next sync, and so tells only of what is on disk. A power cut takes Redis back
to some point between that sync and the last command.

What it does not know: what the commands mean, save which of them change something, and which
Redis refuses when it is full.

Where the idea is from: etcd's failpoints; TigerBeetle's simulated storage.
"""

import asyncio
import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from types import SimpleNamespace
from typing import Any, Final

from fakeredis import FakeServer
from fakeredis._helpers import SimpleError
from fakeredis._socket import AsyncFakeSocket
from fakeredis._socket import _base as fakeredis_base
from fakeredis.aioredis import FakeBaseAsyncConnection, FakeReader, FakeWriter
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app import redis_connections, redis_link
from app.keys import LAYOUT
from app.node import Connect
from app.redis_connections import Admits
from app.scripts import source
from tests.compiled_lua import compile_once
from tests.simulation.steps import Crash, MergeCrash, PowerCut, SenderCrash, TroubleKind

GROWS: Final = {"xadd", "hset", "set", "sadd", "zadd", "rpush", "hincrby"}
"""Commands of ours that a full Redis refuses; one that frees memory it carries out."""
WRITES: Final = {
    *GROWS,
    *("hdel", "del", "unlink", "rename", "srem", "zrem", "zremrangebyrank", "lpop", "xtrim"),
}
CHANGES: Final = WRITES | {"evalsha", "eval"}
"""Commands of workers that may change something."""
SLOW_SYNC: Final = (1, 20, 80)
"""How many times as long a sync takes on a disk whose power is about to fail."""
LATE_S: Final = 0.3
"""How long on the way is what is published by a Redis that is `late`."""
_MERGES: Final = [b"EVALSHA", hashlib.sha1(source("merge_keys").encode()).hexdigest().encode()]
"""How the command begins that takes a merge one step further."""
_FULL: Final = "OOM command not allowed when used memory > 'maxmemory'."
_READONLY: Final = "READONLY You can't write against a read only replica."
_LOADING: Final = "LOADING Redis is loading the dataset in memory"

Command = list[bytes]
"""A command's name and arguments."""

_numbers = itertools.count(1)


@contextmanager
def time_is(now_s: Callable[[], float]) -> Iterator[None]:
    """Within it fakeredis takes `now_s` for the time, and what it counts starts anew."""
    global _numbers
    _numbers = itertools.count(1)
    before = vars(fakeredis_base)["time"]
    vars(fakeredis_base)["time"] = SimpleNamespace(time=now_s)
    try:
        yield
    finally:
        vars(fakeredis_base)["time"] = before


class Life:
    """One worker process, from its start to its death."""

    def __init__(self, node: str, worker: int) -> None:
        self.node = node
        self.worker = worker
        self.alive = True
        self.crash: Crash | None = None
        self.sender_crash: SenderCrash | None = None
        self.commands_left = 0
        self.merge_crash: MergeCrash | None = None
        self.merge_steps_left = 0
        self.died_merging = False
        self.back_after_s = 0.05
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.on_death: Callable[[str], None] = lambda _why: None
        self.running = asyncio.Event()
        self.running.set()

    def plan_crash(self, crash: Crash) -> None:
        """It dies at a command that is still to come."""
        if self.alive and self.crash is None:
            self.crash, self.commands_left = crash, crash.commands
            self.back_after_s = crash.for_s

    def plan_merge_crash(self, crash: MergeCrash) -> None:
        """It dies at a step of a merge that is still to come."""
        self.merge_crash, self.merge_steps_left = crash, crash.steps

    def has_merged(self) -> None:
        """A step of a merge that it asked for has been carried out."""
        if self.merge_crash is not None:
            self.merge_steps_left -= 1
            if self.merge_steps_left <= 0:
                self.back_after_s = self.merge_crash.for_s
                self.died_merging = True
                self.die("in the middle of a merge")

    def has_sent_snapshot(self) -> None:
        """The last part of a snapshot that it sends has arrived."""
        if self.sender_crash is not None:
            self.back_after_s = self.sender_crash.for_s
            self.die("when a snapshot had been sent")

    def die(self, why: str) -> None:
        """Nothing that it does has any effect from now on."""
        if not self.alive:
            return
        self.alive = False
        self.running.set()
        self.on_death(why)
        for task in list(self.tasks):
            task.cancel()

    async def goes_on(self) -> bool:
        """Once it is not paused: whether it is still alive."""
        await self.running.wait()
        return self.alive


class Storage:
    """One Redis."""

    def __init__(self, node: str, peers: Sequence[str], rng: random.Random) -> None:
        self.node = node
        self.rng = rng
        self.server = FakeServer()
        compile_once(self.server)
        self.trouble: TroubleKind | None = None
        self.connections_made = 0
        self.after_command: Callable[[str], None] = lambda _name: None
        self.on_power_cut: Callable[[PowerCut], None] = lambda _cut: None
        self.note: Callable[[str], None] = lambda _text: None
        self._has_power = True
        self._held: list[tuple[_Socket, Any]] = []
        self._synced = asyncio.Event()
        self._synced.set()
        self._cut: PowerCut | None = None
        self._writes_left = 0
        self._states: list[dict[bytes, Any]] = []
        self._copies: dict[float, dict[bytes, Any]] = {}
        # As after a first start: whether a node has written before is not asked in each story.
        heard = [text.encode() for peer in peers for text in (peer, first_birth(peer))]
        self.execute(
            [[b"HSET", b"meta", *_meta(node, self.run)], [b"HSET", b"births", *heard]],
            self.connections_made,
        )

    @property
    def data(self) -> dict[bytes, Any]:
        """What the keys hold, as fakeredis keeps it."""
        return {key: item.value for key, item in self.server.dbs[0]._dict.items()}

    @property
    def run(self) -> str:
        """The id of the run that is on."""
        return f"{self.connections_made:040x}"

    @property
    def is_down(self) -> bool:
        """Whether nobody listens."""
        return self.trouble == "down" or not self._has_power

    def begin(self, trouble: TroubleKind) -> None:
        """Redis is unwell."""
        self.trouble = trouble
        if trouble in ("down", "restart"):
            self._hang_up()

    def end(self) -> None:
        """Redis is well, and no power cut is to come."""
        if self.trouble in ("down", "restart"):
            self._hang_up()
        self.trouble = None
        self._has_power = True
        self._cut = None

    def _hang_up(self) -> None:
        """Redis has ended, with all that it had not said yet."""
        self.connections_made += 1  # those from before are gone
        self.server.script_cache.clear()
        self._held.clear()
        self._synced.set()

    def execute(self, commands: list[Command], made: int) -> None:
        """The commands take effect, though nobody waits for the answer; unless Redis has ended
        since they were sent, on a connection of the time `made`."""
        if self.is_down or made != self.connections_made:
            return
        socket = _Socket(self.server, 0, client_class=Redis)
        socket.storage = self
        for command in commands:
            socket._process_command(command)
        socket.kill()

    # --- syncs and power cuts --------------------------------------------------------------------

    def say_when_synced(self, socket: "_Socket", message: Any) -> None:
        """The client at this socket has the message once all that was carried out is on disk."""
        self._held.append((socket, message))
        if self._synced.is_set():
            self._synced.clear()
            delay_s = self.rng.uniform(0.00005, 0.0005)
            if self._cut is not None:
                delay_s *= self.rng.choice(SLOW_SYNC)
            asyncio.get_running_loop().call_later(delay_s, self._sync, self.connections_made)

    async def until_synced(self) -> None:
        """All that had been carried out is on disk, or Redis has ended."""
        await self._synced.wait()

    def _sync(self, made: int) -> None:
        if made != self.connections_made:
            return
        del self._states[:-1]
        held, self._held = self._held, []
        for socket, message in held:
            if self.trouble == "late" and socket.listens:
                asyncio.get_running_loop().call_later(LATE_S, socket.say, message)
            else:
                socket.say(message)
        self._synced.set()

    def plan_power_cut(self, cut: PowerCut) -> None:
        """The power fails after a write that is still to come."""
        if self._cut is None and self._has_power:
            self._cut, self._writes_left = cut, cut.writes
            self._states = [self._copy()]

    def changed(self, logged: bool) -> None:
        """A command that may have changed something was carried out; it may have logged a write."""
        if self._cut is None:
            return
        self._states.append(self._copy())
        self._writes_left -= logged
        if logged and self._writes_left == 0:
            delay_s = self.rng.choice((0.0, self.rng.uniform(0, 0.001)))
            asyncio.get_running_loop().call_later(delay_s, self._lose_power, self._cut)

    def _lose_power(self, cut: PowerCut) -> None:
        if self._cut is not cut:
            return
        self._cut, self._has_power = None, False
        self._hang_up()
        self._put_back(self.rng.choice(self._states))
        self.on_power_cut(cut)
        asyncio.get_running_loop().call_later(cut.for_s, self._get_power)

    def copy_at(self, at_s: float) -> None:
        """A copy of what Redis holds is made then, for `lose_disk`."""

        def copy() -> None:
            self._copies[at_s] = self._copy()

        asyncio.get_running_loop().call_at(at_s, copy)

    def lose_disk(self, copied_at_s: float | None, for_s: float) -> None:
        """Redis has ended, and comes back with nothing, or with the copy that was made then; or, if
        that takes no time, it goes on so, and nobody's connection ends."""
        self._cut = None
        if for_s:
            self._has_power = False
            self._hang_up()
            asyncio.get_running_loop().call_later(for_s, self._get_power)
        self._put_back({} if copied_at_s is None else deepcopy(self._copies[copied_at_s]))
        if copied_at_s is not None:  # as if it were a copy of long ago
            self.server.dbs[0][b"meta"].value[b"alive"] = b"1"

    def _get_power(self) -> None:
        self._has_power = True

    def _copy(self) -> dict[bytes, Any]:
        return deepcopy(self.server.dbs[0]._dict)

    def _put_back(self, state: dict[bytes, Any]) -> None:
        database = self.server.dbs[0]
        database._dict.clear()
        database._expiry_heap.clear()
        for key, item in state.items():
            database[key] = item

    # --- refusals --------------------------------------------------------------------------------

    def refusal(self) -> str | None:
        """What every command is answered, whatever it is."""
        return _LOADING if self.trouble in ("loading", "restart") else None

    def refuses_write(self, name: str) -> str | None:
        """What this command is answered by a Redis that takes no writes, or no more data."""
        if self.trouble == "full" and name in GROWS:
            return _FULL
        if self.trouble == "readonly" and name in WRITES:
            return _READONLY
        return None


def first_birth(node: str) -> str:
    """The birth of the Redis with which the node began."""
    return f"the first of {node}"


def _meta(node: str, run: str) -> list[bytes]:
    fields = {
        **{"node": node, "layout": str(LAYOUT), "birth": first_birth(node)},
        **{"actor": node, "run": run},
    }
    return [text.encode() for field in fields.items() for text in field]


class _Socket(AsyncFakeSocket):
    """The server's side of a connection."""

    storage: Storage
    _wrote = False
    _logged = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(_numbers)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def put_response(self, msg: Any) -> None:
        self.storage.say_when_synced(self, msg)

    @property
    def listens(self) -> bool:
        """Whether the client is told what is published."""
        return self._pubsub > 0

    def say(self, message: Any) -> None:
        """The client has the message."""
        super().put_response(message)

    def _process_command(self, fields: list[bytes]) -> None:
        self._wrote = self._logged = False
        if fields[0] == b"INFO":  # fakeredis knows nothing of runs
            self.put_response(f"run_id:{self.storage.run}\r\nredis_version:7.0.0\r\n".encode())
            return
        if fields[:2] == [b"MEMORY", b"USAGE"]:  # nor of memory
            stream = self.storage.data.get(fields[2])
            self.put_response(100 * len(stream._ids) if stream else None)
            return
        if refusal := self.storage.refusal():
            self.put_response(self._decode_error(SimpleError(refusal)))
            return
        name = fields[0].decode().lower()
        super()._process_command(fields)
        if name in CHANGES:
            self.storage.changed(self._logged)
        self.storage.after_command(name)

    def _run_command(self, func: Any, sig: Any, args: list[Any], from_script: bool) -> Any:
        # Redis refuses the first command of a script that writes, never one after it.
        refusal = None if self._wrote else self.storage.refuses_write(sig.name)
        if refusal:
            return SimpleError(refusal)
        if sig.name in WRITES:
            self._wrote = True
        if sig.name == "xadd":
            self._logged = True
        return super()._run_command(func, sig, args, from_script)


class _Connection(FakeBaseAsyncConnection, redis_connections.Tcp):  # type: ignore[misc]
    """A worker's side of a connection."""

    def __init__(self, *, storage: Storage, life: Life, **kwargs: Any) -> None:
        super().__init__(server=storage.server, **kwargs)
        self._number = next(_numbers)
        self._storage = storage
        self._life = life
        self._made = -1
        self._fails_on_read: Exception | None = None
        self._is_sent = False

    def __hash__(self) -> int:
        return self._number

    async def _connect(self) -> None:
        await self._check_alive()
        if self._storage.is_down:
            raise RedisConnectionError("Connection refused")
        socket = _Socket(self._storage.server, self.db, client_class=Redis)
        socket.storage = self._storage
        self._sock = socket
        self._reader, self._writer = FakeReader(socket), FakeWriter(socket)
        self._made = self._storage.connections_made
        self._fails_on_read = None

    @property
    def is_idle(self) -> bool:
        return self._sock is not None and self._sock.responses.empty()

    async def disconnect(self, nowait: bool = False, *args: Any, **kwargs: Any) -> None:
        if self._sock is not None:
            self._sock.kill()
        await super().disconnect(nowait, **kwargs)

    def pack_command(self, *args: Any) -> Any:
        """Nothing is packed, for there is no wire: that saves a tenth of the time."""
        words = [*args[0].encode().split(), *args[1:]]
        encode: Callable[[Any], bytes] = self.encoder.encode
        return [[encode(word) for word in words]]

    def pack_commands(self, commands: Any) -> Any:
        return [self.pack_command(*command)[0] for command in commands]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        commands: list[Command] = command
        storage, rng = self._storage, self._storage.rng
        try:
            await self._check_alive()
            delay_s = rng.uniform(0.00005, 0.0015)
            if storage.trouble == "slow":
                delay_s = rng.choice((0.01, 0.2, 0.8))
            if self.socket_timeout and delay_s > self.socket_timeout:
                asyncio.get_running_loop().call_later(
                    delay_s, storage.execute, commands, self._made
                )
                self._fails_on_read = RedisTimeoutError("Timeout reading from redis")
                return
            await asyncio.sleep(delay_s)
            await self._check_alive()
            self._check_lost()
            if self._crashes(commands):
                raise RedisConnectionError("killed")
            lost = storage.trouble == "flaky" and rng.random() < 0.4
            if lost and rng.random() < 0.5:
                storage.note("loses a connection before a command")
                raise RedisConnectionError("Connection reset by peer")
            assert self._sock is not None
            for fields in commands:
                self._sock._process_command(fields)
            self._is_sent = True
            self._dies_now(commands)
            if lost:
                storage.note("loses a connection after a command")
                self._fails_on_read = RedisConnectionError("Connection reset by peer")
        except BaseException:  # a cancellation too leaves a connection that nobody can use
            await self.disconnect(nowait=True)
            raise

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._fails_on_read:
                if isinstance(self._fails_on_read, RedisTimeoutError):
                    await asyncio.sleep(self.socket_timeout or 0)
                raise self._fails_on_read
            if self._is_sent:
                self._is_sent = False
                await self._storage.until_synced()
            self._check_lost()
        except BaseException:  # a cancellation too leaves a connection that nobody can use
            await self.disconnect(nowait=True)
            raise
        response = await super().read_response(*args, **kwargs)
        await self._check_alive()
        if isinstance(response, Exception):  # redis-py raises LOADING so; fakeredis returns it
            await self.disconnect(nowait=True)
            raise response
        return response

    async def _check_alive(self) -> None:
        if not await self._life.goes_on():
            raise RedisConnectionError("this process is dead")

    def _check_lost(self) -> None:
        if self._made != self._storage.connections_made:
            raise RedisConnectionError("Connection closed by server")

    def _crashes(self, commands: list[Command]) -> bool:
        """Whether the worker dies now and the command has no effect, or has none yet."""
        life = self._life
        if life.crash is None:
            return False
        life.commands_left -= 1
        if life.commands_left > 0 or life.crash.when == "after":
            return False
        if life.crash.when == "late":
            delay_s = self._storage.rng.uniform(0.0005, 0.05)
            asyncio.get_running_loop().call_later(
                delay_s, self._storage.execute, commands, self._made
            )
        life.die(f"{life.crash.when} {commands[0][0].decode().lower()}")
        return True

    def _dies_now(self, commands: list[Command]) -> None:
        life = self._life
        if life.crash is not None and life.commands_left <= 0:
            life.die("after a command")
        if any(fields[:2] == _MERGES for fields in commands):
            life.has_merged()
        if not life.alive:
            raise RedisConnectionError("killed")


def connect(storage: Storage, life: Life) -> Connect:
    """The way in which a worker connects: the real one, up to the socket."""

    def connect_to(url: str, timeout_ms: int, admits: Admits | None = None, /) -> Redis:
        redis = redis_link.connect(url, timeout_ms, admits)
        pool = redis.connection_pool
        pool.connection_class = _Connection
        pool.connection_kwargs |= {"storage": storage, "life": life}
        return redis

    return connect_to
