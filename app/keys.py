"""The names of what a node keeps in Redis, in one place.

Assumes one state machine in one Redis database (or, one day, in one hash slot: `prefix` is there
for a hash tag such as `{s3}`, DESIGN.md section 9). Guarantees that no user key collides with a
name of ours, since user keys live under `kv:`.

`docs/redis.md` says what each of these holds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

from redis.asyncio import Redis

from app.write import SYSTEM

LAYOUT: Final = 3
"""The version of what is under these names. A node refuses a Redis with a layout it can't read."""


_MEMBER: Final = f"{SYSTEM}member/"
_SETTINGS: Final = f"{SYSTEM}settings/"


def member_key(node: str) -> str:
    """The system's key for what was said last of `node`: that it is a member, or was removed."""
    return f"{_MEMBER}{node}"


def settings_key(node: str) -> str:
    """The system's key for the members that the settings of `node` name."""
    return f"{_SETTINGS}{node}"


def nodes_with_keys(system: Iterable[str]) -> tuple[list[str], list[str]]:
    """The nodes that have a `member_key` and those that have a `settings_key`, of these keys."""
    found = sorted(system)
    return (
        [key.removeprefix(_MEMBER) for key in found if key.startswith(_MEMBER)],
        [key.removeprefix(_SETTINGS) for key in found if key.startswith(_SETTINGS)],
    )


def end_key(actor: str) -> str:
    """The system's key for the last write of `actor` that is not lost (lua/ends.inc.lua)."""
    return f"{SYSTEM}end/{actor}"


def lane_key(lane: str) -> str:
    """The system's key that is deleted, and never put, to show that a lane has ended."""
    return f"{SYSTEM}lane/{lane}"


def ended_actor(key: str) -> str | None:
    """Of whom the system's key `key` holds the last write that is not lost."""
    stem = end_key("")
    return key.removeprefix(stem) if key.startswith(stem) else None


