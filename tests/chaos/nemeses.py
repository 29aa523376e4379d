"""What harms a cluster, undoes the harm, and shows that there was some.

What it is: a `Nemesis` for each name in `plan.NEMESES`, made by `nemesis_for`.

What it assumes and guarantees: after `strike` something is broken; after `heal` that is undone, and
a node that was harmed was seen to be well. `proof` says in a line what shows, at this moment, that
the harm was really there: what was observed of processes, sockets and answers, never what was
ordered. It is empty for as long as nothing shows it.

What it does not know: when it strikes, what else is broken meanwhile, and what should come of it.

Where the idea is from: the nemeses of Jepsen; that a test of faults has to show its faults is from
everybody who found, years later, that theirs had never been injected.
"""

from collections.abc import Mapping
from typing import Protocol

from tests.chaos.disk_nemeses import LoseData, OldData
from tests.chaos.link_nemeses import Cut, Delay
from tests.chaos.member_nemeses import ChangeMembers
from tests.chaos.node_nemeses import ClockJump, End, FullDisk, FullMemory, Kill, Pause
from tests.chaos.place import Place
from tests.chaos.plan import NETWORK, Strike
from tests.chaos.proxy import Network
from tests.chaos.snapshot_nemeses import InSnapshot

#: What each nemesis does, for people.
MEANING = {
    "kill-worker": "kill -9 of all workers of a node; the supervisor replaces them",
    "kill-redis": "kill -9 of a node's redis-server; the supervisor starts another",
    "kill-node": "kill -9 of a whole node, Redis too; it is started again later",
    "kill-supervisor": "kill -9 of a node's supervisor; its Redis is left, and found at the start",
    "stop-node": "SIGTERM to a node, as for an upgrade; it is started again later",
    "pause-worker": "SIGSTOP of all workers of a node, and SIGCONT later",
    "pause-redis": "SIGSTOP of a node's redis-server, and SIGCONT later",
    "full-memory": "a node's Redis has no memory left and refuses writes",
    "full-disk": "a node's disk is full, so that its Redis ends, again and again",
    "lose-data": "kill -9 of a node that is cut off, or not; it starts with an empty disk",
    "old-data": "kill -9 of a node; it starts with a copy of its disk from a while before",
    "in-snapshot": "kill -9 of a node while it sends a snapshot, or while it receives one",
    "change-members": "a node is removed from the cluster, and added again later",
    "isolate": "one node is cut off from all others",
    "one-way": "what one node sends to one other is held back",
    "bridge": "the cluster is parted in two, and one node reaches both sides",
    "halves": "the cluster is parted in two",
    "delay": "what goes between two nodes takes longer",
    "clock-jump": "the wall clock of a node and of its Redis jumps, and back",
}


class Nemesis(Protocol):
    """Harm of one kind, at one place."""

    async def strike(self) -> None:
        """Something is broken."""

    async def proof(self) -> str:
        """What shows that it is, or was; empty while nothing does."""

    async def heal(self) -> None:
        """It is undone."""


def nemesis_for(strike: Strike, network: Network, places: Mapping[str, Place]) -> Nemesis:
    """What carries out the strike."""
    if strike.nemesis == "delay":
        return Delay(network, strike)
    if strike.nemesis in NETWORK:
        return Cut(network, places, strike)
    place = places[strike.node]
    match strike.nemesis:
        case "kill-worker" | "kill-redis":
            return Kill(place, strike.nemesis.removeprefix("kill-"))
        case "kill-node" | "kill-supervisor" | "stop-node":
            return End(place, strike.nemesis)
        case "pause-worker" | "pause-redis":
            return Pause(place, strike.nemesis.removeprefix("pause-"))
        case "full-memory":
            return FullMemory(place)
        case "full-disk":
            return FullDisk(place)
        case "lose-data":
            return LoseData(network, places, strike)
        case "old-data":
            return OldData(network, places, strike)
        case "in-snapshot":
            return InSnapshot(network, places, strike)
        case "change-members":
            return ChangeMembers(places, strike)
        case "clock-jump":
            return ClockJump(places, strike)
    raise ValueError(f"{strike.nemesis} is no nemesis")
