"""What the node answers to other nodes: a batch was taken, and this is where it stands.

Assumes nothing of what comes. Guarantees that a batch is looked at only if it is signed as it must
be, and that writes, and parts of snapshots, are taken only from a member, or from one that was
removed and still has some to give; a stranger may ask, who is to be added yet, and is not believed.

Does not know how writes are applied, nor how they travel on.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from app import checks, compression, contract, errors, wire
from app.addresses import is_node_id
from app.board import Board
from app.buffer import PendingBuffer
from app.carriers import SIGNATURE_HEADER, SignedAnswer, SignedBatch, signed_with
from app.config import Config
from app.contract import Content, Parameter, Route
from app.errors import listing
from app.identity import Identity
from app.incarnation import former
from app.interface import Interface
from app.log import get_logger
from app.members import Members
from app.peers import Signer
from app.progress import Progress
from app.replies import Reply
from app.snapshot_receiving import SnapshotReceiving
from app.standing import Heard
from app.wire import Answer, Batch

log = get_logger(__name__)

_STRANGERS_MAX: Final = 1000
"""Nodes that may be known by their births alone: who asks may name any number of them."""

_LIMIT: Final = "REPLICATE_MAX_BYTES"

_SIGNATURE: Final = Parameter(
    "header",
    SIGNATURE_HEADER,
    "Of the body, where the cluster has a secret.",
    {"type": "string"},
    "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
)

_ENCODING: Final = Parameter(
    "header",
    "Content-Encoding",
    "That the batch is compressed (COMPRESS_MIN_BYTES of the sender).",
    {"enum": [compression.ENCODING, "identity"]},
    compression.ENCODING,
)

REPLICATE: Final = Route(
    name="replicate",
    method="POST",
    path="/replicate",
    group="internal",
    about="Each write of the batch is applied here, waits, was known, or is refused.\n\n"
    "Both bodies are MessagePack; docs/protocol.md has their fields.",
    parameters=(_SIGNATURE, _ENCODING),
    body=Content(wire.CONTENT_TYPE),
    answers=(
        contract.Answer(
            *(200, "How many writes became what, and where this node stands."),
            Content(wire.CONTENT_TYPE),
            (_SIGNATURE,),
        ),
    ),
    problems=(
        *(errors.BadBatch, errors.BadSignature, errors.UnknownPeer, errors.SameNodeId),
        *(errors.OtherBase, errors.Misdirected, errors.UnknownActor, errors.RedisUnavailable),
        *contract.WITH_BODY,
    ),
)


@dataclass(frozen=True, slots=True)
class ReplicateRoutes:
    """The route between nodes."""

    config: Config
    identity: Identity
    members: Members
    buffer: PendingBuffer
    receiving: SnapshotReceiving
    progress: Progress
    board: Board
    signer: Signer
    now_us: Callable[[], int]

    def add_to(self, interface: Interface) -> None:
        """It is served."""
        interface.serve(REPLICATE, self.replicate)

    async def replicate(self, request: web.BaseRequest) -> Reply:
        """Each write of the batch is applied, waits, was known, or is refused; see the counts."""
        limit = self.config.replicate_max_bytes
        body = await checks.body(request, limit, "batch", _LIMIT, (compression.ENCODING,))
        signature = request.headers.get(SIGNATURE_HEADER)
        compressed = bool(checks.encoding(request))
        answer = await self.take(SignedBatch(body, signature, compressed))
        headers = {**signed_with(answer.signature), "Content-Type": wire.CONTENT_TYPE}
        return Reply(answer.body, headers=headers)

    async def take(self, signed: SignedBatch) -> SignedAnswer:
        """The answer to a batch, which was taken. Raises what is wrong with it."""
        body, limit = signed.body, self.config.replicate_max_bytes
        if len(body) > limit:
            raise checks.too_large("batch", limit, _LIMIT)
        self.signer.check(body, signed.signature)
        if signed.compressed:
            body = compression.unpacked(body, limit)
        batch = wire.decode_batch(body, former(self.progress.clock))
        await self._check_sender(batch)
        actors = {write.dot.actor for write in batch.writes}
        actors.update(*(write.dependencies.keys() for write in batch.writes))
        if batch.part is not None:
            actors |= batch.part.actors
        clocks = self.progress.clock, batch.clock
        if strangers := sorted(a for a in actors if not self.members.may_have_written(a, *clocks)):
            raise errors.UnknownActor(
                f"The batch holds, or depends on, writes of {listing(strangers)}, and neither this "
                "node nor the sender's clock knows such a node. Nothing of it was applied. Add it "
                "with POST /members, or to PEERS here."
            )
        if self.members.known(batch.sender) is not None:  # else it may say what it likes
            self.identity.witness(batch.clock)
            self.progress.miss(batch.clock)
        received = await asyncio.shield(self.buffer.receive(batch.writes))
        kept = None
        if batch.part is not None:
            kept = await asyncio.shield(self.receiving.take(batch.sender, batch.part))
        first_birth = ""
        if batch.birth:
            first_birth = await self.board.first_birth(batch.sender, batch.birth)
        if batch.asks_hearsay:
            # As of the clock above at least: what workers tell each other may not be here yet.
            await self.members.refresh()
        sender = self.members.known(batch.sender)
        answer = wire.encode_answer(
            Answer(
                self.config.node_id,
                received.clock,
                received.clock.merge(received.received),
                received.missing,
                received.applied,
                received.duplicate,
                received.pending,
                received.refused,
                self.now_us(),
                first_birth,
                self.members.urls if batch.birth else {},
                None if sender is None else sender.removed,
                kept,
                await self._heard(batch.sender) if batch.asks_hearsay else {},
            ),
            batch.base,
        )
        return SignedAnswer(200, answer, self.signer.signature(answer))

    async def _heard(self, sender: str) -> dict[str, Heard]:
        """What each other member last said, to this node or to one that told it."""
        reports = await self.board.peers(m for m in self.members.others if m != sender)
        now_us = self.now_us()
        heard = {member: report.newest(now_us) for member, report in reports.items()}
        return {member: one for member, one in heard.items() if one.at_us}

    async def _check_sender(self, batch: Batch) -> None:
        me, sender, receiver = self.config.node_id, batch.sender, batch.receiver
        if sender == me:
            log.error("same node id", reason=f"another node, or a loop, also has NODE_ID={me}")
            raise errors.SameNodeId(
                f"The sender says that it is {me}, and so is this node. Nothing was applied. Every "
                "node has a NODE_ID of its own; and PEERS must not lead back to the node itself."
            )
        if self.members.known(sender) is None and not await self._may_ask(batch):
            raise errors.UnknownPeer(
                f"This node knows no member {sender!r}. Nothing was applied. Add it with "
                "POST /members, or to PEERS here."
            )
        if receiver != me:
            raise errors.Misdirected(
                f"The batch is for {receiver!r}, and this is {me}. Nothing was applied. Correct "
                f"PEERS at {sender}."
            )

    async def _may_ask(self, batch: Batch) -> bool:
        """Whether the batch is a stranger's question only, who is to be added yet.

        What it is told keeps it from giving names again that it gave before; and it is remembered,
        so that it can be told.
        """
        only_asks = batch.birth and not batch.writes and batch.part is None
        if not (only_asks and is_node_id(batch.sender)):
            return False
        return await self.board.births() < _STRANGERS_MAX
