"""A watcher in the simulation: it changes its node all the time, and is told each write once.

What it is: `Watcher`, a client of `GET /watch`, and the oracle of what it is told.

What it assumes and guarantees: what it is told is compared with the writes themselves, wherever
they come from: each once, after all that it depends on, and none left out. The state, if it was
told that, is at its cut what follows from the writes before it, by the model.

What it does not know: which node has which writes.
"""

import asyncio
import json
import random
from typing import Any, Final

from app.lost import Loss
from app.vector_clock import Dot, VectorClock
from app.write import SYSTEM, Put, Write, expires_us
from tests.model import Node
from tests.simulation.network import ConnectionReset, Network, Stream
from tests.simulation.oracle import Oracle, Violation
from tests.simulation.record import Record

_PATIENCE_S: Final = 5.0


class Watcher:
    """One watcher. What it was told is `at`, once it has a place."""

    def __init__(
        self,
        network: Network,
        oracle: Oracle,
        record: Record,
        nodes: tuple[str, ...],
        rng: random.Random,
    ) -> None:
        self._network = network
        self._oracle = oracle
        self._record = record
        self._nodes = nodes
        self._rng = rng
        self._place = ""
        self._at = VectorClock()
        self._state: dict[str, dict[Dot, bytes]] | None = None
        self._is_over = False

    async def run(self) -> None:
        """It watches here and there, until all it is to be told is known. Raises Violation."""
        rng = self._rng
        while not self._is_over:
            if rng.random() < 0.15:
                self._forget()
            lasts_s = rng.choice((0.02, 0.1, 0.5, 2.0)) * rng.uniform(0.5, 1.5)
            await self._watch(rng.choice(self._nodes), lasts_s)
            await asyncio.sleep(rng.uniform(0.001, 0.05))

    async def is_told(self, clock: VectorClock, within_s: float) -> None:
        """It has been told all that the clock covers. Raises Violation."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + within_s
        while not (self._place and clock <= self._at):
            if loop.time() > give_up_at:
                raise Violation("G8", f"a watcher is never told {clock.beyond(self._at)}")
            await asyncio.sleep(0.1)
        self._is_over = True

    async def _watch(self, node: str, lasts_s: float) -> None:
        rng = self._rng
        query = f"?wait={rng.choice((0, 0.2, 1))}"
        query += "" if rng.random() < 0.5 else "&since=now"
        headers = {"Last-Event-ID": self._place} if self._place else {}
        stream = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                stream = await self._network.stream(node, rng, f"/watch{query}", headers)
                refusal = await stream.head
            if refusal is not None:
                self._refused(node, refusal.status, json.loads(refusal.body), refusal.headers)
                return
            self._state = None  # a state that was not whole is void
            async with asyncio.timeout(lasts_s):
                await self._read(node, stream)
        except (ConnectionReset, TimeoutError, EOFError):
            return
        finally:
            if stream is not None:
                stream.close()

    async def _read(self, node: str, stream: Stream) -> None:
        rest = b""
        while True:
            *blocks, rest = (rest + await stream.next()).split(b"\n\n")
            for block in blocks:
                fields = dict.fromkeys(("event", "data", "id"), "")
                for line in block.decode().split("\n"):
                    name, _, value = line.partition(": ")
                    fields[name] = value
                data = json.loads(fields["data"] or "{}")
                self._told(node, fields["event"], data, fields["id"])

    def _told(self, node: str, kind: str, data: dict[str, Any], place: str) -> None:
        who = f"watcher at {node}"
        match kind:
            case "begin":
                self._state = {}
                return
            case "state":
                if self._state is None:
                    raise Violation("G1", f"{who}: a state after its cut")
                values = {Dot.parse(v["dot"]): v["text"].encode() for v in data["siblings"]}
                self._state[data["key"]] = values
                return
            case "cut":
                self._cut(who, VectorClock(data["clock"]), place)
            case "write":
                self._write(who, Dot.parse(data["dot"]), data, _clock(place))
            case "end":
                self._note(f"{who}: its stream ends, {data['type']}")
                if place:
                    self._moves_on(who, _clock(place))
                self._place = place or self._place
                self._refused(node, data["status"], data, {})
                raise EOFError
            case _ if place:  # how far it is, though nothing was of interest
                self._moves_on(who, _clock(place))
        self._place = place or self._place

    def _cut(self, who: str, clock: VectorClock, place: str) -> None:
        if clock != _clock(place):
            raise Violation("G1", f"{who}: the place of the cut {clock} is {place}")
        if self._place and clock != self._at:
            raise Violation("G8", f"{who}: it was told {self._at}, and goes on after {clock}")
        if self._state is not None:
            self._check_state(who, clock)
        self._note(f"{who}: {'goes on' if self._state is None else 'the state'} at {clock}")
        self._state, self._at = None, clock
        self._oracle.told.update(w.dot for w in self._writes() if clock.covers(w.dot))

    def _check_state(self, who: str, clock: VectorClock) -> None:
        assert self._state is not None
        model = Node("a model")
        model.merge(write for write in self._writes() if clock.covers(write.dot))
        for key in {o.key for w in self._writes() for o in w.operations} | self._state.keys():
            if not key.startswith(SYSTEM):
                versions = {version.dot: version.value for version in model.held(key)}
                told = self._state.get(key, {})
                # Each state was right when it was told, so either will do at the cut.
                perhaps = {v.dot for v in model.held(key) if self._oracle.may_have_expired(v)}
                certain = {dot: value for dot, value in versions.items() if dot not in perhaps}
                if not (told.items() <= versions.items() and certain.items() <= told.items()):
                    shown, holds = " ".join(map(str, told)), " ".join(map(str, versions))
                    raise Violation(
                        "G1", f"{who}: {key} is {shown} at {clock}, where it is {holds}"
                    )

    def _write(self, who: str, dot: Dot, data: dict[str, Any], at: VectorClock) -> None:
        if self._at.covers(dot):
            raise Violation("G2", f"{who}: it is told {dot} again")
        write = self._oracle.writes.get(dot)
        if write is None or _shown(write) != (data["dependencies"], data["operations"]):
            raise Violation("G4", f"{who}: it is told {dot}, which nobody wrote so")
        # What was of no interest was passed over just before.
        past = VectorClock((a, s - (a == dot.actor)) for a, s in at.items())
        self._moves_on(who, past)
        if not write.dependencies <= self._at:
            lacks = write.dependencies.beyond(self._at)
            raise Violation("G1", f"{who}: it is told {dot} before {lacks}")
        self._at = self._at.with_dot(dot)
        self._oracle.told.add(dot)
        self._note(f"{who}: is told {dot}", str(dot))
        if self._at != at:
            raise Violation("G8", f"{who}: it was told {self._at}, and its place is {at}")

    def _moves_on(self, who: str, at: VectorClock) -> None:
        """What lies between is nothing that clients may see."""
        for write in self._writes():
            is_passed = at.covers(write.dot) and not self._at.covers(write.dot)
            if is_passed and not all(o.key.startswith(SYSTEM) for o in write.operations):
                raise Violation("G8", f"{who}: it is not told {write.dot}")
        self._at = self._at.merge(at)

    def _refused(self, node: str, status: int, problem: dict[str, Any], headers: Any) -> None:
        who, kind = f"watcher at {node}", problem["type"].removeprefix("urn:lightcone:")
        match kind:
            case "too-far-back":
                self._note(f"{who}: too far back")
                if self._rng.random() < 0.5:
                    go_on = _clock(problem["go_on"])
                    for gap in problem["missed"]:
                        passed = self._at.merge(VectorClock({gap["actor"]: gap["through"]}))
                        if gap["after"] != self._at[gap["actor"]]:
                            raise Violation("G8", f"{who}: it was told {self._at}, not so: {gap}")
                        self._at = passed
                    if self._at != go_on:
                        raise Violation("G8", f"{who}: {problem} misses more than it says")
                    self._place = problem["go_on"]
                else:
                    self._forget()
            case "lost":
                losses = [Loss(**loss) for loss in problem["lost"]]
                self._note(f"{who}: lost: {losses}")
                self._oracle.check_losses(who, losses)
                self._place = headers["Causal-Context"]
                self._at = _clock(self._place)
            case "node-removed" | "foreign-context":
                self._note(f"{who}: is refused, {kind}")
            case _ if status == 503:
                self._note(f"{who}: is refused, {kind}")
            case _:
                raise Violation("G10", f"{who}: {problem}")

    def _forget(self) -> None:
        """It begins anew."""
        self._place, self._at, self._state = "", VectorClock(), None

    def _writes(self) -> list[Write]:
        return self._oracle.living()

    def _note(self, text: str, dot: str = "") -> None:
        self._record.note("watch", "", text, dot)


def _clock(place: str) -> VectorClock:
    return VectorClock.parse(place.partition(";s=")[0].removeprefix("lc1").replace(";", " "))


def _shown(write: Write) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """What a watcher is to be told of a write: whence it came, and what it did for clients."""
    operations: list[dict[str, Any]] = []
    for operation in write.operations:
        if operation.key.startswith(SYSTEM):
            continue
        if isinstance(operation, Put):
            until = expires_us(write.timestamp, operation.ttl_us)
            operations.append(
                {
                    "put": operation.key,
                    "content_type": operation.content_type,
                    **({"expires": until} if until else {}),
                    "text": operation.value.decode(),
                }
            )
        else:
            operations.append({"delete": operation.key})
    return write.dependencies.to_dict(), operations
