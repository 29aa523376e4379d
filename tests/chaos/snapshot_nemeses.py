"""What kills a node while a snapshot is on its way.

What it is: a `Nemesis` (nemeses.py).

What it assumes and guarantees: a node is away until the logs of its peers do not go back so far,
and is let back over slow links; as soon as it says that it receives a snapshot, it or the sender is
killed. A node that has caught up without one, which silent wires or a relay may bring about, is
sent away again. After `heal` all nodes serve.

What it does not know: how far the snapshot is at that moment, and who goes on with it.

Where the idea is from: whoever has lost a node while another one was being rebuilt.
"""

import asyncio
from collections.abc import Mapping

from tests.chaos.place import Place
from tests.chaos.plan import Strike
from tests.chaos.proxy import Network
from tests.contents import joined
from tests.processes import alive, until

#: So that a snapshot of three exchanges takes a second or two.
_SLOW_S = 0.15
_AWAY_MAX_S = 120.0
_TRIES = 5
_POLL_S = 0.02


class InSnapshot:
    """A node is killed that sends a snapshot, or that receives one."""

    def __init__(self, network: Network, places: Mapping[str, Place], strike: Strike) -> None:
        self._network = network
        self._places = places
        self._receiver = places[strike.node]
        self._senders = [places[node] for node in self._receiver.reaches]
        self._strike = strike
        self._victim = ""
        self._killed: list[int] = []
        self._seen = ""
        self._is_cut = False
        self._slowed_s = 0.0

    async def strike(self) -> None:
        for _ in range(_TRIES):
            await self._send_away()
            await self._let_back()
            if await self._kill_in_between():
                await asyncio.sleep(self._strike.lasts_s)
                return
        raise AssertionError(f"{self._receiver.node} caught up {_TRIES} times without a snapshot")

    async def proof(self) -> str:
        if not self._killed or any(map(alive, self._killed)):
            return ""
        return f"{self._seen}; {' '.join(map(str, self._killed))} of {self._victim} gone"

    async def heal(self) -> None:
        if self._is_cut:
            await self._mend()
        self._slow_down(-self._slowed_s)
        if self._victim:
            await self._places[self._victim].nodes.start(self._victim)
        await self._receiver.until_ready()

    async def _send_away(self) -> None:
        """The node lacks what no log of its peers has, by what it says and by what they hold."""
        # Refused, for what is held on a silent wire would arrive, and spare it the snapshot.
        await self._network.cut(self._strike.wires, refuses=True)
        self._is_cut = True
        await until(self._is_beyond_the_logs, _AWAY_MAX_S)

    async def _is_beyond_the_logs(self) -> bool:
        # Whoever writes helps it to come soon.
        await asyncio.gather(*(sender.says() for sender in self._senders))
        has = await self._receiver.received()
        begins = [await sender.log_begins() for sender in self._senders]
        return all(any(n > has.get(actor, 0) + 1 for actor, n in b.items()) for b in begins)

    async def _let_back(self) -> None:
        self._slow_down(_SLOW_S - self._slowed_s)
        await self._mend()

    async def _mend(self) -> None:
        await self._network.mend(self._strike.wires, refuses=True)
        self._is_cut = False

    def _slow_down(self, by_s: float) -> None:
        for wire in self._strike.wires:
            self._network.wires[wire].delay_s += by_s
        self._slowed_s += by_s

    async def _kill_in_between(self) -> bool:
        """The victim was killed when a snapshot had begun; or there was no need for one."""
        wanted = joined([await sender.clock() for sender in self._senders])
        while True:
            status = await self._receiver.status()
            if status is not None and (snapshot := status["snapshot"]):
                break
            clock = {} if status is None else status["clock"]
            if all(clock.get(actor, 0) >= sequence for actor, sequence in wanted.items()):
                return False
            await asyncio.sleep(_POLL_S)
        receiver = self._receiver.node
        self._victim = snapshot["from"] if self._strike.kills == "sender" else receiver
        self._seen = (
            f"{receiver} was {snapshot['phase']} a snapshot of {snapshot['from']}, "
            f"{snapshot['received_keys']} of about {snapshot['total_keys']} keys were there"
        )
        nodes = self._places[self._victim].nodes
        supervisor, redis = nodes.pid(self._victim), nodes.redis_pid(self._victim)
        await nodes.kill(self._victim)
        self._killed = [pid for pid in (supervisor, redis) if pid is not None]
        return True
