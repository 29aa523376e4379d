--[[
  Merge keys with what a snapshot says of them.

  KEYS[1]  meta      hash  `merging`: the snapshot that is being merged
  KEYS[2]  snapshot  hash  `clock`, `deletes`: of the cut; `mine`: the clock here; `merged`: how
                           many staged keys were merged, there since the first of them
  KEYS[3]  deletes   hash  actor -> its last delete that came to a key with versions here
  KEYS[4]  keys      sorted set  the index of keys (index.inc.lua)
  KEYS[5]  conflicts sorted set  those with siblings
  KEYS[6]  system    set   the keys of the system that were ever written
  KEYS[7]  expiring  sorted set  keys by when the first of their versions expires (expiry.inc.lua)

  ARGV[1]  id           the snapshot
  ARGV[2]  kv stem      what the names of the user keys begin with
  ARGV[3]  staged stem  ... of the staged ones
  ARGV[4]  staged       1 to merge those of the keys that are staged, and unstage them;
                        0 those that are not: the snapshot says that they are absent
  ARGV[5+] the keys

  Returns  1; or 0 if that snapshot is not being merged, and nothing was changed.

  Atomic, because a key that was half merged would say of neither side what it held. Between two
  calls nothing else changes a key, for `merging` keeps the writers away, and merging a key twice is
  merging it once: so it may be begun again after a crash. All keys that are not staged come first.
  Once one has been unstaged there is no telling any more, and a call for them does nothing.

  A version survives if both sides hold it, or one does and the other's clock does not cover it
  (Bieniusa et al. 2012). What is noted beside the versions of a key is what its readers must be told
  (docs/adr/0004): both sides' notes, and of a side where the key is absent, the deletes there that
  the other side has not seen. What expires and does not survive may be gone from one side because
  it has expired there: so it is noted as well (expiry.inc.lua).
  Twin: tests/model.py, Node.merge.
]]
--@include integers
--@include system
--@include clocks
--@include index
--@include expiry
local meta_key, snapshot_key, deletes_key = KEYS[1], KEYS[2], KEYS[3]
local keys_key, conflicts_key, system_key, expiring_key = KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local id, kv_stem, staged_stem, takes_staged = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local first_key = 5

if redis.call('HGET', meta_key, 'merging') ~= id then
  return 0
end
local cut, cut_deletes, mine, has_unstaged =
  unpack(redis.call('HMGET', snapshot_key, 'clock', 'deletes', 'mine', 'merged'))
if takes_staged then
  redis.call('HINCRBY', snapshot_key, 'merged', 0)
elseif has_unstaged then
  return 1
end
local theirs = { clock = parse_clock(cut), deletes = parse_clock(cut_deletes) }
local ours = { clock = parse_clock(mine), deletes = load_clock(deletes_key) }

local function covers(clock, field)
  local actor, sequence = string.match(dot_of(field), '^(.+):(%d+)$')
  return tonumber(sequence) <= (clock[actor] or 0)
end

-- The versions of a key on one side as a set, and what is noted beside them.
local function held(key, side, other)
  local versions, notes = {}, {}
  local fields = redis.call('HKEYS', key)
  for _, field in ipairs(fields) do
    if field == 'deletes' then
      notes = parse_clock(redis.call('HGET', key, 'deletes'))
    else
      versions[field] = true
    end
  end
  if #fields == 0 then
    for actor, sequence in pairs(side.deletes) do
      if sequence > (other.clock[actor] or 0) then
        notes[actor] = sequence
      end
    end
  end
  return versions, notes
end

-- Which versions a key gets that is just as the snapshot says: it is absent here, and nothing here
-- says why. Else nil.
local has_unseen_deletes = false
for actor, sequence in pairs(ours.deletes) do
  has_unseen_deletes = has_unseen_deletes or sequence > (theirs.clock[actor] or 0)
end
local function new_versions(kv, staged)
  if has_unseen_deletes or not takes_staged or redis.call('EXISTS', kv) == 1 then
    return nil
  end
  local versions = {}
  for _, field in ipairs(redis.call('HKEYS', staged)) do
    if field ~= 'deletes' then
      if covers(ours.clock, field) then
        return nil
      end
      versions[#versions + 1] = field
    end
  end
  return versions
end

local merged = 0
for i = first_key, #ARGV do
  local kv, staged = kv_stem .. ARGV[i], staged_stem .. ARGV[i]
  local is_staged = redis.call('EXISTS', staged) == 1
  local versions = is_staged and new_versions(kv, staged)
  if is_system(ARGV[i]) then
    redis.call('SADD', system_key, ARGV[i])
  end
  if versions then
    redis.call('RENAME', staged, kv)
    index_key(keys_key, conflicts_key, ARGV[i], 0, #versions)
    note_expiry(expiring_key, ARGV[i], nil, first_expiry(versions))
    merged = merged + 1
  elseif is_staged == takes_staged then
    local our_versions, notes = held(kv, ours, theirs)
    local their_versions, their_notes = held(staged, theirs, ours)
    local before, survivors = {}, {}
    local function does_not_survive(version)
      if expiry(version) then
        note_dot(notes, dot_of(version))
      end
    end
    for version in pairs(their_versions) do
      if our_versions[version] or not covers(ours.clock, version) then
        survivors[#survivors + 1] = version
        if not our_versions[version] then
          redis.call('HSET', kv, version, redis.call('HGET', staged, version))
        end
      else
        does_not_survive(version)
      end
    end
    for version in pairs(our_versions) do
      before[#before + 1] = version
      if not their_versions[version] then
        if covers(theirs.clock, version) then
          redis.call('HDEL', kv, version)
          does_not_survive(version)
        else
          survivors[#survivors + 1] = version
        end
      end
    end
    for actor, sequence in pairs(their_notes) do
      notes[actor] = math.max(notes[actor] or 0, sequence)
    end
    if #survivors == 0 then
      redis.call('DEL', kv)
    elseif next(notes) then
      redis.call('HSET', kv, 'deletes', clock_text(notes))
    end
    index_key(keys_key, conflicts_key, ARGV[i], #before, #survivors)
    note_expiry(expiring_key, ARGV[i], first_expiry(before), first_expiry(survivors))
    if is_staged then
      redis.call('DEL', staged)
      merged = merged + 1
    end
  end
end
if merged > 0 then
  redis.call('HINCRBY', snapshot_key, 'merged', merged)
end
return 1
