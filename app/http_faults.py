"""What is answered to whoever breaks a link, for a demonstration or a test (`FAULTS=1`).

Assumes `faults.py`, which spoils links. Guarantees that all workers of the node know of a change
when it is answered.

Does not know what a fault does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from app import checks, contract, errors, shapes
from app.board import Board
from app.contract import JSON, Answer, Content, Parameter, Route
from app.errors import listing
from app.faults import HEALTHY, Fault, parse_fault
from app.interface import Interface
from app.members import Members
from app.replies import Reply, json_reply

_FAULT_MAX_BYTES: Final = 4096
_PEER: Final = Parameter(
    "path", "peer", "The id of the peer.", {"type": "string"}, "B", always=True
)

SET_FAULT: Final = Route(
    name="setFault",
    method="PUT",
    path="/faults/{peer}",
    group="faults",
    about="The link from this node to the peer has just these faults.",
    parameters=(_PEER,),
    body=Content(JSON, Fault, {"cut": True}),
    answers=(
        Answer(
            *(200, "It has them."),
            Content(JSON, shapes.ShownFault, {**HEALTHY.to_dict(), "cut": True}),
        ),
    ),
    problems=(errors.BadFault, errors.UnknownPeer, errors.RedisUnavailable, *contract.WITH_BODY),
)
HEAL: Final = Route(
    name="heal",
    method="DELETE",
    path="/faults/{peer}",
    group="faults",
    about="The link from this node to the peer has no fault.",
    parameters=(_PEER,),
    answers=(Answer(204, "It has none."),),
    problems=(errors.UnknownPeer, errors.RedisUnavailable),
)


@dataclass(frozen=True, slots=True)
class FaultRoutes:
    """The routes of faults."""

    members: Members
    board: Board
    fault_changed: Callable[[str], None]

    def add_to(self, interface: Interface) -> None:
        """These routes are served."""
        interface.serve(SET_FAULT, self.put)
        interface.serve(HEAL, self.heal)

    async def put(self, request: web.BaseRequest) -> Reply:
        """The link to the peer has this fault, from the next batch on."""
        peer = self._linked_peer(request)
        fault = parse_fault(await checks.body(request, _FAULT_MAX_BYTES, "fault", None))
        await self.board.set_fault(peer, fault)
        self.fault_changed(peer)
        return json_reply(fault.to_dict())

    async def heal(self, request: web.BaseRequest) -> Reply:
        """The link to the peer is healthy, and what was delayed on it is on its way."""
        peer = self._linked_peer(request)
        await self.board.set_fault(peer, HEALTHY)
        self.fault_changed(peer)
        return Reply(status=204)

    def _linked_peer(self, request: web.BaseRequest) -> str:
        peer = checks.name(request)
        if peer == self.members.node or self.members.known(peer) is None:
            raise errors.UnknownPeer(
                f"This node has no peer {peer!r}: it has {listing(sorted(self.members.others))}. "
                "No link was changed."
            )
        return peer
