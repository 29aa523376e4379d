--[[
  The form in which a write's operations are stored (app/codec.py packs it): netstrings,
  one after the other: `3:put,KEY,TYPE,VALUE` for a put, `6:delete,KEY` for a delete, and
  `9:put 60000,KEY,TYPE,VALUE` for a put of what lives so many microseconds.
  Netstrings hold any bytes and can be read by a person.

  operations(packed) iterates: number, verb, key, content type, value (these two nil for a delete),
  and for how long it lives (nil for ever).

  They are read once, however often the same ones are asked for one after the other.
]]
local parsed, parsed_from

local function parse(packed)
  local find, sub, position = string.find, string.sub, 1
  -- The item after the comma there, and where it ends.
  local function item(after)
    local _, colon, length = find(packed, '^,(%d+):', after)
    local last = colon + length
    return sub(packed, colon + 1, last), last + 1
  end
  local all = {}
  while position <= #packed do
    local _, colon, verb, ttl, length = find(packed, '^%d+:(%a+) ?(%d*),(%d+):', position)
    local last = colon + length
    local key, content_type, value = sub(packed, colon + 1, last)
    position = last + 1
    if verb == 'put' then
      content_type, position = item(position)
      value, position = item(position)
    end
    all[#all + 1] = { verb, key, content_type, value, ttl ~= '' and tonumber(ttl) or nil }
    position = position + 1 -- past the closing comma
  end
  return all
end

local function next_operation(all, index)
  local operation = all[index + 1]
  if operation then
    return index + 1, operation[1], operation[2], operation[3], operation[4], operation[5]
  end
end

local function operations(packed)
  if packed ~= parsed_from then
    parsed, parsed_from = parse(packed), packed
  end
  return next_operation, parsed, 0
end
