--[[
  List user keys in the order of their bytes, a page at a time.

  KEYS[1]  keys   sorted set  where each bucket of the index starts (index.inc.lua)
  KEYS[2]  clock  hash        actor -> sequence applied here
  KEYS[3]  meta   hash        `merging`: a snapshot that is being merged

  ARGV[1]  first  the lower bound, as ZRANGEBYLEX takes it
  ARGV[2]  last   the upper bound
  ARGV[3]  limit  keys at most

  Returns  the clock as text, then the keys; or `merging` alone: what is here is no state to list.

  Atomic, so that the clock vouches for what is absent, and no key is missed that moves from one
  bucket to another.
]]
--@include clocks
--@include index
local keys_key, clock_key, meta_key = KEYS[1], KEYS[2], KEYS[3]
local first, last, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])

if redis.call('HEXISTS', meta_key, 'merging') == 1 then
  return { 'merging' }
end
local found = { clock_text(load_clock(clock_key)) }
local start = bucket_start(keys_key, string.sub(first, 2))
while start and #found <= limit do
  local page = redis.call('ZRANGEBYLEX', keys_key .. ':' .. start, first, last,
    'LIMIT', 0, limit + 1 - #found)
  for _, key in ipairs(page) do
    found[#found + 1] = key
  end
  start = redis.call('ZRANGEBYLEX', keys_key, '(' .. start, last, 'LIMIT', 0, 1)[1]
end
return found
