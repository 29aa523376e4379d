"""What waits in the lanes of earlier incarnations of a node.

A node that was put back to an older state finds deferred writes in its Redis that it may have
committed and sent before, in what it has lost. So it does not commit them under their names (G4),
and does not forget them (G8):

- What a peer has of them comes home under the old name, as all that was lost does, and waits no
  more (`lua/commit_deferred.lua`).
- What no member has, and none will, is committed under new names, and how far that is done is
  written down. With the last of them the end of the lane is declared, so that whoever waits for the
  old names is served from there on, everywhere (`lua/commit_former.lua`).

Which is which is known once all is home that any member has, or will get, of the node's earlier
names (`lost.py`, `is_home`): with it comes what was done and written down by one in between, if the
node was put back twice. For that each member must have seen a write under the new name. So the node
makes one, if its clients do not.

Assumes that what was accepted is kept. Guarantees the above, as soon as all members are heard. Does
not know what is written.
"""

from typing import Final

from app.deferred import DeferredWrites
from app.identity import Identity
from app.incarnation import lane_of
from app.keys import lane_key
from app.kv_store import KVStore
from app.log import get_logger
from app.losses import Losses
from app.progress import Progress
from app.write import Delete

log = get_logger(__name__)

AT_ONCE: Final = 256
"""Writes that are committed in one round."""


class FormerLanes:
    """The lanes in which earlier incarnations of one node left something."""

    def __init__(
        self,
        deferred: DeferredWrites,
        store: KVStore,
        identity: Identity,
        losses: Losses,
        progress: Progress,
    ) -> None:
        self._deferred = deferred
        self._store = store
        self._identity = identity
        self._losses = losses
        self._progress = progress

    async def clear(self) -> None:
        """What waits in them, and can be committed now, is committed; so is all that is due.

        Raises NotReady, Syncing, RedisUnavailable.
        """
        due = await self._deferred.commit_due()
        if not due.former:
            return
        actor = self._identity.actor
        if not any(self._progress.clock[name] for name in (actor, lane_of(actor))):
            # It changes nothing, but tells all that the names before this one have ended.
            await self._store.commit([Delete(lane_key(due.former[0]))])
        if not await self._losses.is_home(actor):
            return
        for lane in due.former:
            await self._clear(lane)

    async def _clear(self, lane: str) -> None:
        """What waits in the lane is committed, as far as it can be now."""
        after = await self._store.log.end(lane, self._progress.clock[lane])
        for _ in range(AT_ONCE):
            if not await self._deferred.commit_former(lane, after):
                break
            log.info("committed under another name what waited before a loss", lane=lane)
