"""What is checked at the end of a run, when everything has been healed.

What it is: `verdicts`, one for each thing that must be so (`CHECKS`). Those about lost disks,
deferred writes, what expires and watchers are in modules of their own.

What it assumes and guarantees: a check looks at the evidence only, and says what is wrong in words,
or else what it has looked at, so that nothing passes for want of something to look at. Clients,
logs and versions are held against each other; no node's word is taken for another's. Logs are
trimmed, so what stood in them is known from the logbook. Of writes that were acknowledged only
those may be missing that no disk but a lost one had when it was lost.

What it does not know: how the evidence came about, or what the nemeses did.

Where the idea is from: the final reads of Jepsen, and its checkers that compose.
"""

from collections import Counter
from collections.abc import Callable

from app.incarnation import is_later
from app.vector_clock import node_of
from app.write import SYSTEM, Delete, Put
from client.recorder import value_text
from tests.chaos import watched
from tests.chaos.deferred import deferred_writes_were_done
from tests.chaos.ends import within
from tests.chaos.evidence import Evidence, Verdict
from tests.chaos.expiring import what_expires_is_gone, what_has_expired_does_not_come_back
from tests.chaos.losses import Loss
from tests.chaos.lost import only_what_one_disk_had_is_lost
from tests.chaos.plan import NEMESES
from tests.checker.__main__ import told
from tests.checker.check import check_all
from tests.checker.history import BadHistory, Operation
from tests.contents import LoggedWrite, covers, joined, sequence_of, unequal

#: From the last healing until all nodes have everything.
SETTLE_MAX_S = 60.0
#: From then until the logs are trimmed. A snapshot that was given up may keep a log for a minute.
TRIM_MAX_S = 90.0
_EXPLAINED = 2

Check = Callable[[Evidence], Verdict]


def verdicts(evidence: Evidence) -> list[Verdict]:
    """All checks, in order."""
    return [check(evidence) for check in CHECKS]


def every_strike_fired(evidence: Evidence) -> Verdict:
    """Each strike of the plan was carried out, seen to work, and healed."""
    firings = evidence.firings
    problems = [f"{firing.strike}: {firing.problem}" for firing in firings if not firing.fired]
    fired = Counter(firing.strike.nemesis for firing in firings if firing.fired)
    missing = [n for n in NEMESES if not fired[n] and n not in evidence.plan.skipped]
    problems += [f"{nemesis} has never fired" for nemesis in missing]
    left = len(evidence.plan.strikes()) - len(firings)
    problems += [f"{left} strikes of the plan were not begun"] if left else []
    skipped = f", left out: {', '.join(evidence.plan.skipped)}" if evidence.plan.skipped else ""
    what = f"{fired.total()} strikes of {len(fired)} nemeses, each seen to work{skipped}"
    return Verdict("every strike fired", what, problems)


def there_was_load(evidence: Evidence) -> Verdict:
    """Every session was served, every node took writes, siblings and snapshots were there."""
    served = [op for op in evidence.operations if op.outcome == "ok" and not op.final]
    sessions = Counter(op.session for op in served)
    problems = [
        f"session {session.name} was never served"
        for session in evidence.plan.sessions
        if not sessions[session.name]
    ]
    writers = Counter(op.node for op in served if op.writes)
    problems += [
        f"{node} acknowledged no write" for node in evidence.plan.nodes if not writers[node]
    ]
    kinds = Counter(op.kind for op in served)
    problems += [f"no {k}" for k in ("put", "delete", "get", "siblings", "txn") if not kinds[k]]
    siblings = sum(len(read.seen) > 1 for op in served for read in op.reads)
    problems += [] if siblings else ["no read has shown siblings"]
    snapshots = sum(evidence.snapshots.values())
    if not snapshots and "in-snapshot" not in evidence.plan.skipped:
        problems.append("no node has merged a snapshot")
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    what = (
        f"{counts} served in {len(sessions)} sessions; {siblings} reads showed siblings; "
        f"{snapshots} snapshots were merged"
    )
    return Verdict("there was load", what, problems)


def nodes_settled(evidence: Evidence) -> Verdict:
    """Once all was healed, all nodes soon had everything, and nothing waits."""
    problems = []
    if evidence.settled_s is None:
        problems.append(f"nodes still differed {SETTLE_MAX_S:g} s after the last healing")
        problems += [f"{node} {lag}" for node in evidence.clocks if (lag := _lag(evidence, node))]
    for node in evidence.plan.nodes:
        if node not in evidence.pending:
            problems.append(f"{node} does not answer")
        elif waiting := evidence.pending[node]:
            problems.append(f"at {node} writes wait: {', '.join(waiting)}")
    took = "too long" if evidence.settled_s is None else f"{evidence.settled_s:.1f} s"
    what = f"all nodes had everything after {took} ({SETTLE_MAX_S:g} s allowed), nothing waits"
    return Verdict("nodes settled", what, problems)


