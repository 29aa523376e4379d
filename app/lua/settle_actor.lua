--[[
  Say who writes here in this run of Redis.

  KEYS[1]  meta    hash  `node`; `actor`, `run`: who writes here, as settled for which run;
                         `since`, `reason`: of the last new incarnation; `alive`; `rested`:
                         the run that the node has ended in good order, gone while it is at work;
                         `joining`: what peers had when this Redis was new; `birth`
  KEYS[2]  births  hash  node -> the birth of the first Redis of that node of which this one knows

  ARGV[1]  node    whose Redis this must be
  ARGV[2]  before  the actor that the caller found, empty for none
  ARGV[3]  past    the run that the caller found, empty for none
  ARGV[4]  actor   who writes from now on
  ARGV[5]  run     the run that is on
  ARGV[6]  reason  why that is a new incarnation; empty if it is not
  ARGV[7]  now     microseconds since 1970
  ARGV[8]  joining what peers have that this node begins without, as text; empty for nothing

  A node that still has its first name has had no Redis before this one. That is noted, for later it
  cannot be told any more.

  Returns  1 if it is so now; 0 if Redis does not hold what the caller found: look again.

  Atomic, because of two workers that settle at once one must find what the other did.
]]
local meta_key, births_key = KEYS[1], KEYS[2]
local node, before, past, actor = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local run, reason, now, joining = ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local found = redis.call('HMGET', meta_key, 'node', 'actor', 'run', 'birth')
if found[1] ~= node or (found[2] or '') ~= before or (found[3] or '') ~= past then
  return 0
end
redis.call('HSET', meta_key, 'actor', actor, 'run', run, 'alive', now)
redis.call('HDEL', meta_key, 'rested')
if actor == node and found[4] then
  redis.call('HSET', births_key, node, found[4])
end
if reason ~= '' then
  redis.call('HSET', meta_key, 'since', now, 'reason', reason)
end
if joining ~= '' then
  redis.call('HSET', meta_key, 'joining', joining)
end
return 1
