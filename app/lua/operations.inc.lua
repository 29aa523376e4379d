--[[
  The form in which a write's operations are stored (app/codec.py packs it): netstrings,
  one after the other: `3:put,KEY,TYPE,VALUE` for a put, `6:delete,KEY` for a delete, and
  `9:put 60000,KEY,TYPE,VALUE` for a put of what lives so many microseconds.
  Netstrings hold any bytes and can be read by a person.

  operations(packed) iterates: verb, key, content type, value (the last two nil for a delete), and
  for how long it lives (nil for ever).

  They are read once, however often the same ones are asked for one after the other.
]]
local parsed, parsed_from

local function parse(packed)
  local find, sub, position = string.find, string.sub, 1
  local function item()
    local _, colon, length = find(packed, '^(%d+):', position)
    local first = colon + 1
    position = first + length + 1 -- past the closing comma
    return sub(packed, first, position - 2)
  end
  local all = {}
  while position <= #packed do
    local verb, key = item(), item()
    if verb == 'delete' then
      all[#all + 1] = { verb, key }
    elseif verb == 'put' then
      all[#all + 1] = { verb, key, item(), item() }
    else
      all[#all + 1] = { 'put', key, item(), item(), tonumber(string.match(verb, '^put (%d+)$')) }
    end
  end
  return all
end

local function operations(packed)
  if packed ~= parsed_from then
    parsed, parsed_from = parse(packed), packed
  end
  local all, index = parsed, 0
  return function()
    index = index + 1
    local operation = all[index]
    if operation then
      return operation[1], operation[2], operation[3], operation[4], operation[5]
    end
  end
end
