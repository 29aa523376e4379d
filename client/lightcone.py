"""Reading and writing, as a session that any node can serve.

What it is: `Lightcone`, the first session and the pool of connections under it, and `Session`, one
reader and writer that carries what it has seen from node to node.

What it assumes and guarantees: nodes are listed nearest first. Whichever nodes serve the requests
of one session, it reads its own writes, reads and writes monotonically, and its writes follow its
reads (G7); requests of one session that are under way together are not ordered among themselves. A
read goes on to the next node when one fails. A write goes on only when it certainly took no effect;
else OutcomeUnknown leaves the decision to the caller. A cancelled write has an unknown outcome too.

What it does not know: what is in a context, and how writes travel between nodes.

Where the idea is from: httpx for the shape; session guarantees as in Bayou (Terry et al. 1994).
"""

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar, Unpack
from urllib.parse import quote

from client import answers
from client.answers import Answer, Declared, Deleted, Transacted, Version, Written
from client.context import Context
from client.errors import BadInput, Lost
from client.failover import Route
from client.nodes import Resting, node_urls
from client.recorder import Recorder
from client.shapes import Conflict, Explanation, Fault, Member, Pending, Status
from client.transaction import Ops, Transaction
from client.transport import Request, Transport
from client.watching import Watched, Watcher

Result = TypeVar("Result")

#: A request is given up after this, over all its tries.
TIMEOUT_S = 10.0
#: A node may make a request wait this long until it has seen what the session has seen.
PATIENCE_S = 1.0
TIMEOUT_MIN_S = 0.01
TIMEOUT_MAX_S = 3600.0
#: What a node accepts as patience.
PATIENCE_MAX_S = 30.0
KEY_MAX_BYTES = 512
#: Keys that a listing asks for at a time.
PAGE = 1000


