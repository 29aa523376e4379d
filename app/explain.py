"""Why a key holds what it holds: which writes made its versions, and how these are related.

Assumes the versions of a key, and writes about it from the logs, as far as they were searched.
Guarantees that what it says follows from dependencies, timestamps and actors alone, by the rules of
DESIGN.md, section 3: it explains what the scripts have done, and decides nothing.

Pure. Does not know where the writes were found.
"""

from collections.abc import Sequence

from app.shapes import Explained, shown_expiry
from app.vector_clock import node_of
from app.write import Put, Version, Write, expires_us


def explained(key: str, versions: Sequence[Version], writes: Sequence[Write]) -> Explained:
    """The explanation, for JSON. `versions` are the siblings, winner first; `writes` are about
    `key`, and no others."""
    by_dot = {write.dot: write for write in writes}
    superseded = {write.dot: _supersedes(write, writes) for write in writes}
    return {
        "key": key,
        "winner": str(versions[0].dot) if versions else None,
        "why": _why(key, versions, writes),
        "versions": [
            {
                "dot": str(version.dot),
                "node": node_of(version.dot.actor),
                "timestamp": version.timestamp,
                "content_type": version.content_type,
                "bytes": len(version.value),
                **shown_expiry(version.expires_us),
                "dependencies": by_dot[version.dot].dependencies.to_dict()
                if version.dot in by_dot
                else None,
                "supersedes": superseded.get(version.dot),
                "concurrent_with": [str(v.dot) for v in versions if v.dot != version.dot],
            }
            for version in versions
        ],
        "history": [
            {
                "dot": str(write.dot),
                "node": node_of(write.dot.actor),
                "does": "put" if _put(write, key) else "delete",
                "timestamp": write.timestamp,
                **shown_expiry(_expires_us(write, key)),
                "dependencies": write.dependencies.to_dict(),
                "superseded_by": [
                    str(dot) for dot, before in superseded.items() if str(write.dot) in before
                ],
                "concurrent_with": [
                    str(other.dot) for other in writes if _are_concurrent(write, other)
                ],
            }
            for write in sorted(writes, key=lambda w: (w.timestamp, w.dot.actor), reverse=True)
        ],
    }


def _why(key: str, versions: Sequence[Version], writes: Sequence[Write]) -> str:
    if not versions:
        gone = max(writes, key=lambda w: (w.timestamp, w.dot.actor), default=None)
        if gone is None:
            return "No write about this key was found in the logs of this node."
        expired = ", and what it put has expired" if _expires_us(gone, key) else ""
        return f"No version is left: the last write about this key was {gone.dot}{expired}."
    if len(versions) == 1:
        expired = " or has expired" if any(_expires_us(write, key) for write in writes) else ""
        return f"{versions[0].dot} is the only version: every other one was superseded{expired}."
    first, second = versions[:2]
    if first.timestamp > second.timestamp:
        reason = "it has the greatest timestamp"
    else:
        reason = "of those with the greatest timestamp it has the greatest actor"
    return f"{len(versions)} versions were written concurrently, and {first.dot} wins: {reason}."


def _supersedes(write: Write, writes: Sequence[Write]) -> list[str]:
    """The writes that this one came directly after: it depends on them, and on none between."""
    before = [other for other in writes if write.dependencies.covers(other.dot)]
    return [
        str(other.dot)
        for other in before
        if not any(between.dependencies.covers(other.dot) for between in before)
    ]


def _are_concurrent(one: Write, other: Write) -> bool:
    return (
        one.dot != other.dot
        and not one.dependencies.covers(other.dot)
        and not other.dependencies.covers(one.dot)
    )


def _put(write: Write, key: str) -> Put | None:
    return next((op for op in write.operations if isinstance(op, Put) and op.key == key), None)


def _expires_us(write: Write, key: str) -> int:
    """When what the write put at the key expires; 0 for never."""
    put = _put(write, key)
    return expires_us(write.timestamp, put.ttl_us) if put else 0
