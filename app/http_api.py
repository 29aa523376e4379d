"""The node's HTTP interface, put together of its routes (`http_*.py`).

Assumes the contract of DESIGN.md, section 7. Guarantees that a request that is refused changes
nothing and is told why, what became of it, and what to do (G10).

Does not know what any route answers.
"""

from collections.abc import Callable
from dataclasses import dataclass

from app.backup import Backups
from app.board import Board
from app.buffer import PendingBuffer
from app.config import Config
from app.context import Contexts
from app.deferred import DeferredWrites
from app.existence import Existence
from app.http_backup import BackupRoutes
from app.http_explain import ExplainRoutes
from app.http_faults import FaultRoutes
from app.http_health import HealthRoutes
from app.http_kv import KeyRoutes
from app.http_lists import ListRoutes
from app.http_lost import LostRoutes
from app.http_members import MemberRoutes
from app.http_pending import PendingRoutes
from app.http_replicate import ReplicateRoutes
from app.http_session import Sessions
from app.http_status import StatusRoutes
from app.http_txn import TransactionRoutes
from app.http_watch import WatchRoutes
from app.http_websocket import WebSocketRoutes
from app.http_write import Writing
from app.identity import Identity
from app.interface import Interface
from app.kv_store import KVStore
from app.losses import Losses
from app.members import Members
from app.peers import Signer
from app.progress import Progress
from app.replicas import Replicas
from app.snapshot_receiving import SnapshotReceiving
from app.watching import Watching


@dataclass(frozen=True, slots=True)
class Api:
    """The parts of a node that requests are about."""

    config: Config
    identity: Identity
    members: Members
    store: KVStore
    buffer: PendingBuffer
    deferred: DeferredWrites
    existence: Existence
    receiving: SnapshotReceiving
    backups: Backups
    progress: Progress
    board: Board
    replicas: Replicas
    losses: Losses
    watching: Watching
    contexts: Contexts
    signer: Signer
    now_us: Callable[[], int]
    fault_changed: Callable[[str], None]

    def interface(self) -> Interface:
        """All routes, and the contract that they keep."""
        interface = Interface()
        sessions = Sessions(
            self.contexts, self.progress, self.store, self.buffer, self.losses, self.members
        )
        writing = Writing(
            self.config, self.store, sessions, self.replicas, self.deferred, self.existence
        )
        KeyRoutes(self.config, self.store, sessions, writing).add_to(interface)
        TransactionRoutes(self.config, self.store, sessions, writing).add_to(interface)
        ExplainRoutes(self.store, self.deferred, sessions, self.now_us).add_to(interface)
        ListRoutes(self.store, sessions).add_to(interface)
        WatchRoutes(self.config, self.store, self.watching, sessions).add_to(interface)
        LostRoutes(self.store, self.buffer, self.losses, sessions).add_to(interface)
        BackupRoutes(self.config, self.backups, sessions).add_to(interface)
        MemberRoutes(self.members, self.store, self.board, sessions).add_to(interface)
        replicating = ReplicateRoutes(
            self.config,
            self.identity,
            self.members,
            self.buffer,
            self.receiving,
            self.progress,
            self.board,
            self.signer,
            self.now_us,
        )
        replicating.add_to(interface)
        WebSocketRoutes(replicating.take, self.config.replicate_max_bytes).add_to(interface)
        StatusRoutes(
            self.config,
            self.members,
            self.store,
            self.buffer,
            self.deferred,
            self.receiving,
            self.board,
            self.now_us,
        ).add_to(interface)
        PendingRoutes(
            self.config,
            self.members,
            self.store,
            self.buffer,
            self.deferred,
            self.board,
            self.now_us,
        ).add_to(interface)
        HealthRoutes(self.members, self.store, self.receiving, self.progress, self.board).add_to(
            interface
        )
        if self.config.faults:
            FaultRoutes(self.members, self.board, self.fault_changed).add_to(interface)
        return interface
