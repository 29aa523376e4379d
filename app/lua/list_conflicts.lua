--[[
  List user keys that have siblings, in the order of their bytes, a page at a time.

  KEYS[1]  conflicts  sorted set  keys with siblings (index.inc.lua)
  KEYS[2]  clock      hash        actor -> sequence applied here
  KEYS[3]  meta       hash        `merging`: a snapshot that is being merged; `timestamp`: the last
                                  one

  ARGV[1]  kv stem    what the names of the user keys begin with
  ARGV[2]  first      the lower bound, as ZRANGEBYLEX takes it
  ARGV[3]  last       the upper bound
  ARGV[4]  limit      keys at most, those included that expired to one version or none: they are
                      passed over
  ARGV[5]  now        microseconds since 1970

  Returns  the clock as text; the key after which the next page begins, empty if there is none; then
           for each key two: the key, and the dots of its versions in one text, separated by
           spaces; or `merging` alone: what is here is no state to list.

  Atomic, so that every key that is listed has siblings, and the clock vouches for the rest.
]]
--@include integers
--@include clocks
--@include expiry
--@include conditions
local conflicts_key, clock_key, meta_key = KEYS[1], KEYS[2], KEYS[3]
local kv_stem, first, last, limit, now = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

local merging, timestamp = unpack(redis.call('HMGET', meta_key, 'merging', 'timestamp'))
if merging then
  return { 'merging' }
end
now = hlc_now(now, timestamp)

local found = redis.call('ZRANGEBYLEX', conflicts_key, first, last, 'LIMIT', 0, limit + 1)
local reply = { clock_text(load_clock(clock_key)), #found > limit and found[limit] or '' }
for i = 1, math.min(#found, limit) do
  local dots = dots_in(redis.call('HKEYS', kv_stem .. found[i]), now)
  if #dots > 1 then
    reply[#reply + 1] = found[i]
    reply[#reply + 1] = table.concat(dots, ' ')
  end
end
return reply
