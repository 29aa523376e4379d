"""The members of the cluster, as one worker knows them, and what changes them.

A change is an ordinary causal write to a key of the system: so it is ordered, replicated, logged
and merged by the code that does so for every key, and where two were concurrent the winner decides.
`members_of` is the rule: a node and all that any node's settings name are members, and whatever was
said of a node by a change holds over that. A node's own PEERS are how it reaches a peer, before any
URL that it was told.

Assumes that it is told whenever a key of the system was written. Guarantees that a node that was
removed knows it, from the moment that it has applied the removal or was told of it by a member that
has, until it has applied, or heard from a member, that this was revoked, or the one that told it
says so no more: its disk was lost, and the removal with it.

Does not know how changes travel, nor what follows from them.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from redis.asyncio import Redis

from app import codec
from app.addresses import is_node_id, peer_url
from app.codec import MemberRecord
from app.config import Config
from app.errors import BadMember, LastMember, NodeRemoved, NoSuchMember
from app.keys import Keys, member_key, nodes_with_keys, settings_key
from app.log import get_logger
from app.redis_link import translated
from app.scripts import Scripts
from app.vector_clock import Dot, VectorClock, node_of
from app.write import Put, Version, winner_first

log = get_logger(__name__)

_JSON: Final = "application/json"

Source = Literal["self", "settings", "learned"]


@dataclass(frozen=True, slots=True)
class Member:
    """A node that is a member, or was one until the write `removed`.

    `url` is where it is reached; empty if nobody said. `source` is where that is known from.
    """

    node: str
    url: str
    source: Source
    removed: Dot | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What the keys of the system say: the last change of each node, with the write that made it,
    and which members the settings of each node name."""

    records: Mapping[str, tuple[MemberRecord, Dot]]
    settings: Mapping[str, Mapping[str, str]]


NOTHING_TOLD: Final = Told({}, {})


@dataclass(frozen=True, slots=True)
class Heard:
    """What a member said of this node: that the write `removed` removed it."""

    removed: Dot
    by: str


def members_of(node: str, url: str, peers: Mapping[str, str], told: Told) -> dict[str, Member]:
    """All members that `node` knows, itself and those that were removed included, by id.

    It is reached at `url` and has `peers`, by its own settings.
    """
    named = {other for urls in told.settings.values() for other in urls}
    members = {}
    for other in sorted({node, *peers, *told.records, *named}):
        record, dot = told.records.get(other, (None, None))
        # What a node says of itself comes first, then what others say of it.
        settings = [told.settings.get(other, {}), *map(told.settings.get, sorted(told.settings))]
        told_urls = [urls[other] for urls in settings if urls and urls.get(other)]
        own = url if other == node else peers.get(other)
        members[other] = Member(
            other,
            own or (record and record.url) or next(iter(told_urls), ""),
            "self" if other == node else "settings" if other in peers else "learned",
            None if record is None or record.is_member else dot,
        )
    return members


def parse_member(body: bytes) -> tuple[str, str]:
    """The id and the URL in the body of a request to add a member. Raises BadMember."""
    try:
        form = msgspec.json.decode(body, type=MemberForm)
        node, url = form.id, form.url
        if not is_node_id(node):
            raise ValueError(f"`id`: {node[:64]!r} is not a node id, 1 to 32 letters, digits, _, -")
        return node, peer_url(node, url)
    except (ValueError, RecursionError) as error:  # msgspec's and Unicode's are ValueErrors
        raise BadMember(
            f'A member is JSON such as {{"id": "D", "url": "http://host:port"}}: {error}. Nothing '
            "was changed."
        ) from None


class MemberForm(msgspec.Struct, forbid_unknown_fields=True):
    """A node that is to be a member, and where it is reached."""

    id: str
    url: str


