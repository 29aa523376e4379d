"""Keys in batches, with a bit for each of their writes.

What it is: `Batch` and `batches`.

What it assumes and guarantees: all writes of a key are in one batch, so that what matters to a
read of the key is a few operations on integers.

What it does not know: what is done with the bits.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.checker.order import Order


@dataclass
class Batch:
    """Some keys, and a bit for each of their writes."""

    bits: int = 0
    bit_of: dict[tuple[int, str], int] = field(default_factory=dict)
    writer_of: list[int] = field(default_factory=list)
    all_of: dict[str, int] = field(default_factory=dict)
    deletes_of: dict[str, int] = field(default_factory=dict)
    #: Deletes of unknown dependencies, per key.
    vague_deletes: dict[str, int] = field(default_factory=dict)
    #: What deletes of known dependencies cover, per key: None stands for all of unknown dot.
    covered: dict[str, dict[str | None, int]] = field(default_factory=dict)


def batches(order: Order, batch_bits: int) -> Iterator[Batch]:
    """All keys of a history; a batch is closed when its keys have so many writes."""
    writers: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    for index, operation in enumerate(order.operations):
        if operation.outcome != "not_applied" or order.names.happened(index):
            for write in operation.writes:
                writers[write.key].append((index, write.value is None))
        for read in operation.reads:
            writers[read.key] += ()
    batch = Batch()
    for key, members in writers.items():
        batch.covered[key] = {}
        batch.all_of[key] = ((1 << len(members)) - 1) << batch.bits
        batch.deletes_of[key] = batch.vague_deletes[key] = 0
        for index, is_delete in members:
            bit = 1 << batch.bits
            batch.bits += 1
            batch.bit_of[index, key] = bit
            batch.writer_of.append(index)
            if is_delete:
                batch.deletes_of[key] |= bit
            if is_delete and not order.tells_dependencies(index):
                batch.vague_deletes[key] |= bit
            elif is_delete:
                covered = batch.covered[key]
                covered[None] = 1
                for actor, sequence in (order.operations[index].dependencies or {}).items():
                    covered[actor] = max(sequence, covered.get(actor, 0))
        if batch.bits >= batch_bits:
            yield batch
            batch = Batch()
    if batch.all_of:
        yield batch
