"""Faults on the link to a peer, at will: for demonstrations and tests (`FAULTS=1`).

Assumes that the sender treats a failed exchange as a lost one and sends again. Guarantees that a
link without a fault carries batches untouched, and that healing a link releases what was delayed.

A fault concerns one direction: what this node sends to that peer, and the answers to it.
Does not know why a batch is sent.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Final, cast

import msgspec

from app.errors import BadFault, PeerUnreachable
from app.shapes import ShownFault
from app.wire import Answer, Batch

_Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=600_000)]

Send = Callable[[Batch], Awaitable[Answer]]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is wrong with a link. The default is nothing.

    `delay_ms` and up to `jitter_ms` more pass before a batch goes out. `drop` is the probability
    that a batch, or the answer to it, is lost; `duplicate` that it arrives twice; `reorder` that
    its writes are shuffled and it arrives after the next one. `cut` lets nothing through.
    `no_relay` keeps back other nodes' writes, so that an effect can be seen to overtake its cause.
    """

    delay_ms: _Milliseconds = 0
    jitter_ms: _Milliseconds = 0
    drop: _Probability = 0.0
    duplicate: _Probability = 0.0
    reorder: _Probability = 0.0
    cut: bool = False
    no_relay: bool = False

    def to_dict(self) -> ShownFault:
        """All fields, for JSON."""
        return cast(ShownFault, msgspec.structs.asdict(self))


HEALTHY: Final = Fault()


def parse_fault(body: bytes) -> Fault:
    """The fault that `body`, a JSON object, describes.

    Raises BadFault.
    """
    try:
        return msgspec.json.decode(body, type=Fault)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadFault(f"This is no fault: {error}. The link is as it was.") from None


def fault_text(fault: Fault) -> str:
    """The fault as it is stored, for `parse_fault`."""
    return json.dumps(msgspec.to_builtins(fault))


class FaultyLink:
    """Carries batches over one link as its fault says."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._changed = asyncio.Event()
        self._held: Batch | None = None

    def changed(self) -> None:
        """The fault is another one now: nothing is delayed any longer on account of the old."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def carry(self, batch: Batch, fault: Fault, send: Send) -> Answer:
        """The answer to `batch`, if `fault` lets it through.

        Raises PeerUnreachable if not, and what `send` raises.
        """
        if fault is HEALTHY or fault == HEALTHY:
            return await send(batch)
        if fault.cut:
            raise PeerUnreachable("the link is cut by a fault")
        await self._delay(fault)
        if self._happens(fault.drop):
            if self._rng.random() < 0.5:
                await send(batch)
                raise PeerUnreachable("the answer was dropped by a fault")
            raise PeerUnreachable("the batch was dropped by a fault")
        if self._happens(fault.reorder) and batch.writes:
            writes = list(batch.writes)
            self._rng.shuffle(writes)
            if self._held is None:
                self._held = replace(batch, writes=tuple(writes))
                raise PeerUnreachable("the batch was held back by a fault")
            batch = replace(batch, writes=tuple(writes))
        if self._happens(fault.duplicate):
            await send(batch)
        answer = await send(batch)
        if held := self._held:
            self._held = None
            await send(held)
        return answer

    def _happens(self, probability: float) -> bool:
        return self._rng.random() < probability

    async def _delay(self, fault: Fault) -> None:
        delay_ms = fault.delay_ms + self._rng.uniform(0, fault.jitter_ms)
        try:
            async with asyncio.timeout(delay_ms / 1000):
                await self._changed.wait()
        except TimeoutError:
            pass
