"""What operators ask of nodes, in a session.

What it is: `Operating`, the part of a session that is about the nodes and not about keys: what they
say of themselves, who belongs to the cluster, what is lost, and faults made on purpose.

What it assumes and guarantees: what one node says of itself, and what is done to it alone, has no
part in the session. Who belongs to the cluster is written and read as keys are, so it has.

What it does not know: how a request is tried, and what operators should do.

Where the idea is from: the HTTP interface of the nodes, word for word.
"""

import json
from collections.abc import Callable, Sequence
from typing import TypeVar, Unpack

from client import answers, checks
from client.answers import Answer, Declared
from client.asking import Asking
from client.failover import Route
from client.shapes import Fault, Member, Pending, Status
from client.transport import Request

Result = TypeVar("Result")


class Operating(Asking):
    """A session, as far as it is about nodes. A `Session` is one."""

    async def status(self, node: str | None = None) -> Status:
        """What this node, or else the nearest that answers, says of itself and of its peers.

        Raises BadInput, NotApplied.
        """
        return await self._about(node, "status", "/status", answers.status)

    async def pending(self, node: str | None = None) -> Pending:
        """What waits at this node, or else at the nearest that answers, and for what: writes that
        came too early, and deferred ones.

        Raises BadInput, NotApplied.
        """
        return await self._about(node, "pending", "/pending", answers.pending)

    async def ready(self, node: str | None = None) -> bool:
        """Whether this node, or else any node of the session, says that it can serve."""
        request = _question("ready", "/readyz", answers.nothing)
        return await self._asked(node).any_serves(request, timeout_s=self._timeout_s)

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
        request = Request(
            name=f"remove member {member!r}",
            method="DELETE",
            path=checks.member_path(member),
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
            # For what is lost there is nothing to wait for.
            may_wait=False,
        )
        return await self._ask(request, route=self._asked(node))

    async def set_fault(self, node: str, peer: str, **fault: Unpack[Fault]) -> Fault:
        """The link from the node at this address to the peer of this id has just these faults.

        Raises BadInput (also where the cluster does not allow faults), NotApplied, OutcomeUnknown.
        """
        request = Request(
            name=f"fault to {peer}",
            method="PUT",
            path=checks.fault_path(peer),
            read=answers.fault,
            body=json.dumps(fault).encode(),
            headers={"Content-Type": "application/json"},
            is_write=True,
            in_session=False,
        )
        return await self._ask(request, route=self._route_to(node))

    async def heal(self, node: str, peer: str) -> None:
        """The link from the node at this address to the peer of this id has no fault.

        Raises BadInput (also where the cluster does not allow faults), NotApplied, OutcomeUnknown.
        """
        request = Request(
            name=f"heal to {peer}",
            method="DELETE",
            path=checks.fault_path(peer),
            read=answers.nothing,
            is_write=True,
            in_session=False,
        )
        await self._ask(request, route=self._route_to(node))

    async def _about(
        self, node: str | None, name: str, path: str, read: Callable[[Answer], Result]
    ) -> Result:
        return await self._ask(_question(name, path, read), route=self._asked(node))

    def _asked(self, node: str | None) -> Route:
        return self._route if node is None else self._route_to(node)


def _question(name: str, path: str, read: Callable[[Answer], Result]) -> Request[Result]:
    """A question about a node, which no session has part in."""
    return Request(name=name, method="GET", path=path, read=read, in_session=False)
