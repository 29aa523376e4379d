"""What expires in a run: whether it is gone in the end, and stays gone before that.

What it is: two checks of what clients put for a time, at keys of its own.

What it assumes and guarantees: once all is healed, time passes for all nodes (passing.py), so that
by what each of them says itself all has expired that was put for seconds, and nothing that was put
for days, whatever became of wall clocks before. What must be there then follows from the writes in
the logbook alone, by definition. Who found a key empty carries the whole clock of the node, so no
node with a true wall clock may show what the key had before. The node whose clock is set back and
forth may (docs/adr/0022-expiry.md).

What it does not know: when exactly something was removed.
"""

from collections import Counter
from collections.abc import Iterator

from app.write import Operation, Put, expires_us
from tests.chaos.clients import ttl_s_of
from tests.chaos.ends import within
from tests.chaos.evidence import Evidence, Verdict
from tests.contents import LoggedWrite, covers, joined

#: What lives no longer is gone in the end; what lives longer is there.
SHORT_MAX_S = 3600.0


def what_expires_is_gone(evidence: Evidence) -> Verdict:
    """What has expired by all clocks is nowhere, its memory is free, and the rest is everywhere."""
    end = joined(evidence.clocks.values())
    lasting = [write for write in evidence.logbook.writes.values() if covers(end, write.dot)]
    counts: Counter[str] = Counter()
    problems = list(_not_as_asked(evidence))
    shown = {(op.node, op.reads[0].key): op for op in evidence.expiring if op.final and op.reads}
    for key in evidence.plan.expiring_keys():
        there: set[str] = set()
        for write, until_us in _versions(evidence, lasting, key):
            if short := (ttl_s_of(key) or 0) <= SHORT_MAX_S:
                late = [node for node in evidence.plan.nodes if _now_us(evidence, node) < until_us]
                problems += [f"{write.dot} has not expired at {node} yet" for node in late]
            else:
                there.add(write.dot)
            counts["expired" if short else "kept"] += 1
        for node in evidence.plan.nodes:
            problems += _not_held(evidence, node, key, there)
            final = shown.get((node, key))
            if final is None or final.outcome != "ok":
                problems.append(f"{key} was not read at {node}")
            elif (seen := {str(one.dot) for one in final.reads[0].seen}) != there:
                problems.append(f"{node} shows {_listed(seen)} at {key}, not {_listed(there)}")
    problems += [] if counts["expired"] else ["nothing has expired"]
    problems += [] if counts["kept"] else ["nothing was put for long"]
    what = (
        f"{counts['expired']} values have expired and are nowhere, {counts['kept']} that live for "
        f"days are everywhere, at {len(evidence.plan.expiring_keys())} keys"
    )
    return Verdict("what expires is gone", what, problems)


def what_has_expired_does_not_come_back(evidence: Evidence) -> Verdict:
    """Who has found a key empty is not shown again what it had been shown there before (G7)."""
    problems = []
    known: dict[tuple[str, str], set[str]] = {}
    gone: dict[tuple[str, str], set[str]] = {}
    found_gone = 0
    for op in evidence.expiring:  # a session asks one request after the other
        if op.final or op.outcome != "ok":
            continue
        for written in op.writes:
            if written.value is not None and op.dot:
                known.setdefault((op.session, written.key), set()).add(str(op.dot))
        for read in op.reads:
            if op.node == evidence.plan.odd_clock:
                continue
            place = op.session, read.key
            seen = {str(one.dot) for one in read.seen}
            problems += [
                f"{op.session} was shown {dot} at {read.key} by {op.node}, after it was gone"
                for dot in sorted(seen & gone.get(place, set()))
            ]
            known.setdefault(place, set()).update(seen)
            if not seen:
                found_gone += bool(known[place] - gone.get(place, set()))
                gone[place] = set(known[place])
    problems += [] if found_gone else ["nobody has seen anything go"]
    what = f"{found_gone} times a session found a key empty at which it knew of something"
    return Verdict("what has expired does not come back", what, problems)


def _versions(
    evidence: Evidence, lasting: list[LoggedWrite], key: str
) -> Iterator[tuple[LoggedWrite, int]]:
    """The writes whose puts at the key nothing has replaced, and when each expires."""
    about = [write for write in lasting if _about(write, key)]
    past = [within(write.dependencies, evidence.ends) for write in about]
    for write in about:
        put = _about(write, key)
        if isinstance(put, Put) and not any(covers(clock, write.dot) for clock in past):
            yield write, expires_us(write.timestamp, put.ttl_us)


def _about(write: LoggedWrite, key: str) -> Operation | None:
    return next((one for one in write.operations if one.key == key), None)


def _not_as_asked(evidence: Evidence) -> Iterator[str]:
    for write in evidence.logbook.writes.values():
        for one in write.operations:
            wanted = ttl_s_of(one.key)
            if isinstance(one, Put) and one.ttl_us != round(1_000_000 * (wanted or 0)):
                yield f"{write.dot} is to live for {one.ttl_us} us at {one.key}"


def _now_us(evidence: Evidence, node: str) -> int:
    """What the hybrid logical clock of the node shows at least."""
    return evidence.timestamps.get(node, 0)


def _not_held(evidence: Evidence, node: str, key: str, there: set[str]) -> Iterator[str]:
    """What the Redis of the node holds of the key and should not, or does not and should."""
    fields = evidence.versions.get(node, {}).get(f"kv:{key}", {})
    held = {name.decode().partition("@")[0] for name in fields if name != b"deletes"}
    yield from (f"{dot}, which has expired, is held by {node}" for dot in sorted(held - there))
    yield from (f"{dot} at {key} is not held by {node}" for dot in sorted(there - held))
    if fields and not there:
        yield f"{node} holds something of {key}, which has no version"
    wanted = {"expiring": bool(there), "keys": bool(there), "conflicts": len(there) > 1}
    for name, is_wanted in wanted.items():
        if (key in evidence.listed.get(node, {}).get(name, ())) != is_wanted:
            yield f"{key} is {'not ' if is_wanted else ''}in {name} of {node}"


def _listed(dots: set[str]) -> str:
    return " ".join(sorted(dots)) or "nothing"
