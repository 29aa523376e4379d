"""One link to each member, begun and ended as members come and go.

Assumes that it is told of every change of the members. Guarantees that this worker has one link to
each other member whose URL is known, and none to a node that was removed.

Does not know what a link does.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from app.addresses import is_node_id
from app.errors import PeerUnreachable
from app.identity import Ask
from app.log import get_logger
from app.members import Members
from app.replication import Link, Tools
from app.wire import Answer

log = get_logger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Links:
    """The links of one worker."""

    def __init__(self, node: str, members: Members, tools: Tools) -> None:
        """None runs before `begin`."""
        self._node = node
        self._members = members
        self._tools = tools
        self._links: dict[str, Link] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._spawn: Spawn | None = None

    def begin(self, spawn: Spawn) -> None:
        """The links run, as tasks that `spawn` makes, and so do those to members yet to come."""
        self._spawn = spawn
        self._members.on_change(self._change)
        self._change()

    async def end(self) -> None:
        """No link runs any more."""
        self._spawn = None
        await end(self._tasks.values())

    def fault_changed(self, peer: str) -> None:
        """The fault on the link to `peer` is another one now."""
        if peer in self._links:
            self._links[peer].fault_changed()

    def asks(self, told: Mapping[str, str]) -> Mapping[str, Ask]:
        """How each other member is asked where it stands, and each node whose URL was `told`."""
        others = {node: member.url for node, member in self._members.others.items()}
        removed = {member.node for member in self._members.all if member.removed}
        strangers = {node: url for node, url in told.items() if is_node_id(node)}
        urls = strangers | others
        for node in (self._node, *removed):
            urls.pop(node, None)
        return {node: self._ask(node, url) for node, url in urls.items()}

    def _ask(self, node: str, url: str) -> Ask:
        if node in self._links:
            return self._links[node].ask
        return Link(node, url, self._tools).ask if url else _nobody

    def _change(self) -> None:
        if self._spawn is None:
            return
        urls = {node: member.url for node, member in self._members.others.items() if member.url}
        for node in self._links.keys() - urls.keys():
            log.info("no longer sends to", peer=node)
            del self._links[node]
            # It may take a moment, for it gives back its lease.
            self._spawn(end([self._tasks.pop(node)]))
        for node, url in urls.items():
            if node in self._links:
                self._links[node].moved(url)
            else:
                self._links[node] = Link(node, url, self._tools)
                self._tasks[node] = self._spawn(self._links[node].run())


async def _nobody(_birth: str) -> Answer:
    raise PeerUnreachable("no URL of it is known")


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Each task has ended."""
    unfinished = set(tasks)
    while unfinished:
        for task in unfinished:
            task.cancel()
        # Asked again and again: in Python 3.11 `asyncio.wait_for`, which redis-py sends commands
        # with, forgets a cancellation that comes just when it is done (python/cpython#86296).
        _, unfinished = await asyncio.wait(unfinished, timeout=0.1)
