--[[
  Take a lease that is free, or keep one that is held.

  KEYS[1]  lease:{peer}  string with a time to live: its holder

  ARGV[1]  holder        who wants it
  ARGV[2]  ttl           milliseconds until it is free again

  Returns  1 if `holder` has it now, 0 if another has.

  Atomic, because between reading the holder and extending it the lease could pass on.
]]
local lease_key = KEYS[1]
local holder, ttl = ARGV[1], ARGV[2]

local current = redis.call('GET', lease_key)
if current and current ~= holder then
  return 0
end
redis.call('SET', lease_key, holder, 'PX', ttl)
return 1
