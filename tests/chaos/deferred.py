"""Deferred writes of a run: under which names they were done, and whether all were.

What it is: `done_as`, the other names of what was accepted and then done anew, for its node was put
back to an earlier state; and the check.

What it assumes and guarantees: no value is put twice on a key, so a write is known by what it puts.
Another name is that of a later incarnation of the same node.

What it does not know: what was waited for. That a deferred write follows what its session had seen
is for the checker of histories: in the history it has the dependencies that the logs tell, and its
place in its session.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from app.incarnation import is_lane, is_later
from app.vector_clock import node_of
from app.write import Put
from tests.chaos.evidence import Evidence, Verdict
from tests.chaos.logbook import Logbook
from tests.checker.history import Dot, Operation
from tests.contents import covers

Names = tuple[tuple[str, bytes], ...]
"""What a write puts, by which it is known."""


def deferred_writes_were_done(evidence: Evidence) -> Verdict:
    """What was accepted was done once: as what it was called, or else its node took another name,
    for it was put back, or had reason to think so."""
    accepted = [op for op in evidence.acknowledged() if _was_deferred(op, evidence)]
    by_node = {op.node for op in accepted}
    problems = [] if accepted else ["no write was deferred, so nothing was tried"]
    problems += _too_few(evidence)
    problems += _not_explained(evidence)
    lost = sum(op.lost is not None for op in accepted)
    what = (
        f"{len(accepted)} writes were accepted by {len(by_node)} nodes and done later; "
        f"{len(evidence.done_as)} under another name, for their node took another; {lost} were "
        "lost with a disk"
    )
    return Verdict("deferred writes were done", what, problems)


def _was_deferred(op: Operation, evidence: Evidence) -> bool:
    return op.dot is not None and (
        is_lane(op.dot.actor) or str(op.dot) in evidence.done_as.values()
    )


def _too_few(evidence: Evidence) -> Iterator[str]:
    """What was in the copy that was put in the place of a disk may not be lost, unless that was
    then lost itself."""
    for loss in {loss.actor: loss for loss in evidence.losses}.values():
        for op in evidence.acknowledged():
            is_of_it = op.dot is not None and op.dot.actor == loss.actor
            if op.lost and op.dot and is_of_it and op.dot.sequence <= loss.accepted:
                yield f"{op.dot} was in the copy that was put back, and is gone"


def _not_explained(evidence: Evidence) -> Iterator[str]:
    put_back = {loss.actor: loss for loss in evidence.losses if loss.accepted}
    for name, other in evidence.done_as.items():
        dot = Dot.parse(name)
        if dot.actor not in put_back:
            if not _had_doubts(evidence, dot.actor, Dot.parse(other).actor):
                yield f"{name} was done as {other}, and its node was not put back"
        elif dot.sequence <= put_back[dot.actor].held:
            yield f"{name} was done again as {other}, and other disks had it"


def _had_doubts(evidence: Evidence, before: str, after: str) -> bool:
    """Whether the node whose clock jumps took what it had for an old copy between these names: it
    does if it starts hours after its Redis was used last, and does not reach all others."""
    return node_of(before) == evidence.plan.odd_clock and any(
        is_later(one, before) and not is_later(one, after) for one in evidence.in_doubt
    )


def done_as(
    book: Logbook, accepted: Iterable[tuple[str, Names]], end: Mapping[str, int]
) -> dict[str, str]:
    """Under which names those deferred writes were done that nobody has under their first.

    `accepted` are those that clients were told of; others may be in the book. `end` is all that
    there is.
    """
    dots: defaultdict[Names, list[str]] = defaultdict(list)
    for write in book.writes.values():
        dots[names_of(write.operations)].append(write.dot)
    first = dict(accepted)
    first |= {dot: names for names, all_of in dots.items() for dot in all_of}
    found = {}
    for name, names in first.items():
        dot = Dot.parse(name)
        if not names or not is_lane(dot.actor) or dot.sequence <= end.get(dot.actor, 0):
            continue
        for other in dots[names]:
            is_later_one = is_later(Dot.parse(other).actor, than=dot.actor)
            if is_later_one and (name not in found or covers(end, other)):
                found[name] = other
    return found


def names_of(operations: Iterable[object]) -> Names:
    """What these operations put."""
    return tuple((one.key, one.value) for one in operations if isinstance(one, Put))