def every_key_was_read_everywhere(evidence: Evidence) -> Verdict:
    """At the end every node has shown every key."""
    wanted = {(node, key) for node in evidence.plan.nodes for key in evidence.keys}
    shown = {
        (op.node, read.key)
        for op in evidence.history
        if op.final and op.outcome == "ok"
        for read in op.reads
    }
    problems = [f"{key} was not read at {node}" for node, key in sorted(wanted - shown)]
    what = f"{len(evidence.keys)} keys, each at {len(evidence.plan.nodes)} nodes"
    return Verdict("every key was read everywhere", what, problems)


def clients_saw_causal_order(evidence: Evidence) -> Verdict:
    """The checker of histories finds nothing in what clients saw (G1, G4, G5, G7, G8)."""
    name = "clients saw causal order"
    sessions = len({op.session for op in evidence.history})
    what = f"{len(evidence.history)} operations of {sessions} sessions, by the history checker"
    try:
        reports = check_all(evidence.history)
    except BadHistory as error:
        return Verdict(name, what, [str(error)])
    return Verdict(name, what, [told(r, _EXPLAINED) for r in reports if not r.is_good])


def watchers_were_told_each_write_once(evidence: Evidence) -> Verdict:
    """Watchers were told all that was written, each write once and in causal order."""
    stretches = evidence.stretches
    problems = list(watched.problems(stretches, evidence.logbook, joined(evidence.clocks.values())))
    told = sum(len(stretch.told) for stretch in stretches)
    problems += [] if told else ["no watcher was told anything"]
    watchers = len({stretch.watcher for stretch in stretches})
    what = f"{told} writes told to {watchers} watchers, which began {len(stretches)} times"
    return Verdict("watchers were told each write once", what, problems)


def nodes_hold_the_same(evidence: Evidence) -> Verdict:
    """The same clock and versions in every Redis, and in the logs what always stood there (G5)."""
    problems = []
    for what, held in (("versions", evidence.versions), ("logs", evidence.logs)):
        problems += [
            f"{what} of {node} are missing" for node in evidence.plan.nodes if not held.get(node)
        ]
    problems += [f"{key} differs" for key in unequal(evidence.versions)]
    problems += [
        f"an entry of {key} at {node} is not what was seen there before: {entry}"
        for node, logs in evidence.logs.items()
        for key, log in logs.items()
        for entry in log
        if not evidence.logbook.has(key, entry)
    ]
    clocks = {node: dict(clock) for node, clock in evidence.clocks.items()}
    if (
        len(clocks) < len(evidence.plan.nodes)
        or len({str(sorted(c.items())) for c in clocks.values()}) > 1
    ):
        problems.append(f"the clocks differ: {clocks}")
    versions = len(next(iter(evidence.versions.values()), {}))
    left = sum(len(log) for logs in evidence.logs.values() for log in logs.values())
    what = f"{versions} keys with versions at every node, and {left} entries left in the logs"
    return Verdict("nodes hold the same", what, problems)


def _went_with(actor: str, loss: Loss) -> bool:
    """Whether the node lost its log of that actor, one of its own, with the disk."""
    return actor == loss.actor or (loss.emptied and not is_later(actor, loss.actor))


def logs_are_short(evidence: Evidence) -> Verdict:
    """Soon after the last write no log is longer than it need be, and none has a gap (G9)."""
    plan = evidence.plan
    problems = []
    trimmed = 0
    for node, clock in evidence.clocks.items():
        logs = evidence.logs.get(node, {})
        problems += [f"{node} has {key}, and {clock}" for key in logs if key[4:] not in clock]
        for actor, last in clock.items():
            sequences = [sequence_of(id_) for id_, _ in logs.get(f"log:{actor}", [])]
            # A merge lets the logs of others begin anew, but not those of the node itself.
            is_own = node_of(actor) == node and not any(
                loss.node == node and _went_with(actor, loss) for loss in evidence.losses
            )
            about = f"the log of {actor} at {node}"
            if not sequences:
                problems += [f"{about} is empty"] if is_own else []
                continue
            if len(sequences) > plan.log_entries_max:
                problems.append(f"{about} has {len(sequences)} entries")
            first = last - len(sequences) + 1
            if sequences != list(range(first, last + 1)):
                problems.append(f"{about} has gaps, or does not end at {last}: {sequences}")
            trimmed += first - 1 if is_own else 0
    problems += [] if trimmed else ["no node has trimmed the log of what it wrote"]
    what = f"{trimmed} entries were trimmed by the nodes that wrote them, no log has a gap"
    return Verdict("logs are short", what, problems)


def nothing_acknowledged_is_lost(evidence: Evidence) -> Verdict:
    """What a client was told had been written has been logged so, and all nodes have it (G3, G8).

    Under the dot that the client was told, with the dependencies that it was told. So is what it
    was told would be done; under another dot, if its node was put back.
    """
    problems = []
    lost = set(map(id, evidence.lost_writes()))
    kinds: Counter[str] = Counter()
    for op in evidence.acknowledged():
        logged = evidence.logbook.writes.get(str(op.dot))
        if logged is not None and not _is_as_told(logged, op):
            problems.append(f"{op.dot} is another write in the logs: {logged}")
        if logged is not None and op.dependencies is not None:
            dependencies = within(logged.dependencies, evidence.ends)
            if op.dependencies != dependencies:
                problems.append(f"{op.dot} depends on {dependencies} in the logs")
        if id(op) in lost:
            continue
        kinds[op.kind] += 1
        if logged is None:
            problems.append(f"{op.dot}, acknowledged by {op.node}, was in no log")
        problems += [
            f"{op.dot}, acknowledged by {op.node}, is not at {node}"
            for node, clock in evidence.clocks.items()
            if not covers(clock, str(op.dot))
        ]
    counts = f"{kinds['put']} puts, {kinds['delete']} deletes and {kinds['txn']} transactions"
    what = f"{counts} were acknowledged"
    return Verdict("nothing acknowledged is lost", what, problems)


