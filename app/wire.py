"""The shapes of what nodes send each other: batches and answers.

It is MessagePack, checked against the types below by msgspec before anything looks inside
(docs/protocol.md). Clocks are said as what differs from another that the reader knows: those of
writes from the write before, and the first ones from a *base*, which both sides hold (ADR 24).

Assumes nothing of the bytes it is given. Guarantees that what it decodes is well-formed, and that
decoding gives back what was encoded.

Does not know HTTP, nor what the values mean, nor what Redis holds (`codec.py`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec

from app import clock_forms, part_forms
from app.clock_forms import BaseForm, ChangesForm, ClockForm, changed, shown
from app.errors import BadBatch, OtherBase
from app.part_forms import KeptForm, PartForm
from app.snapshot import Kept, Part
from app.standing import Heard, Standing
from app.vector_clock import NOTHING, Dot, VectorClock
from app.write import Delete, Operation, Put, Write, write_problem

PROTOCOL: Final = 4
"""The version of what nodes send each other."""
CONTENT_TYPE: Final = "application/vnd.msgpack"

DOT_MAX: Final = 81
"""Characters of a dot: 64 of an actor, a colon, 16 of a sequence."""
BATCH_WRITES_MAX: Final = 10_000
"""Writes in one batch. The receiver's Redis does nothing else while it takes one, and by its bytes
alone a batch could hold half a million, for which Redis would be away for half a minute."""
ENTRIES_MAX: Final = 1_000_000
"""Entries in the dependencies of all writes of a batch: what is said in few bytes takes memory."""
_WRITE_BYTES: Final = 96
"""What a write takes at most beside its dependencies and operations."""
_OPERATION_BYTES: Final = 24
"""What an operation takes at most beside its key, its value and its content type."""
_ENTRY_BYTES: Final = 32
"""What an entry of a clock takes, twice over: where nodes that have not heard of each other take
turns it is taken back, and said again. Most are as in the write before, and take nothing."""


class _PutForm(msgspec.Struct, tag="put", array_like=True, forbid_unknown_fields=True):
    key: str
    value: bytes
    content_type: str
    ttl_us: int


class _DeleteForm(msgspec.Struct, tag="delete", array_like=True, forbid_unknown_fields=True):
    key: str


class _WriteForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    actor: str
    sequence: clock_forms.Sequence
    timestamp: int
    dependencies: ChangesForm
    operations: list[_PutForm | _DeleteForm]


_Birth = Annotated[str, msgspec.Meta(max_length=64)]


class _HeardForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    clock: ChangesForm
    received: ChangesForm
    at_us: int


class _BatchForm(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    version: int
    sender: str
    receiver: str
    clock: ChangesForm
    writes: Annotated[list[_WriteForm], msgspec.Meta(max_length=BATCH_WRITES_MAX)]
    birth: _Birth = ""
    part: PartForm | None = None
    asks_hearsay: bool = False
    base: BaseForm = b""


class _AnswerForm(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    node: str
    clock: ChangesForm
    received: ChangesForm
    missing: ClockForm
    applied: int
    duplicate: int
    pending: int
    refused: int
    now_us: int
    first_birth: _Birth = ""
    members: dict[str, str] = {}
    removed: Annotated[str, msgspec.Meta(max_length=DOT_MAX)] = ""
    kept: KeptForm | None = None
    hearsay: dict[str, _HeardForm] = {}


@dataclass(frozen=True, slots=True)
class Batch:
    """What `POST /replicate` carries: who sends to whom, the sender's clock, and writes; or a part
    of a snapshot, where the sender's log does not go back to what the receiver lacks.

    With `birth`, that of the sender's Redis, it asks which one the receiver heard of first; with
    `asks_hearsay`, where the other members stand, and whether the sender still is one. Clocks in it
    are said from `base`, which the receiver is taken to hold, and so are those of the answer.
    """

    sender: str
    receiver: str
    clock: VectorClock
    writes: tuple[Write, ...]
    birth: str = ""
    part: Part | None = None
    asks_hearsay: bool = False
    base: VectorClock = NOTHING


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver says after a batch: where it stands now, and what became of the writes.

    `received` covers `clock` and, per actor, what waits there without a gap.
    `now_us` is the receiver's wall clock, microseconds since 1970. `first_birth` answers a batch
    with a `birth`: the first one that the receiver heard of, which may be this one; `members`
    names then all that the receiver knows, with the URL of each, or nothing where it knows none.
    `removed` tells the sender that it is no member any more, by the write that removed it. `kept`
    answers a batch with a part of a snapshot; `hearsay` one that asks: what each other member last
    said of itself, as far as the receiver heard, by the receiver's clock.
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
    hearsay: Mapping[str, Heard] = field(default_factory=dict)


_encoder: Final = msgspec.msgpack.Encoder()
_batch_decoder: Final = msgspec.msgpack.Decoder(_BatchForm)
_answer_decoder: Final = msgspec.msgpack.Decoder(_AnswerForm)
_version_decoder: Final = msgspec.msgpack.Decoder(dict[str, Any])


def size_of(write: Write) -> int:
    """About how many bytes `write` takes in a batch: rather too many than too few."""
    size = _WRITE_BYTES + _ENTRY_BYTES * len(write.dependencies)
    for one in write.operations:  # for each write on each link: so the common case is cheap
        key = one.key
        size += _OPERATION_BYTES + (len(key) if key.isascii() else len(key.encode()))
        if isinstance(one, Put):
            size += len(one.value) + len(one.content_type)
    return size


def encode_batch(batch: Batch) -> bytes:
    """The bytes of a batch, for a receiver that holds its base."""
    form = _BatchForm(
        PROTOCOL,
        batch.sender,
        batch.receiver,
        batch.clock.since(batch.base),
        _write_forms(batch.writes, batch.base),
        batch.birth,
        None if batch.part is None else part_forms.form_of(batch.part),
        batch.asks_hearsay,
        clock_forms.name(batch.base),
    )
    return _encoder.encode(form)


def decode_batch(body: bytes, base: VectorClock = NOTHING) -> Batch:
    """The batch in `body`, each write of it well-formed, for who holds `base`.

    Raises BadBatch; OtherBase if it was said from another base.
    """
    try:
        form = _batch_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadBatch(_what_is_wrong(body, error)) from None
    if form.version != PROTOCOL:
        raise BadBatch(_other_version(form.version))
    if form.base != clock_forms.name(base):
        if form.base:
            raise OtherBase
        base = NOTHING
    part = None if form.part is None else part_forms.part_of(form.part)
    writes = tuple(_writes(form.writes, base))
    clock = changed(base, form.clock)
    return Batch(
        form.sender, form.receiver, clock, writes, form.birth, part, form.asks_hearsay, base
    )


def encode_answer(answer: Answer, base: VectorClock = NOTHING) -> bytes:
    """The bytes of an answer, for a sender that holds `base`."""
    form = _AnswerForm(
        answer.node,
        answer.clock.since(base),
        answer.received.since(answer.clock),
        answer.missing.to_dict(),
        answer.applied,
        answer.duplicate,
        answer.pending,
        answer.refused,
        answer.now_us,
        answer.first_birth,
        dict(answer.members),
        str(answer.removed or ""),
        None if answer.kept is None else KeptForm(answer.kept.snapshot, answer.kept.last),
        {member: _heard_form(heard, answer.clock) for member, heard in answer.hearsay.items()},
    )
    return _encoder.encode(form)


def decode_answer(body: bytes, base: VectorClock = NOTHING) -> Answer:
    """The answer in `body`, to a batch that was said from `base`.

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
    clock = changed(base, form.clock)
    return Answer(
        form.node,
        clock,
        changed(clock, form.received),
        clock_forms.whole(form.missing),
        form.applied,
        form.duplicate,
        form.pending,
        form.refused,
        form.now_us,
        form.first_birth,
        form.members,
        removed,
        None if form.kept is None else Kept(form.kept.snapshot, form.kept.last),
        {member: _heard(heard, clock) for member, heard in form.hearsay.items()},
    )


