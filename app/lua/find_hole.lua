--[[
  Find a log that does not hold what the clock says: writes are missing in the middle of it.

  KEYS[1]  clock     hash  actor -> sequence applied here

  ARGV[1]  log stem  what the names of the logs begin with
  ARGV[2]  kv stem   ... of the user keys

  Returns  nothing (an empty list) if there is none; else of one such log: actor, the sequence in
           the clock, the number of entries, and the ids of the first and the last one.

  A log may begin anywhere, and may be empty, for what every member has is taken away from it. But
  it ends where the clock does, or the actor, if its end is declared (a disk that was found again
  may hold more); and lacks nothing in between.

  Atomic, so that clock and logs are of one moment.
]]
--@include system
--@include ends
local clock_key = KEYS[1]
local log_stem, kv_stem = ARGV[1], ARGV[2]

local flat = redis.call('HGETALL', clock_key)
for i = 1, #flat, 2 do
  local actor, sequence = flat[i], tonumber(flat[i + 1])
  local log = log_stem .. actor
  local count = redis.call('XLEN', log)
  if count > 0 then
    local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1][1]
    local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1][1]
    local from, to = tonumber(string.match(first, '^%d+')), tonumber(string.match(last, '^%d+'))
    local ends = log_end(kv_stem, actor, sequence)
    if to < ends or (to > ends and sequence < closed) or to - from + 1 ~= count then
      return { actor, flat[i + 1], count, first, last }
    end
  end
end
return {}