class Session:
    """One reader and writer. Made by `Lightcone`, `session` and `at`.

    Whatever it asks raises Lost once it has seen a write that no node has any more; see `go_on`.
    """

    def __init__(
        self,
        route: Route,
        context: Context,
        recorder: Recorder,
        name: str,
        *,
        timeout_s: float,
        patience_s: float,
    ) -> None:
        self._route = route
        self._context = context
        self._recorder = recorder
        self._name = name
        self._timeout_s = _checked_seconds("timeout_s", timeout_s, TIMEOUT_MIN_S, TIMEOUT_MAX_S)
        self._patience_s = _checked_seconds("patience_s", patience_s, 0, PATIENCE_MAX_S)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The addresses of the nodes that serve this session, nearest first."""
        return self._route.nodes

    @property
    def context(self) -> str:
        """What the session has seen, to be handed to `session(context=...)`, here or elsewhere."""
        return str(self._context)

    @property
    def name(self) -> str:
        """What the session is called where its operations are recorded."""
        return self._name

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
            self._route.among(node_urls(nodes)),
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
        replicas: int | None = None,
        idempotency_key: str | None = None,
        patience_s: float | None = None,
    ) -> Written:
        """The key has this value at one node, durably, over every version the node had.

        Without a content type, text is `text/plain; charset=utf-8` and bytes are
        `application/octet-stream`. It is done only if the key has the versions that the ETag
        `if_match` names (`*`: some), or, with `if_none_match="*"`, none. With `replicas`, as many
        nodes hold it, or ReplicasMissing says which do. With an `idempotency_key`, which no other
        request may have, it is repeated at its node until its outcome is known.
        Raises BadInput, PreconditionFailed, NotApplied, ReplicasMissing, OutcomeUnknown.
        """
        body, plain_type = _value(value)
        return await self._ask(
            Request(
                name=f"put {key!r}",
                key=key,
                method="PUT",
                path=_key_path(key),
                read=answers.written,
                query=_replicas(replicas),
                headers={
                    "Content-Type": _checked_type(content_type) or plain_type,
                    **_conditions(if_match, if_none_match),
                    **_idempotency(idempotency_key),
                },
                body=body,
                is_write=True,
                is_repeatable=idempotency_key is not None,
            ),
            patience_s,
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
                path=_key_path(key),
                query={"stale": "true"} if stale else {},
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
                path=_key_path(key),
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
                path=_key_path(key),
                query=_replicas(replicas),
                headers={**_conditions(if_match, if_none_match), **_idempotency(idempotency_key)},
                read=lambda answer: answers.deleted(key, answer),
                is_write=True,
                is_repeatable=idempotency_key is not None,
            ),
            patience_s,
        )

    def txn(
        self,
        *,
        replicas: int | None = None,
        idempotency_key: str | None = None,
        patience_s: float | None = None,
    ) -> Transaction:
        """A transaction, to be put together and committed, with `async with` or by hand.

        If it only gets, it is no write, and is tried like a read.
        """

        async def send(ops: Ops) -> Transacted:
            try:
                body = json.dumps({"ops": ops}).encode()
            except (UnicodeEncodeError, TypeError) as error:
                raise BadInput(f"The transaction is not JSON: {error}.") from None
            writes = any("get" not in op for op in ops)
            request = Request(
                name=f"transaction of {len(ops)} operations",
                method="POST",
                path="/txn",
                query=_replicas(replicas),
                headers={"Content-Type": "application/json", **_idempotency(idempotency_key)},
                read=answers.transacted,
                body=body,
                is_write=writes,
                is_repeatable=idempotency_key is not None,
            )
            return await self._ask(request, patience_s)

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
            path=_key_path(key, "/explain"),
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
            _checked_seconds("timeout_s", timeout_s, TIMEOUT_MIN_S, TIMEOUT_MAX_S)
        if patience_s is not None:
            _checked_seconds("patience_s", patience_s, 0, PATIENCE_MAX_S)
        watcher = Watcher(
            self._route,
            self._context,
            prefix=prefix,
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
            query = {"prefix": prefix, "limit": str(page), "cursor": cursor}
            request = Request(
                name=f"list {prefix!r}", method="GET", path=path, query=query, read=read
            )
            items, cursor = await self._ask(request, patience_s)
            for item in items:
                yield item

    async def status(self, node: str | None = None) -> Status:
        """What this node, or else the nearest that answers, says of itself and of its peers.

        Raises BadInput, NotApplied.
        """
        return await self._about(node, "status", "/status", answers.status)

    async def pending(self, node: str | None = None) -> Pending:
        """What waits in the buffer of this node, or else of the nearest that answers, and for what.

        Raises BadInput, NotApplied.
        """
        return await self._about(node, "pending", "/pending", answers.pending)

    async def ready(self, node: str | None = None) -> bool:
        """Whether this node, or else any node of the session, says that it can serve."""
        asked = self if node is None else self.at(node)
        request = _question("ready", "/readyz", answers.nothing)
        return await asked._route.any_serves(request)

    async def members(self, *, patience_s: float | None = None) -> Sequence[Member]:
        """The nodes of the cluster, those included that were removed, as one node knows them that
        has seen what the session has seen.

        Raises BadInput, NotApplied.
        """
        request = Request(name="members", method="GET", path="/members", read=answers.members)
        return await self._ask(request, patience_s)

    async def add_member(self, member: str, url: str, *, patience_s: float | None = None) -> Member:
        """The node of this id is a member, and the others reach it at this URL, once they hear.

        Raises BadInput, NotApplied, OutcomeUnknown.
        """
        request = Request(
            name=f"add member {member!r}",
            method="POST",
            path="/members",
            read=answers.member,
            body=json.dumps({"id": member, "url": url}).encode(),
            headers={"Content-Type": "application/json"},
            is_write=True,
        )
        return await self._ask(request, patience_s)

    async def remove_member(self, member: str, *, patience_s: float | None = None) -> None:
        """The node of this id is no member any more, for all who hear of it.

        Raises BadInput, NotApplied, OutcomeUnknown.
        """
        if not member:
            raise BadInput("Name the member, such as D; nothing was sent.")
        request = Request(
            name=f"remove member {member!r}",
            method="DELETE",
            path=f"/members/{_quoted(member)}",
            read=answers.nothing,
            is_write=True,
        )
        await self._ask(request, patience_s)

    async def declare_lost(self, dots: Sequence[str], *, node: str | None = None) -> Declared:
        """Nothing waits any more for these writes, which no node has, nor for any that their actors
        made later; and the session has seen that. It cannot be taken back.

        A node agrees only if all others say that they lack them; so it is asked again, or another
        is, until the timeout ends. With `node`, only the one at this address.
        Raises BadInput, NotApplied (a node may have one of them), OutcomeUnknown.
        """
        request = Request(
            name=f"declare lost {', '.join(dots)}",
            method="POST",
            path="/lost",
            read=answers.declared,
            body=json.dumps({"dots": list(dots)}).encode(),
            headers={"Content-Type": "application/json"},
            is_write=True,
            # Who waits for what is lost would be refused for just that.
            in_session=False,
        )
        asked = self if node is None else self.at(node)
        declared = await asked._ask(request, None)
        self._context.answered((), declared.context)
        return declared

    async def set_fault(self, node: str, peer: str, **fault: Unpack[Fault]) -> Fault:
        """The link from the node at this address to the peer of this id has just these faults.

        Raises BadInput (also where the cluster does not allow faults), NotApplied, OutcomeUnknown.
        """
        request = Request(
            name=f"fault to {peer}",
            method="PUT",
            path=_fault_path(peer),
            read=answers.fault,
            body=json.dumps(fault).encode(),
            headers={"Content-Type": "application/json"},
            is_write=True,
            in_session=False,
        )
        return await self.at(node)._ask(request, None)

    async def heal(self, node: str, peer: str) -> None:
        """The link from the node at this address to the peer of this id has no fault.

        Raises BadInput (also where the cluster does not allow faults), NotApplied, OutcomeUnknown.
        """
        request = Request(
            name=f"heal to {peer}",
            method="DELETE",
            path=_fault_path(peer),
            read=answers.nothing,
            is_write=True,
            in_session=False,
        )
        await self.at(node)._ask(request, None)

    async def _about(
        self, node: str | None, name: str, path: str, read: Callable[[Answer], Result]
    ) -> Result:
        asked = self if node is None else self.at(node)
        return await asked._ask(_question(name, path, read), None)

    async def _ask(self, request: Request[Result], patience_s: float | None) -> Result:
        if patience_s is None:
            patience_s = self._patience_s
        else:
            patience_s = _checked_seconds("patience_s", patience_s, 0, PATIENCE_MAX_S)
        with self._recorder.operation(request, self._name, self._context, self.nodes) as served:
            answer, result = await self._route.ask(
                request, self._context, timeout_s=self._timeout_s, patience_s=patience_s
            )
            served.by(answer.node, result)
            return result


class Lightcone(Session):
    """A session, and the connections that it and all sessions made from it use.

    async with Lightcone(["http://127.0.0.1:8001", "http://127.0.0.1:8002"]) as kv:
        await kv.put("lunch", "noon?")
        version = await kv.get("lunch")

    Nodes are listed nearest first. A request ends `timeout_s` seconds after it was made, over all
    its tries; `patience_s` of them, at most, it waits for a node to see what the session has seen.
    One session is one reader and writer: give every user of yours a `session()`.
    With `record`, all that the sessions do is written to this file, as a history for checkers of
    consistency, in the form that `client/recorder.py` explains; a file that is there is replaced.
    Raises BadInput for what is not a list of addresses, and OSError if there is no such file to be.
    """

    def __init__(
        self,
        nodes: Sequence[str],
        *,
        context: str = "",
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        record: str | Path | None = None,
    ) -> None:
        recorder = Recorder(record)
        self._transport = Transport()
        super().__init__(
            Route(node_urls(nodes), self._transport, Resting()),
            Context(context),
            recorder,
            recorder.name(""),
            timeout_s=timeout_s,
            patience_s=patience_s,
        )

    async def __aenter__(self) -> Self:
        self._transport.open()
        try:
            self._recorder.open()
        except OSError:
            await self._transport.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._transport.close()
        self._recorder.close()


def _question(name: str, path: str, read: Callable[[Answer], Result]) -> Request[Result]:
    """A question about a node, which no session has part in."""
    return Request(name=name, method="GET", path=path, read=read, in_session=False)


def _conditions(if_match: str | None, if_none_match: str | None) -> dict[str, str]:
    given = {"If-Match": if_match, "If-None-Match": if_none_match}
    return {name: value for name, value in given.items() if value is not None}


def _idempotency(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}


def _replicas(replicas: int | None) -> dict[str, str]:
    return {} if replicas is None else {"replicas": str(replicas)}


def _key_path(key: str, route: str = "/kv") -> str:
    if not isinstance(key, str):
        raise BadInput(f"A key is text, not {type(key).__name__}; nothing was sent.")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise BadInput(f"The key {key!r} is not UTF-8; nothing was sent.") from None
    if not 1 <= size <= KEY_MAX_BYTES:
        raise BadInput(
            f"A key has 1 to {KEY_MAX_BYTES} bytes, and this one has {size}; nothing was sent."
        )
    # Slashes are quoted as well, so that no proxy takes `a//b` or `a/../b` for another path.
    return f"{route}/{_quoted(key)}"


def _fault_path(peer: str) -> str:
    if not peer:
        raise BadInput("Name the peer, such as B; nothing was sent.")
    return f"/faults/{_quoted(peer)}"


def _quoted(part: str) -> str:
    quoted = quote(part, safe="")
    # `quote` leaves dots alone, and these two are not names in a path.
    return quoted.replace(".", "%2E") if part in (".", "..") else quoted


def _value(value: bytes | str) -> tuple[bytes, str]:
    """The bytes to store, and the content type they have when none is given."""
    if isinstance(value, str):
        try:
            return value.encode(), "text/plain; charset=utf-8"
        except UnicodeEncodeError:
            raise BadInput("The text is not UTF-8; give bytes. Nothing was sent.") from None
    if not isinstance(value, bytes):
        raise BadInput(f"A value is bytes or text, not {type(value).__name__}; nothing was sent.")
    return value, "application/octet-stream"


def _checked_type(content_type: str | None) -> str | None:
    if content_type is not None and not (
        content_type.strip() and content_type.isascii() and content_type.isprintable()
    ):
        raise BadInput(f"{content_type!r} is not a content type; nothing was sent.")
    return content_type


def _checked_seconds(name: str, seconds: float, least: float, most: float) -> float:
    if not least <= seconds <= most:
        raise BadInput(
            f"{name} is {least:g} to {most:g} seconds, not {seconds!r}; nothing was sent."
        )
    return seconds
