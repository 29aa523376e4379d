"""Who belongs to the cluster: asked, and changed.

Assumes that `members.py` knows what a change writes. Guarantees that a change is durable here when
it is answered, and that its context finds it at every node.

Does not know what follows from a change.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from app import checks, contract, errors, shapes
from app.board import Board, PeerReport
from app.contract import JSON, Answer, Content, Parameter, Route
from app.http_session import Sessions
from app.interface import Interface
from app.kv_store import KVStore
from app.members import Member, MemberForm, Members, parse_member
from app.replies import Reply, json_reply
from app.vector_clock import VectorClock
from app.write import Operation

_MEMBER_MAX_BYTES: Final = 4096

_SHOWN: Final = {
    "id": "D",
    "url": "http://127.0.0.1:8004",
    "source": "learned",
    "state": "member",
    "reachable": True,
}
_CHANGING: Final = (*contract.READING, errors.NotReady)

MEMBERS: Final = Route(
    name="members",
    method="GET",
    path="/members",
    group="members",
    about="The nodes of the cluster, those that were removed included.",
    parameters=(contract.WAIT, contract.CONTEXT),
    answers=(
        Answer(
            200,
            "All that this node knows.",
            Content(JSON, shapes.ShownMembers, {"members": [_SHOWN]}),
            (contract.SEEN,),
        ),
    ),
    problems=contract.IN_SESSION,
    head=True,
)
ADD_MEMBER: Final = Route(
    name="addMember",
    method="POST",
    path="/members",
    group="members",
    about="The node of this id is a member, and is reached at this URL.",
    parameters=(contract.WAIT, contract.CONTEXT),
    body=Content(JSON, MemberForm, {"id": "D", "url": "http://127.0.0.1:8004"}),
    answers=(
        Answer(
            *(200, "It was one before."),
            Content(JSON, shapes.ShownMember, _SHOWN),
            (contract.SEEN,),
        ),
        Answer(
            *(201, "It was none, and is one now."),
            Content(JSON, shapes.ShownMember, _SHOWN),
            (contract.SEEN,),
        ),
    ),
    problems=(errors.BadMember, *contract.WITH_BODY, *_CHANGING),
)
REMOVE_MEMBER: Final = Route(
    name="removeMember",
    method="DELETE",
    path="/members/{id}",
    group="members",
    about="The node of this id is no member any more. It need not have been one, if it ever was.",
    parameters=(
        Parameter("path", "id", "The id of the node.", {"type": "string"}, "D", always=True),
        *(contract.WAIT, contract.CONTEXT),
    ),
    answers=(Answer(204, "It is none.", headers=(contract.SEEN,)),),
    problems=(errors.NoSuchMember, errors.LastMember, *_CHANGING),
)


@dataclass(frozen=True, slots=True)
class MemberRoutes:
    """What is answered about members."""

    members: Members
    store: KVStore
    board: Board
    sessions: Sessions

    def add_to(self, interface: Interface) -> None:
        """The routes are served."""
        interface.serve(MEMBERS, self.get)
        interface.serve(ADD_MEMBER, self.add)
        interface.serve(REMOVE_MEMBER, self.remove)

    async def get(self, request: web.BaseRequest) -> Reply:
        """All members that this node knows, and those that were removed."""
        context = (await self.sessions.reach(request)).merge(self.sessions.progress.clock)
        await self.members.refresh()
        reports = await self.board.peers(member.node for member in self.members.all)
        answer: shapes.ShownMembers = {
            "members": [self._shown(one, reports[one.node]) for one in self.members.all]
        }
        return json_reply(answer, headers=self.sessions.headers(context))

    async def add(self, request: web.BaseRequest) -> Reply:
        """The node of this id is a member, and is reached at this URL."""
        node, url = parse_member(await checks.body(request, _MEMBER_MAX_BYTES, "member", None))
        context = await self.sessions.reach(request)
        await self.members.refresh()
        before = self.members.known(node)
        was_member = before is not None and before.removed is None
        context = await self._change(self.members.adding(node, url), context)
        if node == self.members.node:
            await self.members.revoked()
        added = self.members.known(node)
        assert added is not None
        return json_reply(
            self._shown(added, await self.board.peer(node)),
            status=200 if was_member else 201,
            headers=self.sessions.headers(context),
        )

    async def remove(self, request: web.BaseRequest) -> Reply:
        """The node of this id is no member any more."""
        context = await self.sessions.reach(request)
        await self.members.refresh()
        removing = self.members.removing(checks.name(request))
        context = await self._change(removing, context)
        return Reply(status=204, headers=self.sessions.headers(context))

    async def _change(self, operations: Sequence[Operation], context: VectorClock) -> VectorClock:
        if operations:
            committed = await asyncio.shield(self.store.commit(operations, context))
            context = context.with_dot(committed.dot)
            await self.members.refresh()
        return context

    def _shown(self, member: Member, report: PeerReport) -> shapes.ShownMember:
        reachable = member.source == "self" or not report.error
        removed = self.members.removed if member.source == "self" else member.removed
        return {
            "id": member.node,
            "url": member.url or None,
            "source": member.source,
            "state": "removed" if removed else "member",
            "reachable": None if removed else reachable,
        }
