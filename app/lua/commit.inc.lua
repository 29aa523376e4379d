--[[
  The commit of a write of this node: stamped, logged, applied and counted, after all that is
  applied here. It needs `clocks`, `operations`, `conditions`, `index` and `ends`.

  commit(at, clock, actor, packed, now, last, kv_keys) -> dot, timestamp as text

  `at` names the keys `clock`, `meta`, `deletes`, `log`, `keys`, `conflicts` and `system`, and the
  channels `channel` and `alert`; `kv_keys` are the `kv:` keys of the operations, in order; `last`
  is the timestamp of the last write here. `clock` covers the write afterwards.

  The first command is XADD, which Redis refuses when it is out of memory; after it, nothing is
  refused half-way.
]]
local function commit(at, clock, actor, packed, now, last, kv_keys)
  local sequence = (clock[actor] or 0) + 1
  local dot = string.format('%s:%.0f', actor, sequence)
  -- Later than everything in the causal past, whatever the wall clock says (Kulkarni et al. 2014).
  local timestamp = string.format('%.0f', math.max(now, tonumber(last or 0) + 1))
  redis.call('XADD', at.log, string.format('%.0f-0', sequence),
    'timestamp', timestamp, 'dependencies', clock_text(clock), 'operations', packed)

  local index = 1
  for verb, key, content_type, value in operations(packed) do
    local kv_key = kv_keys[index]
    local before = redis.call('HLEN', kv_key)
    if before > 1 then
      before = #dots_at(kv_key)
    end
    if before > 0 then
      redis.call('DEL', kv_key)
    end
    if verb == 'put' then
      redis.call('HSET', kv_key, dot, timestamp .. ' ' .. content_type .. '\n' .. value)
    elseif before > 0 then
      redis.call('HSET', at.deletes, actor, string.format('%.0f', sequence))
    end
    index_key(at.keys, at.conflicts, key, before, verb == 'put' and 1 or 0)
    if string.byte(key) == 0 then
      redis.call('SADD', at.system, key)
      redis.call('PUBLISH', at.alert, key)
    end
    index = index + 1
  end

  clock[actor] = sequence
  redis.call('HSET', at.clock, actor, string.format('%.0f', sequence))
  redis.call('HSET', at.meta, 'timestamp', timestamp)
  redis.call('PUBLISH', at.channel, dot)
  for verb, key, _, value in operations(packed) do
    local ended = declared_end(verb, key, value)
    if ended then
      clock[ended] = closed
      redis.call('HSET', at.clock, ended, string.format('%.0f', closed))
      redis.call('PUBLISH', at.channel, string.format('%s:%.0f', ended, closed))
    end
  end
  return dot, timestamp
end
