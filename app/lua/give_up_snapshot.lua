--[[
  Stop receiving a snapshot that will not be whole.

  KEYS[1]  meta      hash  `merging`: the snapshot that is being merged
  KEYS[2]  snapshot  hash  `id`: the snapshot that is being received

  ARGV[1]  id        the snapshot

  Returns  1 if it was given up; 0 if it is not being received, or is being merged, and nothing was
           changed.

  Atomic, so that nobody else's snapshot is taken away, nor one whose merge has begun. What was
  staged of it is removed later (app/snapshot_receiving.py).
]]
local meta_key, snapshot_key = KEYS[1], KEYS[2]
local id = ARGV[1]

if redis.call('HGET', snapshot_key, 'id') ~= id or redis.call('HGET', meta_key, 'merging') == id then
  return 0
end
redis.call('DEL', snapshot_key)
return 1
