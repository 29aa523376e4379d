"""What a session has seen, as the tokens it carries.

What it is: `Context`, the set of `Causal-Context` tokens of one session. Every request carries all
of them; every answer brings one that replaces those which its request carried.

What it assumes and guarantees: a node's answer covers all tokens that came with the request. Then
the tokens held here always cover everything the session has seen, however many requests of the
session are under way at once and in whatever order they are answered: a token that a request did
not carry is never dropped by that request's answer. With n requests under way there are never more
than n tokens beside those the session began with; so only as many may be under way as leave room
for all of their tokens in one header, or none could be sent any more. One always may.

What it does not know: what is inside a token. Only nodes read them.

Where the idea is from: causal contexts of Dynamo and Riak; client-side session tokens as in Bayou.
"""

import asyncio

from client.errors import BadInput

#: Requests of one session under way at once; more wait their turn.
UNDER_WAY_MAX = 32

#: Of the header, with what the answers under way may bring. Nodes take 8 KiB, unless told
#: otherwise, and tokens grow.
_BYTES_MAX = 6 * 1024

#: How long a token is, while none is known. With a signature and a few actors it is some 100 bytes;
#: nodes that have lost many disks have many names.
_TOKEN_BYTES = 1024

#: One place for the header's name: requests carry it, answers bring it.
HEADER = "Causal-Context"


def is_context(text: str) -> bool:
    """Whether this can be what somebody has seen: another request can carry it."""
    return bool(text) and text.isascii() and text.isprintable()


class Context:
    """The tokens of one session, which only ever come to cover more."""

    def __init__(self, printed: str = "") -> None:
        """The context holds what `str()` of another context printed.

        Raises BadInput when it cannot be one.
        """
        if printed and not is_context(printed):
            raise BadInput(
                "A context is printable ASCII, as `session.context` gave it; nothing was sent."
            )
        # A dict is an ordered set: the header should look the same from one request to the next.
        self._tokens = {token: None for part in printed.split(",") if (token := part.strip())}
        self._under_way = 0
        self._ended = asyncio.Event()

    @property
    def under_way(self) -> int:
        """How many requests are."""
        return self._under_way

    async def begin(self) -> None:
        """One more request is under way, once there is room for its answer."""
        while not self._has_room():
            self._ended.clear()
            await self._ended.wait()
        self._under_way += 1

    def end(self) -> None:
        """One request is under way no more."""
        self._under_way -= 1
        self._ended.set()

    def carried(self) -> tuple[str, ...]:
        """The tokens that a request sent now must carry."""
        return tuple(self._tokens)

    def answered(self, carried: tuple[str, ...], token: str) -> None:
        """The answer to a request that carried these tokens is part of what was seen."""
        for old in carried:
            self._tokens.pop(old, None)
        self._tokens[token] = None

    def _has_room(self) -> bool:
        answers = self._under_way + 1
        token_bytes = 1 + max(map(len, self._tokens), default=_TOKEN_BYTES)
        fits = len(str(self)) + answers * token_bytes <= _BYTES_MAX
        return answers == 1 or (answers <= UNDER_WAY_MAX and fits)

    def __str__(self) -> str:
        return ",".join(self._tokens)
