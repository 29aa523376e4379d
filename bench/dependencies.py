"""How many bytes the dependencies of writes take in a batch, counted from what is sent.

What it is: `dependency_bytes`, of one batch, and `busy_batch`, one of a node whose peers all write
as much as it does.

What it assumes and guarantees: no clock, no network: the same figure each time. A write that
follows the one before it says so in one byte; what is counted is that byte, and whatever the batch
has beyond one in which all writes say no more.

What it does not know: how clocks are said.
"""

from dataclasses import replace
from typing import Final

import msgspec

from app.vector_clock import Dot, VectorClock
from app.wire import Batch, encode_batch
from app.write import Put, Write
from bench.contenders import VALUE
from bench.planting import node_names

_BEFORE: Final = 1_000_000
"""Writes that each node has made before: the larger, the more bytes a sequence takes."""
_TIMESTAMP: Final = 1_800_000_000_000_000
_SENDER: Final = "node00"


def dependency_bytes(batch: Batch) -> int:
    """How many of the bytes of the batch say what its writes depend on."""
    silent, before = [], batch.base
    for write in batch.writes:
        silent.append(msgspec.structs.replace(write, dependencies=before))
        before = before.with_dot(write.dot)
    without = encode_batch(replace(batch, writes=tuple(silent)))
    return len(encode_batch(batch)) - len(without) + len(batch.writes)


def busy_batch(nodes: int, writes: int) -> Batch:
    """A batch of so many writes of one of so many nodes: between them, evenly, a batch of as many
    writes has come from each of the others."""
    others = node_names(nodes - 1)
    clock = VectorClock((name, _BEFORE) for name in (_SENDER, *others))
    made, arrived = [], 0
    for number in range(writes):
        while arrived * writes < number * len(others):
            other = others[arrived]
            clock = clock.with_dot(Dot(other, clock[other] + writes))
            arrived += 1
        dot = clock.next_dot(_SENDER)
        put = Put(f"key-{number:06}", VALUE)
        made.append(Write(dot, clock, _TIMESTAMP + number, (put,)))
        clock = clock.with_dot(dot)
    return Batch(_SENDER, others[0], clock, tuple(made))
