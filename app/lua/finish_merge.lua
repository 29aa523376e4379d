--[[
  End a merge: all keys are merged, so what the cut covers is applied here.

  KEYS[1]  clock     hash  actor -> sequence applied here
  KEYS[2]  meta      hash  `merging`; `timestamp`: the last one
  KEYS[3]  deletes   hash  actor -> its last delete that came to a key with versions here
  KEYS[4]  received  hash  actor with waiting writes -> highest sequence without a gap
  KEYS[5]  snapshot  hash  of the snapshot: `clock`, `deletes`, `timestamp`
  KEYS[6]  staging   set   the snapshots of which something may be staged

  ARGV[1]  id            the snapshot
  ARGV[2]  log stem      what the names of the logs begin with
  ARGV[3]  pending stem  ... of the pending buffer
  ARGV[4]  channel       where to tell the other workers what was applied
  ARGV[5]  alert         ... and that keys of the system may have changed

  Returns  the clock, as text; empty if that snapshot is not being merged, and nothing was changed.

  The log of an actor that the cut has brought on begins anew after the cut: a log has no gaps.
  What waited here and is covered now waits no more; the next drain looks at the rest.

  Atomic, because before it the clock says too little of the keys, and after it just what they hold.
  Twin: tests/model.py, Node.merge.
]]
--@include integers
--@include clocks
--@include workers
local clock_key, meta_key, deletes_key = KEYS[1], KEYS[2], KEYS[3]
local received_key, snapshot_key, staging_key = KEYS[4], KEYS[5], KEYS[6]
local id, log_stem, pending_stem, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local alert = ARGV[5]

local merging, timestamp = unpack(redis.call('HMGET', meta_key, 'merging', 'timestamp'))
if merging ~= id then
  return ''
end
local cut, cut_deletes, cut_timestamp =
  unpack(redis.call('HMGET', snapshot_key, 'clock', 'deletes', 'timestamp'))
local clock, advanced = load_clock(clock_key), {}


redis.call('HSET', meta_key, 'timestamp',
  integer(math.max(tonumber(timestamp or 0), tonumber(cut_timestamp))))
for actor, sequence in pairs(parse_clock(cut)) do
  if sequence > (clock[actor] or 0) then
    clock[actor], advanced[actor] = sequence, sequence
    redis.call('HSET', clock_key, actor, integer(sequence))
    redis.call('UNLINK', log_stem .. actor)
    local queue = pending_stem .. actor
    for _, waiting in ipairs(redis.call('HKEYS', queue)) do
      if tonumber(waiting) <= sequence then
        redis.call('HDEL', queue, waiting)
      end
    end
  end
end
local deletes = load_clock(deletes_key)
for actor, sequence in pairs(parse_clock(cut_deletes)) do
  if sequence > (deletes[actor] or 0) then
    redis.call('HSET', deletes_key, actor, integer(sequence))
  end
end
redis.call('HDEL', meta_key, 'merging')
redis.call('DEL', snapshot_key)
redis.call('SREM', staging_key, id)
if next(advanced) then
  tell_workers(channel, clock_text(advanced))
end
publish(alert, '')
return clock_text(clock)
