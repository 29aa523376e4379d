"""Reading a number of things of unknown sizes, without holding much more than wanted.

Assumes that sizes seen so far tell of those to come. Guarantees that the first read is small, for
all that it reads may be of the largest size, and that at least one thing is read if there is any.

Does not know what is read.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

_FIRST_READ: Final = 16

T = TypeVar("T")


async def read_about(
    max_bytes: int,
    most: int,
    read: Callable[[int, int], Awaitable[Sequence[T]]],
    size: Callable[[T], int],
) -> list[T]:
    """The first of at most `most` things, until they have `max_bytes`.

    `read(start, count)` gives so many of them from the one with index `start` on; fewer only at the
    end of all.
    """
    found: list[T] = []
    total, count = 0, _FIRST_READ
    while len(found) < most and total < max_bytes:
        count = min(count, most - len(found))
        more = await read(len(found), count)
        found += more
        total += sum(map(size, more))
        if len(more) < count:
            break
        count = 1 + (max_bytes - total) * len(found) // max(total, 1)
    return found
