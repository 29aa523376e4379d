--[[
  The commit of a write of this node: stamped, logged and applied, after all that is applied here.
  It needs `clocks`, `operations`, `expiry`, `index`, `ends` and `workers`.

  `at` names the keys `clock`, `meta`, `deletes`, `log`, `keys`, `conflicts`, `system` and
  `expiring`, and the channels `channel` and `alert`.

  commit(at, clock, actor, packed, stamp, kv_keys, first, fields_of) -> dot, the actors whose end it
  declares, timestamp as text. `kv_keys` has the `kv:` keys of the operations, in order, from `first`
  on, and `fields_of` says what the fields of each are called (fields_of_keys): what is no hash is
  found before anything is written.
  `clock` covers the write afterwards. The first command is XADD, which Redis refuses when it is out
  of memory; after it, nothing is refused half-way.

  commit_alone(at, clock, actor, packed, stamp, kv_stem) -> dot, timestamp as text: the same of one
  write by itself, which is kept as well.

  keep(at, clock, actor, stamp, ended): what was committed of that actor, last with this timestamp,
  is in the clock, and all workers are told.
]]
local function fields_of_keys(kv_keys)
  local fields_of = {}
  for _, kv_key in ipairs(kv_keys) do
    fields_of[kv_key] = redis.call('HKEYS', kv_key)
  end
  return fields_of
end

-- Later than everything in the causal past, whatever the wall clock says (Kulkarni et al. 2014).
local function stamp_after(last, now)
  return math.max(now, tonumber(last or 0) + 1)
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
      dot = clock[actor] and string.format('%s:%.0f', actor, clock[actor]),
    }
  end
  if around.dot then
    return around.before .. around.dot .. around.after
  end
  return clock_text(clock)
end

local function commit(at, clock, actor, packed, stamp, kv_keys, first, fields_of)
  local number = string.format('%.0f', (clock[actor] or 0) + 1)
  local dot = actor .. ':' .. number
  local timestamp = string.format('%.0f', stamp)
  redis.call('XADD', at.log, number .. '-0', 'timestamp', timestamp,
    'dependencies', past_as_text(clock, actor), 'operations', packed)

  for index, verb, key, content_type, value, ttl in operations(packed) do
    local kv_key, before = kv_keys[first + index - 1], 0
    local fields, expires = fields_of[kv_key], expiry_of_put(stamp, ttl)
    for _, field in ipairs(fields) do
      before = before + (field == 'deletes' and 0 or 1)
    end
    if before > 0 then
      redis.call('DEL', kv_key)
    end
    local after = {}
    if verb == 'put' then
      after[1] = version_field(dot, expires)
      redis.call('HSET', kv_key, after[1], timestamp .. ' ' .. content_type .. '\n' .. value)
    elseif before > 0 then
      redis.call('HSET', at.deletes, actor, number)
    end
    fields_of[kv_key] = after
    index_key(at.keys, at.conflicts, key, before, #after)
    note_expiry(at.expiring, key, first_expiry(fields), expires)
    if string.byte(key) == 0 then
      redis.call('SADD', at.system, key)
      redis.call('PUBLISH', at.alert, key)
    end
  end

  clock[actor] = (clock[actor] or 0) + 1
  around.dot = dot
  local ends = {}
  for _, verb, key, _, value in operations(packed) do
    local ended = declared_end(verb, key, value)
    if ended then
      clock[ended], around = closed, {}
      ends[#ends + 1] = ended
    end
  end
  return dot, ends, timestamp
end

local function keep(at, clock, actor, stamp, ends)
  local applied = { string.format('%s:%.0f', actor, clock[actor]) }
  redis.call('HSET', at.clock, actor, string.format('%.0f', clock[actor]))
  redis.call('HSET', at.meta, 'timestamp', string.format('%.0f', stamp))
  for _, ended in ipairs(ends) do
    redis.call('HSET', at.clock, ended, string.format('%.0f', closed))
    applied[#applied + 1] = string.format('%s:%.0f', ended, closed)
  end
  tell_workers(at.channel, table.concat(applied, ' '))
end

local function commit_alone(at, clock, actor, packed, stamp, kv_stem)
  local kv_keys = {}
  for _, _, key in operations(packed) do
    kv_keys[#kv_keys + 1] = kv_stem .. key
  end
  local dot, ends, timestamp =
    commit(at, clock, actor, packed, stamp, kv_keys, 1, fields_of_keys(kv_keys))
  keep(at, clock, actor, stamp, ends)
  return dot, timestamp
end
