"""The node's HTTP interface: the routes, and what each answers.

Assumes the contract of DESIGN.md, section 7. Guarantees that a request that is refused changes
nothing and is told why, what became of it, and what to do (G10); that a request with a causal
context is served only from a state that covers it (G7); and that no peer is waited for (G6).

Does not know Redis, nor how writes travel on.
"""

import asyncio
import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from app import __version__, checks, codec, errors
from app.board import Board
from app.buffer import PendingBuffer
from app.codec import Answer, Batch
from app.config import Config, is_node_id
from app.context import Contexts
from app.errors import listing
from app.faults import HEALTHY, parse_fault
from app.identity import Identity
from app.kv_store import KVStore
from app.log import get_logger
from app.members import Member, Members, parse_member
from app.peers import SIGNATURE_HEADER, Signer
from app.problems import problem, problems
from app.progress import Progress
from app.vector_clock import VectorClock, node_of
from app.write import Delete, Operation, Put, Version

log = get_logger(__name__)

CONTEXT_HEADER: Final = "Causal-Context"
PENDING_SHOWN_MAX: Final = 1000
"""Waiting writes that `GET /pending` lists; the total is always exact."""
_FAULT_MAX_BYTES: Final = 4096
_MEMBER_MAX_BYTES: Final = 4096
_STRANGERS_MAX: Final = 1000
"""Nodes that may be known by their births alone: who asks may name any number of them."""
_NO_URL: Final = "no URL of it is known here: POST /members, or add it to PEERS"


