"""What clients are shown of versions and writes, in JSON: one form, wherever it stands.

Assumes nothing. Guarantees that any value can be shown and got back: as text if it is UTF-8, else
in base64.

Does not know what was asked.
"""

import base64
from collections.abc import Sequence
from email.utils import formatdate

from app.conditions import etag
from app.shapes import (
    ShownDelete,
    ShownPut,
    ShownState,
    ShownValue,
    ShownVersion,
    ShownWrite,
    shown_expiry,
)
from app.snapshot import KeyState
from app.vector_clock import node_of
from app.write import Delete, Operation, Version, Write, expires_us, winner_first


def http_date(time_us: int) -> str:
    """The time as HTTP has it (RFC 9110, section 5.6.7), rounded down to seconds."""
    return formatdate(time_us // 1_000_000, usegmt=True)


def shown_version(version: Version) -> ShownVersion:
    """The version as it stands in an answer."""
    return {
        "dot": str(version.dot),
        "timestamp": version.timestamp,
        "content_type": version.content_type,
        **shown_expiry(version.expires_us),
        **_shown_value(version.value),
    }


def shown_state(state: KeyState) -> ShownState:
    """What a key holds: all its versions, the winner first."""
    versions = winner_first(state.versions)
    return {
        "key": state.key,
        "winner": str(versions[0].dot) if versions else None,
        "siblings": [shown_version(version) for version in versions],
        "etag": etag(version.dot for version in versions) if versions else None,
    }


def shown_write(write: Write, operations: Sequence[Operation]) -> ShownWrite:
    """The write, with these of its operations."""
    return {
        "dot": str(write.dot),
        "node": node_of(write.dot.actor),
        "timestamp": write.timestamp,
        "dependencies": write.dependencies.to_dict(),
        "operations": [_shown_operation(operation, write.timestamp) for operation in operations],
    }


def _shown_operation(operation: Operation, timestamp: int) -> ShownPut | ShownDelete:
    if isinstance(operation, Delete):
        return {"delete": operation.key}
    return {
        "put": operation.key,
        "content_type": operation.content_type,
        **shown_expiry(expires_us(timestamp, operation.ttl_us)),
        **_shown_value(operation.value),
    }


def _shown_value(value: bytes) -> ShownValue:
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
