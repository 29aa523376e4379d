--[[
  What the workers of a node tell each other of its clock.

  tell_workers(channel, applied): whoever else listens knows what was applied, as the text of a clock.
  The worker that asks is told by the answer, and listens, too: where it is alone, nothing is
  published, for that costs Redis and the worker as much as a write. One that begins to listen reads
  the clock first, and all read it again where they were told nothing for a second.
]]
local function tell_workers(channel, applied)
  if redis.call('PUBSUB', 'NUMSUB', channel)[2] > 1 then
    redis.call('PUBLISH', channel, applied)
  end
end
