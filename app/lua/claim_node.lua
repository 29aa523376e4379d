--[[
  Claim an empty Redis for a node, or say whose it is.

  KEYS[1]  meta    hash  `node`, `actor`, `layout`, and more as the node goes on

  ARGV[1]  node    who wants it
  ARGV[2]  actor   the name it writes under if the Redis is new
  ARGV[3]  layout  the version of the layout it would write

  Returns  meta, flat; or an empty list if there is no meta and yet there is data: a database of
           somebody else's, and nothing was changed.

  Atomic, so that of two nodes that start at once on one Redis, one gets it.
]]
local meta_key = KEYS[1]
local node, actor, layout = ARGV[1], ARGV[2], ARGV[3]

if redis.call('EXISTS', meta_key) == 0 then
  if redis.call('DBSIZE') > 0 then
    return {}
  end
  redis.call('HSET', meta_key, 'node', node, 'actor', actor, 'layout', layout)
end
return redis.call('HGETALL', meta_key)
