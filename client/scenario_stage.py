"""What the steps of the scenario stand on: telling, waiting, checking, and breaking links.

What it is: `Stage`, made for one run over one cluster.

What it assumes and guarantees: the cluster may hold data, and others may use it; every run has keys
of its own. Whatever happens in a step, the links that it broke are healed and the node that it
killed is started again. Every wait is for a condition and has a deadline, so a slow machine only
takes longer.

What it does not know: the steps, and how a node works inside.

Where the idea is from: the fault injection of Jepsen, in which every fault has its undoing.
"""

import asyncio
import contextlib
import secrets
import unittest
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Self, TypeVar, Unpack

from rich.console import Console

from client.errors import BadInput, LightconeError, NotApplied
from client.lightcone import Lightcone
from client.scenario_cluster import Cluster
from client.session import Session
from client.shapes import Fault

Result = TypeVar("Result")
Clock = Mapping[str, int]

#: For whatever the nodes do by themselves. It takes well under a second where nothing else runs.
DEADLINE_S = 45.0
POLL_S = 0.02
#: How long to look at a node that may be dead, before its clock is told as silence.
GLANCE_S = 2.0


class Stage:
    """One run of the scenario. `async with` opens and closes its connections."""

    def __init__(self, cluster: Cluster, console: Console, record: Path | None = None) -> None:
        if len(cluster.nodes) < 3:
            raise BadInput("The scenario needs three nodes.")
        self.cluster = cluster
        self._console = console
        self._run = secrets.token_hex(3)
        self._kv = Lightcone(
            list(cluster.nodes.values()), timeout_s=30, patience_s=20, record=record
        )
        self._glance = self._kv.session(timeout_s=GLANCE_S)

    async def __aenter__(self) -> Self:
        await self._kv.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._kv.__aexit__(None, None, None)

    async def check_names(self) -> None:
        """Each node is ready, and is the one that its name says.

        Raises AssertionError when one is not ready, BadInput when one has another name.
        """
        for node in self.cluster.nodes:
            await self.until(partial(self.is_ready, node), f"{node} is ready")
            told = await self._kv.status(self.cluster.nodes[node])
            if told["node"] != node:
                raise BadInput(
                    f"{self.cluster.nodes[node]} is node {told['node']}, not {node}: "
                    "name each node by its NODE_ID."
                )
            for peer, about in told["peers"].items():
                if about.get("faults"):
                    self.say(
                        f"The link {node} to {peer} has a fault from before: {about['faults']}"
                    )

    # --- keys and sessions ------------------------------------------------------------------------

    def key(self, name: str) -> str:
        """A key that no other run uses."""
        return f"scenario-{self._run}/{name}"

    def session(self, name: str = "stranger", context: str = "") -> Session:
        """A new reader and writer, to be sent to a node with `at`."""
        return self._kv.session(name=name, context=context)

    def at(self, node: str, session: Session | None = None) -> Session:
        """The session, or a stranger who has seen nothing yet, at this node only."""
        return (session or self.session()).at(self.cluster.nodes[node])

    async def text(self, node: str, key: str) -> str | None:
        """What a stranger reads there."""
        version = await self.at(node).get(key)
        return None if version is None else version.text

    async def clock(self, node: str) -> Clock:
        """The vector clock of the node."""
        return (await self._kv.status(self.cluster.nodes[node]))["clock"]

    async def has(self, node: str, *dots: str) -> bool:
        """Whether the node has applied these writes."""
        clock = await self.clock(node)
        return all(covers(clock, dot) for dot in dots)

    async def waiting_for(self, node: str, dot: str) -> list[str] | None:
        """What this write waits for in the node's buffer; None when it does not wait there."""
        pending = await self._kv.pending(self.cluster.nodes[node])
        return next((w["waiting_for"] for w in pending["writes"] if w["dot"] == dot), None)

    async def is_ready(self, node: str) -> bool:
        """Whether the node can serve."""
        return await self._kv.ready(self.cluster.nodes[node])

    # --- telling, checking, waiting ---------------------------------------------------------------

    def say(self, text: str, style: str = "") -> None:
        """A line for the reader."""
        self._console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)

    async def tell(self, text: str) -> None:
        """A line for the reader, with the clocks of all nodes."""
        clocks = await asyncio.gather(*map(self._printed_clock, self.cluster.nodes))
        self.say(f"   {text:<78} {'  '.join(clocks)}")

    def check(self, is_so: bool, what: str) -> None:
        """Raises AssertionError, saying what should be so, when it is not."""
        if not is_so:
            raise AssertionError(f"This should be so and is not: {what}")

    async def until(self, check: Callable[[], Awaitable[Result | None]], what: str) -> Result:
        """What `check` gave when it was true at last. Raises AssertionError at the deadline."""
        last: object = "nothing yet"
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    try:
                        last = result = await check()
                    except NotApplied as error:
                        last = error
                    else:
                        if result:
                            return result
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise AssertionError(
                f"Not so within {DEADLINE_S:.0f} s: {what}. Last seen: {last}"
            ) from None

    async def everywhere(self, *dots: str) -> None:
        """All nodes have applied these writes."""
        for node in self.cluster.nodes:
            await self.until(partial(self.has, node, *dots), f"{node} has {', '.join(dots)}")

    # --- breaking and healing ---------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def links(self) -> AsyncIterator["Links"]:
        """Links that can be broken in the block, and are healed after it."""
        links = Links(self._kv, self.cluster.nodes)
        try:
            yield links
        finally:
            await links.heal_all()

    @contextlib.asynccontextmanager
    async def killed(self, node: str) -> AsyncIterator[None]:
        """The node is dead in the block, and ready after it."""
        await asyncio.to_thread(self.cluster.kill, node)
        try:
            yield
        finally:
            await asyncio.to_thread(self.cluster.start, node)
            await self.until(lambda: self.is_ready(node), f"{node} is ready")

    async def _printed_clock(self, node: str) -> str:
        try:
            told = await self._glance.status(self.cluster.nodes[node])
            return f"{node} {printed(told['clock'])}"
        except LightconeError:
            return f"{node} is silent"