class Members:
    """The members that one node knows."""

    def __init__(self, config: Config, redis: Redis, keys: Keys, scripts: Scripts) -> None:
        """Those of the settings, until `refresh`."""
        self._node = config.node_id
        self._url = config.advertise_url or ""
        self._peers = config.peers
        self._redis: Any = redis  # redis-py's types say bytes or str for every reply
        self._keys = keys
        self._scripts = scripts
        self._told = NOTHING_TOLD
        self._all = members_of(self._node, self._url, self._peers, self._told)
        self._heard: Heard | None = None
        self._clock = VectorClock()
        self._reading = asyncio.Lock()
        self._listeners: list[Callable[[], None]] = []

    @property
    def node(self) -> str:
        """This node's id."""
        return self._node

    # --- who they are ----------------------------------------------------------------------------

    @property
    def all(self) -> Sequence[Member]:
        """This node and all others, those that were removed included, by id."""
        return tuple(self._all.values())

    @property
    def others(self) -> Mapping[str, Member]:
        """The members beside this node."""
        return {m.node: m for m in self.all if m.node != self._node and m.removed is None}

    @property
    def urls(self) -> Mapping[str, str]:
        """The URL of each member that was not removed; empty where none is known."""
        return {member.node: member.url for member in self.all if member.removed is None}

    @property
    def removed(self) -> Dot | None:
        """The write that removed this node; None while it is a member."""
        return self._heard.removed if self._heard else self._all[self._node].removed

    def known(self, node: str) -> Member | None:
        """The member of this id, though it may have been removed."""
        return self._all.get(node)

    def may_have_written(self, actor: str, *clocks: VectorClock) -> bool:
        """Whether the actor's node is or was a member, or has written, as these clocks tell."""
        node = node_of(actor)
        return node in self._all or any(
            actor in clock or node in map(node_of, clock) for clock in clocks
        )

    def check(self) -> None:
        """This node is a member. Raises NodeRemoved."""
        if removed := self.removed:
            raise NodeRemoved(self._node, removed)

    # --- learning --------------------------------------------------------------------------------

    def on_change(self, listener: Callable[[], None]) -> None:
        """From now on `listener` is called after each change."""
        self._listeners.append(listener)

    async def refresh(self) -> None:
        """The members are those that Redis tells of now. Raises RedisUnavailable."""
        async with self._reading:
            before = self.all, self.removed
            with translated():
                await self._read()
            if before == (self.all, self.removed):
                return
        if self.removed and not before[1]:
            log.warning("this node was removed from the cluster", by=str(self.removed))
        elif before[1] and not self.removed:
            log.info("this node is a member again")
        for listener in self._listeners:
            listener()

    async def _read(self) -> None:
        # The clock first: what it covers is in the keys that are read after it.
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(self._keys.clock)
            pipeline.hget(self._keys.meta, "removed")
            pipeline.smembers(self._keys.system)
            entries, heard, system = await pipeline.execute()
        with_record, with_settings = nodes_with_keys(key.decode() for key in system)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in (*map(member_key, with_record), *map(settings_key, with_settings)):
                pipeline.hgetall(self._keys.kv(key))
            winners = [_winner(fields) for fields in await pipeline.execute()]
        records = {
            node: (record, winner.dot)
            for node, winner in zip(with_record, winners, strict=False)
            if winner and is_node_id(node) and (record := codec.unpack_member(winner.value))
        }
        settings = {
            node: {n: url for n, url in codec.unpack_urls(winner.value).items() if is_node_id(n)}
            for node, winner in zip(with_settings, winners[len(with_record) :], strict=True)
            if winner
        }
        self._told = Told(records, settings)
        self._all = members_of(self._node, self._url, self._peers, self._told)
        self._clock = codec.unpack_clock(entries)
        self._heard = None
        if heard:
            dot, by = heard.decode().split()
            # Once the removal itself has come, the key tells whether it still holds.
            if not self._clock.covers(removed := Dot.parse(dot)):
                self._heard = Heard(removed, by)

    @property
    def in_question(self) -> bool:
        """Whether this node was told of a removal that it has not applied: it may not hold."""
        return self._heard is not None

    async def hear(
        self, by: str, removed: Dot | None, clock: VectorClock, *, was_asked: bool
    ) -> None:
        """The member `by`, with this clock, has said that `removed` removed this node, or that it
        is a member; every worker knows it, also after a restart. Raises RedisUnavailable.

        That it is a member counts where the other `was_asked`, and so has looked: what it says
        beside other things may be older than its clock.
        """
        heard = self._heard
        if removed is not None:
            if not self.removed and not self._clock.covers(removed):
                await self._note(Heard(removed, by))
        elif was_asked and heard and (by == heard.by or clock.covers(heard.removed)):
            await self._note(None)

    async def revoked(self) -> None:
        """Whoever said that this node was removed has been overruled, here. Raises
        RedisUnavailable."""
        if self._heard:
            await self._note(None)

    async def _note(self, heard: Heard | None) -> None:
        text = f"{heard.removed} {heard.by}" if heard else ""
        with translated(changes=True):
            await self._scripts.note_removal(self._node, text)
        await self.refresh()

    # --- changing --------------------------------------------------------------------------------

    def adding(self, node: str, url: str) -> list[Put]:
        """The operations by which `node` becomes a member that is reached at `url`; none if it is.

        Raises BadMember, NodeRemoved.
        """
        if node != self._node:
            self.check()
        if same := [m.node for m in self.all if not m.removed and m.node != node and m.url == url]:
            raise BadMember(
                f"{same[0]} is reached at {url} already. Nothing was changed. Give {node} another "
                f"URL, or remove {same[0]} first."
            )
        record, _ = self._told.records.get(node, (None, None))
        wanted = MemberRecord(url, is_member=True)
        if record == wanted and not (node == self._node and self.removed):
            return []
        return self._change(node, wanted)

    def removing(self, node: str) -> list[Put]:
        """The operations by which `node` is no member any more; none if it is none.

        Raises NoSuchMember, LastMember, NodeRemoved.
        """
        if node != self._node:
            self.check()
        if (member := self._all.get(node)) is None:
            raise NoSuchMember(
                f"This node knows no member {node[:64]!r}. Nothing was changed. GET /members "
                "lists them."
            )
        if node == self._node and not self.others:
            raise LastMember(
                f"{node} is the only member, and nobody else has its data. Nothing was changed."
            )
        if member.removed or (node == self._node and self.removed):
            return []
        return self._change(node, MemberRecord(member.url, is_member=False))

    def _change(self, node: str, record: MemberRecord) -> list[Put]:
        """The change itself, and with it what a new member has to know of the others."""
        return [Put(member_key(node), codec.pack_member(record), _JSON), *self._settings()]

    def telling(self) -> list[Put]:
        """The operations by which the others learn which members this node's settings name; none
        if they know, or if all members are known by settings alone."""
        return self._settings() if self._told.records and not self.removed else []

    def _settings(self) -> list[Put]:
        mine = {self._node: self._url, **self._peers}
        if self._told.settings.get(self._node) == mine:
            return []
        return [Put(settings_key(self._node), codec.pack_urls(mine), _JSON)]


def _winner(fields: Mapping[bytes, bytes]) -> Version | None:
    return next(iter(winner_first(codec.unpack_versions(fields))), None)