@dataclass(frozen=True, slots=True)
class Keys:
    """Names of keys and channels, each a method or property of the thing it names."""

    prefix: str = ""
    database: int = 0

    @classmethod
    def of(cls, redis: Redis) -> Self:
        """The names in the database that `redis` is connected to."""
        connection: dict[str, Any] = redis.get_connection_kwargs()  # type: ignore[no-untyped-call]
        return cls(database=int(connection.get("db") or 0))

    @property
    def clock(self) -> str:
        """Hash: actor -> the highest sequence applied here."""
        return f"{self.prefix}clock"

    @property
    def meta(self) -> str:
        """Hash: whose Redis this is, and the last timestamp."""
        return f"{self.prefix}meta"

    @property
    def deletes(self) -> str:
        """Hash: actor -> the sequence of its last delete that came to a key with versions here."""
        return f"{self.prefix}deletes"

    @property
    def received(self) -> str:
        """Hash: actor with waiting writes -> the highest sequence received without a gap."""
        return f"{self.prefix}received"

    @property
    def keys(self) -> str:
        """Sorted set: where each bucket of the index of user keys starts."""
        return f"{self.prefix}keys"

    def bucket(self, start: str) -> str:
        """Sorted set: user keys, from `start` up to where the next bucket starts."""
        return f"{self.keys}:{start}"

    @property
    def conflicts(self) -> str:
        """Sorted set: the user keys that have siblings."""
        return f"{self.prefix}conflicts"

    @property
    def expiring(self) -> str:
        """Sorted set: the user keys with versions that expire, by when the first of these does."""
        return f"{self.prefix}expiring"

    @property
    def requests(self) -> str:
        """Hash: Idempotency-Key -> the write that was done for it here."""
        return f"{self.prefix}requests"

    @property
    def requests_order(self) -> str:
        """List: the fields of `requests`, oldest first."""
        return f"{self.prefix}requests-order"

    @property
    def deferred(self) -> str:
        """Hash: lane in which deferred writes wait -> the last sequence that it has given."""
        return f"{self.prefix}deferred"

    def lane(self, lane: str) -> str:
        """Hash: the deferred writes that wait in this lane, by sequence."""
        return f"{self.lane_stem}{lane}"

    @property
    def births(self) -> str:
        """Hash: node -> the birth of its first Redis of which this node heard; of its own, if it is
        this one."""
        return f"{self.prefix}births"

    @property
    def system(self) -> str:
        """Set: the keys of the system that were ever written here."""
        return f"{self.prefix}system"

    @property
    def snapshot(self) -> str:
        """Hash: the snapshot that is being received here, and how far it has come."""
        return f"{self.prefix}snapshot"

    @property
    def staging(self) -> str:
        """Set: the snapshots of which something may be staged."""
        return f"{self.prefix}staging"

    @property
    def snapshots_begun(self) -> str:
        """Hash: who sends snapshots -> the last of them that was begun here."""
        return f"{self.prefix}snapshots-begun"

    @property
    def faults(self) -> str:
        """Hash: peer -> the fault on the link to it, as JSON. Only with FAULTS=1."""
        return f"{self.prefix}faults"

    @property
    def applied_channel(self) -> str:
        """Channel: which sequences were just applied, as the entries of a clock.

        Channels carry the number of the database: unlike keys, all databases of a server share
        them, and another node's progress taken for ours would break G7.
        """
        return f"{self.prefix}applied@{self.database}"

    @property
    def peers_channel(self) -> str:
        """Channel: a peer that was heard of, and what it has applied."""
        return f"{self.prefix}peers@{self.database}"

    @property
    def awaited_channel(self) -> str:
        """Channel: for how many seconds somebody waits for news of peers."""
        return f"{self.prefix}awaited@{self.database}"

    @property
    def faults_channel(self) -> str:
        """Channel: the name of the peer whose link just changed."""
        return f"{self.prefix}faults-changed@{self.database}"

    @property
    def system_channel(self) -> str:
        """Channel: the key of the system that was just written."""
        return f"{self.prefix}system@{self.database}"

    def kv(self, key: str) -> str:
        """Hash: the versions of a key, by dot."""
        return f"{self.kv_stem}{key}"

    def log(self, actor: str) -> str:
        """Stream: the writes of `actor` applied here; the entry id is `SEQUENCE-0`."""
        return f"{self.log_stem}{actor}"

    def pending(self, actor: str) -> str:
        """Hash: the writes of `actor` that came too early, by sequence."""
        return f"{self.pending_stem}{actor}"

    def sending(self, node: str) -> str:
        """Hash: the snapshot that is being sent to `node`, and how far it has come."""
        return f"{self.prefix}sending:{node}"

    def staged_stem(self, snapshot: str) -> str:
        """What the names of a snapshot's staged keys begin with: hashes as under `kv:`."""
        return f"{self.prefix}staged:{snapshot}:"

    def peer(self, node: str) -> str:
        """Hash: what the link to `node` knows of it."""
        return f"{self.peer_stem}{node}"

    def lease(self, node: str) -> str:
        """String with a time to live: which worker sends to `node`."""
        return f"{self.lease_stem}{node}"

    @property
    def lease_stem(self) -> str:
        return f"{self.prefix}lease:"

    @property
    def peer_stem(self) -> str:
        return f"{self.prefix}peer:"

    @property
    def kv_stem(self) -> str:
        return f"{self.prefix}kv:"

    @property
    def log_stem(self) -> str:
        return f"{self.prefix}log:"

    @property
    def lane_stem(self) -> str:
        return f"{self.deferred}:"

    @property
    def pending_stem(self) -> str:
        return f"{self.prefix}pending:"


def committing(keys: Keys, actor: str) -> list[str]:
    """What every script that commits is given first, for writes of this actor
    (lua/commit.inc.lua)."""
    return [
        keys.clock,
        keys.meta,
        keys.deletes,
        keys.log(actor),
        keys.keys,
        keys.conflicts,
        keys.system,
        keys.expiring,
    ]
