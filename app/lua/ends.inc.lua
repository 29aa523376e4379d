--[[
  Actors whose end is declared: what came after it is lost (docs/adr/0017). It needs `system`.

  The key of the system NUL `end/{actor}` holds, as its value, the sequence of the actor's last
  write that is not lost. Where that put is applied the actor is *closed*: its entry in the clock is
  the greatest sequence, so that whatever names it is covered, and its log ends before its clock
  does.
]]
local closed = 2 ^ 53 - 1

-- Of whom a put declares the end, and which; nothing if it does not.
local function declared_end(verb, key, value)
  if verb == 'put' and is_system(key) and string.sub(key, 2, 5) == 'end/' then
    local after = string.match(value, '^%d+$')
    if after then
      return string.sub(key, 6), tonumber(after)
    end
  end
end

-- Up to where the log of an actor goes that has this entry in the clock.
local function log_end(kv_stem, actor, sequence)
  if sequence < closed then
    return sequence
  end
  local found = closed
  local flat = redis.call('HGETALL', kv_stem .. string.char(0) .. 'end/' .. actor)
  for i = 1, #flat, 2 do
    if flat[i] ~= 'deletes' then
      found = math.min(found, tonumber(string.match(flat[i + 1], '\n(%d+)$')) or closed)
    end
  end
  return found
end
