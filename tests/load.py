"""Clients that write while something breaks, and the check that nothing of theirs was lost.

What it is: `Load`. What it assumes and guarantees: a key is written once, or else by several
clients under one name; what a node acknowledged is remembered with its dot. What it does not know:
what breaks, and when. Where the idea is from: Jepsen's set and register workloads.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from client import Lightcone, NotApplied, OutcomeUnknown
from tests.processes import until, until_equal_clocks

SHARED_KEYS = 5
#: Between a client's writes: enough load to be in the middle of something, and no more.
PAUSE_S = 0.02
#: A node that is not there is asked again and again by its clients, so none may wait for long.
TIMEOUT_S = 3.0
READS_AT_ONCE = 16


@dataclass
class Load:
    """Writers at every node, each of which stays at its node."""

    kv: Lightcone
    urls: dict[str, str]
    name: str
    acknowledged: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Dot -> the key and the value written."""
    by_node: Counter[str] = field(default_factory=Counter)
    repeated: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, clients_per_node: int = 2) -> None:
        await asyncio.gather(
            *(self._client(node) for node in self.urls for _ in range(clients_per_node))
        )

    def stop(self) -> None:
        self._stop.set()

    async def progress(self, *nodes: str, writes: int = 20) -> None:
        """Each of the nodes has acknowledged so many writes more."""
        goal = {node: self.by_node[node] + writes for node in nodes}
        await until(lambda: all(self.by_node[node] >= least for node, least in goal.items()))

    async def _client(self, node: str) -> None:
        session = self.kv.session(timeout_s=TIMEOUT_S).at(self.urls[node])
        while not self._stop.is_set():
            number = next(self.numbers)
            # Every other write is to a key that all nodes write, the rest to keys of their own.
            kind = f"shared-{number % SHARED_KEYS}" if number % 2 else f"own-{number}"
            key, value = f"{self.name}/{kind}", str(number)
            try:
                written = await session.put(key, value)
            except (NotApplied, OutcomeUnknown):
                continue
            if written.dot in self.acknowledged:
                self.repeated.append(written.dot)
            self.acknowledged[written.dot] = (key, value)
            self.by_node[node] += 1
            await asyncio.sleep(PAUSE_S)


async def assert_nothing_lost(load: Load) -> None:
    """What was acknowledged is at every node, and all nodes show the same."""
    clock = await until_equal_clocks(load.urls)
    assert load.acknowledged, "nothing was written"
    assert not load.repeated, f"dots were given twice: {load.repeated}"
    for dot in load.acknowledged:
        actor, _, sequence = dot.partition(":")
        assert int(sequence) <= clock[actor], f"{dot} is in no clock"
    # A dot that was lost and given to another write would show here: its key has that dot no more.
    written = {key: (value, dot) for dot, (key, value) in load.acknowledged.items()}
    limit = asyncio.Semaphore(READS_AT_ONCE)

    async def check(key: str) -> None:
        async with limit:
            shown = [
                [(version.text, version.dot) for version in await load.kv.at(url).siblings(key)]
                for url in load.urls.values()
            ]
        assert all(versions == shown[0] for versions in shown), f"{key}: {shown}"
        if "/own-" in key:
            assert shown[0] == [written[key]], f"{key}: {shown[0]}, not {written[key]}"

    await asyncio.gather(*map(check, written))


async def while_loaded(load: Load, act: Callable[[], Awaitable[None]]) -> None:
    """`act` has been done while clients wrote at every node; then they stopped."""
    running = asyncio.create_task(load.run())
    try:
        await load.progress(*load.urls)
        await act()
        await load.progress(*load.urls)
    finally:
        load.stop()
        await running
