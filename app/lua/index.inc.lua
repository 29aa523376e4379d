--[[
  The index of the user keys that have versions here, in the order of their bytes, and of those
  that have siblings. It is kept by whatever script changes a `kv:` key:

    index_key(keys_key, conflicts_key, key, before, after)

  says that `key` had `before` versions and has `after`. The keys of the system are in no index. It
  needs `system`.

  One sorted set of all keys would take some 130 bytes a key, more than many a value. So it is cut
  into buckets of up to 64, which Redis keeps packed: some 30 bytes a key. `keys` holds where each
  bucket starts, `keys:{start}` the keys from there on (docs/adr/0015).
]]
local bucket_max = 64 -- Redis packs up to 128 (zset-max-listpack-entries), and searches them in turn

-- Where the bucket starts that `key` belongs to.
local function bucket_start(keys_key, key)
  return redis.call('ZREVRANGEBYLEX', keys_key, '[' .. key, '-', 'LIMIT', 0, 1)[1] or ''
end

local function index_key(keys_key, conflicts_key, key, before, after)
  if (before == 1 and after == 1) or is_system(key) then
    return
  end
  if before == 0 and after > 0 then
    local start = bucket_start(keys_key, key)
    local bucket = keys_key .. ':' .. start
    redis.call('ZADD', bucket, 0, key)
    local size = redis.call('ZCARD', bucket)
    if size == 1 then
      redis.call('ZADD', keys_key, 0, start)
    elseif size > bucket_max then
      local upper = redis.call('ZRANGE', bucket, bucket_max / 2, -1)
      redis.call('ZREMRANGEBYRANK', bucket, bucket_max / 2, -1)
      local scored = {}
      for _, moved in ipairs(upper) do
        scored[#scored + 1] = 0
        scored[#scored + 1] = moved
      end
      redis.call('ZADD', keys_key, 0, upper[1])
      redis.call('ZADD', keys_key .. ':' .. upper[1], unpack(scored))
    end
  elseif before > 0 and after == 0 then
    local start = bucket_start(keys_key, key)
    local bucket = keys_key .. ':' .. start
    redis.call('ZREM', bucket, key)
    if redis.call('EXISTS', bucket) == 0 then
      redis.call('ZREM', keys_key, start)
    end
  end
  if before < 2 and after >= 2 then
    redis.call('ZADD', conflicts_key, 0, key)
  elseif before >= 2 and after < 2 then
    redis.call('ZREM', conflicts_key, key)
  end
end
