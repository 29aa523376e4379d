"""The shapes of what Redis holds, each made to be read with `redis-cli`.

Clocks are `A:7 B:3`, operations netstrings. A version is a field with its dot, and what stands
there: `TIMESTAMP TYPE`, a line break and the value; one that expires is called `DOT@EXPIRES`.

Assumes that what it unpacks was packed here, or by the scripts. Guarantees that unpacking gives
back what was packed.

Does not know HTTP, nor what the values mean, nor what nodes send each other (`wire.py`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from app.conditions import Condition
from app.snapshot import KeyState
from app.vector_clock import NOTHING, Dot, VectorClock, text_with
from app.write import Delete, Operation, Put, Version, Write


def _pieces(operation: Operation) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """Its verb, key, content type and value, and the netstrings up to the bytes of the value."""
    key = operation.key.encode()
    if isinstance(operation, Delete):
        return b"delete", key, b"", b"", b"6:delete,%d:%b," % (len(key), key)
    verb = b"put %d" % operation.ttl_us if operation.ttl_us else b"put"
    kind, value = operation.content_type.encode(), operation.value
    lengths = len(verb), verb, len(key), key, len(kind), kind, len(value)
    return verb, key, kind, value, b"%d:%b,%d:%b,%d:%b,%d:" % lengths


def hand_over(operations: Sequence[Operation]) -> list[int | bytes]:
    """The operations as a script is given them (lua/operations.inc.lua): how many, and their
    pieces."""
    args: list[int | bytes] = [len(operations)]
    for operation in operations:
        args += _pieces(operation)
    return args


def pack_operations(operations: Iterable[Operation]) -> bytes:
    """The operations as netstrings, each `3:put,KEY,TYPE,VALUE` or `6:delete,KEY`; a put that
    lives for so many microseconds has them after its verb: `9:put 60000,KEY,TYPE,VALUE`."""
    items: list[bytes] = []
    for verb, _, _, value, head in map(_pieces, operations):
        items += (head,) if verb == b"delete" else (head, value, b",")
    return b"".join(items)


def fingerprint(operations: Sequence[Operation], conditions: Sequence[Condition]) -> str:
    """What tells this from any other thing to be done."""
    wanted = [[condition.key, condition.wanted] for condition in conditions]
    asked = msgspec.msgpack.encode([pack_operations(operations), wanted])
    return hashlib.sha256(asked).hexdigest()[:32]


def unpack_operations(packed: bytes) -> tuple[Operation, ...]:
    """The operations that `pack_operations` packed."""
    items = _netstrings(packed)
    operations: list[Operation] = []
    for verb in items:
        key = next(items).decode()
        if verb == b"delete":
            operations.append(Delete(key))
        else:
            content_type = next(items).decode()
            ttl_us = int(verb.removeprefix(b"put") or 0)
            operations.append(Put(key, next(items), content_type, ttl_us))
    return tuple(operations)


def _netstrings(packed: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(packed):
        colon = packed.index(b":", position)
        end = colon + 1 + int(packed[position:colon])
        yield packed[colon + 1 : end]
        position = end + 1


def unpack_dot(packed: bytes) -> Dot:
    """The dot that a script printed; what else may stand there is for `Dot.parse`."""
    actor, _, sequence = packed.rpartition(b":")
    return Dot(actor.decode(), int(sequence))


def unpack_versions(fields: Mapping[bytes, bytes]) -> list[Version]:
    """The versions in the fields of a `kv:` hash, in no order; also those that have expired."""
    versions = []
    for name, packed in fields.items():
        if name != b"deletes":
            head, _, value = packed.partition(b"\n")
            timestamp, _, content_type = head.partition(b" ")
            dot, _, expires = name.partition(b"@")
            versions.append(
                Version(
                    unpack_dot(dot),
                    int(timestamp),
                    content_type.decode(),
                    value,
                    int(expires) if expires else 0,
                )
            )
    return versions


def _field(version: Version) -> str:
    """The name of the field that holds the version."""
    expires = f"@{version.expires_us}" if version.expires_us else ""
    return f"{version.dot}{expires}"


def pack_key_state(state: KeyState) -> list[str | bytes]:
    """The fields and values of the `kv:` hash that holds this state, flat."""
    fields: list[str | bytes] = []
    for version in state.versions:
        head = f"{version.timestamp} {version.content_type}\n"
        fields += (_field(version), head.encode() + version.value)
    if state.versions and state.deletes:
        fields += ("deletes", state.deletes.entries_text())
    return fields


def unpack_key_state(key: str, fields: Mapping[bytes, bytes]) -> KeyState:
    """What the fields of a `kv:` hash say of its key."""
    return KeyState(key, tuple(unpack_versions(fields)), unpack_deletes(fields))


def unpack_deletes(fields: Mapping[bytes, bytes]) -> VectorClock:
    """The deletes noted in the fields of a `kv:` hash."""
    text = fields.get(b"deletes")
    return VectorClock.parse(text.decode()) if text else NOTHING


def unpack_clock(fields: Mapping[bytes, bytes]) -> VectorClock:
    """The clock in the fields of a hash such as `clock` or `received`."""
    return VectorClock((actor.decode(), int(sequence)) for actor, sequence in fields.items())


def unpack_log_entries(
    actor: str, entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]]
) -> list[Write]:
    """The writes in entries of `log:{actor}`, one after the other.

    What each depends on is mostly the one before it, and nothing else that is new: such texts are
    not read again.
    """
    writes: list[Write] = []
    past, past_text = NOTHING, ""
    for entry_id, fields in entries:
        dot = Dot(actor, int(entry_id.partition(b"-")[0]))
        text = fields[b"dependencies"].decode()
        if text != past_text:
            past = VectorClock.parse(text)
        operations = unpack_operations(fields[b"operations"])
        writes.append(Write(dot, past, int(fields[b"timestamp"]), operations))
        past, past_text = past.with_dot(dot), text_with(text, dot)
    return writes


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """What the cluster was last told of a node: where it is reached, and whether it is a member."""

    url: str
    is_member: bool


class _MemberForm(msgspec.Struct):
    url: str
    state: Literal["member", "removed"]


def pack_member(record: MemberRecord) -> bytes:
    """The value of the system's key for a member."""
    state: Literal["member", "removed"] = "member" if record.is_member else "removed"
    return msgspec.json.encode(_MemberForm(record.url, state))


