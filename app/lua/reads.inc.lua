--[[
  Reading several keys at one instant, up to a limit of bytes.

  read_all(names, most, now): what these keys hold, each as HGETALL gives it; nothing if that is
  more than `most` bytes in all, and then no more than that was read. Without `most` there is no
  limit. What has expired does not count. Needs expiry.inc.lua.
]]
local function read_all(names, most, now)
  local found, size = {}, 0
  for _, name in ipairs(names) do
    for _, field in ipairs(most and redis.call('HKEYS', name) or {}) do
      if not has_expired(field, now) then
        size = size + redis.call('HSTRLEN', name, field)
      end
      if size > most then
        return nil
      end
    end
    found[#found + 1] = redis.call('HGETALL', name)
  end
  return found
end
