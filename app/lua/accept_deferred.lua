--[[
  Accept a write of this node that is committed later: name it, and keep it.

  KEYS[1]  clock            hash  actor -> sequence applied here
  KEYS[2]  meta             hash  `actor`: who writes here; `deferred_bytes`: of all operations
                                  that wait in lanes; `merging`: a snapshot that is being merged
  KEYS[3]  deferred         hash  lane in which something waits -> the last sequence it has given
  KEYS[4]  deferred:{lane}  hash  what waits in it, by sequence (deferred.inc.lua)
  KEYS[5]  requests         hash  Idempotency-Key -> the write that was done for it
  KEYS[6]  requests-order   list  those keys, oldest first

  ARGV[1]  actor         who writes
  ARGV[2]  lane          the actor of its deferred writes
  ARGV[3]  now           microseconds since 1970, by the worker's wall clock
  ARGV[4]  context       what must be applied here before it, as text
  ARGV[5]  operations    netstrings (operations.inc.lua)
  ARGV[6]  known         the last sequence that the worker knows the lane to have given
  ARGV[7]  deferred stem  what the names of the queues begin with
  ARGV[8]  most          writes that may wait
  ARGV[9]  most bytes    of operations that may wait
  ARGV[10] request       the Idempotency-Key, empty for none
  ARGV[11] fingerprint   of what is asked, for no other request to pass for this one
  ARGV[12] requests_max  requests to remember

  Returns  `accepted`, dot, the clock as text; 1 if it was accepted before, for this very request,
           else 0;
           or `committed`, dot, timestamp, the clock after the write as text, and 1: it was done
           before, for this very request;
           or `reused`, if the request that this Idempotency-Key was sent with before is another;
           or `full`, if no more may wait;
           or nothing (an empty list) if this Redis does not belong to `actor`, or has lost writes
           that the worker has seen, and would give dots again that name other writes (G4);
           or `merging`: so that it is as for any other write.
           But for the first, nothing was changed.

  Atomic, because of two that come at once each must have a dot of its own, and the next one in the
  lane (G4); and a dot that was given must be kept with what it names (G3). The next dot is counted
  from what is committed and what waits, so there is no counter that could be lost alone.
  Twin: tests/model.py, Node.accept.
]]
--@include integers
--@include clocks
--@include state
--@include requests
local clock_key, meta_key, deferred_key, queue = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local requests_key, order_key = KEYS[5], KEYS[6]
local actor, lane, now, context, packed = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local known, deferred_stem = tonumber(ARGV[6]), ARGV[7]
local most, most_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
local request, fingerprint, requests_max = ARGV[10], ARGV[11], tonumber(ARGV[12])

local unfit = state_of(meta_key, 'actor', actor)
if unfit then
  return unfit
end

local clock = load_clock(clock_key)
local given = math.max(clock[lane] or 0, tonumber(redis.call('HGET', deferred_key, lane) or 0))
if given < known then
  return {}
end

local done = done_before(requests_key, deferred_stem, clock, request, fingerprint)
if done then
  return done
end

local waiting = 0
for _, one in ipairs(redis.call('HKEYS', deferred_key)) do
  waiting = waiting + redis.call('HLEN', deferred_stem .. one)
end
local bytes = tonumber(redis.call('HGET', meta_key, 'deferred_bytes') or 0)
if waiting >= most or bytes + #packed > most_bytes then
  return { 'full' }
end

local sequence = integer(given + 1)
local dot = lane .. ':' .. sequence
redis.call('HSET', queue, sequence,
  integer(now) .. ' ' .. context .. '\n' .. request .. '\n' .. packed)
redis.call('HSET', deferred_key, lane, sequence)
redis.call('HINCRBY', meta_key, 'deferred_bytes', #packed)
if request ~= '' then
  remember(requests_key, order_key, request, now, fingerprint, { dot, '0', context }, requests_max)
end
return { 'accepted', dot, clock_text(clock), 0 }
