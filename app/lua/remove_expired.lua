--[[
  Remove versions that have expired, those first that have expired longest, and free their memory.

  KEYS[1]  meta       hash  `node`: whose Redis this is; `timestamp`: the last one; `merging`: a
                            snapshot that is being merged
  KEYS[2]  expiring   sorted set  keys by when the first of their versions expires (expiry.inc.lua)
  KEYS[3]  deletes    hash  actor -> its last delete that came to a key with versions
  KEYS[4]  keys       sorted set  the index of keys (index.inc.lua)
  KEYS[5]  conflicts  sorted set  those with siblings

  ARGV[1]  node       whose Redis this must be
  ARGV[2]  now        microseconds since 1970
  ARGV[3]  most       keys to look at in this call
  ARGV[4]  kv stem    what the names of the user keys begin with

  Returns  how many versions were removed, and 1 if more keys have some; or nothing (an empty list)
           if this Redis is not the node's; or `merging` alone: keys are merged with a snapshot. In
           these cases nothing was changed.

  Atomic, so that the index is right; and once a version is gone, its trace is there. For it is as
  if its own write had deleted it: what that write superseded must not be shown again, elsewhere, to
  who has been shown the rest of the key, or that it is absent (docs/adr/0004).

  No write, and in no log: every node does it by itself. First the removals, which a full Redis
  carries out; it refuses nothing that comes after them.
  Twin: tests/model.py, Node.remove_expired.
]]
--@include integers
--@include system
--@include clocks
--@include state
--@include index
--@include expiry
local meta_key, expiring_key, deletes_key = KEYS[1], KEYS[2], KEYS[3]
local keys_key, conflicts_key = KEYS[4], KEYS[5]
local node, now, most, kv_stem = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

local unfit, last = state_of(meta_key, 'node', node)
if unfit then
  return unfit
end
now = hlc_now(now, last)

local removed, traces = 0, {}
local due = redis.call('ZRANGEBYSCORE', expiring_key, '-inf', integer(now),
  'LIMIT', 0, most + 1)
for i = 1, math.min(#due, most) do
  local key, kv_key = due[i], kv_stem .. due[i]
  local fields, seen_deletes, left, expired = redis.call('HKEYS', kv_key), {}, {}, {}
  for _, field in ipairs(fields) do
    if field == 'deletes' then
      seen_deletes = parse_clock(redis.call('HGET', kv_key, field))
    elseif has_expired(field, now) then
      expired[#expired + 1] = field
    else
      left[#left + 1] = field
    end
  end
  for _, field in ipairs(expired) do
    note_dot(seen_deletes, dot_of(field))
    note_dot(traces, dot_of(field))
  end
  if #left == 0 then
    redis.call('DEL', kv_key)
  else
    redis.call('HDEL', kv_key, unpack(expired))
    redis.call('HSET', kv_key, 'deletes', clock_text(seen_deletes))
  end
  index_key(keys_key, conflicts_key, key, #left + #expired, #left)
  note_expiry(expiring_key, key, first_expiry(fields), first_expiry(left))
  removed = removed + #expired
end

local deletes = load_clock(deletes_key)
for actor, sequence in pairs(traces) do
  if sequence > (deletes[actor] or 0) then
    redis.call('HSET', deletes_key, actor, integer(sequence))
  end
end
return { removed, #due > most and 1 or 0 }
