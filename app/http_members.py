"""Who belongs to the cluster: asked, and changed.

Assumes that `members.py` knows what a change writes. Guarantees that a change is durable here when
it is answered, and that its context finds it at every node.

Does not know what follows from a change.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from app import checks
from app.board import Board, PeerReport
from app.http_session import Sessions
from app.kv_store import KVStore
from app.members import Member, Members, parse_member
from app.vector_clock import VectorClock
from app.write import Operation

_MEMBER_MAX_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class MemberRoutes:
    """What is answered about members."""

    members: Members
    store: KVStore
    board: Board
    sessions: Sessions

    def add_to(self, router: web.UrlDispatcher) -> None:
        """The routes are served."""
        router.add_get("/members", self.get)  # HEAD too
        router.add_post("/members", self.add)
        router.add_delete("/members/{id}", self.remove)

    async def get(self, request: web.Request) -> web.Response:
        """All members that this node knows, and those that were removed."""
        checks.known_parameters(request, "wait")
        context = (await self.sessions.reach(request)).merge(self.sessions.progress.clock)
        await self.members.refresh()
        reports = await self.board.peers(member.node for member in self.members.all)
        shown = [self._shown(member, reports[member.node]) for member in self.members.all]
        headers = self.sessions.headers(context)
        return web.json_response({"members": shown}, headers=headers)

    async def add(self, request: web.Request) -> web.Response:
        """The node of this id is a member, and is reached at this URL."""
        checks.known_parameters(request, "wait")
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
        return web.json_response(
            self._shown(added, await self.board.peer(node)),
            status=200 if was_member else 201,
            headers=self.sessions.headers(context),
        )

    async def remove(self, request: web.Request) -> web.Response:
        """The node of this id is no member any more."""
        checks.known_parameters(request, "wait")
        context = await self.sessions.reach(request)
        await self.members.refresh()
        removing = self.members.removing(request.match_info["id"])
        context = await self._change(removing, context)
        return web.Response(status=204, headers=self.sessions.headers(context))

    async def _change(self, operations: Sequence[Operation], context: VectorClock) -> VectorClock:
        if operations:
            committed = await asyncio.shield(self.store.commit(operations, context))
            context = context.with_dot(committed.dot)
            await self.members.refresh()
        return context

    def _shown(self, member: Member, report: PeerReport) -> dict[str, Any]:
        reachable = member.source == "self" or not report.error
        removed = self.members.removed if member.source == "self" else member.removed
        return {
            "id": member.node,
            "url": member.url or None,
            "source": member.source,
            "state": "removed" if removed else "member",
            "reachable": None if removed else reachable,
        }
