"""Keeping the logs short: what every member has goes, and more than the caps goes in any case.

Assumes that the clocks on the board are what the members last said, or others of them. Guarantees
that no entry is removed before every member has had it, as far as its actor's log is within
`LOG_MAX_ENTRIES` and all logs together are within `LOG_MAX_BYTES` (G9). A member that lacks what
was removed, or whose Redis has lost it, is sent a snapshot; no write is lost by it (G8). While a
snapshot is being sent, the log that it still needs is kept beyond the caps, so that it comes to an
end.

One worker of a node does it, by a lease. Does not know who reads the logs.
"""

from collections.abc import Callable, Collection
from typing import Final

from app.board import TRIM, Board
from app.config import Config
from app.kv_store import KVStore
from app.log import get_logger
from app.patience import SILENCE_S
from app.rounds import by_one_worker
from app.snapshot import BACKUP
from app.stability import stable
from app.vector_clock import VectorClock

log = get_logger(__name__)

_SNAPSHOT_HOLDS_US: Final = int(SILENCE_S * 1_000_000)
"""A snapshot that has not come on for so long does not keep the log any more."""


class Trimmer:
    """Trims the logs of one node."""

    def __init__(
        self,
        config: Config,
        store: KVStore,
        board: Board,
        peers: Callable[[], Collection[str]],
        now_us: Callable[[], int],
    ) -> None:
        self._config = config
        self._store = store
        self._board = board
        self._peers = peers
        self._now_us = now_us
        self._is_over_cap = False

    async def run(self) -> None:
        """The logs are trimmed every so often, for ever, by one worker of the node."""
        await by_one_worker(self._board, TRIM, self.trim, self._config.trim_ms)

    async def trim(self) -> None:
        """No log holds what every member has, nor more than its cap.

        Raises RedisUnavailable.
        """
        config = self._config
        mine = await self._store.clock()
        peers = list(self._peers())
        reports = await self._board.peers(peers)
        everywhere = stable(mine, [report.has for report in reports.values()])
        needed = stable(mine, [await self._needed(one, mine) for one in (*peers, BACKUP)])
        sizes = await self._store.log.sizes(mine)
        total = sum(size.bytes for size in sizes.values())
        share = min(1.0, config.log_max_bytes / max(1, total))
        over_cap = False
        for actor, size in sizes.items():
            last = await self._store.log.end(actor, mine[actor])
            through = min(everywhere[actor], last - config.log_min_entries)
            most = min(config.log_max_entries, int(size.entries * share))
            capped = min(needed[actor], last - most)
            over_cap = over_cap or capped > everywhere[actor]
            # Or later than that, for what came since the clock was read is counted, too.
            begins = max(1, last - size.entries + 1)
            await self._store.log.trim(actor, max(through, capped), begins)
        self._warn(over_cap)

    async def _needed(self, peer: str, mine: VectorClock) -> VectorClock:
        """Up to where the log is not needed for the snapshot that is being sent to `peer`."""
        sending = await self._board.sending(peer)
        if sending is None or self._now_us() - sending.heard_us > _SNAPSHOT_HOLDS_US:
            return mine
        return sending.since

    def _warn(self, over_cap: bool) -> None:
        """Say so, once, when a cap begins to take what a member lacks."""
        if over_cap and not self._is_over_cap:
            log.warning(
                "log over its cap",
                reason="entries go that a member lacks; once back, it is sent a snapshot",
            )
        self._is_over_cap = over_cap
