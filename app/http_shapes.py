"""What clients are shown of versions and writes, in JSON: one form, wherever it stands.

Assumes nothing. Guarantees that any value can be shown and got back: as text if it is UTF-8, else
in base64.

Does not know what was asked.
"""

import base64
from collections.abc import Sequence
from typing import Any

from app.snapshot import KeyState
from app.vector_clock import node_of
from app.write import Delete, Operation, Version, Write, winner_first


def shown_version(version: Version) -> dict[str, Any]:
    """The version as it stands in an answer."""
    shown = {
        "dot": str(version.dot),
        "timestamp": version.timestamp,
        "content_type": version.content_type,
    }
    return {**shown, **_shown_value(version.value)}


def shown_state(state: KeyState) -> dict[str, Any]:
    """What a key holds: all its versions, the winner first."""
    versions = winner_first(state.versions)
    return {
        "key": state.key,
        "winner": str(versions[0].dot) if versions else None,
        "siblings": [shown_version(version) for version in versions],
    }


def shown_write(write: Write, operations: Sequence[Operation]) -> dict[str, Any]:
    """The write, with these of its operations."""
    return {
        "dot": str(write.dot),
        "node": node_of(write.dot.actor),
        "timestamp": write.timestamp,
        "dependencies": write.dependencies.to_dict(),
        "operations": [_shown_operation(operation) for operation in operations],
    }


def _shown_operation(operation: Operation) -> dict[str, Any]:
    if isinstance(operation, Delete):
        return {"delete": operation.key}
    shown = {"put": operation.key, "content_type": operation.content_type}
    return {**shown, **_shown_value(operation.value)}


def _shown_value(value: bytes) -> dict[str, str]:
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
