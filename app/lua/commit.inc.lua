--[[
  The commit of a write of this node: stamped, logged and applied, after all that is applied here.
  It needs `integers`, `system`, `clocks`, `operations`, `expiry`, `index`, `ends` and
  `workers`.

  `at` names the keys `clock`, `meta`, `deletes`, `log`, `keys`, `conflicts`, `system` and
  `expiring`, the channels `channel` and `alert`, and what the names of user keys begin with, `kv`.

  commit(at, clock, actor, list, packed, stamp, fields_of) -> dot, timestamp as text, the actors
  whose end it declares (nil for none). `list` has the operations, and `packed` the same as
  netstrings. `fields_of` says what the fields of their keys are called (look_at): so what is no
  hash is found before anything is written.
  `clock` covers the write afterwards. The first command is XADD, which Redis refuses when it is out
  of memory; after it, nothing is refused half-way.

  commit_alone(at, clock, actor, packed, stamp) -> dot, timestamp as text: the same of one write by
  itself, which is kept as well.

  keep(at, clock, actor, stamp, ended): what was committed of that actor, last with this timestamp,
  is in the clock, and all workers are told.
]]
local function look_at(fields_of, kv_key)
  fields_of[kv_key] = fields_of[kv_key] or redis.call('HKEYS', kv_key)
end

-- Later than everything in the causal past, whatever the wall clock says (Kulkarni et al. 2014). At
-- the last of all timestamps, which a clock that is far wrong may bring, time stands still: a later
-- one would be taken by no peer, and ties are all that is lost.
local function stamp_after(last, now)
  return math.min(math.max(now, tonumber(last or 0) + 1), timestamp_max)
end

-- From one write of an actor to the next only its own entry in the clock changes: these are the
-- texts before it and after it, and itself, the dot of the last write.
local around = {}
local function past_as_text(clock, actor)
  if around.actor ~= actor then
    local before, after = texts_around(clock, actor)
    around = {
      actor = actor,
      before = before ~= '' and before .. ' ' or '',
      after = after ~= '' and ' ' .. after or '',
      dot = clock[actor] and actor .. ':' .. integer(clock[actor]),
    }
  end
  if around.dot then
    return around.before .. around.dot .. around.after
  end
  return clock_text(clock)
end

local function commit(at, clock, actor, list, packed, stamp, fields_of)
  local sequence = (clock[actor] or 0) + 1
  local number, timestamp = integer(sequence), integer(stamp)
  local dot = actor .. ':' .. number
  redis.call('XADD', at.log, number .. '-0', 'timestamp', timestamp,
    'dependencies', past_as_text(clock, actor), 'operations', packed)
  clock[actor], around.dot = sequence, dot

  local ends
  for _, verb, key, content_type, value, ttl in each(list) do
    local kv_key = at.kv .. key
    local fields, after = fields_of[kv_key], {}
    local before, expired = versions_in(fields)
    local expires = expiry_of_put(stamp, ttl)
    if verb == 'put' then
      local field = version_field(dot, expires)
      redis.call('HSET', kv_key, field, timestamp .. ' ' .. content_type .. '\n' .. value)
      if #fields > 0 then
        redis.call('HDEL', kv_key, unpack(fields))
      end
      after[1] = field
    elseif before > 0 then
      redis.call('DEL', kv_key)
      redis.call('HSET', at.deletes, actor, number)
    end
    fields_of[kv_key] = after
    index_key(at.keys, at.conflicts, key, before, #after)
    note_expiry(at.expiring, key, expired, expires)
    if is_system(key) then
      redis.call('SADD', at.system, key)
      publish(at.alert, key)
      local ended = declared_end(verb, key, value)
      if ended then
        clock[ended], around, ends = closed, {}, ends or {}
        ends[#ends + 1] = ended
      end
    end
  end
  return dot, timestamp, ends
end

local function keep(at, clock, actor, stamp, ends)
  local sequence = integer(clock[actor])
  local applied = { actor .. ':' .. sequence }
  redis.call('HSET', at.clock, actor, sequence)
  redis.call('HSET', at.meta, 'timestamp', integer(stamp))
  for _, ended in ipairs(ends) do
    redis.call('HSET', at.clock, ended, integer(closed))
    applied[#applied + 1] = ended .. ':' .. integer(closed)
  end
  tell_workers(at.channel, table.concat(applied, ' '))
end

local function commit_alone(at, clock, actor, packed, stamp)
  local list, fields_of = stored(packed), {}
  for _, _, key in each(list) do
    look_at(fields_of, at.kv .. key)
  end
  local dot, timestamp, ends = commit(at, clock, actor, list, packed, stamp, fields_of)
  keep(at, clock, actor, stamp, ends or {})
  return dot, timestamp
end
