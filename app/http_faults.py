"""What is answered to whoever breaks a link, for a demonstration or a test (`FAULTS=1`).

Assumes `faults.py`, which spoils links. Guarantees that all workers of the node know of a change
when it is answered.

Does not know what a fault does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from app import checks, errors
from app.board import Board
from app.errors import listing
from app.faults import HEALTHY, parse_fault
from app.members import Members

_FAULT_MAX_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class FaultRoutes:
    """The routes of faults."""

    members: Members
    board: Board
    fault_changed: Callable[[str], None]

    def add_to(self, router: web.UrlDispatcher) -> None:
        """The router has these routes."""
        router.add_put("/faults/{peer}", self.put)
        router.add_delete("/faults/{peer}", self.heal)

    async def put(self, request: web.Request) -> web.Response:
        """The link to the peer has this fault, from the next batch on."""
        peer = self._linked_peer(request)
        fault = parse_fault(await checks.body(request, _FAULT_MAX_BYTES, "fault", None))
        await self.board.set_fault(peer, fault)
        self.fault_changed(peer)
        return web.json_response(fault.to_dict())

    async def heal(self, request: web.Request) -> web.Response:
        """The link to the peer is healthy, and what was delayed on it is on its way."""
        peer = self._linked_peer(request)
        await self.board.set_fault(peer, HEALTHY)
        self.fault_changed(peer)
        return web.Response(status=204)

    def _linked_peer(self, request: web.Request) -> str:
        peer = request.match_info["peer"]
        if peer == self.members.node or self.members.known(peer) is None:
            raise errors.UnknownPeer(
                f"This node has no peer {peer!r}: it has {listing(sorted(self.members.others))}. "
                "No link was changed."
            )
        return peer
