--[[
  Commit a write of this node, if its conditions hold: name it, stamp it, apply it, log it, advance
  the clock.

  KEYS[1]  clock        hash    actor -> sequence applied here
  KEYS[2]  meta         hash    `actor`: who writes here; `timestamp`: the last one;
                                `merging`: a snapshot that is being merged
  KEYS[3]  deletes      hash    actor -> its last delete that came to a key with versions
  KEYS[4]  log:{actor}  stream  entry id SEQUENCE-0
  KEYS[5]  keys         sorted set  the index of keys (index.inc.lua)
  KEYS[6]  conflicts    sorted set  those with siblings
  KEYS[7]  requests     hash        Idempotency-Key -> the write that was done for it
  KEYS[8]  requests-order  list     those keys, oldest first
  KEYS[9]  system       set         the keys of the system that were ever written: those that begin
                                    with a NUL
  KEYS[10+] kv:{key}    hash    one per operation, in order; then one per condition; then one for
                                each key that is read

  ARGV[1]  actor        who writes
  ARGV[2]  now          microseconds since 1970, by the worker's wall clock
  ARGV[3]  operations   netstrings (operations.inc.lua)
  ARGV[4]  channel      where to tell the other workers
  ARGV[5]  known        the last sequence that the worker knows to be the actor's
  ARGV[6]  most         bytes to read in all
  ARGV[7]  request      the Idempotency-Key, empty for none
  ARGV[8]  fingerprint  of what is asked, for no other request to pass for this one
  ARGV[9]  requests_max  requests to remember
  ARGV[10] alert        the channel where to tell the workers of a key of the system
  ARGV[11] deferred stem  what the names of the queues of deferred writes begin with
  ARGV[12+] conditions   what each condition wants (conditions.inc.lua)

  Returns  `committed`, dot, timestamp, the clock after the write as text; 1 if it was done before,
           for this very request, else 0; and then for each key that is read what it held before
           the write, as HGETALL gives it;
           or `accepted`, dot, the clock as text, and 1: it was asked for before by this very
           request, and is deferred (accept_deferred.lua);
           or `reused`, if the request that this Idempotency-Key was sent with before is another;
           or `failed`, the clock as text, and for each condition that does not hold three: its
           number, the dots of the versions that are there and what is noted of deletes, as texts;
           or `too much`, if what is to be read has more than `most` bytes;
           or nothing (an empty list) if this Redis does not belong to `actor`, or has lost writes
           that the worker has seen: it was emptied, replaced or put back under a running node,
           and would give dots again that name other writes (G4);
           or `merging`: what is here is no state to write upon;
           or `moved`: it declares the end of an actor, and another one is here.
           But for the first, nothing was changed.

  Atomic, because a crash between value, log and clock would lose the write, or let another
  have its dot (G3, G4), and because what a condition looked at could change before the write. That
  a request was done is remembered in the same step.

  The write depends on all that is applied here, so it supersedes all versions that are here.
  Twin: tests/model.py, Node.write.
]]
--@include clocks
--@include operations
--@include conditions
--@include index
--@include reads
--@include ends
--@include commit
--@include requests
local clock_key, meta_key, deletes_key, log_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local keys_key, conflicts_key, requests_key, order_key = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local system_key = KEYS[9]
local actor, now, packed, channel = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local known, most = tonumber(ARGV[5]), tonumber(ARGV[6])
local request, fingerprint, requests_max = ARGV[7], ARGV[8], tonumber(ARGV[9])
local alert, deferred_stem = ARGV[10], ARGV[11]
local first_kv = 10
local first_condition = 12

local owner, last, merging =
  unpack(redis.call('HMGET', meta_key, 'actor', 'timestamp', 'merging'))
if owner ~= actor then
  return {}
end
if merging then
  return { 'merging' }
end

local clock = load_clock(clock_key)
if (clock[actor] or 0) < known then
  return {}
end

local done = done_before(requests_key, deferred_stem, clock, request, fingerprint)
if done then
  return done
end

local kv_keys, index = {}, first_kv
for _ in operations(packed) do
  kv_keys[#kv_keys + 1] = KEYS[index]
  index = index + 1
end

local failed = { 'failed', clock_text(clock) }
for i = first_condition, #ARGV do
  local dots = dots_at(KEYS[index])
  if not holds(ARGV[i], dots) then
    failed[#failed + 1] = i - first_condition
    failed[#failed + 1] = table.concat(dots, ' ')
    failed[#failed + 1] = redis.call('HGET', KEYS[index], 'deletes') or ''
  end
  index = index + 1
end
if #failed > 2 then
  return failed
end

for verb, key, _, value in operations(packed) do
  local ended, after = declared_end(verb, key, value)
  if ended and (clock[ended] or 0) ~= after then
    return { 'moved' }
  end
end

local names = {}
for i = index, #KEYS do
  names[#names + 1] = KEYS[i]
end
local found = read_all(names, most)
if not found then
  return { 'too much' }
end

local at = {
  clock = clock_key, meta = meta_key, deletes = deletes_key, log = log_key, keys = keys_key,
  conflicts = conflicts_key, system = system_key, channel = channel, alert = alert,
}
local dot, timestamp = commit(at, clock, actor, packed, now, last, kv_keys)
local clock_after = clock_text(clock)
remember(requests_key, order_key, request, now, fingerprint, { dot, timestamp, clock_after },
  requests_max)
local committed = { 'committed', dot, timestamp, clock_after, 0 }
for _, fields in ipairs(found) do
  committed[#committed + 1] = fields
end
return committed
