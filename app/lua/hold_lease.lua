--[[
  Take a lease that is free, or keep one that is held.

  KEYS[1]  lease:{peer}  string with a time to live: its holder

  ARGV[1]  holder        who wants it
  ARGV[2]  ttl           milliseconds until it is free again

  Returns  1 if `holder` has it now, 0 if another has.

  Redis ends a key at a moment of its wall clock. Where that clock was set back, a lease would last
  for as long as it was set back by, and if its holder is dead nobody would send for all that time.
  So one with longer to go than a lease lasts is free. If its holder lives after all, two send for a
  moment, which only repeats.

  Atomic, because between reading the holder and extending it the lease could pass on.
]]
local lease_key = KEYS[1]
local holder, ttl = ARGV[1], ARGV[2]

local current = redis.call('GET', lease_key)
if current and current ~= holder and redis.call('PTTL', lease_key) <= tonumber(ttl) then
  return 0
end
redis.call('SET', lease_key, holder, 'PX', ttl)
return 1
