"""A worker, put together: the only place that names the concrete parts. It reads like a recipe.

Assumes that the node's Redis was claimed (`claim.py`) when its supervisor started. It need not
answer when a worker starts: who asks it is told so, until Redis is back.
"""

import asyncio
import gc
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import aiohttp
from redis.asyncio import Redis

from app import http_server, redis_link, redis_url
from app.backup import Backups
from app.board import SETTINGS, Board
from app.buffer import PendingBuffer
from app.carriers import Posts
from app.claim import new_birth, wall_clock_us
from app.config import Config
from app.context import Contexts
from app.deferred import DeferredWrites
from app.existence import Existence
from app.expiry import remove_expired
from app.former_lanes import FormerLanes
from app.http_api import Api
from app.identity import Identity
from app.interface import Interface
from app.keys import Keys
from app.kv_store import KVStore
from app.lane_scripts import LaneScripts
from app.links import Links, end
from app.log import get_logger
from app.losses import Losses
from app.members import Members
from app.peers import Exchange, PeerExchange, Signer
from app.progress import Progress
from app.redis_connections import Admits
from app.replicas import Replicas
from app.replication import Tools
from app.rounds import again_and_again
from app.scripts import Scripts
from app.snapshot_reading import SnapshotReader
from app.snapshot_receiving import SnapshotReceiving
from app.snapshot_sending import SnapshotSending
from app.trimming import Trimmer
from app.watching import Watching
from app.websockets import WebSockets, refuse_to_move

log = get_logger(__name__)

_BETWEEN_COLLECTIONS: Final = 10_000
"""Objects made and not gone, after which the collector looks at them: those of several batches.
Python's own 700 are fewer than a batch holds, each of which would be looked at again and again."""
_CONNECTIONS: Final = 8
"""To one peer, at most. More than one is used only where a WebSocket is refused."""


class Connect(Protocol):
    """Makes a client for the Redis at `url`, as `redis_link.connect` does."""

    def __call__(self, url: str, timeout_ms: int, admits: Admits | None = None, /) -> Redis: ...


@dataclass(frozen=True, slots=True)
class World:
    """What a worker takes from the world around it. A simulation has a world of its own.

    `exchange` is the way to the peers; over HTTP if there is none.
    """

    connect: Connect = redis_link.connect
    exchange: Exchange | None = None
    now_us: Callable[[], int] = wall_clock_us
    rng: random.Random = field(default_factory=random.Random)


