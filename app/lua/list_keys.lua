--[[
  List user keys in the order of their bytes, a page at a time.

  KEYS[1]  keys      sorted set  where each bucket of the index starts (index.inc.lua)
  KEYS[2]  clock     hash        actor -> sequence applied here
  KEYS[3]  meta      hash        `merging`: a snapshot that is being merged; `timestamp`: the last
                                 one
  KEYS[4]  expiring  sorted set  keys by when the first of their versions expires (expiry.inc.lua)

  ARGV[1]  first    the lower bound, as ZRANGEBYLEX takes it
  ARGV[2]  last     the upper bound
  ARGV[3]  limit    keys at most, those included of which all has expired: they are passed over
  ARGV[4]  now      microseconds since 1970
  ARGV[5]  kv stem  what the names of the user keys begin with

  Returns  the clock as text; the key after which the next page begins, empty if there is none;
           then the keys; or `merging` alone: what is here is no state to list.

  Atomic, so that the clock vouches for what is absent, and no key is missed that moves from one
  bucket to another.
]]
--@include integers
--@include system
--@include clocks
--@include index
--@include expiry
--@include conditions
local keys_key, clock_key, meta_key, expiring_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local first, last, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now, kv_stem = ARGV[4], ARGV[5]

local merging, timestamp = unpack(redis.call('HMGET', meta_key, 'merging', 'timestamp'))
if merging then
  return { 'merging' }
end
now = hlc_now(now, timestamp)

local found = {}
local start = bucket_start(keys_key, string.sub(first, 2))
while start and #found <= limit do
  local page = redis.call('ZRANGEBYLEX', keys_key .. ':' .. start, first, last,
    'LIMIT', 0, limit + 1 - #found)
  for _, key in ipairs(page) do
    found[#found + 1] = key
  end
  start = redis.call('ZRANGEBYLEX', keys_key, '(' .. start, last, 'LIMIT', 0, 1)[1]
end

-- What has expired is removed soon after, so mostly there is nothing to look for.
local any_due = redis.call('ZCOUNT', expiring_key, '-inf', integer(now)) > 0
local function is_there(key)
  local due = any_due and redis.call('ZSCORE', expiring_key, key)
  return not due or tonumber(due) > now or #dots_in(redis.call('HKEYS', kv_stem .. key), now) > 0
end

local reply = { clock_text(load_clock(clock_key)), #found > limit and found[limit] or '' }
for i = 1, math.min(#found, limit) do
  if is_there(found[i]) then
    reply[#reply + 1] = found[i]
  end
end
return reply
