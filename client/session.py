"""Reading and writing, as a session that any node can serve.

What it is: `Session`, one reader and writer that carries what it has seen from node to node.

What it assumes and guarantees: whichever nodes serve the requests of one session, it reads its own
writes, reads and writes monotonically, and its writes follow its reads (G7); requests of one
session that are under way together are not ordered among themselves. A read goes on to the next
node when one fails. A write goes on only when it certainly took no effect; else OutcomeUnknown
leaves the decision to the caller. A cancelled write has an unknown outcome too.

What it does not know: what is in a context, and how writes travel between nodes.

Where the idea is from: session guarantees as in Bayou (Terry et al. 1994).
"""

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Literal, TypeVar

from client import answers, checks
from client.answers import Answer, Deleted, Transacted, Version, Written
from client.context import Context
from client.errors import BadInput, Lost
from client.operating import Operating
from client.shapes import Conflict, Explanation
from client.transaction import Ops, Transaction
from client.transport import Request
from client.watching import Watched, Watcher

Result = TypeVar("Result")

#: Keys that a listing asks for at a time.
PAGE = 1000


class Session(Operating):
    """One reader and writer. Made by `Lightcone`, `session` and `at`.

    Whatever it asks raises Lost once it has seen a write that no node has any more; see `go_on`.
    """

    def session(
        self,
        *,
        name: str = "",
        context: str = "",
        timeout_s: float | None = None,
        patience_s: float | None = None,
    ) -> "Session":
        """Another session, over the same connections, that has seen this context and no more.

        It is recorded under a name of its own: the given one, with a number if others have it.
        Raises BadInput when the context is none.
        """
        return Session(
            self._route.among(self._route.nodes),
            Context(context),
            self._recorder,
            self._recorder.name(name),
            timeout_s=self._timeout_s if timeout_s is None else timeout_s,
            patience_s=self._patience_s if patience_s is None else patience_s,
        )

    def at(self, *nodes: str) -> "Session":
        """This very session, served by these nodes only: what either sees, both have seen.

        Raises BadInput for what is not an address.
        """
        return Session(
            self._route_to(*nodes),
            self._context,
            self._recorder,
            self._name,
            timeout_s=self._timeout_s,
            patience_s=self._patience_s,
        )

    def go_on(self, error: Lost) -> None:
        """The session goes on without the writes that are lost: it has not seen them any more.

        What else it has seen stays. What the lost writes did is undone, and what they had replaced
        or deleted may be shown again.
        """
        self._context.answered(error.carried, error.context)

    async def put(
        self,
        key: str,
        value: bytes | str,
        content_type: str | None = None,
        *,
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
        ttl_s: float | None = None,
        replicas: int | None = None,
        idempotency_key: str | None = None,
        deferred: bool = False,
        patience_s: float | None = None,
    ) -> Written:
        """The key has this value at one node, durably, over every version the node had.

        Without a content type, text is `text/plain; charset=utf-8` and bytes are
        `application/octet-stream`. It is done only if the key has the versions that the ETag
        `if_match` names (`*`: some), or, with `if_none_match="*"`, none. With `ttl_s`, it is gone
        after so many seconds, at all nodes; without, it stays. With `replicas`, as many
        nodes hold it, or ReplicasMissing says which do. With an `idempotency_key`, which no other
        request may have, it is repeated at its node until its outcome is known.

        With `deferred`, a node that lacks some of what the session has seen need not be waited for:
        it accepts the write, durably, and does it once that has come; the result says which. The
        patience is none then, if it is not given. Not with conditions or `replicas`.
        Raises BadInput, PreconditionFailed, NotApplied, ReplicasMissing, OutcomeUnknown.
        """
        body, plain_type = checks.value(value)
        return await self._ask(
            Request(
                name=f"put {key!r}",
                key=key,
                method="PUT",
                path=checks.key_path(key),
                read=lambda answer: answers.written(key, answer),
                query={**checks.lifetime(ttl_s), **checks.replicas(replicas)},
                headers={
                    "Content-Type": checks.content_type(content_type) or plain_type,
                    **checks.conditions(if_match, if_none_match),
                    **checks.idempotency(idempotency_key),
                    **checks.deferral(
                        deferred,
                        if_match=if_match,
                        if_none_match=if_none_match,
                        replicas=replicas,
                    ),
                },
                body=body,
                is_write=True,
                is_repeatable=idempotency_key is not None,
            ),
            _patience_of(deferred, patience_s),
        )

    async def get(
        self, key: str, *, stale: bool = False, patience_s: float | None = None
    ) -> Version | None:
        """The winner among the versions of the key, or None when it has none.

        With `stale`, at once and from what the node has, even if the session has seen more: then it
        is no part of the session, and says so.
        Raises BadInput, NotApplied.
        """
        return await self._ask(
            Request(
                name=f"get {key!r}",
                # A history knows nothing of reads that are no part of their session.
                key="" if stale else key,
                method="GET",
                path=checks.key_path(key),
                query={"stale": "true"} if stale else {},
                may_wait=not stale,
                read=lambda answer: answers.version(key, answer),
            ),
            patience_s,
        )

    async def siblings(self, key: str, *, patience_s: float | None = None) -> list[Version]:
        """All versions of the key that stand side by side, the winner first.

        Raises BadInput, NotApplied.
        """
        return await self._ask(
            Request(
                name=f"siblings {key!r}",
                key=key,
                method="GET",
                path=checks.key_path(key),
                query={"siblings": "true"},
                read=lambda answer: answers.versions(key, answer),
            ),
            patience_s,
        )

    async def delete(
        self,
        key: str,
        *,
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
        replicas: int | None = None,
        idempotency_key: str | None = None,
        deferred: bool = False,
        patience_s: float | None = None,
    ) -> Deleted:
        """The key has no version at one node, durably. It need not have had any.

        The rest is as for `put`.
        Raises BadInput, PreconditionFailed, NotApplied, ReplicasMissing, OutcomeUnknown.
        """
        return await self._ask(
            Request(
                name=f"delete {key!r}",
                key=key,
                method="DELETE",
                path=checks.key_path(key),
                query=checks.replicas(replicas),
                headers={
                    **checks.conditions(if_match, if_none_match),
                    **checks.idempotency(idempotency_key),
                    **checks.deferral(
                        deferred,
                        if_match=if_match,
                        if_none_match=if_none_match,
                        replicas=replicas,
                    ),
                },
                read=lambda answer: answers.deleted(key, answer),
                is_write=True,
                is_repeatable=idempotency_key is not None,
            ),
            _patience_of(deferred, patience_s),
        )

    def txn(
        self,
        *,
        replicas: int | None = None,
        idempotency_key: str | None = None,
        deferred: bool = False,
        patience_s: float | None = None,
    ) -> Transaction:
        """A transaction, to be put together and committed, with `async with` or by hand.

        If it only gets, it is no write, and is tried like a read. The rest is as for `put`; if it
        gets or has conditions, it is not deferred, and waits.
        """

        async def send(ops: Ops) -> Transacted:
            try:
                body = json.dumps({"ops": ops}).encode()
            except (UnicodeEncodeError, TypeError) as error:
                raise BadInput(f"The transaction is not JSON: {error}.") from None
            writes = any("get" not in op for op in ops)
            only_writes = not any("get" in op or "if" in op for op in ops)
            request = Request(
                name=f"transaction of {len(ops)} operations",
                method="POST",
                path="/txn",
                query=checks.replicas(replicas),
                headers={
                    "Content-Type": "application/json",
                    **checks.idempotency(idempotency_key),
                    **checks.deferral(deferred and only_writes, replicas=replicas),
                },
                read=answers.transacted,
                body=body,
                is_write=writes,
                is_repeatable=idempotency_key is not None,
            )
            return await self._ask(request, _patience_of(deferred and only_writes, patience_s))

        return Transaction(send)

    async def list(
        self, prefix: str = "", *, page: int = PAGE, patience_s: float | None = None
    ) -> AsyncIterator[str]:
        """The keys that begin with `prefix`, in the order of their bytes, `page` at a time.

        A key that is there throughout is listed once; the pages may come from several nodes.
        Raises BadInput, NotApplied.
        """
        async for key in self._pages("/kv", prefix, page, answers.keys, patience_s):
            yield key

    async def conflicts(
        self, prefix: str = "", *, page: int = PAGE, patience_s: float | None = None
    ) -> AsyncIterator[Conflict]:
        """The keys that begin with `prefix` and have siblings, in the order of their bytes.

        A put or delete with `if_match` and the ETag settles one.
        Raises BadInput, NotApplied.
        """
        async for conflict in self._pages(
            "/conflicts", prefix, page, answers.conflicts, patience_s
        ):
            yield conflict

    async def explain(self, key: str, *, patience_s: float | None = None) -> Explanation:
        """Why the key holds what it holds, as far as the logs of a node tell.

        Raises BadInput, NotApplied.
        """
        request = Request(
            name=f"explain {key!r}",
            method="GET",
            path=checks.key_path(key, "/explain"),
            read=answers.explanation,
        )
        return await self._ask(request, patience_s)

    def watch(
        self,
        prefix: str = "",
        *,
        since: str = "",
        timeout_s: float | None = None,
        patience_s: float | None = None,
    ) -> AsyncGenerator[Watched, None]:
        """What happens to the keys that begin with `prefix`, as it happens, for ever.

        First the state (`Begin`, a `KeyState` a key, `Cut`), then every write since (`Change`).
        With `since="now"`, only the writes from now on; with the `context` of a `Cut` or `Change`,
        those that come after it. Each is told once and after all that it depends on, also when one
        node fails and another goes on, and the session has seen what was told. `async for` it; to
        end, `break`, or `aclose` it.

        Raises BadInput, Lost; TooFarBack when what comes next is in no node's log any more; and
        NotApplied when no node could tell anything for `timeout_s`, as long as a request if not
        given: then, to go on, watch again since the last `context`.
        """
        if timeout_s is not None and timeout_s != math.inf:
            checks.timeout(timeout_s)
        if patience_s is not None:
            checks.patience(patience_s)
        watcher = Watcher(
            self._route,
            self._context,
            prefix=checks.prefix(prefix),
            since=str(Context(since)),
            timeout_s=self._timeout_s if timeout_s is None else timeout_s,
            patience_s=self._patience_s if patience_s is None else patience_s,
        )
        return watcher.watch()

    async def _pages(
        self,
        path: str,
        prefix: str,
        page: int,
        read: Callable[[Answer], tuple[Sequence[Result], str | None]],
        patience_s: float | None,
    ) -> AsyncIterator[Result]:
        cursor: str | None = ""
        while cursor is not None:
            query = {"prefix": checks.prefix(prefix), "limit": str(page), "cursor": cursor}
            request = Request(
                name=f"list {prefix!r}", method="GET", path=path, query=query, read=read
            )
            items, cursor = await self._ask(request, patience_s)
            for item in items:
                yield item


def _patience_of(deferred: bool, patience_s: float | None) -> float | None:
    """What need not be waited for is not, unless it is asked for."""
    return 0.0 if deferred and patience_s is None else patience_s
