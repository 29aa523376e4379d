"""What the Redis of a node holds, read from outside, and whether nodes hold the same.

What it is: `redis_contents` reads what is under a pattern of keys; `writes_of` reads the logs in
it; `unequal` holds nodes against each other.

What it assumes and guarantees: nobody writes meanwhile. It only reads, through a connection of its
own, and so sees what an operator would see.

What it does not know: how many nodes there are, and what became of any request.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from app.codec import unpack_operations
from app.write import Operation

Contents = dict[str, Any]
"""By key: a hash as a dict, a stream as a list of entries. Bytes everywhere but in keys."""


@dataclass(frozen=True, slots=True)
class LoggedWrite:
    """One write, as a log holds it."""

    dot: str
    timestamp: int
    dependencies: Mapping[str, int]
    operations: tuple[Operation, ...]


async def redis_contents(socket: Path, pattern: str) -> Contents:
    """What the Redis at this socket holds under `pattern`: hashes and streams."""
    contents: Contents = {}
    async with Redis(unix_socket_path=str(socket)) as redis:
        async for key in redis.scan_iter(pattern, count=1000):
            kind = await redis.type(key)
            contents[key.decode()] = (
                await redis.xrange(key) if kind == b"stream" else await redis.hgetall(key)
            )
    return contents


def writes_of(logs: Contents) -> Iterator[LoggedWrite]:
    """The writes in the logs of all actors, each log in its order."""
    for key, log in logs.items():
        actor = key.partition(":")[2]
        for entry_id, fields in log:
            yield LoggedWrite(
                f"{actor}:{sequence_of(entry_id)}",
                int(fields[b"timestamp"]),
                clock_of(fields[b"dependencies"].decode()),
                unpack_operations(fields[b"operations"]),
            )


def sequence_of(entry_id: bytes) -> int:
    """The sequence of the write whose entry in a log has this id."""
    return int(entry_id.decode().removesuffix("-0"))


def clock_of(text: str) -> dict[str, int]:
    """The clock that Redis holds as `A:7 B:3`."""
    entries = (entry.rpartition(":") for entry in text.split())
    return {actor: int(sequence) for actor, _, sequence in entries}


def joined(clocks: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """What any of the clocks covers."""
    join: dict[str, int] = {}
    for clock in clocks:
        for actor, sequence in clock.items():
            join[actor] = max(join.get(actor, 0), sequence)
    return join


def covers(clock: Mapping[str, int], dot: str) -> bool:
    """Whether a node with this clock has applied the write."""
    actor, _, sequence = dot.rpartition(":")
    return int(sequence) <= clock.get(actor, 0)


def unequal(contents: Mapping[str, Contents]) -> list[str]:
    """The keys under which nodes, given by name, do not hold the same.

    What was deleted beside a version may differ, for it depends on what each node's readers saw.
    """
    shown = {node: {k: _compared(v) for k, v in held.items()} for node, held in contents.items()}
    every = set().union(*shown.values())
    first = next(iter(shown.values()), {})
    return sorted(k for k in every if any(held.get(k) != first.get(k) for held in shown.values()))


def _compared(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: field for name, field in value.items() if name != b"deletes"}
    return value
