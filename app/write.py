"""One write, as every node sees it: immutable, named by its dot, carrying its causal past.

Assumes nothing. Guarantees that a `Write` that exists is well-formed: its own actor's dependency
is the write before it, its operations are about different keys, and its numbers fit the store.

Does not know where writes are kept or how they travel.

A write's dependencies are the vector clock of its origin just before it (DESIGN.md, section 3):
the whole causal past of the node, which makes the delivery rule of Birman, Schiper and Stephenson
(1991) applicable as it stands.

The values are structs of msgspec, which are made in a tenth of the time that frozen dataclasses
take: several are made for each request, and for each write that a peer sends.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from app.vector_clock import NOTHING, SEQUENCE_MAX, Dot, VectorClock, is_actor

KEY_MAX_BYTES: Final = 512
CONTENT_TYPE_MAX_BYTES: Final = 255
SYSTEM: Final = "\0"
"""Keys that begin with it are the system's own: clients can neither read nor write them."""
OPERATIONS_MAX: Final = 1000
"""Operations in one write. A script hands them to Redis in one piece; Lua unpacks about 8,000."""
TIMESTAMP_MAX: Final = 2**53 - 1
"""Microseconds since 1970 that a double holds exactly: until the year 2255."""
TTL_MAX_S: Final = 100 * 365 * 24 * 60 * 60
"""Seconds that a version may live at most, if not for ever: a hundred years."""
_TTL_MAX_US: Final = TTL_MAX_S * 1_000_000
DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"


class Put(msgspec.Struct, frozen=True):
    """Gives `key` a version with this value, for `ttl_us` microseconds; for ever if that is 0."""

    key: str
    value: bytes
    content_type: str = DEFAULT_CONTENT_TYPE
    ttl_us: int = 0


class Delete(msgspec.Struct, frozen=True):
    """Removes the versions of `key` that the write's dependencies cover."""

    key: str


Operation = Put | Delete


class Write(msgspec.Struct, frozen=True):
    """One write. Several operations under one dot are applied together or not yet.

    `timestamp` is a hybrid logical clock in microseconds since 1970: greater than that of every
    write in the dependencies.
    """

    dot: Dot
    dependencies: VectorClock
    timestamp: int
    operations: tuple[Operation, ...]


class Version(msgspec.Struct, frozen=True):
    """What a put left at a key: its value, the dot and timestamp of the write, and when it
    expires, microseconds since 1970; 0 for never."""

    dot: Dot
    timestamp: int
    content_type: str
    value: bytes
    expires_us: int = 0

    def is_there(self, now_us: int) -> bool:
        """Whether it has not expired, where the hybrid logical clock shows `now_us`."""
        return not self.expires_us or now_us < self.expires_us


def value_bytes(operations: Sequence[Operation]) -> int:
    """How many bytes the values have that these put."""
    size = 0
    for operation in operations:  # sum() of a generator takes twice as long, and mostly it is one
        if isinstance(operation, Put):
            size += len(operation.value)
    return size


def expires_us(timestamp: int, ttl_us: int) -> int:
    """When a version expires that a write with this timestamp put for so long; 0 for never.

    Twin of `expiry_of_put` in lua/expiry.inc.lua.
    """
    return min(timestamp + ttl_us, TIMESTAMP_MAX) if ttl_us else 0


def winner_first(versions: Sequence[Version]) -> list[Version]:
    """The siblings with the winner first: by timestamp, then actor, greatest first (G5)."""
    if len(versions) < 2:
        return list(versions)
    return sorted(versions, key=lambda v: (v.timestamp, v.dot.actor), reverse=True)


def key_problem(key: str) -> str | None:
    """What is wrong with `key`, or None: keys are 1 to 512 bytes of UTF-8."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "a key is UTF-8"
    if not 1 <= size <= KEY_MAX_BYTES:
        return f"a key is 1 to {KEY_MAX_BYTES} bytes of UTF-8, and this one has {size}"
    return None


def user_key_problem(key: str) -> str | None:
    """What is wrong with `key` in a request of a client, or None."""
    if key.startswith(SYSTEM):
        return "keys that begin with a NUL character are reserved for the system"
    return key_problem(key)


def content_type_problem(content_type: str) -> str | None:
    """What is wrong with `content_type`, or None: it is 1 to 255 printable ASCII characters."""
    if not 1 <= len(content_type) <= CONTENT_TYPE_MAX_BYTES:
        return f"a content type has 1 to {CONTENT_TYPE_MAX_BYTES} characters"
    if not (content_type.isascii() and content_type.isprintable()):
        return "a content type is printable ASCII"
    return None


def ttl_problem(seconds: float) -> str | None:
    """What is wrong with `seconds` as the time that a value is to live, or None."""
    # What is compared first is not NaN, and not so large that it overflows as microseconds.
    if 0 < seconds <= TTL_MAX_S and microseconds(seconds) > 0:
        return None
    return f"is a number of seconds, more than 0 and at most {TTL_MAX_S} (a hundred years)"


def microseconds(seconds: float) -> int:
    """So many seconds, in microseconds."""
    return round(seconds * 1_000_000)


def write_problem(write: Write, before: VectorClock = NOTHING) -> str | None:
    """Which rule `write` breaks, or None. What its dependencies share with `before`, a clock that
    was looked at, is not looked at again."""
    dot, dependencies = write.dot, write.dependencies
    if not is_actor(dot.actor):
        return f"{dot.actor!r} is not an actor"
    if not 1 <= dot.sequence <= SEQUENCE_MAX:
        return f"the sequence {dot.sequence} is not in 1..{SEQUENCE_MAX}"
    if dependencies[dot.actor] != dot.sequence - 1:
        return f"{dot} must depend on the write before it, and names {dependencies[dot.actor]}"
    for actor, sequence in dependencies.since(before).items():
        # A zero says that only the other clock has the actor.
        if sequence and not (is_actor(actor) and 1 <= sequence <= SEQUENCE_MAX):
            return f"{dot} depends on {actor}:{sequence}, which cannot be"
    if not 1 <= write.timestamp <= TIMESTAMP_MAX:
        return f"{dot} has the timestamp {write.timestamp}, which is not in 1..{TIMESTAMP_MAX}"
    return operations_problem(write.operations)


def operations_problem(operations: Sequence[Operation]) -> str | None:
    """Which rule `operations` break, or None: some, not too many, each key once and valid."""
    if not 1 <= len(operations) <= OPERATIONS_MAX:
        return f"a write has 1 to {OPERATIONS_MAX} operations, and this one has {len(operations)}"
    if len(operations) > 1 and len({operation.key for operation in operations}) != len(operations):
        return "a write names each key once"
    for operation in operations:
        if problem := key_problem(operation.key):
            return problem
        if isinstance(operation, Put):
            if problem := content_type_problem(operation.content_type):
                return problem
            if not 0 <= operation.ttl_us <= _TTL_MAX_US:
                return f"a version lives at most {TTL_MAX_S} seconds, if not for ever"
            if operation.ttl_us and operation.key.startswith(SYSTEM):
                return "what is at the system's keys does not expire"
    return None