class Links:
    """The links between the nodes, each with two directions."""

    def __init__(self, kv: Lightcone, nodes: Mapping[str, str]) -> None:
        self._kv = kv
        self._nodes = nodes
        self._broken: dict[tuple[str, str], None] = {}

    async def set(self, sender: str, receiver: str, **fault: Unpack[Fault]) -> None:
        """What the sender sends to the receiver suffers this fault.

        Raises unittest.SkipTest where faults are not enabled.
        """
        self._broken[sender, receiver] = None
        try:
            await self._kv.set_fault(self._nodes[sender], receiver, **fault)
        except BadInput as error:
            del self._broken[sender, receiver]
            if error.kind != "unknown-peer" and error.problem.get("status") in (403, 404):
                raise unittest.SkipTest(
                    "faults are not enabled on this cluster (FAULTS=1)"
                ) from None
            raise

    async def isolate(self, node: str) -> None:
        """Nothing passes between the node and any other, in either direction."""
        for other in self._nodes.keys() - {node}:
            await self.set(node, other, cut=True)
            await self.set(other, node, cut=True)

    async def hold_back(self, sender: str, receiver: str, **fault: Unpack[Fault]) -> None:
        """The sender's writes do not get to the receiver: not by their link, nor by others."""
        for other in self._nodes.keys() - {sender, receiver}:
            await self.set(other, receiver, no_relay=True)
        await self.set(sender, receiver, **fault)

    async def heal(self, sender: str, receiver: str) -> None:
        """This direction of the link has no fault."""
        await self._kv.heal(self._nodes[sender], receiver)
        self._broken.pop((sender, receiver), None)

    async def heal_all(self) -> None:
        """No link has a fault that was set here. Raises what the last of them raised."""
        failures = []
        for sender, receiver in list(self._broken):
            try:
                await self.heal(sender, receiver)
            except LightconeError as error:
                failures.append(error)
        if failures:
            left = ", ".join(f"{sender} to {receiver}" for sender, receiver in self._broken)
            raise AssertionError(f"These links could not be healed: {left}. {failures[-1]}")


def covers(clock: Clock, dot: str) -> bool:
    """Whether a node with this clock has applied the write."""
    actor, _, sequence = dot.rpartition(":")
    return clock.get(actor, 0) >= int(sequence)


def latest(dots: Iterable[str]) -> Clock:
    """The clock of which these are the last writes."""
    clock: dict[str, int] = {}
    for dot in dots:
        actor, _, sequence = dot.rpartition(":")
        clock[actor] = max(clock.get(actor, 0), int(sequence))
    return clock


def printed(clock: Clock) -> str:
    """The clock, as it prints everywhere: `{A:7 B:3}`."""
    return "{" + " ".join(f"{actor}:{clock[actor]}" for actor in sorted(clock)) + "}"
