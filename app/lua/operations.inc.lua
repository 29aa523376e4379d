--[[
  The operations of a write: a list that has five entries for each, which are its verb (`put` or
  `delete`), its key, the content type, the value (these two empty for a delete), and for how many
  microseconds it lives (false for ever).

  They are stored as netstrings, one after the other (app/codec.py packs them): `3:put,KEY,TYPE,VALUE`
  for a put, `6:delete,KEY` for a delete, and `9:put 60000,KEY,TYPE,VALUE` for a put of what lives so
  many microseconds. Netstrings hold any bytes and can be read by a person.

  stored(packed) -> the list of what is stored so.

  handed_over(at) -> the list, the same as netstrings, and where the arguments go on. ARGV[at] says how
  many there are. Five arguments follow for each: verb (with microseconds), key, content type, value,
  and what stands before the value in the netstrings. For Lua puts them together with less than it
  takes them apart (docs/performance.md).

  after_operations(at) -> the last of these alone: where the arguments go on.

  each(list) iterates: where it stands, verb, key, content type, value, lifetime.
]]
local function lifetime(verb)
  return tonumber(string.match(verb, '^put (%d+)$')) or false
end

local function stored(packed)
  local find, sub, position = string.find, string.sub, 1
  local list = {}
  local function item()
    local _, colon, length = find(packed, '^(%d+):', position)
    position = colon + length + 2 -- past the closing comma
    return sub(packed, colon + 1, position - 2)
  end
  while position <= #packed do
    local n, verb, key = #list, item(), item()
    if verb == 'delete' then
      list[n + 1], list[n + 2], list[n + 3], list[n + 4], list[n + 5] = verb, key, '', '', false
    else
      list[n + 1], list[n + 2], list[n + 3], list[n + 4], list[n + 5] =
        'put', key, item(), item(), lifetime(verb)
    end
  end
  return list
end

local function pieces(at)
  local verb, key, content_type, value, head =
    ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  if verb == 'delete' then
    return verb, key, content_type, value, false, head
  end
  return 'put', key, content_type, value, verb ~= 'put' and lifetime(verb), head .. value .. ','
end

local function after_operations(at)
  return at + 1 + 5 * (ARGV[at] == '1' and 1 or tonumber(ARGV[at]))
end

local function handed_over(at)
  local after = after_operations(at)
  local verb, key, content_type, value, ttl, packed = pieces(at + 1)
  local list = { verb, key, content_type, value, ttl }
  if after == at + 6 then
    return list, packed, after
  end
  local all = { packed }
  for i = at + 6, after - 1, 5 do
    local n = #list
    list[n + 1], list[n + 2], list[n + 3], list[n + 4], list[n + 5], all[#all + 1] = pieces(i)
  end
  return list, table.concat(all), after
end

local function next_operation(list, at)
  at = at and at + 5 or 1
  if list[at] then
    return at, list[at], list[at + 1], list[at + 2], list[at + 3], list[at + 4]
  end
end

local function each(list)
  return next_operation, list
end
