"""The mutations: what is broken, where, and which guarantee that breaks.

What it is: a list of `Mutation`s: of the node, and one of the Redis that it stands on. What it
assumes and guarantees: `old` stands exactly once in its file (a test holds that), so a mutation
never quietly changes nothing. What it does not know: how it is noticed. Where the idea is from:
DeMillo, Lipton, Sayward, "Hints on Test Data Selection", 1978.

Not listed, since they break nothing: a gap in an actor's sequence let through (each write depends
on the one before it, so the dependency check holds it back), a relay in another order (the receiver
sorts), a sweep that never comes (the scripts leave nothing behind).

Nor what too few seeds show: a write called lost although a member has it, or is away
(tests/test_lost.py notices at once); what is of a lane declared lost wherever it is asked for
(tests/test_losses.py does); what is held beyond a gap come home when what was deferred
is done again (tests/test_lost.py does); a deferred write committed again by a worker that knows
that it was (tests/lua/test_deferred.py does); a merge that forgets what had expired, a late
question that begins a snapshot anew (tests/lua/test_snapshots.py does); a snapshot that is gone on
with after whatever its receiver names, or without a part that could not be noted
(tests/test_snapshot_sending.py does); a state that brings back to a watcher's node what was lost
(tests/test_watching.py does). Nor what only takes longer, half a minute at most: a worker that does
not doubt a Redis when it could (tests/test_identity.py, tests/test_board.py do).
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Mutation:
    """One deliberate break: `old` becomes `new` in `file`, and so does `also` in its file.

    `profile` names the kind of trouble that shows it soonest, where that is rare among seeds.
    """

    name: str
    guarantee: str
    file: str
    old: str
    new: str
    also: tuple[str, str, str] | None = None
    profile: str | None = None

    def edits(self) -> list[tuple[str, str, str]]:
        """File, old text and new text of each change."""
        return [(self.file, self.old, self.new), *([self.also] if self.also else [])]


_COMMIT: Final = "app/lua/commit.inc.lua"
_RECEIVE: Final = "app/lua/receive_writes.lua"
_MERGE: Final = "app/lua/merge_keys.lua"
_REMOVE: Final = "app/lua/remove_expired.lua"
_CLOCK_OF_COMMIT: Final = "  redis.call('HSET', at.clock, actor, sequence)\n"

_AT_TWO_INSTANTS: Final = """\
            found = await self._scripts.read_keys(keys, most, self._now_us())
            if len(keys) > 1 and not isinstance(found, TooMuch):
                again = await self._scripts.read_keys(keys[1:], most, self._now_us())
                if not isinstance(again, TooMuch):
                    found = [*found[0][:1], *again[0]], again[1], again[2]
"""

_IN_TWO_STEPS: Final = """\
    local dot, verb, key = actor .. ':' .. number, unpack(list, 1, 2)
    local content_type, value, ttl = unpack(list, 3, 5)
    local is_next = sequence == applied_here + 1 and (covered or not lacks(dependencies))
    if is_next and #list > 5 and redis.call('SETNX', 'half:' .. dot, 1) == 1 then
      apply_operation(dot, actor, sequence, stamp, dependencies, verb, key,
        content_type, value, ttl)
      refused = refused + 1
    elseif is_next then
      redis.call('HDEL', kv_stem .. key,
        version_field(dot, expiry_of_put(tonumber(stamp), ttl)))
"""

_TOO_EARLY: Final = """\
            import asyncio

            from app.commits import Committed

            async def too_early(
                _actor: str, commits: Any, now_us: int, *rest: Any
            ) -> list[Committed]:
                work = self._scripts.commit_writes(actor, commits, now_us, *rest)
                asyncio.get_running_loop().create_task(work)
                clock = self._progress.clock
                done = []
                for _ in commits:
                    dot = clock.next_dot(actor)
                    clock = clock.with_dot(dot)
                    done.append(Committed(dot, now_us, clock))
                return done

