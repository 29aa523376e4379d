--[[
  Commit what waits in the lane of an earlier incarnation, where no member has it and none ever
  will: under new names, for the old ones may be in use.

  KEYS[1]  clock            hash  actor -> sequence applied here
  KEYS[2]  meta             hash  `actor`: who writes here; `timestamp`: the last one; `merging`: a
                                  snapshot that is being merged; `deferred_bytes`
  KEYS[3]  deletes          hash  actor -> its last delete that came to a key with versions
  KEYS[4]  log:{actor}      stream  entry id SEQUENCE-0
  KEYS[5]  keys             sorted set  the index of keys (index.inc.lua)
  KEYS[6]  conflicts        sorted set  those with siblings
  KEYS[7]  system           set   the keys of the system that were ever written
  KEYS[8]  expiring         sorted set  keys by when the first of their versions expires
  KEYS[9]  deferred         hash  lane in which something waits -> the last sequence it has given
  KEYS[10] deferred:{lane}  hash  what waits in it, by sequence (deferred.inc.lua)
  KEYS[11] requests         hash  Idempotency-Key -> the write that was done for it

  ARGV[1]  actor      who writes
  ARGV[2]  lane       of an earlier incarnation
  ARGV[3]  after      the last write of the lane that any member has
  ARGV[4]  now        microseconds since 1970, by the worker's wall clock
  ARGV[5]  kv stem    what the names of the user keys begin with
  ARGV[6]  channel    where to tell the other workers what was applied
  ARGV[7]  alert      ... of a key of the system
  ARGV[8]  known      the last sequence that the worker knows to be the actor's

  Returns  1 if a write was committed, or the lane was ended; else 0: more of it is here meanwhile,
           or what comes next waits for its context, or nothing waits, or it is the actor's own lane;
           then the clock as text.
           Or nothing (an empty list) if this Redis does not belong to `actor`, or has lost writes
           of it that the worker has seen, and would give their dots again (G4); or `merging` alone.
           But for the first, nothing was changed.

  Atomic, because a crash between the commit and the queue would lose a write, or commit it twice
  (G2, G3).

  How far it is done is written down just before each write (deferred.inc.lua), in one of its own: the
  node may be put back again to where the write waits still. With the last of them the end of the
  lane is declared (ends.inc.lua). So whoever waits for an old name is served from where the write is
  applied under its new one, at every node; and what may turn up under an old name after all is a
  duplicate there.

  Whoever calls this has all that any member has of the node's earlier names (app/lost.py, is_home).
  Twin: tests/model.py, Node.commit_former.
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
local actor, lane, after, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local kv_stem, channel, alert, known = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])

local unfit, last = state_of(meta_key, 'actor', actor)
if unfit then
  return unfit
end

local clock = load_clock(clock_key)
if (clock[actor] or 0) < known then
  return {}
end
if lane == actor .. '+' then
  return { 0, clock_text(clock) }
end

local sequences = {}
for _, sequence in ipairs(redis.call('HKEYS', queue)) do
  sequences[#sequences + 1] = tonumber(sequence)
end
table.sort(sequences)
if #sequences == 0 or log_end(kv_stem, lane, clock[lane] or 0) ~= after then
  return { 0, clock_text(clock) }
end

local at = {
  clock = clock_key, meta = meta_key, deletes = deletes_key, log = log_key, keys = keys_key,
  conflicts = conflicts_key, system = system_key, expiring = expiring_key, kv = kv_stem,
  channel = channel, alert = alert,
}
local function write(packed)
  last = stamp_after(last, now)
  return commit_alone(at, clock, actor, packed, last)
end

local function write_down(key, value)
  write(string.format('3:put,%d:', #key) .. key
    .. string.format(',10:text/plain,%d:%s,', #value, value))
end

-- What came home under its other name waits no more, nor what is committed now. All of it is taken
-- away at the end: Redis refuses nothing, be it full, once a script has changed something.
local done, over = done_of(kv_stem, clock, lane), {}
while sequences[1] and sequences[1] <= done do
  over[#over + 1] = table.remove(sequences, 1)
end

local first = table.remove(sequences, 1)
if first then
  local head = waiting_at(queue, first)
  for other in pairs(lacking(kv_stem, clock, head.context)) do
    -- What it has seen of its own lane was committed before it, under another name.
    if other ~= lane then
      return { 0, clock_text(clock) }
    end
  end
  local new_name = actor .. ':' .. integer((clock[actor] or 0) + 2)
  write_down(done_key(lane), integer(first) .. ' ' .. new_name)
  local dot, timestamp = write(head.packed)
  note_done(requests_key, head.request, lane .. ':' .. integer(first), dot, timestamp,
    clock_text(clock))
  over[#over + 1] = first
end
if #sequences == 0 then
  if clock[lane] ~= closed then
    write_down(string.char(0) .. 'end/' .. lane, integer(after))
  end
  redis.call('HDEL', deferred_key, lane)
end
for _, sequence in ipairs(over) do
  take_away(meta_key, queue, sequence, waiting_at(queue, sequence).packed)
end
return { 1, clock_text(clock) }
