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

  ARGV[1]  actor        who writes
  ARGV[2]  now          microseconds since 1970, by the worker's wall clock
  ARGV[3]  channel      where to tell the other workers
  ARGV[4]  known        the last sequence that the worker knows to be the actor's
  ARGV[5]  requests_max  requests to remember
  ARGV[6]  alert        the channel where to tell the workers of a key of the system
  ARGV[7]  deferred stem  what the names of the queues of deferred writes begin with
  ARGV[8]  kv stem      what the names of the user keys begin with
  ARGV[9]  seen         what those have seen who write, as the text of a clock
  ARGV[10+] writes      for each write:
           operations   how many, then five for each (operations.inc.lua)
           terms        0 if there are none; else 1, and then:
           request      the Idempotency-Key, empty for none
           fingerprint  of what is asked, for no other request to pass for this one
           most         bytes to read in all
           reads        how many keys are read, and then these
           conditions   how many there are, and then for each its key and what it wants
                        (conditions.inc.lua)

  Returns  the clock before all writes, as HGETALL gives it, and for each write, in order, one of
           these:
           - dot, a space, timestamp: committed, and there is no more to say of it;
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
           that the worker has seen, or those who write: it was emptied, replaced or put back under
           a running node, and would give dots again that name other writes (G4), or put what
           follows a write where that is not (G7);
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
--@include integers
--@include system
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
local kv_stem, seen = ARGV[8], ARGV[9]
local first_write = 10

local unfit, last = state_of(meta_key, 'actor', actor)
if unfit then
  return unfit
end

local clock_before = redis.call('HGETALL', clock_key)
local clock = clock_of(clock_before)
if (clock[actor] or 0) < known or not covers(clock, seen) then
  return {}
end

local at = {
  clock = clock_key, meta = meta_key, deletes = deletes_key, log = log_key, keys = keys_key,
  conflicts = conflicts_key, system = system_key, expiring = expiring_key, kv = kv_stem,
  channel = channel, alert = alert,
}
local fields_of, writes = {}, {}

-- The terms of a write, which begin there, and where the next one begins.
local function terms_from(i)
  local terms = { request = ARGV[i], fingerprint = ARGV[i + 1], most = tonumber(ARGV[i + 2]),
    reads = {}, conditions = {} }
  local reads = tonumber(ARGV[i + 3])
  i = i + 4
  for _ = 1, reads do
    terms.reads[#terms.reads + 1] = kv_stem .. ARGV[i]
    i = i + 1
  end
  local conditions = tonumber(ARGV[i])
  i = i + 1
  for _ = 1, conditions do
    local kv_key = kv_stem .. ARGV[i]
    look_at(fields_of, kv_key)
    terms.conditions[#terms.conditions + 1] = { kv_key, ARGV[i + 1] }
    i = i + 2
  end
  return terms, i
end

local i = first_write
while i <= #ARGV do
  local list, packed, terms
  list, packed, i = handed_over(i)
  local names_system = false
  for _, _, key in each(list) do
    look_at(fields_of, kv_stem .. key)
    names_system = names_system or is_system(key)
  end
  if ARGV[i] == '0' then
    i = i + 1
  else
    terms, i = terms_from(i + 1)
  end
  writes[#writes + 1] = { list, packed, terms, names_system }
end

-- What to answer instead, if it was done before, or a condition does not hold.
local function unmet(terms, stamp)
  local done =
    done_before(requests_key, deferred_stem, clock, terms.request, terms.fingerprint)
  if done then
    return done
  end
  local failed
  for number, condition in ipairs(terms.conditions) do
    local kv_key, wanted = condition[1], condition[2]
    local dots, expired = dots_in(fields_of[kv_key], stamp)
    if not holds(wanted, dots) then
      failed = failed or { 'failed' }
      failed[#failed + 1] = number - 1
      failed[#failed + 1] = table.concat(dots, ' ')
      failed[#failed + 1] = table.concat(expired, ' ')
      failed[#failed + 1] = redis.call('HGET', kv_key, 'deletes') or ''
    end
  end
  return failed
end

-- Whether it declares the end of an actor of whom another one is here.
local function is_overtaken(list)
  for _, verb, key, _, value in each(list) do
    local ended, after = declared_end(verb, key, value)
    if ended and (clock[ended] or 0) ~= after then
      return true
    end
  end
end

local committed_any, ended_actors = false, {}

local function commit_if(list, packed, terms, names_system)
  local stamp, found = stamp_after(last, now), nil
  local other = terms and unmet(terms, stamp)
  if other then
    return other
  end
  if names_system and is_overtaken(list) then
    return { 'moved' }
  end
  if terms then
    found = read_all(terms.reads, terms.most, stamp)
    if not found then
      return { 'too much' }
    end
  end

  local dot, timestamp, ends = commit(at, clock, actor, list, packed, stamp, fields_of)
  last, committed_any = stamp, true
  for _, ended in ipairs(ends or {}) do
    ended_actors[#ended_actors + 1] = ended
  end
  if not terms and not ends then
    return dot .. ' ' .. timestamp
  end
  if terms and terms.request ~= '' then
    remember(requests_key, order_key, terms.request, now, terms.fingerprint,
      { dot, timestamp, clock_text(clock) }, requests_max)
  end
  return { 'committed', dot, timestamp, ends and clock_text(clock) or '', 0, unpack(found or {}) }
end

local results = { clock_before }
for _, write in ipairs(writes) do
  results[#results + 1] = commit_if(write[1], write[2], write[3], write[4])
end

if committed_any then
  keep(at, clock, actor, last, ended_actors)
end
return results
