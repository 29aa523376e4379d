--[[
  Versions that expire (docs/adr/0022). It needs `integers`.

  A field of `kv:{key}` that is not `deletes` is a version. It is called by its dot, and if it
  expires, `@` and when, in microseconds since 1970: `A:7`, `A:7@1795379363289593`. It has expired
  where the hybrid logical clock has come so far. Then nobody is shown it, and it is as if its own
  write had deleted it: its dot stands for that delete (docs/adr/0004).

  The sorted set `expiring` has the keys that have such versions, by when the first expires. It is
  kept by whatever script changes a `kv:` key:

    note_expiry(expiring_key, key, before, after)

  says when the first version of `key` was to expire, and when it is now; nil for never.
]]
local timestamp_max = 2 ^ 53 - 1

-- What the hybrid logical clock shows: no less than the wall clock, nor than any write here.
local function hlc_now(now, last)
  return math.max(tonumber(now), tonumber(last or 0))
end

-- When the version in this field expires; nil for never.
local function expiry(field)
  local at = string.find(field, '@', 1, true)
  return at and tonumber(string.sub(field, at + 1))
end

local function has_expired(field, now)
  local at = expiry(field)
  return at ~= nil and at <= now
end

-- The dot of the version in this field, as text.
local function dot_of(field)
  return string.match(field, '^[^@]+')
end

-- Actor and sequence of the version in this field, and when it expires; nil for never.
local function version_in(field)
  local actor, sequence, expires = string.match(field, '^([^:]+):(%d+)@?(%d*)$')
  return actor, tonumber(sequence), expires ~= '' and tonumber(expires) or nil
end

-- The earlier one of two times, of which each may be nil for never.
local function earlier(one, other)
  return one and other and math.min(one, other) or one or other
end

-- When a version expires that was put with this timestamp, for so many microseconds; nil for never.
local function expiry_of_put(timestamp, ttl)
  return ttl and math.min(timestamp + ttl, timestamp_max) or nil
end

-- The field of a version.
local function version_field(dot, expires)
  return expires and dot .. '@' .. integer(expires) or dot
end

-- How many versions there are in these fields, and when the first expires; nil for never.
local function versions_in(fields)
  local versions, first = 0, nil
  for _, field in ipairs(fields) do
    if field ~= 'deletes' then
      versions, first = versions + 1, earlier(first, expiry(field))
    end
  end
  return versions, first
end

-- When the first of some versions expires, by their fields; nil for never.
local function first_expiry(fields)
  local _, first = versions_in(fields)
  return first
end

local function note_expiry(expiring_key, key, before, after)
  if after and after ~= before then
    redis.call('ZADD', expiring_key, integer(after), key)
  elseif before and not after then
    redis.call('ZREM', expiring_key, key)
  end
end
