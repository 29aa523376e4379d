"""What has expired is removed, so that its memory is free.

Assumes that readers are not shown what has expired, removed or not. Guarantees that it is removed
soon after, at this node, in steps that keep Redis from nobody for long; and that nothing else is.
It is no write: every node does it by itself, and all come to the same, for when a version expires
is part of it.

Any worker may do it, and all of a node do: what one has removed the others do not find.

Does not know what is stored.
"""

from collections.abc import Callable
from typing import Final

from app import metrics
from app.redis_link import translated
from app.scripts import Scripts

KEYS_AT_ONCE: Final = 128
"""Keys that are looked at in one step of Redis."""


async def remove_expired(scripts: Scripts, node: str, now_us: Callable[[], int]) -> None:
    """Nothing is stored that has expired.

    Raises Syncing, RedisUnavailable.
    """
    more = True
    while more:
        with translated(changes=True):
            removed = await scripts.remove_expired(node, now_us(), KEYS_AT_ONCE)
        if removed is None:
            return  # whose Redis it is, is for those to find out who are asked for something
        if removed.versions:
            metrics.EXPIRED.inc(removed.versions)
        more = removed.more
