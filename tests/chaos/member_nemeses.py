"""What changes who belongs to the cluster.

What it is: a `Nemesis` (nemeses.py).

What it assumes and guarantees: a node is removed at one of its peers, and added again there, while
it runs and is asked by clients all the time. After `heal` it is a member that serves, and has been
sent what it missed: from the logs, or, where these did not wait for it, as a snapshot.

What it does not know: who else has heard of it at any moment.

Where the idea is from: the member nemeses of Jepsen's etcd tests.
"""

from collections.abc import Awaitable, Mapping

from client import LightconeError
from tests.chaos.place import Place
from tests.chaos.plan import Strike
from tests.processes import until


class ChangeMembers:
    """A node is no member for a while."""

    def __init__(self, places: Mapping[str, Place], strike: Strike) -> None:
        self._place = places[strike.node]
        self._at = places[self._place.reaches[0]]

    async def strike(self) -> None:
        await until(lambda: _done(self._at.remove_member(self._place.node)))

    async def proof(self) -> str:
        """The node's peer says so. The node itself need not have heard: it may be cut off, and who
        is no member is not missed, so that the cut could not be shown in the meantime either."""
        status = await self._at.status()
        if status is None or self._place.node not in status["removed"]:
            return ""
        told = await self._place.says()
        heard = f", where a write is told {told}" if told else ""
        return f"{self._at.node} says that it has removed {self._place.node}{heard}"

    async def heal(self) -> None:
        await until(lambda: _done(self._at.add_member(self._place.node, self._place.url)))
        await self._place.until_ready()
        await until(self._writes)

    async def _writes(self) -> bool:
        return not await self._place.says()


async def _done(change: Awaitable[object]) -> bool:
    """Whether it was, as far as anybody was told. Both changes can be made again."""
    try:
        await change
    except LightconeError:
        return False
    return True
