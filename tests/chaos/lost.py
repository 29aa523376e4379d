"""Whether only that is lost with a disk which no other had, and all who saw it know.

What it is: one of the final checks.

What it assumes and guarantees: as for all of them (final.py).

What it does not know: how a disk was lost.
"""

from collections.abc import Iterator

from app.incarnation import is_lane
from tests.chaos.evidence import Evidence, Verdict
from tests.chaos.losses import Loss
from tests.checker.history import Operation
from tests.contents import covers


def only_what_one_disk_had_is_lost(evidence: Evidence) -> Verdict:
    """With a disk only those writes are lost that no other had, and all who saw them know it.

    So whoever had seen them is never served again, and the node writes under another name (G4, G7).
    """
    problems = [*_lost_too_much(evidence), *_served_without_loss(evidence)]
    writes = evidence.lost_writes()
    sessions = len({op.session for op in evidence.operations if op.lost})
    disks = sum(not is_lane(loss.actor) for loss in evidence.losses)
    what = (
        f"{disks} disks were lost, and with them {len(writes)} acknowledged writes, "
        f"which {sessions} sessions had seen"
    )
    return Verdict("only what one disk had is lost", what, problems)


def _lost_too_much(evidence: Evidence) -> Iterator[str]:
    for loss in evidence.losses:
        for node, clock in evidence.clocks.items():
            if (has := clock.get(loss.actor, 0)) < loss.held:
                yield (
                    f"other disks had {loss.actor} up to {loss.held} when {loss.node} lost its "
                    f"own, and {node} has it up to {has}"
                )
        for op in evidence.acknowledged():
            if op.dot and op.dot.actor == loss.actor and _began_after(op, loss):
                yield f"{op.dot} was given by {op.node} after it had lost its disk"


def _served_without_loss(evidence: Evidence) -> Iterator[str]:
    of = {loss.actor: loss for loss in evidence.losses}
    for op in evidence.operations:
        if op.lost is None or op.outcome != "ok":
            continue
        loss = of.get(op.lost.actor)
        if loss is None:
            yield f"{op.lost} is lost, and {op.lost.actor} has lost no disk"
        elif op.node != loss.node or _began_after(op, loss):
            yield f"{op.session} had seen {op.lost}, which is lost, and {op.node} served it"
        for node, clock in evidence.clocks.items():
            if covers(clock, str(op.lost)):
                yield f"{op.lost} is called lost, and {node} has it"
        if op.dot and op.dot.actor == op.lost.actor and op.dot != op.lost:
            yield f"{op.lost} is newer than {op.dot}, which was given after it"


def _began_after(op: Operation, loss: Loss) -> bool:
    return op.start is None or op.start > loss.at_us
