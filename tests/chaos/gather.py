"""What a run has left: in every Redis, to be read at every node, and as a history.

What it is: `read_all`, the final reads; `held_by`, what the Redis of a node holds; and `Telling`,
which makes the history of what clients have recorded.

What it assumes and guarantees: nobody writes any more. In the history an operation knows what is
lost of what its session had seen. A deferred write goes by the name under which it was done, has
the dependencies that the logs tell, and its place in its session; if that had seen what is lost,
and the write is there all the same, it has none. Actors whose end was declared go so far.

What it does not know: what there should be.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.incarnation import is_lane
from client import Lightcone, LightconeError
from tests.chaos.clients import ttl_s_of
from tests.chaos.deferred import Names, done_as
from tests.chaos.ends import within
from tests.chaos.logbook import Logbook
from tests.chaos.losses import Losses
from tests.chaos.nodes import ChaosNodes
from tests.checker.history import Dot, Operation, read_history
from tests.contents import Contents, redis_contents

_READS_AT_ONCE = 16

Record = dict[str, Any]


async def read_all(urls: Mapping[str, str], keys: Sequence[str], record: Path) -> None:
    """Every node was asked for every key, as a stranger would."""
    limit = asyncio.Semaphore(_READS_AT_ONCE)
    async with Lightcone(list(urls.values()), record=record) as kv:
        sessions = {node: kv.session(name=f"final-{node}").at(url) for node, url in urls.items()}

        async def read(node: str, key: str) -> None:
            # That a key could not be read is in the record.
            async with limit:
                with contextlib.suppress(LightconeError):
                    await sessions[node].siblings(key)

        await asyncio.gather(*itertools.starmap(read, itertools.product(urls, keys)))


@dataclass(frozen=True, slots=True)
class Held:
    """What the Redis of a node holds."""

    clock: dict[str, int]
    timestamp: int
    versions: Contents
    logs: Contents
    #: The names of what waits, be it pending or deferred.
    pending: list[str]
    #: What is in the sorted sets `keys`, `conflicts` and `expiring`.
    listed: dict[str, set[str]]
    redis: str


async def held_by(nodes: ChaosNodes, node: str) -> Held | None:
    """What the node's Redis holds; None if it does not answer."""
    socket = nodes.socket(node)
    try:
        clock = await redis_contents(socket, "clock")
        meta = await redis_contents(socket, "meta")
        async with Redis(unix_socket_path=str(socket)) as redis:
            version = str((await redis.info("server"))["redis_version"])
            listed = {name: await _members(redis, name) for name in ("conflicts", "expiring")}
            buckets = [await _members(redis, f"keys:{s}") for s in await _members(redis, "keys")]
            listed["keys"] = set().union(*buckets)
        waiting = [await redis_contents(socket, f"{kind}:*") for kind in ("pending", "deferred")]
        return Held(
            {actor.decode(): int(s) for actor, s in clock.get("clock", {}).items()},
            int(meta["meta"].get(b"timestamp", 0)),
            await redis_contents(socket, "kv:*"),
            await redis_contents(socket, "log:*"),
            sorted(itertools.chain(*waiting)),
            listed,
            version,
        )
    except (RedisError, OSError):
        return None


async def _members(redis: Any, name: str) -> set[str]:
    return {member.decode() for member in await redis.zrange(name, 0, -1)}


@dataclass
class Telling:
    """Tells what clients did and saw, once it is known how all of it ended.

    `end` is all that nodes have.
    """

    book: Logbook
    losses: Losses
    ends: Mapping[str, int]
    end: Mapping[str, int]
    done_as: dict[str, str] = field(default_factory=dict)

    def lasting(self) -> dict[str, int]:
        """How far those actors go of which something is lost, or whose end was declared."""
        lost = {loss.actor for loss in self.losses.taken}
        return {actor: self.end.get(actor, 0) for actor in lost | self.ends.keys()}

    def records(self, requests: Path, finals: Path, names: Mapping[str, str]) -> list[Record]:
        """All that clients recorded, in the form that `read_history` reads, but for what expires;
        and the final reads, which are marked."""
        asked = list(_lines(requests))
        accepted = [(record["dot"], _names(record)) for record in asked if _is_accepted(record)]
        self.done_as.update(done_as(self.book, accepted, self.end))
        # Who was given a name of a lane is served once that was done, under whichever name.
        end = dict(self.end)
        for name in self.done_as:
            dot = Dot.parse(name)
            end[dot.actor] = max(dot.sequence, end.get(dot.actor, 0))
        for record in asked:
            record["node"] = names[record["node"]]
            self._note_loss(record, end)
            self._rename(record)
        final = [r | {"node": names[r["node"]], "final": True} for r in _lines(finals)]
        return asked + final

    def _note_loss(self, record: Record, end: Mapping[str, int]) -> None:
        """What its session had seen of what is lost, if it is not there in spite of that."""
        if not self.losses.taken:
            return
        context = self.losses.contexts.parse(record["context_out"]).to_dict()
        dot = Dot.parse(record["dot"]) if "dot" in record else None
        own = {dot.actor} if dot else set()
        if lost := self.losses.newest_in(context, end, own) if own else None:
            record["lost"] = str(lost)
        elif lost := self.losses.newest_in(context, end):
            is_write = record["kind"] in ("put", "delete") or record.get("writes")
            if _is_accepted(record) or (is_write and record["outcome"] == "unknown"):
                record["carries"] = False
            else:
                record["lost"] = str(lost)

    def _rename(self, record: Record) -> None:
        was_accepted = _is_accepted(record)
        for named in (record, *_seen(record)):
            if "dot" in named:
                named["dot"] = self.done_as.get(named["dot"], named["dot"])
        if was_accepted and (write := self.book.writes.get(record["dot"])):
            record["dependencies"] = write.dependencies
        if record.get("dependencies"):
            record["dependencies"] = within(record["dependencies"], self.ends)


def as_history(
    path: Path, records: Sequence[Mapping[str, Any]]
) -> tuple[list[Operation], list[Operation]]:
    """The records are in the file, but for those of what expires; and as operations, those apart.

    Raises BadHistory.
    """
    expiring = [r for r in records if "key" in r and ttl_s_of(r["key"]) is not None]
    apart = set(map(id, expiring))
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(r) + "\n" for r in records if id(r) not in apart)
    # When it is gone is known to expiring.py.
    without_ttl = ({name: r[name] for name in r if name != "ttl"} for r in expiring)
    with path.open(encoding="utf-8") as lines:
        return read_history(lines), read_history(map(json.dumps, without_ttl))


def _is_accepted(record: Record) -> bool:
    return "dot" in record and is_lane(Dot.parse(record["dot"]).actor)


def _names(record: Record) -> Names:
    puts = record["writes"] if record["kind"] == "txn" else [record]
    return tuple((put["key"], put["value"].encode()) for put in puts if "value" in put)


def _seen(record: Record) -> Iterator[Record]:
    for read in (record, *record.get("reads", ())):
        yield from read.get("seen", ())


def _lines(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