@asynccontextmanager
async def worker(config: Config, world: World | None = None) -> AsyncIterator[Interface]:
    """What one worker serves, with all that runs beside it; both end together."""
    assert config.redis_url is not None
    world = world or World()
    now_us, exchange = world.now_us, world.exchange
    name = f"{socket.gethostname()}:{os.getpid()}:{world.rng.randrange(16**4):04x}"
    secret = config.cluster_secret.get_secret_value() if config.cluster_secret else None

    async with AsyncExitStack() as stack:
        redis = world.connect(config.redis_url, config.redis_timeout_ms)
        stack.push_async_callback(redis.aclose)
        keys = Keys.of(redis)
        scripts = Scripts(redis, keys)
        progress = Progress()
        board = Board(redis, keys, scripts, name)
        members = Members(config, redis, keys, scripts)
        replicas = Replicas(board, lambda: members.others)
        who = Identity(
            config.node_id,
            redis,
            keys,
            scripts,
            progress,
            now_us,
            new_birth(now_us(), world.rng),
            durable=config.fsync == "always",
            fails_over=redis_url.behind_sentinels(config.redis_url) is not None,
            first_start_wait_s=config.first_start_wait_ms / 1000,
        )
        admitted = world.connect(config.redis_url, config.redis_timeout_ms, who.admits)
        stack.push_async_callback(admitted.aclose)
        admitted_scripts = Scripts(admitted, keys)
        store = KVStore(
            admitted,
            keys,
            admitted_scripts,
            progress,
            who,
            now_us,
            config.idempotency_max,
            config.redis_timeout_ms / 1000,
            config.log_max_entries,
        )
        buffer = PendingBuffer(
            redis,
            keys,
            scripts,
            progress,
            config.node_id,
            who,
            now_us,
            pending_max=config.pending_max,
            drain_max=config.drain_max,
        )

        deferred = DeferredWrites(
            admitted,
            keys,
            LaneScripts(admitted, keys),
            progress,
            who,
            now_us,
            deferred_max=config.deferred_max,
            deferred_max_bytes=config.deferred_max_bytes,
            drain_max=config.drain_max,
            requests_max=config.idempotency_max,
        )

        signer = Signer(secret)
        if exchange is None:
            session = await stack.enter_async_context(
                aiohttp.ClientSession(
                    # Where more are wanted, they wait for one to be free.
                    connector=aiohttp.TCPConnector(limit=0, limit_per_host=_CONNECTIONS),
                    middlewares=(refuse_to_move,),
                )
            )
            websockets = await stack.enter_async_context(WebSockets(session, Posts(session)))
            exchange = PeerExchange(
                websockets, signer, config.peer_timeout_ms, config.compress_min_bytes
            )

        def reader(prefix: str = "") -> SnapshotReader:
            part = config.batch_max_bytes
            return SnapshotReader(admitted, keys, store, part, prefix)

        def snapshot_for(peer: str) -> SnapshotSending:
            return SnapshotSending(peer, config.node_id, reader(), board, now_us, world.rng)

        receiving = SnapshotReceiving(
            config.node_id,
            admitted,
            keys,
            board,
            buffer,
            progress,
            who,
            now_us,
            config.lease_ms,
        )
        trimmer = Trimmer(config, store, board, lambda: members.others, now_us)
        losses = Losses(
            config.node_id,
            lambda: members.others,
            board,
            buffer,
            progress,
            config.heartbeat_ms * 1000,
            config.trim_ms * 1000,
            now_us,
            deferred.given,
        )
        former = FormerLanes(deferred, store, who, losses, progress)
        tools = Tools(
            config, store, board, progress, who, members, exchange, snapshot_for, now_us, world.rng
        )
        links = Links(config.node_id, members, tools)
        backups = Backups(
            config.node_id,
            admitted,
            keys,
            board,
            who,
            links.asks,
            receiving,
            reader,
            store.clock,
            now_us,
            config.replicate_max_bytes,
        )
        api = Api(
            config,
            who,
            members,
            store,
            buffer,
            deferred,
            Existence(lambda: members.others, board, buffer, deferred),
            receiving,
            backups,
            progress,
            board,
            replicas,
            losses,
            Watching(store, progress, members, reader, now_us),
            Contexts(secret, config.context_max_bytes),
            signer,
            now_us,
            links.fault_changed,
        )
        background = [
            who.keep(members.refresh, links.asks),
            board.listen(progress, links.fault_changed, replicas.heard, members.refresh, who.doubt),
            again_and_again(partial(sweep, buffer), config.sweep_ms / 1000),
            deferred.keep(),
            again_and_again(former.clear, config.sweep_ms / 1000),
            again_and_again(
                partial(remove_expired, admitted_scripts, config.node_id, now_us),
                config.expiry_ms / 1000,
            ),
            again_and_again(
                partial(tell_settings, members, store, board, 3 * config.sweep_ms),
                config.sweep_ms / 1000,
            ),
            receiving.keep(),
            trimmer.run(),
        ]
        # One that fails takes the worker down with it: the supervisor starts a fresh one.
        async with asyncio.TaskGroup() as group:
            links.begin(group.create_task)
            tasks = [group.create_task(work) for work in background]
            try:
                await who.serves.wait()
                yield api.interface()
            finally:
                await links.end()
                await end(tasks)


async def run_worker(config: Config, sockets: list[socket.socket], stop: asyncio.Event) -> None:
    """Serve on `sockets` until `stop` is set; then finish what is in flight, and return."""
    async with worker(config) as interface:
        # What a worker is made of lives as long as it does: no collection need look at it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_BETWEEN_COLLECTIONS)
        await http_server.serve(
            interface.answer,
            interface.end,
            sockets,
            stop,
            grace_s=config.shutdown_grace_ms / 1000,
            # Above our own limit, so that a context that is too long is refused as just that.
            field_max_bytes=2 * config.context_max_bytes,
        )


async def sweep(buffer: PendingBuffer) -> None:
    """What is deliverable and was left behind by a crash is applied."""
    swept = await buffer.sweep()
    if swept.drained:
        log.info("sweep applied waiting writes", writes=swept.drained)


async def tell_settings(members: Members, store: KVStore, board: Board, lease_ms: int) -> None:
    """The others know which members this node's settings name, once members come and go.

    So one who joins and has been told of a single member learns how to reach each other one.
    """
    # A lease is a write, which Redis syncs to disk: not where there is nothing to tell.
    if members.telling() and await board.hold_lease(SETTINGS, lease_ms):
        await members.refresh()
        if telling := members.telling():
            await store.commit(telling)
            await members.refresh()
