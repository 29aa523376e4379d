"""Trying once more what was refused because of a doubt that has been settled since.

So that Redis was started again, say, is not noticed by those who come a moment later. Assumes an
identity that settles doubts. Guarantees that nothing is tried again which may have been done.

Does not know what is tried.
"""

from collections.abc import Callable, Coroutine
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
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """The method is tried once more if it was refused because of a doubt that is settled since."""

    @wraps(method)
    async def tried(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        doubts = self.identity.doubts
        try:
            return await method(self, *args, **kwargs)
        except RedisUnavailable as error:
            if not await may_be_tried_again(self.identity, doubts, error):
                raise
        return await method(self, *args, **kwargs)

    return tried


async def may_be_tried_again(identity: Identity, doubts: int, error: RedisUnavailable) -> bool:
    """Whether what has failed so, since there had been so many doubts, was not done, and was
    refused because of a doubt that is settled since."""
    if error.outcome != "not_applied" or identity.doubts == doubts:
        return False
    return await identity.settles()
