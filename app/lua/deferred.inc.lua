--[[
  What waits in the lanes of a node: writes that were accepted, and are committed later.

  An entry of `deferred:{lane}` is `SINCE CONTEXT`, a line break, the Idempotency-Key or nothing, a
  line break, and the operations (app/codec.py packs and unpacks it). A lane has no gaps, so what
  waits in it follows what was committed of it.
]]
-- The entry at this sequence; nothing if there is none.
local function waiting_at(queue, sequence)
  local entry = redis.call('HGET', queue, string.format('%.0f', sequence))
  if not entry then
    return nil
  end
  local _, finish, context, request = string.find(entry, '^%d+ ([^\n]*)\n([^\n]*)\n')
  return { context = context, request = request, packed = string.sub(entry, finish + 1) }
end

-- It waits no more.
local function take_away(meta_key, queue, sequence, packed)
  redis.call('HDEL', queue, string.format('%.0f', sequence))
  redis.call('HINCRBY', meta_key, 'deferred_bytes', -#packed)
end

-- What was remembered of its request as accepted under `name` is done now, as `dot`.
local function note_done(requests_key, request, name, dot, timestamp, clock_after)
  local accepted = request ~= '' and redis.call('HGET', requests_key, request)
  if accepted then
    local since, asked, named = string.match(accepted, '^(%d+) (%S+) (%S+) ')
    if named == name then
      redis.call('HSET', requests_key, request,
        table.concat({ since, asked, dot, timestamp, clock_after }, ' '))
    end
  end
end
