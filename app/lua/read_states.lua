--[[
  Read what keys hold, as many of them as a part of a snapshot has room for.

  KEYS[1+] kv:{key}  hash  one per key, in order

  ARGV[1]  room   bytes that they may take in the part
  ARGV[2]  least  so many of the first keys are read whatever they take

  Returns  what room is left, less than none if those took more; then for each key that was read
           what it holds, as HGETALL gives it.

  Atomic, so that what is counted is what is read.
]]
--@include parts
local room, least = tonumber(ARGV[1]), tonumber(ARGV[2])
local first = 1

local reply = { room }
for i = first, #KEYS do
  local state = redis.call('HGETALL', KEYS[i])
  local left = reply[1] - part_bytes(KEYS[i], state)
  if left < 0 and i > least then
    return reply
  end
  reply[1], reply[i + 1] = left, state
end
return reply
