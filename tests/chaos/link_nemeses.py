"""What harms the links between nodes: cuts and delays, at the proxies.

What it is: a `Nemesis` (nemeses.py) each.

What it assumes and guarantees: several may strike the same wires at once; each undoes its own harm
and no more. That a proxy was told to cut is no proof: bytes have to be held or connections refused,
and the nodes have to miss each other.

What it does not know: what is sent along the links.

Where the idea is from: the partitions of Jepsen: halves, bridges, isolated nodes, one way only.
"""

from collections.abc import Iterator, Mapping

from tests.chaos.place import GLANCE_S, Place
from tests.chaos.plan import Strike, Wire
from tests.chaos.proxy import Network


class Cut:
    """Nodes do not reach each other, for the wires between them are cut."""

    def __init__(self, network: Network, places: Mapping[str, Place], strike: Strike) -> None:
        self._network = network
        self._places = places
        self._wires = strike.wires
        self._refuses = strike.refuses
        self._held: dict[Wire, int] = {}

    async def strike(self) -> None:
        self._held = {wire: self._network.wires[wire].held for wire in self._wires}
        await self._network.cut(self._wires, refuses=self._refuses)

    async def proof(self) -> str:
        """Every node says that it lacks every other, and every wire has held or refused something.

        A wire carries requests and answers, so it parts both nodes from each other. Who has removed
        a node, and may not hear that it is back, sends it nothing that could be held.
        """
        shown, unused = [], set()
        for source, target in dict.fromkeys(_both(self._wires)):
            status = await self._places[source].status()
            if status is None:
                return ""
            if target in status["removed"]:
                unused.add((source, target))
                shown.append(f"{source} has removed {target}")
            elif target not in status["peers"] or status["peers"][target]["reachable"]:
                return ""
            else:
                shown.append(f"{source} lacks {target}")
        for wire in self._wires:
            if wire in unused:
                continue
            if not (what := await self._stopped(wire)):
                return ""
            shown.append(what)
        return ", ".join(shown)

    async def heal(self) -> None:
        await self._network.mend(self._wires, refuses=self._refuses)

    async def _stopped(self, wire: Wire) -> str:
        source, target = wire
        # Where connections are refused, by this strike or by another, nothing is left to be held.
        if self._network.refuses(source, target):
            try:
                await self._network.exchange_s(source, target, GLANCE_S)
            except ConnectionRefusedError:
                return f"{source}>{target} refuses"
            except (OSError, TimeoutError):
                pass
            return ""
        held = self._network.wires[wire].held - self._held[wire]
        return f"{source}>{target} held {held}" if held else ""


class Delay:
    """What is sent between two nodes takes longer."""

    def __init__(self, network: Network, strike: Strike) -> None:
        self._network = network
        self._wires = strike.wires
        self._by_s = strike.amount / 1000

    async def strike(self) -> None:
        self._add(self._by_s)

    async def proof(self) -> str:
        """A request along the first wire took as long as it should: there and back, at least."""
        source, target = self._wires[0]
        wires = self._network.wires
        least_s = wires[source, target].delay_s + wires[target, source].delay_s
        try:
            took_s = await self._network.exchange_s(source, target, least_s + GLANCE_S)
        except (OSError, TimeoutError):
            return ""
        # A timer may be early by a tick.
        if took_s < 0.95 * least_s:
            return ""
        return f"{source} to {target} and back takes {1000 * took_s:.0f} ms"

    async def heal(self) -> None:
        self._add(-self._by_s)

    def _add(self, by_s: float) -> None:
        for wire in self._wires:
            self._network.wires[wire].delay_s += by_s


def _both(wires: tuple[Wire, ...]) -> Iterator[Wire]:
    for source, target in wires:
        yield source, target
        yield target, source
