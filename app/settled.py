"""Trying once more what was refused because of a doubt that has been settled since.

So that Redis was started again, say, is not noticed by those who come a moment later. Assumes an
identity that settles doubts. Guarantees that nothing is tried again which may have been done.

Does not know what is tried.
"""

from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from app.errors import RedisUnavailable
from app.identity import Identity


class OfOneNode(Protocol):
    """What reads or writes the Redis of a node of this identity."""

    identity: Identity


S = TypeVar("S", bound=OfOneNode)
P = ParamSpec("P")
T = TypeVar("T")


def in_a_settled_run(
    method: Callable[Concatenate[S, P], Awaitable[T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """The method is tried once more if it was refused because of a doubt that is settled since."""

    @wraps(method)
    async def tried(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        doubts = self.identity.doubts
        try:
            return await method(self, *args, **kwargs)
        except RedisUnavailable as error:
            if error.outcome != "not_applied" or self.identity.doubts == doubts:
                raise
            if not await self.identity.settles():
                raise
        return await method(self, *args, **kwargs)

    return tried
