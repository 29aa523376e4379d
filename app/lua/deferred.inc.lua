--[[
  What waits in the lanes of a node: writes that were accepted, and are committed later.

  An entry of `deferred:{lane}` is `SINCE CONTEXT`, a line break, the Idempotency-Key or nothing, a
  line break, and the operations (app/codec.py packs and unpacks it). A lane has no gaps, so what
  waits in it follows what was committed of it.

  The key of the system NUL `done/{lane}` holds a sequence of a lane of an earlier incarnation, and a
  dot: `5 C~x1:12`. All of the lane before it is done under other names, and that too where the write
  of that name is applied. It is written just before that write: so whoever has the one has the other,
  or it is lost, and the node that is put back once more knows what it need not do again. And it is
  good for what waits in a lane, in place of the old names. Else two lanes might wait for each other:
  one for an old name, the other for what waits for that.
]]
local function done_key(lane)
  return string.char(0) .. 'done/' .. lane
end

-- Up to where the lane of an earlier incarnation is done under other names.
local function done_of(kv_stem, clock, lane)
  local done, flat = 0, redis.call('HGETALL', kv_stem .. done_key(lane))
  for i = 1, #flat, 2 do
    local sequence, actor, number = string.match(flat[i + 1], '\n(%d+) (%S+):(%d+)$')
    if flat[i] ~= 'deletes' and sequence then
      local is_here = tonumber(number) <= (clock[actor] or 0)
      done = math.max(done, tonumber(sequence) - (is_here and 0 or 1))
    end
  end
  return done
end

-- What the context names that is not applied here, nor was done under another name.
local function lacking(kv_stem, clock, context)
  local beyond = {}
  for other, sequence in pairs(parse_clock(context)) do
    if sequence > (clock[other] or 0) and sequence > done_of(kv_stem, clock, other) then
      beyond[other] = sequence
    end
  end
  return beyond
end

-- The entry at this sequence; nothing if there is none.
local function waiting_at(queue, sequence)
  local entry = redis.call('HGET', queue, integer(sequence))
  if not entry then
    return nil
  end
  local _, finish, context, request = string.find(entry, '^%d+ ([^\n]*)\n([^\n]*)\n')
  return { context = context, request = request, packed = string.sub(entry, finish + 1) }
end

-- It waits no more.
local function take_away(meta_key, queue, sequence, packed)
  redis.call('HDEL', queue, integer(sequence))
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
