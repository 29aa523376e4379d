"""The shape of a part of a snapshot, in a batch and in a backup.

Assumes nothing of the bytes it is given. Guarantees that what it decodes is well-formed, and that
decoding gives back what was encoded.

Does not know where a part comes from, nor what becomes of it.
"""

from typing import Annotated, Final

import msgspec

from app import clock_forms
from app.clock_forms import ClockForm, Sequence, shown
from app.errors import BadBatch
from app.snapshot import Cut, KeyState, Part
from app.vector_clock import SEQUENCE_MAX, Dot, is_actor
from app.write import TIMESTAMP_MAX, Version, content_type_problem, key_problem

SNAPSHOT_NAME_MAX: Final = 128

_Time = Annotated[int, msgspec.Meta(ge=0, le=TIMESTAMP_MAX)]
_SnapshotName = Annotated[str, msgspec.Meta(max_length=SNAPSHOT_NAME_MAX, pattern="^[!-~]*$")]


class VersionForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    actor: str
    sequence: Sequence
    timestamp: Annotated[int, msgspec.Meta(ge=1, le=TIMESTAMP_MAX)]
    content_type: str
    value: bytes
    expires_us: _Time = 0  # backups of version 1 have none


class KeyStateForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    key: str
    versions: list[VersionForm]
    deletes: ClockForm


class CutForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    clock: ClockForm
    deletes: ClockForm
    timestamp: _Time


class PartForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    snapshot: _SnapshotName
    name: _SnapshotName
    after: _SnapshotName
    total: Annotated[int, msgspec.Meta(ge=0, le=SEQUENCE_MAX)]
    keys: list[KeyStateForm]
    cut: CutForm | None


class KeptForm(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    snapshot: _SnapshotName
    last: _SnapshotName


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(PartForm)


def encode(part: Part) -> bytes:
    """The bytes of a part, outside of a batch."""
    return _encoder.encode(form_of(part))


def decode(body: bytes) -> Part:
    """The part in `body`, each key and version of it well-formed.

    Raises BadBatch.
    """
    try:
        form = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadBatch(f"A part of a snapshot cannot be read: {shown(str(error))}.") from None
    return part_of(form)


def form_of(part: Part) -> PartForm:
    """The part as it is sent."""
    keys = [
        KeyStateForm(
            state.key,
            [
                VersionForm(*v.dot, v.timestamp, v.content_type, v.value, v.expires_us)
                for v in state.versions
            ],
            state.deletes.to_dict(),
        )
        for state in part.keys
    ]
    cut = None
    if part.cut is not None:
        cut = CutForm(part.cut.clock.to_dict(), part.cut.deletes.to_dict(), part.cut.timestamp)
    return PartForm(part.snapshot, part.name, part.after, part.total, keys, cut)


def part_of(form: PartForm) -> Part:
    """The part that was sent, each key and version of it well-formed. Raises BadBatch."""
    keys = tuple(map(_key_state, form.keys))
    cut = None
    if form.cut is not None:
        clock, deletes = clock_forms.whole(form.cut.clock), clock_forms.whole(form.cut.deletes)
        cut = Cut(clock, deletes, form.cut.timestamp)
    return Part(form.snapshot, form.name, form.after, form.total, keys, cut)


def _key_state(form: KeyStateForm) -> KeyState:
    versions = []
    for version in form.versions:
        problem = (
            key_problem(form.key)
            or content_type_problem(version.content_type)
            or (None if is_actor(version.actor) else f"{version.actor!r} is not an actor")
        )
        if problem:
            raise BadBatch(f"The snapshot breaks a rule: {shown(problem)}. Nothing was kept of it.")
        dot = Dot(version.actor, version.sequence)
        versions.append(
            Version(dot, version.timestamp, version.content_type, version.value, version.expires_us)
        )
    return KeyState(form.key, tuple(versions), clock_forms.whole(form.deletes))
