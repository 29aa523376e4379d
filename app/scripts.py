"""The atomic rules: one Lua script each, one typed method each.

Assumes the scripts' headers say what they do: read those first. Guarantees that Redis is handed
each script's arguments in the order of its header, and that replies come back as values.

Does not know why a rule is applied, nor what to do when Redis fails.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from app import codec
from app.commits import Accepted, Commit, Committed, Failed, Fields, Moved, Outcome, Reused, TooMuch
from app.errors import Held, Syncing
from app.incarnation import Remembered, Settled
from app.keys import Keys, committing
from app.vector_clock import NOTHING, Dot, VectorClock, text_with
from app.write import Write

LUA: Final = Path(__file__).parent / "lua"
_INCLUDE: Final = re.compile(r"^--@include (\w+)$", re.MULTILINE)


@cache
def source(name: str) -> str:
    """The text of `lua/NAME.lua` with its includes (`lua/NAME.inc.lua`) put in."""
    text = (LUA / f"{name}.lua").read_text()
    return _INCLUDE.sub(lambda match: (LUA / f"{match[1]}.inc.lua").read_text(), text)


@dataclass(frozen=True, slots=True)
class Received:
    """What became of a batch, and where the node stands after it.

    Each write of the batch is in one of the first four counts. `drained` counts writes that had
    waited and were applied; `more` says that others can be. `received` holds, for each actor with
    waiting writes, the highest sequence received without a gap. `missing` names what waiting
    writes wait for. `survivors` are writes that are here, though all after an earlier one of their
    actor was just declared lost.
    """

    applied: int
    duplicate: int
    pending: int
    refused: int
    drained: int
    more: bool
    clock: VectorClock
    received: VectorClock
    missing: VectorClock
    survivors: VectorClock = VectorClock()  # noqa: RUF009 (immutable)


@dataclass(frozen=True, slots=True)
class Removed:
    """How many versions were removed, and whether there are more that have expired."""

    versions: int
    more: bool


class Scripts:
    """The scripts, bound to one Redis and its key names."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._keys = keys
        self._commit_writes = redis.register_script(source("commit_writes"))
        self._receive_writes = redis.register_script(source("receive_writes"))
        self._claim_node = redis.register_script(source("claim_node"))
        self._find_hole = redis.register_script(source("find_hole"))
        self._read_keys = redis.register_script(source("read_keys"))
        self._list_keys = redis.register_script(source("list_keys"))
        self._list_conflicts = redis.register_script(source("list_conflicts"))
        self._remove_expired = redis.register_script(source("remove_expired"))
        self._settle_actor = redis.register_script(source("settle_actor"))
        self._note_removal = redis.register_script(source("note_removal"))
        self._hold_lease = redis.register_script(source("hold_lease"))
        self._release_lease = redis.register_script(source("release_lease"))

    async def commit_writes(
        self,
        actor: str,
        commits: Sequence[Commit],
        now_us: int,
        known: int = 0,
        requests_max: int = 1,
        seen: VectorClock = NOTHING,
    ) -> list[Outcome] | None:
        """Commit local writes, one after the other (`lua/commit_writes.lua`); what came of each.
        None: Redis is not the actor's, or no longer has its write `known` or what those have `seen`
        who write, and nothing was done.

        Raises Syncing.
        """
        keys = self._keys
        args: list[str | int | bytes] = [
            actor,
            now_us,
            keys.applied_channel,
            known,
            requests_max,
            keys.system_channel,
            keys.lane_stem,
            keys.kv_stem,
            seen.entries_text(),
        ]
        for commit in commits:
            args += codec.hand_over(commit.operations)
            args += _terms(commit)
        reply: list[Any] = await self._commit_writes(
            keys=[*committing(keys, actor), keys.requests, keys.requests_order], args=args
        )
        if not reply:
            return None
        if reply == [b"merging"]:
            raise Syncing
        clock = codec.unpack_clock(_fields(reply[0]))
        outcomes: list[Outcome] = []
        for commit, result in zip(commits, reply[1:], strict=True):
            outcome = _outcome(commit, result, clock)
            if isinstance(outcome, Committed) and not outcome.replayed:
                clock = outcome.clock
            outcomes.append(outcome)
        return outcomes

    async def read_keys(
        self, names: Sequence[str], most: int | None, now_us: int
    ) -> tuple[list[Fields], VectorClock, int] | TooMuch:
        """What keys hold at one instant (`lua/read_keys.lua`), also what has expired; the clock;
        and what the hybrid logical clock shows.

        Raises Syncing.
        """
        keys = self._keys
        reply: list[Any] = await self._read_keys(
            keys=[keys.clock, keys.meta, *map(keys.kv, names)],
            args=["" if most is None else most, now_us],
        )
        if not reply:
            return TooMuch()
        if reply == [b"merging"]:
            raise Syncing
        clock, now, *held = reply
        return list(map(_fields, held)), codec.unpack_clock(_fields(clock)), int(now)

    async def receive_writes(
        self, node: str, writes: Sequence[Write], now_us: int, pending_max: int, drain_max: int
    ) -> Received | Dot | None:
        """Receive a batch (`lua/receive_writes.lua`). None: Redis is not the node's. A dot: a
        write of the node's own actor that Redis has lost; nothing was changed.

        Raises Syncing.
        """
        keys = self._keys
        args: list[str | int | bytes] = [
            node,
            keys.kv_stem,
            keys.log_stem,
            keys.pending_stem,
            keys.applied_channel,
            pending_max,
            drain_max,
            now_us,
            keys.system_channel,
        ]
        past, past_text = None, ""
        for write in writes:
            dot, dependencies = write.dot, write.dependencies
            follows = dependencies == past
            text = past_text if follows else dependencies.entries_text()
            args += (
                dot.actor,
                dot.sequence,
                write.timestamp,
                text,
                int(follows),
            )
            args += codec.hand_over(write.operations)
            past, past_text = dependencies.with_dot(dot), text_with(text, dot)
        reply: list[Any] = await self._receive_writes(
            keys=[
                keys.clock,
                keys.meta,
                keys.deletes,
                keys.received,
                keys.keys,
                keys.conflicts,
                keys.system,
                keys.expiring,
            ],
            args=args,
        )
        if not reply:
            return None
        if len(reply) == 1:
            raise Syncing
        if len(reply) == 2:
            return Dot(reply[0].decode(), int(reply[1]))
        applied, duplicate, pending, refused, drained, more = map(int, reply[:6])
        clocks = (VectorClock.parse(text.decode()) for text in reply[6:])
        return Received(applied, duplicate, pending, refused, drained, bool(more), *clocks)

    async def list_keys(
        self, first: bytes, last: bytes, limit: int, now_us: int
    ) -> tuple[list[str], str, VectorClock]:
        """The user keys between two bounds (`lua/list_keys.lua`), the one after which the next page
        begins, empty if there is none, and the clock.

        Raises Syncing.
        """
        keys = self._keys
        clock, *found = await self._list_keys(
            keys=[keys.keys, keys.clock, keys.meta, keys.expiring],
            args=[first, last, limit, now_us, keys.kv_stem],
        )
        if clock == b"merging":
            raise Syncing
        cursor, *names = (key.decode() for key in found)
        return names, cursor, VectorClock.parse(clock.decode())

    async def list_conflicts(
        self, first: bytes, last: bytes, limit: int, now_us: int
    ) -> tuple[dict[str, tuple[Dot, ...]], str, VectorClock]:
        """The user keys with siblings between two bounds (`lua/list_conflicts.lua`), each with the
        dots of its versions; the key after which the next page begins, empty if there is none; and
        the clock.

        Raises Syncing.
        """
        keys = self._keys
        clock, *found = await self._list_conflicts(
            keys=[keys.conflicts, keys.clock, keys.meta],
            args=[keys.kv_stem, first, last, limit, now_us],
        )
        if clock == b"merging":
            raise Syncing
        cursor, *listed = found
        dots = {
            key.decode(): _dots(dots) for key, dots in zip(listed[::2], listed[1::2], strict=True)
        }
        return dots, cursor.decode(), VectorClock.parse(clock.decode())

    async def remove_expired(self, node: str, now_us: int, most: int) -> Removed | None:
        """Remove what has expired at some `most` keys (`lua/remove_expired.lua`). None: Redis is
        not the node's.

        Raises Syncing.
        """
        keys = self._keys
        reply: list[Any] = await self._remove_expired(
            keys=[keys.meta, keys.expiring, keys.deletes, keys.keys, keys.conflicts],
            args=[node, now_us, most, keys.kv_stem],
        )
        if not reply:
            return None
        if len(reply) == 1:
            raise Syncing
        return Removed(int(reply[0]), bool(reply[1]))

    async def claim_node(self, node: str, layout: int, birth: str) -> dict[str, str]:
        """Claim an empty Redis for `node` (`lua/claim_node.lua`); its `meta` afterwards.

        Empty if it holds data that is not ours: nothing was changed then.
        """
        keys = self._keys
        reply: list[Any] = await self._claim_node(
            keys=[keys.meta, keys.births],
            args=[node, layout, birth, keys.lease_stem, keys.peer_stem],
        )
        fields = [item.decode() for item in reply]
        return dict(zip(fields[::2], fields[1::2], strict=True))

    async def find_hole(self) -> str:
        """What is missing in the middle of a log (`lua/find_hole.lua`); empty if nothing is."""
        reply = await self._find_hole(
            keys=[self._keys.clock], args=[self._keys.log_stem, self._keys.kv_stem]
        )
        if not reply:
            return ""
        name, sequence, first, last = (text.decode() for text in (*reply[:2], *reply[3:]))
        return (
            f"the log of {name} has {reply[2]} writes, from {name}:{first.partition('-')[0]} to "
            f"{name}:{last.partition('-')[0]}, and the clock says {name}:{sequence}"
        )

    async def settle_actor(
        self,
        node: str,
        before: Remembered,
        settled: Settled,
        run: str,
        now_us: int,
        joining: VectorClock = VectorClock(),  # noqa: B008 (immutable)
    ) -> bool:
        """Say who writes in this run of Redis (`lua/settle_actor.lua`). False: look again."""
        reply = await self._settle_actor(
            keys=[self._keys.meta, self._keys.births],
            args=[
                node,
                before.actor,
                before.run,
                settled.actor,
                run,
                settled.reason,
                now_us,
                joining.entries_text(),
            ],
        )
        return bool(reply)

    async def note_removal(self, node: str, heard: str) -> bool:
        """Note that `node` was told of its removal: the write's dot, a space, and who said so; or,
        empty, that it holds no more (`lua/note_removal.lua`). False: Redis is not the node's."""
        reply = await self._note_removal(
            keys=[self._keys.meta], args=[node, heard, self._keys.system_channel]
        )
        return bool(reply)

    async def hold_lease(self, peer: str, holder: str, ttl_ms: int) -> bool:
        """Take or keep the lease on sending to `peer`: whether `holder` has it now."""
        reply = await self._hold_lease(keys=[self._keys.lease(peer)], args=[holder, ttl_ms])
        return bool(reply)

    async def release_lease(self, peer: str, holder: str) -> None:
        """Let another worker have the lease at once, if `holder` has it."""
        await self._release_lease(keys=[self._keys.lease(peer)], args=[holder])


