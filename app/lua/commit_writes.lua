--[[
  Commit writes of this node, one after the other, each if its conditions hold: name it, stamp it,
  apply it, log it, advance the clock.

  KEYS[1]  clock        hash    actor -> sequence applied here
  KEYS[2]  meta         hash    `actor`: who writes here; `timestamp`: the last one;
                                `merging`: a snapshot that is being merged
  KEYS[3]  deletes      hash    actor -> its last delete that came to a key with versions
  KEYS[4]  log:{actor}  stream  entry id SEQUENCE-0
  KEYS[5]  keys         sorted set  the index of keys (index.inc.lua)
  KEYS[6]  conflicts    sorted set  those with siblings
  KEYS[7]  system       set         the keys of the system that were ever written: those that begin
                                    with a NUL
  KEYS[8]  expiring     sorted set  keys by when the first of their versions expires
                                    (expiry.inc.lua)
  KEYS[9]  requests     hash        Idempotency-Key -> the write that was done for it
  KEYS[10] requests-order  list     those keys, oldest first
  KEYS[11+] kv:{key}    hash    for each write: one per operation, in order; then one per condition;
                                then one for each key that is read

  ARGV[1]  actor        who writes
  ARGV[2]  now          microseconds since 1970, by the worker's wall clock
  ARGV[3]  channel      where to tell the other workers
  ARGV[4]  known        the last sequence that the worker knows to be the actor's
  ARGV[5]  requests_max  requests to remember
  ARGV[6]  alert        the channel where to tell the workers of a key of the system
  ARGV[7]  deferred stem  what the names of the queues of deferred writes begin with
  ARGV[8+] writes       for each write:
           operations   netstrings (operations.inc.lua)
           request      the Idempotency-Key, empty for none
           fingerprint  of what is asked, for no other request to pass for this one
           most         bytes to read in all
           reads        how many keys are read
           conditions   how many there are, and then what each wants (conditions.inc.lua)

  Returns  the clock before all writes, as HGETALL gives it, and for each write, in order, one of
           these:
           - `committed`, dot, timestamp; the clock after the write as text, or empty if that is the
             clock before it and the dot; 1 if it was done before, for this very request, else 0;
             and then for each key that is read what it held before the write, as HGETALL gives it,
             also what had expired by its timestamp;
           - `accepted`, dot, the clock as text, and 1: it was asked for before by this very request,
             and is deferred (accept_deferred.lua);
           - `reused`, if the request that this Idempotency-Key was sent with before is another;
           - `failed`, and for each condition that does not hold four: its number, the dots of the
             versions that are there, of those that have expired, and what is noted of deletes, as
             texts;
           - `too much`, if what is to be read has more than `most` bytes;
           - `moved`: it declares the end of an actor, and another one is here;
           or nothing (an empty list) if this Redis does not belong to `actor`, or has lost writes
           that the worker has seen: it was emptied, replaced or put back under a running node,
           and would give dots again that name other writes (G4);
           or `merging` alone: what is here is no state to write upon.
           By a write that is not committed nothing is changed.

  Atomic, because a crash between value, log and clock would lose the write, or let another
  have its dot (G3, G4), and because what a condition looked at could change before the write. That
  a request was done is remembered in the same step. Several writes share one step because most of
  its cost is not the writes'.

  A write depends on all that is applied here, so it supersedes all versions that are here. Its
  timestamp is the instant at which conditions and reads are looked at, and from which the versions
  live that it puts.
  Twin: tests/model.py, Node.write.
]]
--@include clocks
--@include state
--@include operations
--@include expiry
--@include conditions
--@include index
--@include reads
--@include ends
--@include workers
--@include commit
--@include requests
local clock_key, meta_key, deletes_key, log_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local keys_key, conflicts_key, system_key, expiring_key = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local requests_key, order_key = KEYS[9], KEYS[10]
local actor, now, channel, known = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local requests_max, alert, deferred_stem = tonumber(ARGV[5]), ARGV[6], ARGV[7]
local first_kv = 11
local first_write = 8
local fields_of_a_write = 6

local unfit, last = state_of(meta_key, 'actor', actor)
if unfit then
  return unfit
end

local clock_before = redis.call('HGETALL', clock_key)
local clock = clock_of(clock_before)
if (clock[actor] or 0) < known then
  return {}
end

local all_keys = {}
for i = first_kv, #KEYS do
  all_keys[#all_keys + 1] = KEYS[i]
end
local fields_of = fields_of_keys(all_keys)

local at = {
  clock = clock_key, meta = meta_key, deletes = deletes_key, log = log_key, keys = keys_key,
  conflicts = conflicts_key, system = system_key, expiring = expiring_key,
  channel = channel, alert = alert,
}
local committed_any, ended_actors = false, {}

-- Its keys are KEYS[operated], ... for its operations, KEYS[looked_at], ... for its conditions, and
-- KEYS[read], ... for what is read.
local function commit_if(packed, request, fingerprint, most, reads, wanted, operated, looked_at, read)
  local done = done_before(requests_key, deferred_stem, clock, request, fingerprint)
  if done then
    return done
  end

  local stamp, failed = stamp_after(last, now), nil
  for i, wish in ipairs(wanted) do
    local kv_key = KEYS[looked_at + i - 1]
    local dots, expired = dots_in(fields_of[kv_key], stamp)
    if not holds(wish, dots) then
      failed = failed or { 'failed' }
      failed[#failed + 1] = i - 1
      failed[#failed + 1] = table.concat(dots, ' ')
      failed[#failed + 1] = table.concat(expired, ' ')
      failed[#failed + 1] = redis.call('HGET', kv_key, 'deletes') or ''
    end
  end
  if failed then
    return failed
  end

  for _, verb, key, _, value in operations(packed) do
    local ended, after = declared_end(verb, key, value)
    if ended and (clock[ended] or 0) ~= after then
      return { 'moved' }
    end
  end

  local names = {}
  for i = read, read + reads - 1 do
    names[#names + 1] = KEYS[i]
  end
  local found = read_all(names, most, stamp)
  if not found then
    return { 'too much' }
  end

  local dot, ends, timestamp = commit(at, clock, actor, packed, stamp, KEYS, operated, fields_of)
  last, committed_any = stamp, true
  for _, ended in ipairs(ends) do
    ended_actors[#ended_actors + 1] = ended
  end
  if request ~= '' then
    remember(requests_key, order_key, request, now, fingerprint,
      { dot, timestamp, clock_text(clock) }, requests_max)
  end
  local committed = { 'committed', dot, timestamp, #ends > 0 and clock_text(clock) or '', 0 }
  for _, fields in ipairs(found) do
    committed[#committed + 1] = fields
  end
  return committed
end

local results = { clock_before }
local kv, i = first_kv, first_write
while i <= #ARGV do
  local packed, request, fingerprint = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local most, reads, conditions = tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  i = i + fields_of_a_write
  local wanted = {}
  for _ = 1, conditions do
    wanted[#wanted + 1] = ARGV[i]
    i = i + 1
  end
  local looked_at = kv
  for _ in operations(packed) do
    looked_at = looked_at + 1
  end
  local read = looked_at + conditions
  results[#results + 1] =
    commit_if(packed, request, fingerprint, most, reads, wanted, kv, looked_at, read)
  kv = read + reads
end

if committed_any then
  keep(at, clock, actor, last, ended_actors)
end
return results
