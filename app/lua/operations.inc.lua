--[[
  The form in which a write's operations are stored (app/codec.py packs it): netstrings,
  one after the other: `3:put,KEY,TYPE,VALUE` for a put, `6:delete,KEY` for a delete, and
  `9:put 60000,KEY,TYPE,VALUE` for a put of what lives so many microseconds.
  Netstrings hold any bytes and can be read by a person.

  operations(packed) iterates: verb, key, content type, value (the last two nil for a delete), and
  for how long it lives (nil for ever).
]]
local function operations(packed)
  local position = 1
  local function item()
    local _, colon, length = string.find(packed, '^(%d+):', position)
    local first = colon + 1
    position = first + length + 1 -- past the closing comma
    return string.sub(packed, first, position - 2)
  end
  return function()
    if position > #packed then
      return nil
    end
    local verb, key = item(), item()
    if verb == 'delete' then
      return verb, key
    end
    return 'put', key, item(), item(), tonumber(string.match(verb, '^put (%d+)$'))
  end
end
