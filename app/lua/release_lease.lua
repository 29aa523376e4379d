--[[
  Free a lease, if its holder asks.

  KEYS[1]  lease:{peer}  string: its holder

  ARGV[1]  holder        who asks

  Returns  1 if it was freed, 0 if another has it or nobody has.

  Atomic, because between reading the holder and deleting the lease it could pass on.
]]
local lease_key = KEYS[1]
local holder = ARGV[1]

if redis.call('GET', lease_key) == holder then
  return redis.call('DEL', lease_key)
end
return 0