"""

MUTATIONS: Final = (
    # --- causal delivery -------------------------------------------------------------------------
    Mutation(
        "dependency check skipped",
        "G1",
        _RECEIVE,
        "    if sequence > (clock[actor] or 0) then\n      return actor, sequence",
        "    if false then\n      return actor, sequence",
    ),
    Mutation(
        "dependencies left out of a write",
        "G1",
        _COMMIT,
        "'dependencies', past_as_text(clock, actor), 'operations'",
        "'dependencies', past_as_text({ [actor] = clock[actor] }, actor), 'operations'",
    ),
    Mutation(
        "transaction applied in two steps",
        "G1",
        _RECEIVE,
        "    if sequence == applied_here + 1 and (covered or not lacks(dependencies)) then\n",
        _IN_TWO_STEPS,
    ),
    Mutation(
        "every write is taken to follow the one before it in its batch",
        "G1",
        _RECEIVE,
        "local covered = ARGV[i + 4] == '1' and past\n",
        "local covered = past\n",
    ),
    Mutation(
        "transaction read at two instants",
        "G7",
        "app/kv_store.py",
        "            found = await self._scripts.read_keys(keys, most, self._now_us())\n",
        _AT_TWO_INSTANTS,
    ),
    Mutation(
        "idempotency key forgotten",
        "G2",
        "app/lua/requests.inc.lua",
        "local done = request ~= '' and redis.call('HGET', requests_key, request)",
        "local done = nil",
    ),
    Mutation(
        "drain forgotten",
        "G8",
        _RECEIVE,
        "local progress = next(received) ~= nil",
        "local progress = false",
    ),
    # --- exactly once, one name ------------------------------------------------------------------
    Mutation(
        "duplicate check skipped",
        "G2",
        _RECEIVE,
        "  if sequence <= applied_here then\n    duplicate",
        "  if sequence < applied_here then\n    duplicate",
    ),
    Mutation(
        "a command that failed is sent again",
        "G2",
        "app/redis_link.py",
        "Retry(NoBackoff(), 0)",
        "Retry(NoBackoff(), 1)",
        profile="storage",
    ),
    Mutation(
        "clock not advanced by a local write",
        "G4",
        _COMMIT,
        _CLOCK_OF_COMMIT,
        "",
    ),
    Mutation(
        "clock advanced by a second command",
        "G3",
        "app/kv_store.py",
        "            self._progress.advance(writes[-1][0].clock)\n",
        '            await self._redis.hset("clock", actor, writes[-1][0].dot.sequence)\n'
        "            self._progress.advance(writes[-1][0].clock)\n",
        (_COMMIT, _CLOCK_OF_COMMIT, ""),
    ),
    # --- incarnations ----------------------------------------------------------------------------
    Mutation(
        "incarnation not taken",
        "G4",
        "app/incarnation.py",
        "    if reason := _why_not_the_same(",
        "    if False and _why_not_the_same(",
        (
            "app/incarnation.py",
            "now_us // 1000), reason)",
            "now_us // 1000), str(known))",
        ),
    ),
    Mutation(
        "a new Redis is taken for a new node",
        "G4",
        "app/incarnation.py",
        "    if not redis.actor:\n        if has_written(",
        "    if not redis.actor:\n        return str()\n        if has_written(",
        profile="mix",
    ),
    Mutation(
        "a peer that remembers an earlier Redis is not believed",
        "G4",
        "app/incarnation.py",
        "        if evidence.remember_another:",
        "        if False:",
        profile="disk",
    ),
    Mutation(
        "an old copy is taken for the Redis that it was",
        "G4",
        "app/incarnation.py",
        "    if _was_away(redis, now_us) and (evidence.silent or not redis.rested):",
        "    if False:",
        (
            "app/incarnation.py",
            "    if lost := lost_writes(redis.actor, evidence.seen, redis.clock):",
            "    if lost := VectorClock():",
        ),
        profile="disk",
    ),
    # --- durable before acknowledged -------------------------------------------------------------
    Mutation(
        "acknowledged before the commit",
        "G3",
        "app/kv_store.py",
        "            outcomes = await self._scripts.commit_writes(",
        _TOO_EARLY + "            outcomes = await too_early(",
    ),
    Mutation(
        "Redis answers before it has synced",
        "G3",
        "tests/simulation/storage.py",
        "        self.storage.say_when_synced(self, msg)",
        "        self.say(msg)",
    ),
    Mutation(
        "unknown outcome called not_applied",
        "G10",
        "app/redis_link.py",
        'outcome = _outcome(error) if self._changes else "not_applied"',
        'outcome = "not_applied"',
        profile="storage",
    ),
    Mutation(
        "something is removed before the first command that Redis may refuse",
        "G9",
        _COMMIT,
        "redis.call('XADD', at.log, number .. '-0', 'timestamp', timestamp,",
        "redis.call('DEL', kv_keys[first])\n"
        "redis.call('XADD', at.log, number .. '-0', 'timestamp', timestamp,",
        profile="storage",
    ),
    # --- deferred writes -------------------------------------------------------------------------
    Mutation(
        "deferred write visible early",
        "G1",
        "app/lua/commit_deferred.lua",
        "  if lacks ~= '' then\n    break",
        "  if false then\n    break",
    ),
    Mutation(
        "dot of a deferred write given twice",
        "G4",
        "app/lua/accept_deferred.lua",
        "math.max(clock[lane] or 0, tonumber(redis.call('HGET', deferred_key, lane) or 0))",
        "clock[lane] or 0",
        profile="lanes",
    ),
    Mutation(
        "deferred write never committed",
        "G8",
        "app/lua/commit_deferred.lua",
        "local committed, more, lacks = 0, 0, ''\nlocal head = waiting_at(",
        "local committed, more, lacks = 0, 0, ''\nlocal head = nil and waiting_at(",
    ),
    Mutation(
        "answer to a deferred write without its dot",
        "G7",
        "app/http_write.py",
        "**self.sessions.headers(context.with_dot(accepted.dot)),",
        "**self.sessions.headers(context),",
    ),
    Mutation(
        "what is deferred lost at a new incarnation",
        "G8",
        "app/lua/commit_deferred.lua",
        "  if other ~= lane and (clock[other] or 0) > 0 then\n"
        "    local home = log_end(kv_stem, other, clock[other])",
        "  if other ~= lane then\n    local home = closed",
        profile="lanes",
    ),
    Mutation(
        "what waited before a loss is done again although a peer may have it",
        "G2",
        "app/former_lanes.py",
        "        if not await self._losses.is_home(actor):",
        "        if False and await self._losses.is_home(actor):",
        profile="lanes",
    ),
    Mutation(
        "what was done of a former lane is done again by a node that is put back twice",
        "G2",
        "app/lua/commit_former.lua",
        "while sequences[1] and sequences[1] <= done do",
        "while sequences[1] and sequences[1] < 0 do",
        profile="lanes",
    ),
    # --- what is lost ----------------------------------------------------------------------------
    Mutation(
        "what a member holds beyond a gap is lost while another can fill the gap",
        "G8",
        "app/lost.py",
        "        if standing.held[dot.actor] < last:",
        "        if False:",
        profile="gaps",
    ),
    # --- Redis is put back under a running node --------------------------------------------------
    Mutation(
        "who reads is not looked at again when the turn comes",
        "G7",
        "app/kv_store.py",
        "        return [readings[key] if context <= known else None for context, key in asked]",
        "        return [readings[key] for _, key in asked]",
        profile="setbacks",
    ),
    Mutation(
        "who reads a transaction is not looked at again",
        "G7",
        "app/kv_store.py",
        "        if not context <= self._progress.clock:\n"
        "            raise RedisUnavailable(NOT_OURS)",
        "        pass",
        profile="setbacks",
    ),
    Mutation(
        "what a reader's Redis holds is not compared with what was known",
        "G7",
        "app/progress.py",
        "        if known <= clock:\n            self.advance(clock)\n            return True",
        "        if True:\n            self.advance(clock)\n            return True",
        profile="setbacks",
    ),
    Mutation(
        "who writes is not looked at again when the turn comes",
        "G7",
        "app/kv_store.py",
        "        held = [one for one in asked if one[0] <= known]",
        "        held = list(asked)",
        (
            "app/lua/commit_writes.lua",
            "if (clock[actor] or 0) < known or not covers(clock, seen) then",
            "if (clock[actor] or 0) < known then",
        ),
        profile="setbacks",
    ),
    Mutation(
        "a Redis that does not hold the node's last write is written on",
        "G4",
        "app/lua/commit_writes.lua",
        "if (clock[actor] or 0) < known or not covers(clock, seen) then",
        "if not covers(clock, seen) then",
        profile="setbacks",
    ),
    Mutation(
        "what was committed beside a repeated request is not known",
        "G4",
        "app/kv_store.py",
        "            self._progress.advance(writes[-1][0].clock)\n",
        "            if writes[-1][0] is outcomes[-1]:\n"
        "                self._progress.advance(writes[-1][0].clock)\n",
        profile="setbacks",
    ),
    # --- narrow links ----------------------------------------------------------------------------
    Mutation(
        "what was too large for a link is sent again as it was",
        "G8",
        "app/under_way.py",
        "                self._limit = self._limit.least(exchange.amount).half()\n"
        "            raise\n"
        "        except PeerTakesLess",
        "                pass\n            raise\n        except PeerTakesLess",
        profile="narrow",
    ),
    Mutation(
        "what cannot be made smaller has no more time",
        "G8",
        "app/patience.py",
        "                self._longer_s[peer] = max(",
        "                _ = max(",
        profile="narrow",
    ),
    # --- convergence -----------------------------------------------------------------------------
    Mutation(
        "winner by arrival",
        "G5",
        "app/write.py",
        "return sorted(versions, key=lambda v: (v.timestamp, v.dot.actor), reverse=True)",
        "return list(versions)",
    ),
    Mutation(
        "winner by time alone",
        "G5",
        "app/write.py",
        "key=lambda v: (v.timestamp, v.dot.actor), reverse=True",
        "key=lambda v: v.timestamp // 1_000_000, reverse=True",
    ),
    Mutation(
        "siblings dropped",
        "G5",
        _RECEIVE,
        "if number <= (dependencies[author] or 0) then\n        superseded",
        "if true then\n        superseded",
    ),
    Mutation(
        "superseded versions kept",
        "G5",
        _RECEIVE,
        "    redis.call('HDEL', kv_key, unpack(superseded))",
        "",
    ),
    Mutation(
        "timestamp not joined with what is received",
        "G5",
        _RECEIVE,
        "  latest = math.max(latest, tonumber(stamp))\n",
        "",
    ),
    Mutation(
        "timestamp by the wall clock alone",
        "G5",
        _COMMIT,
        "math.max(now, tonumber(last or 0) + 1)",
        "now",
    ),
    Mutation(
        "a deleted key stays in the index",
        "G5",
        "app/lua/index.inc.lua",
        "    redis.call('ZREM', bucket, key)\n",
        "",
    ),
    Mutation(
        "a key keeps its conflict in the index when it is settled elsewhere",
        "G5",
        _RECEIVE,
        "key, before, after)\n  note_expiry(",
        "key, math.min(before, 1), after)\n  note_expiry(",
    ),
    # --- what expires ----------------------------------------------------------------------------
    Mutation(
        "it expires by the clock of the node that receives it",
        "G5",
        _RECEIVE,
        "expiry_of_put(tonumber(stamp), ttl)",
        "expiry_of_put(tonumber(now), ttl)",
    ),
    Mutation(
        "what has expired is shown until it is removed",
        "G5",
        "app/kv_store.py",
        "for version in held if version.is_there(now_us)",
        "for version in held",
    ),
    Mutation(
        "what is removed takes its siblings along",
        "G8",
        _REMOVE,
        "elseif has_expired(field, now) then",
        "elseif true then",
    ),
    Mutation(
        "what is removed stays in the index",
        "G5",
        _REMOVE,
        "  index_key(keys_key, conflicts_key, key, #left + #expired, #left)\n",
        "",
    ),
    Mutation(
        "what expires is removed too early",
        "G8",
        "app/expiry.py",
        "scripts.remove_expired(node, now_us(), KEYS_AT_ONCE)",
        "scripts.remove_expired(node, now_us() + 500_000, KEYS_AT_ONCE)",
    ),
    Mutation(
        "what expires is never removed",
        "G9",
        _COMMIT,
        "    note_expiry(at.expiring, key, expired, expires)\n",
        "",
    ),
    Mutation(
        "the trace of what expired is forgotten beside its siblings",
        "G7",
        _REMOVE,
        "    note_dot(seen_deletes, dot_of(field))\n",
        "",
    ),
    Mutation(
        "the trace of what expired is forgotten when a key is born",
        "G7",
        _REMOVE,
        "    note_dot(traces, dot_of(field))\n",
        "",
    ),
    Mutation(
        "what has expired leaves the context before it is removed",
        "G7",
        "app/kv_store.py",
        "    for version in held:  # one that has expired stands for its own delete\n",
        "    for version in versions:\n",
    ),
    # --- sessions --------------------------------------------------------------------------------
    Mutation(
        "context ignored on read",
        "G7",
        "app/http_kv.py",
        "        reader = await self.sessions.reader(request)\n"
        "        reading = await self.store.read(key, reader.needs)",
        "        from app.http_session import Reader\n\n"
        "        reader = Reader(self.sessions, self.sessions.context(request))\n"
        "        reading = await self.store.read(key)",
    ),
    Mutation(
        "context ignored on write",
        "G7",
        "app/http_write.py",
        "            context = await self.sessions.catch_up(request, patience_s=patience_s)",
        "            context = self.sessions.context(request)",
        (
            "app/http_write.py",
            "                context,\n                conditions",
            "                VectorClock(),\n                conditions",
        ),
    ),
    Mutation(
        "a read leaves the context as it was",
        "G7",
        "app/http_session.py",
        "self.sessions.headers(self.context.merge(seen))",
        "self.sessions.headers(self.context)",
    ),
    Mutation(
        "a write leaves the context as it was",
        "G7",
        "app/http_write.py",
        "        context = context.with_dot(committed.dot)\n",
        "",
    ),
    Mutation(
        "absence leaves no context",
        "G7",
        "app/kv_store.py",
        "return Reading((), clock)",
        "return Reading((), VectorClock())",
    ),
    Mutation(
        "delete's trace forgotten when a key is born",
        "G7",
        _RECEIVE,
        "    for author, number in pairs(deletes) do\n      seen_deletes[author] = number\n    end",
        "",
    ),
    Mutation(
        "delete's trace forgotten beside survivors",
        "G7",
        _RECEIVE,
        "    seen_deletes[actor] = sequence\n",
        "",
    ),
    Mutation(
        "cached progress ahead: what waits is taken for applied",
        "G7",
        "app/buffer.py",
        "self._progress.advance(received.clock)",
        "self._progress.advance(received.clock.merge(received.received))",
    ),
    Mutation(
        "cached progress ahead: the sender's clock is taken for ours",
        "G7",
        "app/http_replicate.py",
        "self.progress.miss(batch.clock)",
        "self.progress.advance(batch.clock)",
    ),
    # --- nothing is lost -------------------------------------------------------------------------
    Mutation(
        "received claims more than it has",
        "G8",
        _RECEIVE,
        "local contiguous, steps = math.max(before, clock[actor] or 0), 0",
        "local contiguous, steps = math.max(before, clock[actor] or 0) + 1, 0",
    ),
    Mutation(
        "received claims what the sender has",
        "G8",
        "app/http_replicate.py",
        "received.clock.merge(received.received),",
        "received.clock.merge(received.received).merge(batch.clock),",
    ),
    Mutation(
        "what others tell of a member that cannot be asked is not counted on",
        "G8",
        "app/losses.py",
        "elif report.hearsay.age_us(now_us) <= told_us:",
        "elif False:",
        profile="disk",
    ),
    Mutation(
        "relay never",
        "G8",
        "app/relay.py",
        "if self._heard and (node_of(actor) == self._node or (relay and actor in self._relaying))",
        "if self._heard and node_of(actor) == self._node",
    ),
    Mutation(
        "sending begins one too far",
        "G8",
        "app/replication.py",
        "self._read_log(actor, start, end)",
        "self._read_log(actor, start + 1, end)",
    ),
    Mutation(
        "lease without expiry",
        "G8",
        "app/lua/hold_lease.lua",
        "redis.call('SET', lease_key, holder, 'PX', ttl)",
        "redis.call('SET', lease_key, holder)",
    ),
    # --- snapshots and trimming ------------------------------------------------------------------
    Mutation(
        "trim before stable",
        "G8",
        "app/trimming.py",
        "through = min(everywhere[actor], last - config.log_min_entries)",
        "through = last - config.log_min_entries",
        profile="trim",
    ),
    Mutation(
        "snapshot overwrites local writes",
        "G8",
        _MERGE,
        "        if covers(theirs.clock, version) then",
        "        if true then",
        profile="trim",
    ),
    Mutation(
        "snapshot brings back what was deleted",
        "G5",
        _MERGE,
        "if our_versions[version] or not covers(ours.clock, version) then",
        "if true then",
        profile="trim",
    ),
    Mutation(
        "a merge that is begun anew takes for absent what it has merged",
        "G8",
        _MERGE,
        "elseif has_unstaged then",
        "elseif false then",
        profile="trim",
    ),
    Mutation(
        "keys are read while they are merged",
        "G7",
        "app/lua/read_keys.lua",
        "if merging then",
        "if false then",
        profile="trim",
    ),
    Mutation(
        "snapshot without what was written meanwhile",
        "G5",
        "app/snapshot_reading.py",
        "self._scripts.read_cut(at.since,",
        "self._scripts.read_cut(await self._store.clock(),",
        profile="trim",
    ),
    # --- what is sent ----------------------------------------------------------------------------
    # Of former actors alone the base changes too seldom for seeds to show it.
    Mutation(
        "a batch is read from whatever its receiver has",
        "G1",
        "app/wire.py",
        "            raise OtherBase\n        base = NOTHING\n",
        "            pass\n        else:\n            base = NOTHING\n",
        (
            "app/incarnation.py",
            "    newest: dict[str, int] = {}\n    for actor in clock:",
            "    return clock\n    for actor in clock:",
        ),
    ),
    # --- watchers --------------------------------------------------------------------------------
    Mutation(
        "watch resumes one too far",
        "G8",
        "app/feed.py",
        "        self.at = at\n",
        "        self.at = VectorClock((a, s + 1) for a, s in at.items())\n",
        (
            "app/watching.py",
            "yield Cut(feed.at)",
            "yield Cut(since)",
        ),
    ),
    Mutation(
        "watch tells again what another node told",
        "G2",
        "app/feed.py",
        "        self.at = at\n",
        "        self.at = VectorClock((a, s - 1) for a, s in at.items())\n",
        (
            "app/watching.py",
            "yield Cut(feed.at)",
            "yield Cut(since)",
        ),
    ),
    Mutation(
        "watch passes over what is in no log",
        "G8",
        "app/watching.py",
        "                raise await self._out_of_log(feed.at) from None\n",
        "                gap = await self._out_of_log(feed.at)\n"
        "                yield Quiet(gap.go_on)\n"
        "                raise Stopping from None\n",
        profile="trim",
    ),
    Mutation(
        "a watcher's state without what was written meanwhile",
        "G1",
        "app/watching.py",
        "            at, states, cut = found\n",
        "            at, states, cut = found\n            states = states if at.scanning else []\n",
    ),
)
