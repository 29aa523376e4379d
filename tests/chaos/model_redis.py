"""What the Redis of a node of the model would hold.

What it is: functions from a node of `tests/model.py`, or from a write, to `Contents`.

What it assumes and guarantees: it is as docs/redis.md says, as far as the final checks look at it.

What it does not know: how the node came to what it has.
"""

from app.codec import pack_operations
from app.vector_clock import VectorClock
from app.write import Version, Write
from tests.contents import Contents
from tests.model import Node


def versions_held(node: Node, keys: list[str]) -> Contents:
    return {
        f"kv:{key}": {
            _field(v).encode(): f"{v.timestamp} {v.content_type}\n".encode() + v.value
            for v in versions
        }
        for key in keys
        if (versions := node.held(key))
    }


def _field(version: Version) -> str:
    return f"{version.dot}@{version.expires_us}" if version.expires_us else str(version.dot)


def listed_keys(held: Contents, keys: list[str]) -> dict[str, set[str]]:
    """The sorted sets, as far as they are about these keys."""
    there = {key: held[f"kv:{key}"] for key in keys if f"kv:{key}" in held}
    siblings = {key for key, versions in there.items() if len(versions) > 1}
    return {"keys": set(there), "conflicts": siblings, "expiring": set(there)}


def logs_of(node: Node) -> Contents:
    logs: Contents = {}
    for write in sorted(node.applied, key=lambda write: write.dot.sequence):
        logs.setdefault(f"log:{write.dot.actor}", []).append(log_entry(write))
    return logs


def trimmed(logs: Contents, most: int) -> Contents:
    return {key: log[-most:] for key, log in logs.items()}


def log_entry(write: Write) -> tuple[bytes, dict[bytes, bytes]]:
    """The entry of a log that holds the write."""
    return f"{write.dot.sequence}-0".encode(), {
        b"timestamp": str(write.timestamp).encode(),
        b"dependencies": clock_text(write.dependencies).encode(),
        b"operations": pack_operations(write.operations),
    }


def clock_text(clock: VectorClock) -> str:
    """The clock as Redis holds it."""
    return " ".join(f"{actor}:{sequence}" for actor, sequence in clock.to_dict().items())
