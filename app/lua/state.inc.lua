--[[
  Whose state is here, and whether it is one to work on.

  state_of(meta_key, field, owner) -> what a script returns that finds none: nothing (an empty list)
  if this `field` of `meta`, `actor` or `node`, is not the owner; `merging` alone while keys are
  merged with a snapshot; else nil, and then the last timestamp, and who writes here.
]]
local function state_of(meta_key, field, owner)
  local found, last, merging, author =
    unpack(redis.call('HMGET', meta_key, field, 'timestamp', 'merging', 'actor'))
  if found ~= owner then
    return {}
  end
  if merging then
    return { 'merging' }
  end
  return nil, last, author
end
