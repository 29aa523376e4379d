--[[
  Read several keys at one instant: a causal snapshot.

  KEYS[1]  clock     hash  actor -> sequence applied here
  KEYS[2]  meta      hash  `merging`: a snapshot that is being merged; `timestamp`: the last one
  KEYS[3+] kv:{key}  hash  one per key, in order

  ARGV[1]  most      bytes to read in all; empty for no limit
  ARGV[2]  now       microseconds since 1970

  Returns  the clock, as HGETALL gives it; what the hybrid logical clock shows; then for each key
           what it holds, in the same form, also what has expired by then;
           or nothing (an empty list) if that is more than `most`; or `merging` alone: what is
           here is no state to read.

  Atomic, so that it is one state of the node, which is causally closed (G1): what is seen of a
  write is all of it, and whatever it depends on is seen too.
]]
--@include integers
--@include expiry
--@include reads
local clock_key, meta_key = KEYS[1], KEYS[2]
local most, now = tonumber(ARGV[1]), ARGV[2]
local first_kv = 3

local merging, last = unpack(redis.call('HMGET', meta_key, 'merging', 'timestamp'))
if merging then
  return { 'merging' }
end
now = hlc_now(now, last)

local names = {}
for i = first_kv, #KEYS do
  names[#names + 1] = KEYS[i]
end
local found = read_all(names, most, now)
if not found then
  return {}
end
table.insert(found, 1, redis.call('HGETALL', clock_key))
table.insert(found, 2, integer(now))
return found
