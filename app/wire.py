"""The shapes of what nodes send each other: batches, answers, and parts of snapshots.

It is MessagePack, checked against the types below by msgspec before anything looks inside
(docs/protocol.md).

Assumes nothing of the bytes it is given. Guarantees that what it decodes is well-formed, and that
decoding gives back what was encoded.

Does not know HTTP, nor what the values mean, nor what Redis holds (`codec.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec

from app.errors import BadBatch
from app.snapshot import Cut, Kept, KeyState, Part
from app.vector_clock import SEQUENCE_MAX, Dot, VectorClock, is_actor
from app.write import (
    TIMESTAMP_MAX,
    Delete,
    Operation,
    Put,
    Version,
    Write,
    content_type_problem,
    key_problem,
    write_problem,
)

PROTOCOL: Final = 2
"""The version of what nodes send each other."""
CONTENT_TYPE: Final = "application/vnd.msgpack"

_Sequence = Annotated[int, msgspec.Meta(ge=1, le=SEQUENCE_MAX)]
_Clock = dict[str, _Sequence]
DOT_MAX: Final = 81
"""Characters of a dot: 64 of an actor, a colon, 16 of a sequence."""
BATCH_WRITES_MAX: Final = 10_000
"""Writes in one batch. The receiver's Redis does nothing else while it takes one, and by its bytes
alone a batch could hold half a million, for which Redis would be away for half a minute."""
SNAPSHOT_NAME_MAX: Final = 128
_SHOWN_MAX: Final = 300
"""Characters of what a peer sent that an error repeats."""


_Time = Annotated[int, msgspec.Meta(ge=0, le=TIMESTAMP_MAX)]


class _PutForm(msgspec.Struct, tag="put", array_like=True, forbid_unknown_fields=True):
    key: str
    value: bytes
    content_type: str
    ttl_us: int


class _DeleteForm(msgspec.Struct, tag="delete", array_like=True, forbid_unknown_fields=True):
    key: str


class _WriteForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    actor: str
    sequence: _Sequence
    timestamp: int
    dependencies: _Clock
    operations: list[_PutForm | _DeleteForm]


class _VersionForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    actor: str
    sequence: _Sequence
    timestamp: Annotated[int, msgspec.Meta(ge=1, le=TIMESTAMP_MAX)]
    content_type: str
    value: bytes
    expires_us: _Time = 0  # backups of version 1 have none


class _KeyStateForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    key: str
    versions: list[_VersionForm]
    deletes: _Clock


class _CutForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    clock: _Clock
    deletes: _Clock
    timestamp: _Time


_SnapshotName = Annotated[str, msgspec.Meta(max_length=SNAPSHOT_NAME_MAX, pattern="^[!-~]*$")]


class _PartForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    snapshot: _SnapshotName
    name: _SnapshotName
    after: _SnapshotName
    total: Annotated[int, msgspec.Meta(ge=0, le=SEQUENCE_MAX)]
    keys: list[_KeyStateForm]
    cut: _CutForm | None


class _KeptForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    snapshot: _SnapshotName
    last: _SnapshotName


_Birth = Annotated[str, msgspec.Meta(max_length=64)]


class _BatchForm(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    version: int
    sender: str
    receiver: str
    clock: _Clock
    writes: Annotated[list[_WriteForm], msgspec.Meta(max_length=BATCH_WRITES_MAX)]
    birth: _Birth = ""
    part: _PartForm | None = None
    asks_clocks: bool = False


class _AnswerForm(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    node: str
    clock: _Clock
    received: _Clock
    missing: _Clock
    applied: int
    duplicate: int
    pending: int
    refused: int
    now_us: int
    first_birth: _Birth = ""
    members: dict[str, str] = {}
    removed: Annotated[str, msgspec.Meta(max_length=DOT_MAX)] = ""
    kept: _KeptForm | None = None
    clocks: dict[str, _Clock] = {}


@dataclass(frozen=True, slots=True)
class Batch:
    """What `POST /replicate` carries: who sends to whom, the sender's clock, and writes; or a part
    of a snapshot, where the sender's log does not go back to what the receiver lacks.

    With `birth`, that of the sender's Redis, it asks which one the receiver heard of first; with
    `asks_clocks`, how far the other members are.
    """

    sender: str
    receiver: str
    clock: VectorClock
    writes: tuple[Write, ...]
    birth: str = ""
    part: Part | None = None
    asks_clocks: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver says after a batch: where it stands now, and what became of the writes.

    `received` covers `clock` and, per actor, what waits there without a gap.
    `now_us` is the receiver's wall clock, microseconds since 1970. `first_birth` answers a batch
    with a `birth`: the first one that the receiver heard of, which may be this one; `members`
    names then all that the receiver knows, with the URL of each, or nothing where it knows none.
    `removed` tells the sender that it is no member any more, by the write that removed it. `kept`
    answers a batch with a part of a snapshot; `clocks` one that asks: of each other member, what it
    has as far as the receiver heard.
    """

    node: str
    clock: VectorClock
    received: VectorClock
    missing: VectorClock
    applied: int
    duplicate: int
    pending: int
    refused: int
    now_us: int
    first_birth: str = ""
    members: Mapping[str, str] = field(default_factory=dict)
    removed: Dot | None = None
    kept: Kept | None = None
    clocks: Mapping[str, VectorClock] = field(default_factory=dict)


