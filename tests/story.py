"""Stories of a few nodes, told in text files: `tests/scenarios/*.txt`.

A line is a command, an arrow, and what happened. The interpreter runs the commands on the real
scripts and compares the whole text with what it would have written itself.

    put NODE KEY "VALUE"         -> the dot, and what it depends on
    delete NODE KEY              -> the same
    receive NODE DOT [DOT ...]   -> what became of each, and of what it set free
    sync NODE -> NODE            -> all that the second lacks of what the first has applied
    get NODE KEY                 -> the values, winner first; or nothing
    context NODE KEY             -> what a reader of the key has seen
    clock NODE                   -> what is applied there
    pending NODE                 -> what waits there, and for what
    keys NODE                    -> the user keys in its Redis
    time NODE MICROSECONDS       -> its wall clock shows this (says nothing)
"""

import shlex
from collections.abc import Awaitable, Callable

from app.vector_clock import Dot, VectorClock
from app.write import Delete, Operation, Put, Write
from tests.conftest import MakeStore, Store


class Story:
    """The nodes of one story, made when first named."""

    def __init__(self, make_store: MakeStore) -> None:
        self._make_store = make_store
        self._nodes: dict[str, Store] = {}
        self._writes: dict[Dot, Write] = {}
        self._commands: dict[str, Callable[..., Awaitable[str]]] = {
            "put": self._put,
            "delete": self._delete,
            "receive": self._receive,
            "sync": self._sync,
            "get": self._get,
            "context": self._context,
            "clock": self._clock,
            "pending": self._pending,
            "keys": self._keys,
            "time": self._time,
        }

    async def tell(self, text: str) -> str:
        """The same story with what really happened behind each arrow."""
        told = []
        for line in text.splitlines():
            if not line.strip() or line.startswith("#"):
                told.append(line)
                continue
            # `sync A -> B` has an arrow of its own.
            command = line.rsplit(" -> ", 1)[0] if line.count(" -> ") else line
            if command.startswith("sync") and "->" not in command:
                command = line
            name, *words = shlex.split(command)
            happened = await self._commands[name](*words)
            told.append(f"{command.rstrip():<34} -> {happened}" if happened else command)
        return "\n".join(told) + "\n"

    async def _node(self, name: str) -> Store:
        if name not in self._nodes:
            self._nodes[name] = await self._make_store(name)
        return self._nodes[name]

    async def _commit(self, name: str, operation: Operation) -> str:
        node = await self._node(name)
        committed = await node.store.commit([operation])
        sequence = committed.dot.sequence
        [write] = await node.store.log.after(committed.dot.actor, sequence - 1, 1)
        self._writes[write.dot] = write
        return f"{write.dot} after {write.dependencies}"

    async def _put(self, name: str, key: str, value: str) -> str:
        return await self._commit(name, Put(key, value.encode(), "text/plain"))

    async def _delete(self, name: str, key: str) -> str:
        return await self._commit(name, Delete(key))

    async def _receive(self, name: str, *dots: str) -> str:
        return await self._deliver(name, [self._writes[Dot.parse(dot)] for dot in dots])

    async def _sync(self, sender: str, arrow: str, receiver: str) -> str:
        assert arrow == "->"
        source, target = await self._node(sender), await self._node(receiver)
        theirs = await target.store.clock()
        writes: list[Write] = []
        for actor in (await source.store.clock()).beyond(theirs):
            writes += await source.store.log.after(actor, theirs[actor], 1000)
        return await self._deliver(receiver, sorted(writes, key=lambda write: write.timestamp))

    async def _deliver(self, name: str, writes: list[Write]) -> str:
        node = await self._node(name)
        before = await node.store.clock()
        received = await node.buffer.receive(writes)
        became = [
            f"{count} {what}"
            for count, what in [
                (received.duplicate, "duplicate"),
                (received.pending, "pending"),
                (received.refused, "refused"),
            ]
            if count
        ]
        applied = _dots_between(before, received.clock)
        if applied:
            became.insert(0, "applied " + " ".join(map(str, applied)))
        return ", ".join(became) or "nothing new"

    async def _get(self, name: str, key: str) -> str:
        reading = await (await self._node(name)).store.read(key)
        return " ".join(f'"{v.value.decode()}"' for v in reading.versions) or "nothing"

    async def _context(self, name: str, key: str) -> str:
        return str((await (await self._node(name)).store.read(key)).context)

    async def _clock(self, name: str) -> str:
        return str(await (await self._node(name)).store.clock())

    async def _pending(self, name: str) -> str:
        blocked = await (await self._node(name)).buffer.blocked(100)
        waits = [
            f"{b.waiting.write.dot} waits for {' '.join(map(str, b.waiting_for))}" for b in blocked
        ]
        return ", ".join(waits) or "nothing"

    async def _keys(self, name: str) -> str:
        node = await self._node(name)
        stem = node.keys.kv_stem
        names = sorted(key.decode() for key in await node.redis.keys(f"{stem}*"))
        return " ".join(key.removeprefix(stem) for key in names) or "none"

    async def _time(self, name: str, now_us: str) -> str:
        (await self._node(name)).set_time(int(now_us))
        return ""


def _dots_between(before: VectorClock, after: VectorClock) -> list[Dot]:
    return [
        Dot(dot.actor, sequence)
        for dot in after.beyond(before).dots()
        for sequence in range(before[dot.actor] + 1, dot.sequence + 1)
    ]
