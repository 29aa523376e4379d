--[[
  Claim an empty Redis for a node, or say whose it is.

  KEYS[1]  meta    hash  `node`, `layout`, `birth`, and more as the node goes on
  KEYS[2]  births  hash  what is known of other nodes; only looked for

  ARGV[1]  node    who wants it
  ARGV[2]  layout  the version of the layout it would write
  ARGV[3]  birth   a name for this Redis that no other has, should it be new
  ARGV[4]  lease   what the names of leases begin with
  ARGV[5]  peer    ... of what is known of peers

  Returns  meta, flat; or an empty list if there is no meta and yet there is data: a database of
           somebody else's, and nothing was changed. What workers post, and what they note of
           other nodes, is no data: they go on with it after Redis was emptied under them.

  Atomic, so that of two nodes that start at once on one Redis, one gets it.
]]
local meta_key, births_key = KEYS[1], KEYS[2]
local node, layout, birth = ARGV[1], ARGV[2], ARGV[3]
local lease_stem, peer_stem = ARGV[4], ARGV[5]
local posted_max = 1000

if redis.call('EXISTS', meta_key) == 0 then
  local size = redis.call('DBSIZE')
  if size > 0 and size <= posted_max then
    size = size - redis.call('EXISTS', births_key)
      - #redis.call('KEYS', lease_stem .. '*') - #redis.call('KEYS', peer_stem .. '*')
  end
  if size > 0 then
    return {}
  end
  redis.call('HSET', meta_key, 'node', node, 'layout', layout, 'birth', birth)
end
return redis.call('HGETALL', meta_key)
