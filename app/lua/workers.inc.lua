--[[
  What the workers of a node tell each other.

  publish(channel, text): whoever listens there is told. It is a notice and no more: where the user
  of Redis may not publish, what a script has written is whole all the same.

  tell_workers(channel, applied): whoever else listens knows what was applied, as the text of a clock.
  The worker that asks is told by the answer, and listens, too: where it is alone, nothing is
  published, for that costs Redis and the worker as much as a write. One that begins to listen reads
  the clock first, and all read it again where they were told nothing for a second.
]]
local function publish(channel, text)
  redis.pcall('PUBLISH', channel, text)
end

local function tell_workers(channel, applied)
  local listening = redis.pcall('PUBSUB', 'NUMSUB', channel)
  if listening.err or listening[2] > 1 then
    publish(channel, applied)
  end
end
