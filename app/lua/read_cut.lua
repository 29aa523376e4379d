--[[
  Read the end of a snapshot: the keys written since a clock, and the clock, at one instant.

  KEYS[1]  clock    hash  actor -> sequence applied here
  KEYS[2]  meta     hash  `timestamp`: the last one; `merging`: a snapshot that is being merged
  KEYS[3]  deletes  hash  actor -> its last delete that came to a key with versions here

  ARGV[1]  since      a clock, as text: what was written up to it has been read
  ARGV[2]  kv stem    what the names of the user keys begin with
  ARGV[3]  log stem   ... of the logs
  ARGV[4]  most       writes since then; if there are more, not now
  ARGV[5]  room       bytes that the keys may take in a part, unless it is one key, and that are
                      read of the logs, but for the last write; if there are more, not now

  Returns  clock and deletes as text, timestamp, then for each key its name and its fields, flat;
           or nothing (an empty list) if there is more than that, or the node merges a snapshot
           itself; or `trimmed` if the logs do not go back to that clock.

  Atomic, because the cut says that the keys are just so at its clock.
]]
--@include integers
--@include system
--@include clocks
--@include operations
--@include ends
--@include parts
local clock_key, meta_key, deletes_key = KEYS[1], KEYS[2], KEYS[3]
local since, kv_stem, log_stem = parse_clock(ARGV[1]), ARGV[2], ARGV[3]
local most, room = tonumber(ARGV[4]), tonumber(ARGV[5])

local timestamp, merging = unpack(redis.call('HMGET', meta_key, 'timestamp', 'merging'))
if merging then
  return {}
end
local clock, writes = load_clock(clock_key), 0
local last = {}
for actor, sequence in pairs(clock) do
  last[actor] = log_end(kv_stem, actor, sequence)
  writes = writes + math.max(0, last[actor] - (since[actor] or 0))
end
if writes > most then
  return {}
end

local reply = { clock_text(clock), clock_text(load_clock(deletes_key)), timestamp or '0' }
local seen, size, logged = {}, 0, 0

-- The key is in the reply. False: there is no room for it.
local function taken(key)
  if not seen[key] then
    local state = redis.call('HGETALL', kv_stem .. key)
    size = size + part_bytes(key, state)
    if size > room and next(seen) then
      return false
    end
    seen[key] = true
    reply[#reply + 1] = key
    reply[#reply + 1] = state
  end
  return true
end

for actor, sequence in pairs(last) do
  -- One write at a time, for each may be large.
  for n = (since[actor] or 0) + 1, sequence do
    local id = integer(n) .. '-0'
    local entry = redis.call('XRANGE', log_stem .. actor, id, id)[1]
    if not entry then
      return { 'trimmed' }
    end
    if logged > room then
      return {}
    end
    local fields = entry[2]
    for i = 1, #fields, 2 do
      if fields[i] == 'operations' then
        logged = logged + #fields[i + 1]
        for _, _, key in each(stored(fields[i + 1])) do
          if not taken(key) then
            return {}
          end
        end
      end
    end
  end
end
return reply
