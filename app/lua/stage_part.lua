--[[
  Keep a part of a snapshot until all of it is here; with the last, begin to merge.

  KEYS[1]  meta      hash  `node`: whose Redis this is; `actor`: who writes here;
                           `merging`: the snapshot that is being merged, gone when it is done
  KEYS[2]  snapshot  hash  `id`, `source`, `last`: the last part that is kept, `keys`, `total`,
                           `begun`, `heard`: when that part came; `patience`: after how many
                           microseconds of silence another node's snapshot may take its place; with
                           the cut also its `clock`, `deletes` and `timestamp`, and `mine`: the clock
                           here
  KEYS[3]  staging   set   the snapshots of which something may be staged
  KEYS[4]  clock     hash  actor -> sequence applied here
  KEYS[5]  begun     hash  who sends snapshots -> the last of them that was begun here
  KEYS[6]  births    hash  node -> the birth of the first Redis of that node of which this one knows

  ARGV[1]  node         whose Redis this must be
  ARGV[2]  id           the snapshot
  ARGV[3]  source       who sends it
  ARGV[4]  name         of the part; empty if it asks to begin
  ARGV[5]  after        the part that it follows; empty for the first. If it asks, empty unless the
                        snapshot was begun before, and is only to be gone on with
  ARGV[6]  total        about how many keys there will be
  ARGV[7]  now          microseconds since 1970
  ARGV[8]  patience     of one that takes nobody's place
  ARGV[9]  cut clock    of the last part, as text; `-` in any other
  ARGV[10] cut deletes  ... as text
  ARGV[11] cut timestamp
  ARGV[12] staged stem  what the names of staged keys begin with
  ARGV[13] births       of how many nodes the birth follows: of those of a backup, if it asks to
                        begin, and with its last part
  ARGV[14+] node and birth of each of them; then the keys: name, number of fields, then the fields
            with their values as in kv:{key}; none if the key is absent

  Returns  the snapshot that is being received now, and the last part of it that is kept;
           or actor and sequence, and `lost`: the cut covers a write of the actor who writes here,
           or of its lane, that is not here; nothing was changed. Or a node alone: that of the
           backup is not the one whose writes are here; nothing was changed. Or nothing (an empty
           list) if this Redis is not the node's.

  Of what the cut covers the nodes are those of the backup from then on: it can come again.

  Atomic, because each part must be kept once and in order, whoever sends: a part that came late
  would bring back an older state of its keys. And because nothing may be written between the look
  at who has written here and the cut that may cover it.
]]
--@include integers
--@include clocks
local meta_key, snapshot_key, staging_key, clock_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local begun_key = KEYS[5]
local births_key = KEYS[6]
local node, id, source, name, after = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local total, now, first_patience = ARGV[6], ARGV[7], ARGV[8]
local cut_clock, cut_deletes, cut_timestamp = ARGV[9], ARGV[10], ARGV[11]
local staged_stem, births = ARGV[12], tonumber(ARGV[13])
local first_birth = 14
local first_key = first_birth + 2 * births

local owner, author, merging = unpack(redis.call('HMGET', meta_key, 'node', 'actor', 'merging'))
if owner ~= node then
  return {}
end
local current, last, heard, sender, patience =
  unpack(redis.call('HMGET', snapshot_key, 'id', 'last', 'heard', 'source', 'patience'))
patience = tonumber(patience or first_patience)

local function has_actor_of(other, clock)
  for actor in pairs(clock) do
    -- What this node was called after its first life was called so by nobody else.
    local is_later = other == node and actor ~= other and actor ~= other .. '+'
    if string.match(actor, '^[^~.+]+') == other and not is_later then
      return true
    end
  end
  return false
end

-- A node of the backup that is not the one whose writes are here, if there is one.
local function stranger(clock)
  for i = first_birth, first_key - 1, 2 do
    local known = redis.call('HGET', births_key, ARGV[i])
    if known and known ~= ARGV[i + 1] and has_actor_of(ARGV[i], clock) then
      return ARGV[i]
    end
  end
end

if name == '' then
  local other = births > 0 and stranger(load_clock(clock_key))
  if other then
    return { other }
  end
  -- A node sends one snapshot to a peer, so who asks for another goes on with the first no more.
  local is_free = not current
    or (not merging and (source == sender or tonumber(now) - tonumber(heard) >= patience))
  -- One whose parts may still be staged was given up: it is begun anew by another name. So is one
  -- that was begun and is here no more: it has been merged, given up, or lost; a question that
  -- comes late would begin what its sender never goes on with.
  local was_begun = redis.call('HGET', begun_key, source) == id
  if current ~= id and after == '' and is_free and not was_begun
    and redis.call('SADD', staging_key, id) == 1 then
    if current and source ~= sender then
      -- Who is silent may be sending a part that takes long. Two of them would take the place from
      -- each other for ever.
      patience = 2 * patience
    end
    redis.call('HSET', begun_key, source, id)
    redis.call('DEL', snapshot_key)
    redis.call('HSET', snapshot_key, 'id', id, 'source', source, 'last', '', 'keys', '0',
      'total', total, 'begun', now, 'heard', now, 'patience', integer(patience))
    current, last = id, ''
  end
elseif current == id and last == after and not merging then
  local clock = load_clock(clock_key)
  local is_last, cut = cut_clock ~= '-', parse_clock(cut_clock)
  if is_last then
    local other = stranger(clock)
    if other then
      return { other }
    end
    for _, mine in ipairs(author and { author, author .. '+' } or {}) do
      local seen = cut[mine] or 0
      if seen > (clock[mine] or 0) then
        return { mine, integer(seen), 'lost' }
      end
    end
  end
  -- First what a full Redis refuses, before anything is changed.
  redis.call('HSET', snapshot_key, 'last', name, 'heard', now, 'total', total)
  last = name
  local i, keys = first_key, 0
  while i <= #ARGV do
    local staged, fields = staged_stem .. ARGV[i], tonumber(ARGV[i + 1])
    redis.call('DEL', staged)
    for field = i + 2, i + 1 + 2 * fields, 2 do
      redis.call('HSET', staged, ARGV[field], ARGV[field + 1])
    end
    i, keys = i + 2 + 2 * fields, keys + 1
  end
  redis.call('HINCRBY', snapshot_key, 'keys', keys)
  if is_last then
    redis.call('HSET', snapshot_key, 'clock', cut_clock, 'deletes', cut_deletes,
      'timestamp', cut_timestamp, 'mine', clock_text(clock))
    redis.call('HSET', meta_key, 'merging', id)
    for i = first_birth, first_key - 1, 2 do
      if has_actor_of(ARGV[i], cut) then
        redis.call('HSET', births_key, ARGV[i], ARGV[i + 1])
      end
    end
  end
end
return { current or '', last or '' }
