--[[
  List user keys that have siblings, in the order of their bytes, a page at a time.

  KEYS[1]  conflicts  sorted set  keys with siblings (index.inc.lua)
  KEYS[2]  clock      hash        actor -> sequence applied here
  KEYS[3]  meta       hash        `merging`: a snapshot that is being merged

  ARGV[1]  kv stem    what the names of the user keys begin with
  ARGV[2]  first      the lower bound, as ZRANGEBYLEX takes it
  ARGV[3]  last       the upper bound
  ARGV[4]  limit      keys at most

  Returns  the clock as text; then for each key two: the key, and the dots of its versions in one
           text, separated by spaces; or `merging` alone: what is here is no state to list.

  Atomic, so that every key that is listed has siblings, and the clock vouches for the rest.
]]
--@include clocks
--@include conditions
local conflicts_key, clock_key, meta_key = KEYS[1], KEYS[2], KEYS[3]
local kv_stem, first, last, limit = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if redis.call('HEXISTS', meta_key, 'merging') == 1 then
  return { 'merging' }
end
local found = { clock_text(load_clock(clock_key)) }
for _, key in ipairs(redis.call('ZRANGEBYLEX', conflicts_key, first, last, 'LIMIT', 0, limit)) do
  found[#found + 1] = key
  found[#found + 1] = table.concat(dots_at(kv_stem .. key), ' ')
end
return found