def _heard_form(heard: Heard, clock: VectorClock) -> _HeardForm:
    standing = heard.standing
    return _HeardForm(
        standing.clock.since(clock), standing.received.since(standing.clock), heard.at_us
    )


def _heard(form: _HeardForm, clock: VectorClock) -> Heard:
    clock = changed(clock, form.clock)
    return Heard(Standing(clock, changed(clock, form.received)), form.at_us)


def _write_forms(writes: Iterable[Write], base: VectorClock) -> list[_WriteForm]:
    forms, before = [], base
    for write in writes:
        forms.append(_write_form(write, before))
        before = write.dependencies.with_dot(write.dot)
    return forms


def _writes(forms: Iterable[_WriteForm], base: VectorClock) -> Iterator[Write]:
    before, entries = base, 0
    for form in forms:
        write = _write(form, before)
        entries += len(write.dependencies)
        if entries > ENTRIES_MAX:
            raise BadBatch(
                f"The dependencies of the batch have more than {ENTRIES_MAX} entries. Nothing of "
                "it was applied."
            )
        if problem := write_problem(write, before):
            raise BadBatch(f"The batch breaks a rule: {shown(problem)}. Nothing of it was applied.")
        yield write
        before = write.dependencies.with_dot(write.dot)


def _write_form(write: Write, before: VectorClock) -> _WriteForm:
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
        write.dependencies.since(before),
        operations,
    )


def _write(form: _WriteForm, before: VectorClock) -> Write:
    operations: Sequence[Operation] = [
        Put(operation.key, operation.value, operation.content_type, operation.ttl_us)
        if isinstance(operation, _PutForm)
        else Delete(operation.key)
        for operation in form.operations
    ]
    return Write(
        Dot(form.actor, form.sequence),
        changed(before, form.dependencies),
        form.timestamp,
        tuple(operations),
    )


def _what_is_wrong(body: bytes, error: Exception) -> str:
    """A batch of another version fails on its fields first: look for the version before all."""
    try:
        version = _version_decoder.decode(body).get("version")
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        version = PROTOCOL
    if version != PROTOCOL:
        return _other_version(version)
    return f"The batch cannot be read: {shown(str(error))}. Nothing of it was applied."


def _other_version(version: object) -> str:
    which = shown(repr(version)) if isinstance(version, int | float | str | None) else "unknown"
    return (
        f"The batch is of protocol version {which}, and this node speaks {PROTOCOL}. "
        "Nothing of it was applied. Run the same release on all nodes."
    )
