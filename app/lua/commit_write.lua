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
  KEYS[10] expiring     sorted set  keys by when the first of their versions expires
                                    (expiry.inc.lua)
  KEYS[11+] kv:{key}    hash    one per operation, in order; then one per condition; then one for
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
  ARGV[11+] conditions   what each condition wants (conditions.inc.lua)

  Returns  `committed`, dot, timestamp, the clock after the write as text; 1 if it was done before,
           for this very request, else 0; and then for each key that is read what it held before
           the write, as HGETALL gives it, also what had expired by its timestamp;
           or `reused`, if the request that this Idempotency-Key was sent with before is another;
           or `failed`, the clock as text, and for each condition that does not hold four: its
           number, the dots of the versions that are there, of those that have expired, and what
           is noted of deletes, as texts;
           or `too much`, if what is to be read has more than `most` bytes;
           or nothing (an empty list) if this Redis does not belong to `actor`, or has lost writes
           that the worker has seen: it was emptied, replaced or put back under a running node,
           and would give dots again that name other writes (G4);
           or `merging`: what is here is no state to write upon;
           or `moved`: it declares the end of an actor, and another one is here.
           But for the first, nothing was changed.

  Atomic, because a crash between value, log and clock would lose the write, or let another
  have its dot (G3, G4), and because what a condition looked at could change before the write. The
  first command that writes is XADD, which Redis refuses when it is out of memory; after it, nothing
  is refused half-way. That a request was done is remembered in the same step, for a day and then
  until a few more have come, and of at most requests_max.

  The write depends on all that is applied here, so it supersedes all versions that are here. Its
  timestamp is the instant at which conditions and reads are looked at, and from which the versions
  live that it puts.
  Twin: tests/model.py, Node.write.
]]
--@include clocks
--@include operations
--@include expiry
--@include conditions
--@include index
--@include reads
--@include ends
local clock_key, meta_key, deletes_key, log_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local keys_key, conflicts_key, requests_key, order_key = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local system_key, expiring_key = KEYS[9], KEYS[10]
local actor, now, packed, channel = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local known, most = tonumber(ARGV[5]), tonumber(ARGV[6])
local request, fingerprint, requests_max = ARGV[7], ARGV[8], tonumber(ARGV[9])
local alert = ARGV[10]
local first_kv = 11
local first_condition = 11
local remembered_us = 24 * 60 * 60 * 1e6

local owner, last, merging =
  unpack(redis.call('HMGET', meta_key, 'actor', 'timestamp', 'merging'))
if owner ~= actor then
  return {}
end
if merging then
  return { 'merging' }
end

local clock = load_clock(clock_key)
local sequence = (clock[actor] or 0) + 1
if sequence <= known then
  return {}
end

local done = request ~= '' and redis.call('HGET', requests_key, request)
if done then
  local asked, dot, timestamp, clock_then = string.match(done, '^%d+ (%S+) (%S+) (%d+) (.*)$')
  if asked ~= fingerprint then
    return { 'reused' }
  end
  return { 'committed', dot, timestamp, clock_then, 1 }
end

local index = first_kv
for _ in operations(packed) do
  index = index + 1
end

-- Later than everything in the causal past, whatever the wall clock says (Kulkarni et al. 2014).
local at = math.max(now, tonumber(last or 0) + 1)
local failed = { 'failed', clock_text(clock) }
for i = first_condition, #ARGV do
  local dots, expired = dots_at(KEYS[index], at)
  if not holds(ARGV[i], dots) then
    failed[#failed + 1] = i - first_condition
    failed[#failed + 1] = table.concat(dots, ' ')
    failed[#failed + 1] = table.concat(expired, ' ')
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

local dot = string.format('%s:%.0f', actor, sequence)
local timestamp = string.format('%.0f', at)
local committed = { 'committed', dot, timestamp, '', 0 }
local names = {}
for i = index, #KEYS do
  names[#names + 1] = KEYS[i]
end
local found = read_all(names, most, at)
if not found then
  return { 'too much' }
end
for _, fields in ipairs(found) do
  committed[#committed + 1] = fields
end

redis.call('XADD', log_key, string.format('%.0f-0', sequence),
  'timestamp', timestamp, 'dependencies', clock_text(clock), 'operations', packed)

index = first_kv
for verb, key, content_type, value, ttl in operations(packed) do
  local kv_key, before = KEYS[index], 0
  local fields, expires = redis.call('HKEYS', kv_key), expiry_of_put(at, ttl)
  for _, field in ipairs(fields) do
    before = before + (field == 'deletes' and 0 or 1)
  end
  if before > 0 then
    redis.call('DEL', kv_key)
  end
  if verb == 'put' then
    redis.call('HSET', kv_key, version_field(dot, expires),
      timestamp .. ' ' .. content_type .. '\n' .. value)
  elseif before > 0 then
    redis.call('HSET', deletes_key, actor, string.format('%.0f', sequence))
  end
  index_key(keys_key, conflicts_key, key, before, verb == 'put' and 1 or 0)
  note_expiry(expiring_key, key, first_expiry(fields), expires)
  if string.byte(key) == 0 then
    redis.call('SADD', system_key, key)
    redis.call('PUBLISH', alert, key)
  end
  index = index + 1
end

clock[actor] = sequence
redis.call('HSET', clock_key, actor, string.format('%.0f', sequence))
redis.call('HSET', meta_key, 'timestamp', timestamp)
redis.call('PUBLISH', channel, dot)
for verb, key, _, value in operations(packed) do
  local ended = declared_end(verb, key, value)
  if ended then
    clock[ended] = closed
    redis.call('HSET', clock_key, ended, string.format('%.0f', closed))
    redis.call('PUBLISH', channel, string.format('%s:%.0f', ended, closed))
  end
end
committed[4] = clock_text(clock)
if request ~= '' then
  redis.call('HSET', requests_key, request,
    table.concat({ string.format('%.0f', now), fingerprint, dot, timestamp, committed[4] }, ' '))
  redis.call('RPUSH', order_key, request)
  for _ = 1, 2 do -- two for each that comes, so that what is too old goes away
    local oldest = redis.call('LINDEX', order_key, 0)
    local since = tonumber(string.match(redis.call('HGET', requests_key, oldest), '^%d+'))
    if redis.call('LLEN', order_key) <= requests_max and since > now - remembered_us then
      break
    end
    redis.call('LPOP', order_key)
    redis.call('HDEL', requests_key, oldest)
  end
end
return committed