def _fields(flat: Sequence[bytes]) -> Fields:
    one_by_one = iter(flat)
    return dict(zip(one_by_one, one_by_one, strict=True))


def _dots(text: bytes) -> tuple[Dot, ...]:
    return tuple(map(codec.unpack_dot, text.split()))


def accepted(reply: Sequence[Any]) -> Accepted:
    """What a script says of a write that is deferred."""
    dot, clock, replayed = reply[1:]
    return Accepted(codec.unpack_dot(dot), VectorClock.parse(clock.decode()), bool(replayed))


def _terms(commit: Commit) -> list[str | int]:
    """What a write is done on, for the script (lua/commit_writes.lua)."""
    conditions, reads, request = commit.conditions, commit.reads, commit.request
    if not (conditions or reads or request):
        return [0]
    asked = codec.fingerprint(commit.operations, conditions) if request else ""
    wanted = [text for one in conditions for text in (one.key, one.wanted)]
    return [1, request, asked, commit.most, len(reads), *reads, len(conditions), *wanted]


def _outcome(commit: Commit, result: bytes | list[Any], clock: VectorClock) -> Outcome:
    """What came of a write, by the script's result for it; `clock` is that before the write."""
    if isinstance(result, bytes):
        dot_text, _, timestamp = result.partition(b" ")
        dot = codec.unpack_dot(dot_text)
        return Committed(dot, int(timestamp), clock.with_dot(dot), dependencies=clock)
    what, *told = result
    match what:
        case b"committed":
            dot_text, timestamp, clock_text, replayed, *before = told
            dot = codec.unpack_dot(dot_text)
            after = VectorClock.parse(clock_text.decode()) if clock_text else clock.with_dot(dot)
            fields = tuple(map(_fields, before))
            # The clock there is now says nothing of what was done before.
            follows = NOTHING if replayed else clock
            return Committed(dot, int(timestamp), after, fields, bool(replayed), follows)
        case b"accepted":
            return accepted(result)
        case b"failed":
            return Failed(
                tuple(
                    _held(commit.conditions[int(number)].key, dots, expired, deletes, clock)
                    for number, dots, expired, deletes in zip(
                        told[::4], told[1::4], told[2::4], told[3::4], strict=True
                    )
                )
            )
        case b"too much":
            return TooMuch()
        case b"reused":
            return Reused()
    return Moved()


def _held(key: str, dots: bytes, expired: bytes, deletes: bytes, clock: VectorClock) -> Held:
    """What a key holds; that it holds nothing is vouched for by the whole clock."""
    if not dots:
        return Held(key, (), clock)
    seen = VectorClock.parse(deletes.decode())
    for dot in (*_dots(dots), *_dots(expired)):
        seen = seen.with_dot(dot)
    return Held(key, _dots(dots), seen)
