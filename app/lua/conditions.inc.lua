--[[
  Conditions on what a key holds. `wanted` is `*` for some version, `-` for none, and else ETags
  separated by spaces, of which one must name just the versions that are there: `A:4,B:2 A:5`.
]]
-- The dots of the versions in these fields of a key, but of those that have expired; and of these.
-- Needs expiry.inc.lua.
local function dots_in(fields, now)
  local dots, expired = {}, {}
  for _, field in ipairs(fields) do
    if has_expired(field, now) then
      expired[#expired + 1] = dot_of(field)
    elseif field ~= 'deletes' then
      dots[#dots + 1] = dot_of(field)
    end
  end
  return dots, expired
end

-- Compared as sets: what order texts sort in depends on the locale of this Redis.
local function names_all(etag, dots)
  local named, count = {}, 0
  for dot in string.gmatch(etag, '[^,]+') do
    named[dot], count = true, count + 1
  end
  for _, dot in ipairs(dots) do
    if not named[dot] then
      return false
    end
  end
  return count == #dots
end

local function holds(wanted, dots)
  if wanted == '*' then
    return #dots > 0
  elseif wanted == '-' then
    return #dots == 0
  end
  for etag in string.gmatch(wanted, '%S+') do
    if names_all(etag, dots) then
      return true
    end
  end
  return false
end