def unpack_member(packed: bytes) -> MemberRecord | None:
    """What `pack_member` packed; None if it was something else."""
    try:
        form = msgspec.json.decode(packed, type=_MemberForm)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return MemberRecord(form.url, form.state == "member")


def pack_urls(urls: Mapping[str, str]) -> bytes:
    """The value of the system's key for what a node's settings name: node -> URL."""
    return msgspec.json.encode(dict(sorted(urls.items())))


def unpack_urls(packed: bytes) -> dict[str, str]:
    """What `pack_urls` packed; nothing if it was something else."""
    try:
        return msgspec.json.decode(packed, type=dict[str, str])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A write in the pending buffer, and when it came, in microseconds since 1970."""

    write: Write
    since_us: int


def unpack_waiting(actor: str, sequence: int, packed: bytes) -> Waiting:
    """The write in a field of `pending:{actor}`.

    It holds `SINCE TIMESTAMP DEPENDENCIES`, a line break, and the operations.
    """
    head, _, operations = packed.partition(b"\n")
    since, timestamp, dependencies = head.split(b" ", 2)
    write = Write(
        Dot(actor, sequence),
        VectorClock.parse(dependencies.decode()),
        int(timestamp),
        unpack_operations(operations),
    )
    return Waiting(write, int(since))


@dataclass(frozen=True, slots=True)
class Deferred:
    """A write that was accepted, and waits to be committed after its context. `since_us` is when it
    was accepted, in microseconds since 1970."""

    dot: Dot
    since_us: int
    context: VectorClock
    operations: tuple[Operation, ...]


def unpack_deferred(lane: str, sequence: int, packed: bytes) -> Deferred:
    """The write in a field of `deferred:{lane}`.

    It holds `SINCE CONTEXT`, a line break, the Idempotency-Key, a line break, and the operations.
    """
    head, _, rest = packed.partition(b"\n")
    since, _, context = head.partition(b" ")
    _, _, operations = rest.partition(b"\n")
    return Deferred(
        Dot(lane, sequence),
        int(since),
        VectorClock.parse(context.decode()),
        unpack_operations(operations),
    )
