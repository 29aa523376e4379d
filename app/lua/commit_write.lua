--[[
  Commit a write of this node: name it, stamp it, apply it, log it, advance the clock.

  KEYS[1]  clock        hash    actor -> sequence applied here
  KEYS[2]  meta         hash    `actor`: who writes here; `timestamp`: the last one
  KEYS[3]  deletes      hash    actor -> its last delete that came to a key with versions
  KEYS[4]  log:{actor}  stream  entry id SEQUENCE-0
  KEYS[5]  system       set     the keys of the system that were ever written: those that begin
                                with a NUL
  KEYS[6+] kv:{key}     hash    one per operation, in order

  ARGV[1]  actor        who writes
  ARGV[2]  now          microseconds since 1970, by the worker's wall clock
  ARGV[3]  operations   netstrings (operations.inc.lua)
  ARGV[4]  channel      where to tell the other workers
  ARGV[5]  known        the last sequence that the worker knows to be the actor's
  ARGV[6]  alert        the channel where to tell the workers of a key of the system

  Returns  sequence, timestamp, then the clock after the write as text;
           or nothing (an empty list) if this Redis does not belong to `actor`, or has lost writes
           that the worker has seen, and nothing was changed: it was emptied, replaced or put back
           under a running node, and would give dots again that name other writes (G4).

  Atomic, because a crash between value, log and clock would lose the write, or let another
  have its dot (G3, G4). The first command that writes is XADD, which Redis refuses when it is
  out of memory; after it, nothing is refused half-way.

  The write depends on all that is applied here, so it supersedes all versions that are here.
  Twin: tests/model.py, Node.write.
]]
--@include clocks
--@include operations
local clock_key, meta_key, deletes_key, log_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local system_key = KEYS[5]
local actor, now, packed, channel = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local known, alert = tonumber(ARGV[5]), ARGV[6]

local owner, last = unpack(redis.call('HMGET', meta_key, 'actor', 'timestamp'))
if owner ~= actor then
  return {}
end

local clock = load_clock(clock_key)
local sequence = (clock[actor] or 0) + 1
if sequence <= known then
  return {}
end
local dot = string.format('%s:%.0f', actor, sequence)
-- Later than everything in the causal past, whatever the wall clock says (Kulkarni et al. 2014).
local timestamp = string.format('%.0f', math.max(now, tonumber(last or 0) + 1))

redis.call('XADD', log_key, string.format('%.0f-0', sequence),
  'timestamp', timestamp, 'dependencies', clock_text(clock), 'operations', packed)

local index = 6
for verb, key, content_type, value in operations(packed) do
  local had_versions = redis.call('DEL', KEYS[index]) == 1
  if verb == 'put' then
    redis.call('HSET', KEYS[index], dot, timestamp .. ' ' .. content_type .. '\n' .. value)
  elseif had_versions then
    redis.call('HSET', deletes_key, actor, string.format('%.0f', sequence))
  end
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
return { sequence, timestamp, clock_text(clock) }
