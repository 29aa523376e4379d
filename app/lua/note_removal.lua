--[[
  Note that this node was told that it is no member any more, or that it is one again.

  KEYS[1]  meta     hash  `node`: whose Redis this is; `removed`: the write that removed it,
                    a space, and the member that said so

  ARGV[1]  node     whose Redis this must be
  ARGV[2]  heard    what `removed` shall say; empty if it holds no more
  ARGV[3]  alert    the channel where to tell the workers

  Returns  1 if it is noted; 0 if this Redis is not the node's, and nothing was changed.

  Atomic, because a note in a Redis that was emptied meanwhile would make it pass for somebody
  else's.
]]
--@include workers
local meta_key = KEYS[1]
local node, heard, alert = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HGET', meta_key, 'node') ~= node then
  return 0
end
if heard == '' then
  redis.call('HDEL', meta_key, 'removed')
else
  redis.call('HSET', meta_key, 'removed', heard)
end
publish(alert, '')
return 1
