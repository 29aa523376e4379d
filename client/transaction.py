"""Several operations that are one, put together step by step.

What it is: `Transaction`, which `Session.txn` makes.

What it assumes and guarantees: nothing is sent before `commit`, which the end of an `async with`
block does unless an error ends it, or it was called there. Then everything is done, or nothing; all
reads and conditions are of one instant at one node, and show what was there before the
transaction's own writes.

What it does not know: how a request travels.

Where the idea is from: the HTTP interface of the nodes, word for word.
"""

import base64
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Literal, Self

from client import checks
from client.answers import Transacted
from client.errors import BadInput

Ops = list[dict[str, Any]]


class Transaction:
    """What is to be read, wanted and written; after `commit`, what became of it.

    async with kv.txn() as txn:
        txn.get("stock")
        txn.put("order", "1 pizza", if_none_match="*")
        txn.delete("cart", if_match=cart.etag)
    stock = txn.result.winner("stock")
    """

    def __init__(self, send: Callable[[Ops], Awaitable[Transacted]]) -> None:
        self._send = send
        self._ops: Ops = []
        self._was_sent = self._is_under_way = False
        self._result: Transacted | None = None

    def get(
        self, key: str, *, if_match: str | None = None, if_none_match: Literal["*"] | None = None
    ) -> None:
        """The key will be read, and has to hold this, if anything is said of that."""
        self._add({"get": key}, if_match, if_none_match)

    def put(
        self,
        key: str,
        value: bytes | str,
        content_type: str | None = None,
        *,
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
        ttl_s: float | None = None,
    ) -> None:
        """The key will have this value, if it holds what it has to. Types, and `ttl_s`, are as for
        `Session.put`.

        Raises BadInput.
        """
        stored, _ = checks.value(value)
        op: dict[str, Any] = {"put": key}
        if isinstance(value, str):
            op["value"] = value
        else:
            op["base64"] = base64.b64encode(stored).decode()
        if content_type is not None:
            op["content_type"] = content_type
        if checks.ttl(ttl_s) is not None:
            op["ttl"] = ttl_s
        self._add(op, if_match, if_none_match)

    def delete(
        self, key: str, *, if_match: str | None = None, if_none_match: Literal["*"] | None = None
    ) -> None:
        """The key will have no version, if it holds what it has to."""
        self._add({"delete": key}, if_match, if_none_match)

    def _add(self, op: dict[str, Any], if_match: str | None, if_none_match: str | None) -> None:
        if if_match is not None and if_none_match is not None:
            raise BadInput("An operation has if_match or if_none_match, not both.")
        checks.absence(if_none_match)
        if self._result is not None or self._is_under_way:
            raise BadInput("This transaction is done, or under way; begin another one.")
        if if_match is not None:
            op["if"] = if_match
        elif if_none_match is not None:
            op["if"] = None
        self._ops.append(op)

    async def commit(self) -> Transacted:
        """All of it is done, at one node; done again, it only says what was.

        Raises BadInput, PreconditionFailed, NotApplied, ReplicasMissing, OutcomeUnknown.
        """
        if self._is_under_way:
            raise BadInput("This transaction is under way: wait for it.")
        if self._result is None:
            self._was_sent = self._is_under_way = True
            try:
                self._result = await self._send(self._ops)
            finally:
                self._is_under_way = False
        return self._result

    @property
    def result(self) -> Transacted:
        """What became of it. Raises BadInput before it is committed."""
        if self._result is None:
            raise BadInput("This transaction is not committed yet.")
        return self._result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # One that was sent in the block and failed may have taken effect: to repeat it is for the
        # caller to decide.
        if error is None and not self._was_sent:
            await self.commit()