def nothing_refused_took_effect(evidence: Evidence) -> Verdict:
    """What a client was told had not been applied is in no log (G10)."""
    refused = {
        (written.key, written.value): op
        for op in evidence.operations
        if op.outcome == "not_applied"
        for written in op.writes
        if written.value is not None
    }
    problems = [
        f"{name[1]} on {name[0]} was refused by {refused[name].node}, and is {write.dot}"
        for write in evidence.logbook.writes.values()
        for name in _puts_of(write)
        if name in refused
    ]
    problems += [] if refused else ["no put was refused, so nothing was tried"]
    return Verdict("nothing refused took effect", f"{len(refused)} puts were refused", problems)


def dots_name_one_write(evidence: Evidence) -> Verdict:
    """No dot is given twice, no write has two, and no sequence is left out (G2, G4)."""
    book = evidence.logbook
    given = Counter(str(op.dot) for op in evidence.acknowledged())
    problems = [f"{dot} was given to {count} writes" for dot, count in given.items() if count > 1]
    problems += book.conflicts
    written = Counter(
        name
        for write in book.writes.values()
        if write.dot not in evidence.done_as
        for name in _puts_of(write)
    )
    problems += [
        f"{value} on {key} is {count} writes"
        for (key, value), count in written.items()
        if count > 1 and not key.startswith(SYSTEM)  # a member may go and come more than once
    ]
    problems += [
        f"{actor}:{sequence} was in no log"
        for actor, last in joined(evidence.clocks.values()).items()
        for sequence in range(1, last + 1)
        if f"{actor}:{sequence}" not in book.writes
    ]
    problems += [] if book.compared else ["no write was seen in two logs"]
    what = (
        f"{len(given)} dots were given to clients; {len(book.writes)} writes were logged, without "
        f"gaps, and {book.compared} times compared with the log of another node"
    )
    return Verdict("dots name one write", what, problems)


def timestamps_agree_with_causality(evidence: Evidence) -> Verdict:
    """However wrong wall clocks are, a write is later than all it depends on."""
    writes = evidence.logbook.writes
    problems = []
    compared = 0
    for write in writes.values():
        for actor, sequence in within(write.dependencies, evidence.ends).items():
            before = writes.get(f"{actor}:{sequence}")
            compared += 1
            if before is None:
                problems.append(f"{write.dot} depends on {actor}:{sequence}, which was in no log")
            elif before.timestamp >= write.timestamp:
                problems.append(f"{write.dot} is not later than {before.dot}, which it depends on")
    problems += [] if compared else ["no write depends on another"]
    return Verdict("timestamps agree with causality", f"{compared} dependencies", problems)


def nodes_did_not_complain(evidence: Evidence) -> Verdict:
    """No node has logged an error that it has no word for, or a doubt about a guarantee."""
    return Verdict("nodes did not complain", "the logs of all nodes", evidence.complaints)


CHECKS: tuple[Check, ...] = (
    every_strike_fired,
    there_was_load,
    nodes_settled,
    every_key_was_read_everywhere,
    clients_saw_causal_order,
    watchers_were_told_each_write_once,
    nodes_hold_the_same,
    logs_are_short,
    nothing_acknowledged_is_lost,
    deferred_writes_were_done,
    what_expires_is_gone,
    what_has_expired_does_not_come_back,
    only_what_one_disk_had_is_lost,
    nothing_refused_took_effect,
    dots_name_one_write,
    timestamps_agree_with_causality,
    nodes_did_not_complain,
)


def _lag(evidence: Evidence, node: str) -> str:
    """What the node lacks of what others have; empty if nothing."""
    lacking: Counter[str] = Counter()
    for other in evidence.clocks.values():
        for actor, sequence in other.items():
            ahead = sequence - evidence.clocks[node].get(actor, 0)
            lacking[actor] = max(lacking[actor], ahead)
    shown = ", ".join(f"{count} of {actor}" for actor, count in lacking.items() if count > 0)
    return f"lacks {shown}" if shown else ""


def _is_as_told(write: LoggedWrite, op: Operation) -> bool:
    if any(told.value is None for told in op.writes):
        return write.operations == tuple(Delete(told.key) for told in op.writes)
    return _puts_of(write) == [(told.key, told.value) for told in op.writes]


def _puts_of(write: LoggedWrite) -> list[tuple[str, str | None]]:
    return [(o.key, value_text(o.value)) for o in write.operations if isinstance(o, Put)]