@dataclass(frozen=True, slots=True)
class Api:
    """The parts of a node that requests are about, and a handler for each route."""

    config: Config
    identity: Identity
    members: Members
    store: KVStore
    buffer: PendingBuffer
    progress: Progress
    board: Board
    contexts: Contexts
    signer: Signer
    now_us: Callable[[], int]
    fault_changed: Callable[[str], None]

    def application(self) -> web.Application:
        """An aiohttp application with all routes."""
        app = web.Application(middlewares=[problems])
        app.router.add_get("/kv/{key:(?s:.*)}", self.get)  # HEAD too
        app.router.add_put("/kv/{key:(?s:.*)}", self.put)
        app.router.add_delete("/kv/{key:(?s:.*)}", self.delete)
        app.router.add_get("/members", self.get_members)
        app.router.add_post("/members", self.add_member)
        app.router.add_delete("/members/{id}", self.remove_member)
        app.router.add_post("/replicate", self.replicate)
        app.router.add_get("/status", self.status)
        app.router.add_get("/pending", self.pending)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        if self.config.faults:
            app.router.add_put("/faults/{peer}", self.put_fault)
            app.router.add_delete("/faults/{peer}", self.delete_fault)
        return app

    # --- keys ------------------------------------------------------------------------------------

    async def get(self, request: web.Request) -> web.Response:
        """The winner's bytes, or with `?siblings=true` all versions as JSON."""
        key = checks.key(request)
        checks.known_parameters(request, "wait", "siblings")
        all_siblings = checks.flag(request, "siblings")
        context = await self._catch_up(request)
        reading = await self.store.read(key, context)
        token = self.contexts.token(context.merge(reading.context))
        if not reading.versions:
            missing = errors.NoSuchKey(f"The key {key!r} has no value at this node.")
            return problem(missing, {CONTEXT_HEADER: token})
        winner = reading.versions[0]
        headers = {
            CONTEXT_HEADER: token,
            "ETag": _etag(reading.versions),
            "Siblings": str(len(reading.versions)),
            "Dot": str(winner.dot),
        }
        if all_siblings:
            shown = {
                "key": key,
                "winner": str(winner.dot),
                "siblings": [_version(version) for version in reading.versions],
            }
            return web.json_response(shown, headers=headers)
        headers["Content-Type"] = winner.content_type
        return web.Response(body=winner.value, headers=headers)

    async def put(self, request: web.Request) -> web.Response:
        """The key has this value here, durably."""
        key = checks.key(request)
        checks.known_parameters(request, "wait")
        content_type = checks.content_type(request)
        value = await checks.body(request, self.config.value_max_bytes, "value", "VALUE_MAX_BYTES")
        return await self._commit(request, Put(key, value, content_type))

    async def delete(self, request: web.Request) -> web.Response:
        """The key has no version that this node knew of."""
        key = checks.key(request)
        checks.known_parameters(request, "wait")
        return await self._commit(request, Delete(key))

    async def _commit(self, request: web.Request, operation: Operation) -> web.Response:
        checks.unconditional(request)
        context = await self._catch_up(request)
        # Once begun, a commit is not given up when the client goes away: its outcome is Redis'.
        committed = await asyncio.shield(self.store.commit([operation], context))
        headers = {CONTEXT_HEADER: self.contexts.token(context.with_dot(committed.dot))}
        if isinstance(operation, Delete):
            return web.Response(status=204, headers=headers)
        answer = {
            "key": operation.key,
            "dot": str(committed.dot),
            "clock": committed.clock.to_dict(),
        }
        return web.json_response(answer, headers={**headers, "ETag": f'"{committed.dot}"'})

    async def _catch_up(self, request: web.Request) -> VectorClock:
        """The request's context, once this node, which is a member, covers it.

        Raises NodeRemoved, and NotCaughtUp when the request's patience ends first.
        """
        self.members.check()
        return await self._reach(request)

    async def _reach(self, request: web.Request) -> VectorClock:
        patience_s = checks.patience_s(request)
        tokens = request.headers.getall(CONTEXT_HEADER, [])
        context = self.contexts.parse(",".join(tokens))
        if context <= self.progress.clock:
            return context
        missing = await self.progress.reach(context, patience_s, self.store.clock)
        if missing:
            strangers = [a for a in missing if not self._may_have_written(a, self.progress.clock)]
            # A signed one is of this cluster: the node is new, and its first write is on its way.
            if strangers and self.config.cluster_secret is None:
                raise errors.ForeignContext(
                    f"The Causal-Context names writes of {listing(strangers)}, and this node knows "
                    "no such node. Nothing was done. Was it given by another cluster? If the node "
                    "has joined just now, ask again."
                )
            # What was asked for may be here and wait: then what it waits for is the news.
            needed = await self.buffer.missing_for(missing)
            dots = dict.fromkeys([*needed.dots(), *missing.dots()])
            known = {dot: self.progress.known_for_s(dot) for dot in dots}
            raise errors.NotCaughtUp(known, patience_s)
        return context

    def _may_have_written(self, actor: str, *clocks: VectorClock) -> bool:
        """Whether the actor's node is or was a member, or has written, as these clocks tell."""
        node = node_of(actor)
        return self.members.known(node) is not None or any(
            actor in clock or node in map(node_of, clock) for clock in clocks
        )

    # --- members ---------------------------------------------------------------------------------

    async def get_members(self, request: web.Request) -> web.Response:
        """All members that this node knows, and those that were removed."""
        checks.known_parameters(request, "wait")
        context = (await self._reach(request)).merge(self.progress.clock)
        await self.members.refresh()
        shown = [await self._member(member) for member in self.members.all]
        headers = {CONTEXT_HEADER: self.contexts.token(context)}
        return web.json_response({"members": shown}, headers=headers)

    async def add_member(self, request: web.Request) -> web.Response:
        """The node of this id is a member, and is reached at this URL."""
        checks.known_parameters(request, "wait")
        node, url = parse_member(await checks.body(request, _MEMBER_MAX_BYTES, "member", None))
        context = await self._reach(request)
        await self.members.refresh()
        before = self.members.known(node)
        was_member = before is not None and before.removed is None
        context = await self._change_members(self.members.adding(node, url), context)
        if node == self.config.node_id:
            await self.members.revoked()
        added = self.members.known(node)
        assert added is not None
        return web.json_response(
            await self._member(added),
            status=200 if was_member else 201,
            headers={CONTEXT_HEADER: self.contexts.token(context)},
        )

    async def remove_member(self, request: web.Request) -> web.Response:
        """The node of this id is no member any more."""
        checks.known_parameters(request, "wait")
        context = await self._reach(request)
        await self.members.refresh()
        removing = self.members.removing(request.match_info["id"])
        context = await self._change_members(removing, context)
        return web.Response(status=204, headers={CONTEXT_HEADER: self.contexts.token(context)})

    async def _change_members(
        self, operations: Sequence[Operation], context: VectorClock
    ) -> VectorClock:
        if operations:
            committed = await asyncio.shield(self.store.commit(operations, context))
            context = context.with_dot(committed.dot)
            await self.members.refresh()
        return context

    async def _member(self, member: Member) -> dict[str, Any]:
        reachable = member.source == "self" or not (await self.board.peer(member.node)).error
        removed = self.members.removed if member.source == "self" else member.removed
        return {
            "id": member.node,
            "url": member.url or None,
            "source": member.source,
            "state": "removed" if removed else "member",
            "reachable": None if removed else reachable,
        }

    # --- nodes -----------------------------------------------------------------------------------

    async def replicate(self, request: web.Request) -> web.Response:
        """Each write of the batch is applied, waits, was known, or is refused; see the counts."""
        limit = self.config.replicate_max_bytes
        body = await checks.body(request, limit, "batch", "REPLICATE_MAX_BYTES")
        self.signer.check(body, request.headers.get(SIGNATURE_HEADER))
        batch = codec.decode_batch(body)
        await self._check_sender(batch)
        actors = {write.dot.actor for write in batch.writes}
        actors.update(*(write.dependencies for write in batch.writes))
        clocks = self.progress.clock, batch.clock
        if strangers := sorted(a for a in actors if not self._may_have_written(a, *clocks)):
            raise errors.UnknownActor(
                f"The batch holds writes of, or writes that depend on, {listing(strangers)}, and "
                "neither this node nor the sender's clock knows such a node. Nothing of it was "
                "applied. Add it with POST /members, or to PEERS here."
            )
        self.identity.witness(batch.clock)
        self.progress.miss(batch.clock)
        received = await asyncio.shield(self.buffer.receive(batch.writes))
        first_birth = ""
        if batch.birth:
            first_birth = await self.board.first_birth(batch.sender, batch.birth)
        sender = self.members.known(batch.sender)
        answer = codec.encode_answer(
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
            )
        )
        return web.Response(
            body=answer, content_type=codec.CONTENT_TYPE, headers=self.signer.headers(answer)
        )

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
        if not (batch.birth and is_node_id(batch.sender)) or batch.writes:
            return False
        return await self.board.births() < _STRANGERS_MAX

    # --- looking in ------------------------------------------------------------------------------

    async def status(self, request: web.Request) -> web.Response:
        """Where this node stands, and how far it sees each peer."""
        checks.known_parameters(request)
        clock = await self.store.clock()
        life = await self.store.life()
        waiting = await self.buffer.counts()
        return web.json_response(
            {
                "node": self.config.node_id,
                "actor": life.actor or None,
                "incarnation": {"since": life.since_us, "reason": life.reason}
                if life.reason
                else None,
                "version": __version__,
                "clock": clock.to_dict(),
                "timestamp": life.timestamp,
                "pending": {"total": sum(waiting.values()), "by_actor": waiting},
                "peers": {
                    peer: await self._peer(member, clock)
                    for peer, member in self.members.others.items()
                },
                "removed": [member.node for member in self.members.all if member.removed],
                "limits": {
                    name: value
                    for name, value in self.config.model_dump().items()
                    if name.endswith(("_max", "_max_bytes", "_max_writes"))
                },
            }
        )

    async def _peer(self, member: Member, mine: VectorClock) -> dict[str, Any]:
        peer = member.node
        report = await self.board.peer(peer)
        lacking = mine.beyond(report.clock)
        now_us = self.now_us()
        oldest_us = now_us
        for actor in lacking:
            for write in await self.store.log_after(actor, report.clock[actor], 1):
                oldest_us = min(oldest_us, write.timestamp)
        heard = report.last_contact_us
        fault = await self.board.fault(peer) if self.config.faults else HEALTHY
        return {
            "url": member.url or None,
            "reachable": not report.error,
            "error": report.error or None if member.url else _NO_URL,
            "clock": report.clock.to_dict() if heard else None,
            "lag_writes": sum(s - report.clock[a] for a, s in lacking.items()),
            "lag_s": round((now_us - oldest_us) / 1e6, 3),
            "skew_ms": report.skew_us / 1000 if heard else None,
            "last_contact_s": round((now_us - heard) / 1e6, 3) if heard else None,
            "faults": None if fault == HEALTHY else fault.to_dict(),
        }

    async def pending(self, request: web.Request) -> web.Response:
        """The writes that wait, and which writes each waits for."""
        checks.known_parameters(request)
        counts = await self.buffer.counts()
        now_us = self.now_us()
        writes = [
            {
                "dot": str(blocked.waiting.write.dot),
                "dependencies": blocked.waiting.write.dependencies.to_dict(),
                "waiting_for": [str(dot) for dot in blocked.waiting_for],
                "waiting_s": round((now_us - blocked.waiting.since_us) / 1e6, 3),
                "keys": [operation.key for operation in blocked.waiting.write.operations],
            }
            for blocked in await self.buffer.blocked(PENDING_SHOWN_MAX)
        ]
        return web.json_response({"total": sum(counts.values()), "writes": writes})

    async def healthz(self, _request: web.Request) -> web.Response:
        """This worker runs."""
        return web.json_response({"status": "alive"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """This node can serve: its Redis answers, and holds its state."""
        await self.store.check()
        self.members.check()
        await self._check_joined()
        return web.json_response({"status": "ready"})

    async def _check_joined(self) -> None:
        """A node that began with nothing has what its peers had, but for what no member that it
        reaches can give it. Raises Joining."""
        lacking = (await self.store.joining()).beyond(self.progress.clock)
        if not lacking:
            return
        reports = [await self.board.peer(peer) for peer in self.members.others]
        reached = [report.clock for report in reports if not report.error]
        mine = self.progress.clock
        lacking = VectorClock(
            (actor, sequence)
            for actor, sequence in lacking.items()
            if not reached or any(clock[actor] > mine[actor] for clock in reached)
        )
        if lacking:
            raise errors.Joining(sum(s - mine[a] for a, s in lacking.items()))

    # --- faults ----------------------------------------------------------------------------------

    async def put_fault(self, request: web.Request) -> web.Response:
        """The link to the peer has this fault, from the next batch on."""
        peer = self._linked_peer(request)
        fault = parse_fault(await checks.body(request, _FAULT_MAX_BYTES, "fault", None))
        await self.board.set_fault(peer, fault)
        self.fault_changed(peer)
        return web.json_response(fault.to_dict())

    async def delete_fault(self, request: web.Request) -> web.Response:
        """The link to the peer is healthy, and what was delayed on it is on its way."""
        peer = self._linked_peer(request)
        await self.board.set_fault(peer, HEALTHY)
        self.fault_changed(peer)
        return web.Response(status=204)

    def _linked_peer(self, request: web.Request) -> str:
        peer = request.match_info["peer"]
        if peer == self.config.node_id or self.members.known(peer) is None:
            raise errors.UnknownPeer(
                f"This node has no peer {peer!r}: it has {listing(sorted(self.members.others))}. "
                "No link was changed."
            )
        return peer


def _etag(versions: tuple[Version, ...]) -> str:
    """Changes whenever the set of siblings does: it names them."""
    return '"' + ",".join(sorted(str(version.dot) for version in versions)) + '"'


def _version(version: Version) -> dict[str, Any]:
    shown = {
        "dot": str(version.dot),
        "timestamp": version.timestamp,
        "content_type": version.content_type,
    }
    try:
        return {**shown, "text": version.value.decode()}
    except UnicodeDecodeError:
        return {**shown, "base64": base64.b64encode(version.value).decode()}
