--[[
  Commit the deferred writes whose context is covered, in the order in which they were accepted.

  KEYS[1]  clock            hash  actor -> sequence applied here
  KEYS[2]  meta             hash  `actor`: who writes here; `timestamp`: the last one; `merging`: a
                                  snapshot that is being merged; `deferred_bytes`
  KEYS[3]  deletes          hash  actor -> its last delete that came to a key with versions
  KEYS[4]  log:{lane}       stream  entry id SEQUENCE-0
  KEYS[5]  keys             sorted set  the index of keys (index.inc.lua)
  KEYS[6]  conflicts        sorted set  those with siblings
  KEYS[7]  system           set   the keys of the system that were ever written
  KEYS[8]  expiring         sorted set  keys by when the first of their versions expires
  KEYS[9]  deferred         hash  lane in which something waits -> the last sequence it has given
  KEYS[10] deferred:{lane}  hash  what waits in it, by sequence (deferred.inc.lua)
  KEYS[11] requests         hash  Idempotency-Key -> the write that was done for it

  ARGV[1]  actor      who writes
  ARGV[2]  lane       the actor of its deferred writes
  ARGV[3]  now        microseconds since 1970, by the worker's wall clock
  ARGV[4]  kv stem    what the names of the user keys begin with
  ARGV[5]  deferred stem  ... of the queues
  ARGV[6]  channel    where to tell the other workers what was applied
  ARGV[7]  alert      ... of a key of the system
  ARGV[8]  drain_max  writes to commit in this call
  ARGV[9]  known      the last sequence that the worker knows to be the lane's

  Returns  how many were committed; 1 if drain_max ended that; the clock as text; what the next one
           still lacks, as text, empty if none waits; and the other lanes in which something waits,
           as text, separated by spaces.
           Or nothing (an empty list) if this Redis does not belong to `actor`, or has lost writes
           of the lane that the worker has seen, and would commit them again (G4); or `merging`
           alone: what is here is no state to write upon. In these cases nothing was changed.

  Atomic, because a crash between the commit and the queue would lose a write, or commit it twice
  (G2, G3).

  What was accepted is committed as if it came now: its dependencies are all that is applied here,
  and its timestamp is of now. So it is a write as any other, to every rule that there is.

  What waits in the lane of an earlier incarnation may have been committed and sent before Redis was
  put back. Where it has come home, it waits no more.
  Twin: tests/model.py, Node.commit_deferred.
]]
--@include integers
--@include system
--@include clocks
--@include state
--@include operations
--@include expiry
--@include index
--@include ends
--@include workers
--@include commit
--@include deferred
local clock_key, meta_key, deletes_key, log_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local keys_key, conflicts_key, system_key, expiring_key = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local deferred_key, queue, requests_key = KEYS[9], KEYS[10], KEYS[11]
local actor, lane, now, kv_stem = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local deferred_stem, channel, alert, drain_max = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])
local known = tonumber(ARGV[9])

local unfit, last = state_of(meta_key, 'actor', actor)
if unfit then
  return unfit
end

local clock = load_clock(clock_key)
if (clock[lane] or 0) < known then
  return {}
end

local at = {
  clock = clock_key, meta = meta_key, deletes = deletes_key, log = log_key, keys = keys_key,
  conflicts = conflicts_key, system = system_key, expiring = expiring_key, kv = kv_stem,
  channel = channel, alert = alert,
}

local committed, more, lacks = 0, 0, ''
local head = waiting_at(queue, (clock[lane] or 0) + 1)
while head do
  lacks = clock_text(lacking(kv_stem, clock, head.context))
  if lacks ~= '' then
    break
  end
  if committed == drain_max then
    more = 1
    break
  end
  last = stamp_after(last, now)
  local dot, timestamp = commit_alone(at, clock, lane, head.packed, last)
  take_away(meta_key, queue, clock[lane], head.packed)
  note_done(requests_key, head.request, dot, dot, timestamp, clock_text(clock))
  committed = committed + 1
  head = waiting_at(queue, clock[lane] + 1)
end

local former = {}
for _, other in ipairs(redis.call('HKEYS', deferred_key)) do
  local others = deferred_stem .. other
  if other ~= lane and (clock[other] or 0) > 0 then
    local home = log_end(kv_stem, other, clock[other])
    for _, sequence in ipairs(redis.call('HKEYS', others)) do
      if tonumber(sequence) <= home then
        take_away(meta_key, others, tonumber(sequence), waiting_at(others, sequence).packed)
      end
    end
  end
  if redis.call('EXISTS', others) == 0 then
    redis.call('HDEL', deferred_key, other)
  elseif other ~= lane then
    former[#former + 1] = other
  end
end
table.sort(former)
return { committed, more, clock_text(clock), lacks, table.concat(former, ' ') }