_encoder: Final = msgspec.msgpack.Encoder()
_batch_decoder: Final = msgspec.msgpack.Decoder(_BatchForm)
_part_decoder: Final = msgspec.msgpack.Decoder(_PartForm)
_answer_decoder: Final = msgspec.msgpack.Decoder(_AnswerForm)
_version_decoder: Final = msgspec.msgpack.Decoder(dict[str, Any])


def encode_batch(batch: Batch) -> bytes:
    """The bytes of a batch."""
    form = _BatchForm(
        PROTOCOL,
        batch.sender,
        batch.receiver,
        batch.clock.to_dict(),
        [_write_form(write) for write in batch.writes],
        batch.birth,
        None if batch.part is None else _part_form(batch.part),
        batch.asks_clocks,
    )
    return _encoder.encode(form)


def decode_batch(body: bytes) -> Batch:
    """The batch in `body`, each write of it well-formed.

    Raises BadBatch.
    """
    try:
        form = _batch_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadBatch(_what_is_wrong(body, error)) from None
    if form.version != PROTOCOL:
        raise BadBatch(_other_version(form.version))
    writes = tuple(map(_write, form.writes))
    for write in writes:
        if problem := write_problem(write):
            raise BadBatch(f"The batch breaks a rule: {_cut(problem)}. Nothing of it was applied.")
    part = None if form.part is None else _part(form.part)
    clock = _clock(form.clock)
    return Batch(form.sender, form.receiver, clock, writes, form.birth, part, form.asks_clocks)


def encode_answer(answer: Answer) -> bytes:
    """The bytes of an answer."""
    form = _AnswerForm(
        answer.node,
        answer.clock.to_dict(),
        answer.received.to_dict(),
        answer.missing.to_dict(),
        answer.applied,
        answer.duplicate,
        answer.pending,
        answer.refused,
        answer.now_us,
        answer.first_birth,
        dict(answer.members),
        str(answer.removed or ""),
        None if answer.kept is None else _KeptForm(answer.kept.snapshot, answer.kept.last),
        {member: clock.to_dict() for member, clock in answer.clocks.items()},
    )
    return _encoder.encode(form)


def decode_answer(body: bytes) -> Answer:
    """The answer in `body`.

    Raises BadBatch.
    """
    try:
        form = _answer_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadBatch(f"The answer cannot be read: {error}.") from None
    try:
        removed = Dot.parse(form.removed) if form.removed else None
    except ValueError as error:
        raise BadBatch(f"The answer cannot be read: {error}.") from None
    return Answer(
        form.node,
        _clock(form.clock),
        _clock(form.received),
        _clock(form.missing),
        form.applied,
        form.duplicate,
        form.pending,
        form.refused,
        form.now_us,
        form.first_birth,
        form.members,
        removed,
        None if form.kept is None else Kept(form.kept.snapshot, form.kept.last),
        {member: _clock(entries) for member, entries in form.clocks.items()},
    )


