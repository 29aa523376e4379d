--[[
  What was done for requests with an Idempotency-Key. It needs `clocks`.

  done_before(requests_key, deferred_stem, clock, request, fingerprint): what a script returns that
  is asked for the same once more, and nothing if it is asked for the first time: `reused`, if the
  request before was another; `accepted`, dot, clock as text, 1, if its write is deferred and waits;
  else `committed`, dot, timestamp, clock after the write, 1. What was deferred, and came home after
  a loss of this Redis, has 0 for its timestamp, and the clock as it is now.

  remember(requests_key, order_key, request, now, fingerprint, done, most): `done` (dot, timestamp
  and clock, as texts) was done for it. That is remembered for a day, and then until a few more have
  come, and of at most `most` requests.
]]
local remembered_us = 24 * 60 * 60 * 1e6

local function done_before(requests_key, deferred_stem, clock, request, fingerprint)
  local done = request ~= '' and redis.call('HGET', requests_key, request)
  if not done then
    return nil
  end
  local asked, dot, timestamp, clock_then = string.match(done, '^%d+ (%S+) (%S+) (%d+) (.*)$')
  if asked ~= fingerprint then
    return { 'reused' }
  end
  if timestamp == '0' then
    local lane, sequence = string.match(dot, '^(.+):(%d+)$')
    if redis.call('HEXISTS', deferred_stem .. lane, sequence) == 1 then
      return { 'accepted', dot, clock_text(clock), 1 }
    end
    clock_then = clock_text(clock)
  end
  return { 'committed', dot, timestamp, clock_then, 1 }
end

local function remember(requests_key, order_key, request, now, fingerprint, done, most)
  redis.call('HSET', requests_key, request,
    table.concat({ integer(now), fingerprint, unpack(done) }, ' '))
  redis.call('RPUSH', order_key, request)
  for _ = 1, 2 do -- two for each that comes, so that what is too old goes away
    local oldest = redis.call('LINDEX', order_key, 0)
    local since = tonumber(string.match(redis.call('HGET', requests_key, oldest), '^%d+'))
    if redis.call('LLEN', order_key) <= most and since > now - remembered_us then
      break
    end
    redis.call('LPOP', order_key)
    redis.call('HDEL', requests_key, oldest)
  end
end
