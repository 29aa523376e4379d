--[[
  Stop receiving a snapshot that will not be whole.

  KEYS[1]  meta      hash  `merging`: the snapshot that is being merged
  KEYS[2]  snapshot  hash  `id`: the snapshot that is being received; `heard`: when its last part
                           came

  ARGV[1]  id        the snapshot
  ARGV[2]  since     microseconds since 1970: only if none of its parts came since then; empty to
                     give it up whenever one came

  Returns  1 if it was given up; 0 if it is not being received, is being merged, or came on, and
           nothing was changed.

  Atomic, so that nobody else's snapshot is taken away, nor one whose merge has begun or that has
  just come on. What was staged of it is removed later (app/snapshot_receiving.py).
]]
local meta_key, snapshot_key = KEYS[1], KEYS[2]
local id, since = ARGV[1], ARGV[2]

local current, heard = unpack(redis.call('HMGET', snapshot_key, 'id', 'heard'))
if current ~= id or redis.call('HGET', meta_key, 'merging') == id then
  return 0
end
if since ~= '' and tonumber(heard) >= tonumber(since) then
  return 0
end
redis.call('DEL', snapshot_key)
return 1