def _clock(entries: dict[str, int]) -> VectorClock:
    for actor in entries:
        if not is_actor(actor):
            raise BadBatch(
                f"A clock names {_cut(repr(actor))}, which is no actor. Nothing of it was applied."
            )
    return VectorClock(entries)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


def _write_form(write: Write) -> _WriteForm:
    operations: list[_PutForm | _DeleteForm] = []
    for operation in write.operations:
        match operation:
            case Put(key, value, content_type, ttl_us):
                operations.append(_PutForm(key, value, content_type, ttl_us))
            case Delete(key):
                operations.append(_DeleteForm(key))
    return _WriteForm(
        write.dot.actor,
        write.dot.sequence,
        write.timestamp,
        write.dependencies.to_dict(),
        operations,
    )


def _write(form: _WriteForm) -> Write:
    operations: Sequence[Operation] = [
        Put(operation.key, operation.value, operation.content_type, operation.ttl_us)
        if isinstance(operation, _PutForm)
        else Delete(operation.key)
        for operation in form.operations
    ]
    return Write(
        Dot(form.actor, form.sequence),
        VectorClock(form.dependencies),
        form.timestamp,
        tuple(operations),
    )


def encode_part(part: Part) -> bytes:
    """The bytes of a part of a snapshot, outside of a batch."""
    return _encoder.encode(_part_form(part))


def decode_part(body: bytes) -> Part:
    """The part in `body`, each key and version of it well-formed.

    Raises BadBatch.
    """
    try:
        form = _part_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadBatch(f"A part of a snapshot cannot be read: {_cut(str(error))}.") from None
    return _part(form)


def _part_form(part: Part) -> _PartForm:
    keys = [
        _KeyStateForm(
            state.key,
            [
                _VersionForm(*v.dot, v.timestamp, v.content_type, v.value, v.expires_us)
                for v in state.versions
            ],
            state.deletes.to_dict(),
        )
        for state in part.keys
    ]
    cut = None
    if part.cut is not None:
        cut = _CutForm(part.cut.clock.to_dict(), part.cut.deletes.to_dict(), part.cut.timestamp)
    return _PartForm(part.snapshot, part.name, part.after, part.total, keys, cut)


def _part(form: _PartForm) -> Part:
    """The part, each key and version of it well-formed. Raises BadBatch."""
    keys = tuple(map(_key_state, form.keys))
    cut = None
    if form.cut is not None:
        cut = Cut(_clock(form.cut.clock), _clock(form.cut.deletes), form.cut.timestamp)
    return Part(form.snapshot, form.name, form.after, form.total, keys, cut)


def _key_state(form: _KeyStateForm) -> KeyState:
    versions = []
    for version in form.versions:
        problem = (
            key_problem(form.key)
            or content_type_problem(version.content_type)
            or (None if is_actor(version.actor) else f"{version.actor!r} is not an actor")
        )
        if problem:
            raise BadBatch(f"The snapshot breaks a rule: {_cut(problem)}. Nothing was kept of it.")
        dot = Dot(version.actor, version.sequence)
        versions.append(
            Version(dot, version.timestamp, version.content_type, version.value, version.expires_us)
        )
    return KeyState(form.key, tuple(versions), _clock(form.deletes))


def _what_is_wrong(body: bytes, error: Exception) -> str:
    """A batch of another version fails on its fields first: look for the version before all."""
    try:
        version = _version_decoder.decode(body).get("version")
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        version = PROTOCOL
    if version != PROTOCOL:
        return _other_version(version)
    return f"The batch cannot be read: {_cut(str(error))}. Nothing of it was applied."


def _other_version(version: object) -> str:
    shown = _cut(repr(version)) if isinstance(version, int | float | str | None) else "unknown"
    return (
        f"The batch is of protocol version {shown}, and this node speaks {PROTOCOL}. "
        "Nothing of it was applied. Run the same release on all nodes."
    )
