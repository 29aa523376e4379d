--[[
  Receive writes from a peer: apply what is deliverable, keep the rest pending, then drain.

  KEYS[1]  clock         hash  actor -> sequence applied here
  KEYS[2]  meta          hash  `node`: whose Redis this is; `actor`: who writes here;
                               `timestamp`: the last one; `merging`: a snapshot that is
                               being merged
  KEYS[3]  deletes       hash  actor -> its last delete that came to a key with versions
  KEYS[4]  received      hash  actor with waiting writes -> highest sequence without a gap
  KEYS[5]  keys          sorted set  the index of keys (index.inc.lua)
  KEYS[6]  conflicts     sorted set  those with siblings
  KEYS[7]  system        set   the keys of the system that were ever written: those that begin
                               with a NUL
  KEYS[8]  expiring      sorted set  keys by when the first of their versions expires
                                     (expiry.inc.lua)

  ARGV[1]  node          whose Redis this must be
  ARGV[2]  kv stem       what the names of the user keys begin with
  ARGV[3]  log stem      ... of the logs
  ARGV[4]  pending stem  ... of the pending buffer
  ARGV[5]  channel       where to tell the other workers what was applied
  ARGV[6]  pending_max   writes that may wait; one more that cannot be applied is refused
  ARGV[7]  drain_max     operations of waiting writes to apply in this call; one write at least
  ARGV[8]  now           microseconds since 1970
  ARGV[9]  alert         the channel where to tell the workers of a key of the system
  ARGV[10+] the writes, each: actor, sequence, timestamp, dependencies, 1 if it follows the one
           before it (its dependencies are that one's, and that one) else 0; how many operations, and
           then five for each (operations.inc.lua)

  Returns  applied, duplicate, pending, refused, drained: five counts;
           more: 1 if drain_max ended the drain, so that another call has more to do;
           then four clocks as text: clock, received, missing: for each actor something waits
           for, the greatest sequence that the first waiting write of any actor lacks; and
           survivors: what was here of actors whose end was declared to be earlier.
           Or actor and sequence of a write in the batch that the actor who writes here made, or
           made in its lane, and that is not here: Redis has lost it, and would give its name again.
           Or nothing (an empty list) if this Redis is not the node's. Or `merging` alone: keys are
           merged with a snapshot, and nothing can be applied to them. In these cases nothing was changed.

  Atomic, because a crash between value and clock would lose a write or apply it twice (G2, G3).

  A write that declares the end of an actor closes it (ends.inc.lua): what waits of it is given up.

  Delivery rule (Birman, Schiper, Stephenson 1991): a write is applied when it is its actor's next
  and the clock covers its dependencies. Only the first waiting write of each actor, its head, can
  be that, so each step of the drain looks at heads alone: the cost is per write applied and
  actor, never per write waiting.

  The names of user keys, logs and pending queues are made here: which writes will drain is
  known to nobody before. All of them share the hash slot of KEYS.
  Twin: tests/model.py, Node.receive.
]]
--@include integers
--@include system
--@include clocks
--@include state
--@include operations
--@include index
--@include expiry
--@include ends
--@include workers
local clock_key, meta_key, deletes_key, received_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local keys_key, conflicts_key, system_key, expiring_key = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local node, kv_stem, log_stem, pending_stem = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local channel, pending_max, drain_max, now = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local alert = ARGV[9]
local first_write = 10

local unfit, last, author = state_of(meta_key, 'node', node)
if unfit then
  return unfit
end

local clock = load_clock(clock_key)
local lane, writes, i = author and author .. '+', 0, first_write
while i <= #ARGV do
  local mine = ARGV[i] == author or ARGV[i] == lane
  if mine and tonumber(ARGV[i + 1]) > (clock[ARGV[i]] or 0) then
    return { ARGV[i], ARGV[i + 1] }
  end
  writes, i = writes + 1, after_operations(i + 5)
end

local received = load_clock(received_key)
local deletes = load_clock(deletes_key)
local latest = tonumber(last or 0)
local survivors = {} -- closed actors of whom more is here than anybody will have
local advanced = {} -- the entries of the clock that this call has moved

local waiting = 0
for actor in pairs(received) do
  waiting = waiting + redis.call('HLEN', pending_stem .. actor)
end

-- The first dependency that the clock does not cover: actor, sequence; nil if there is none.
local function lacks(dependencies)
  for actor, sequence in pairs(dependencies) do
    if sequence > (clock[actor] or 0) then
      return actor, sequence
    end
  end
end

-- Replaces, at one key, the versions that the write supersedes (DESIGN.md section 3).
-- The field `deletes` keeps, beside the versions, the deletes seen here that no version's past is
-- sure to cover: a reader of the rest has seen them happen (docs/adr/0004).
local function apply_operation(dot, actor, sequence, stamp, dependencies, verb, key, content_type,
    value, ttl)
  local kv_key = kv_stem .. key
  local fields = redis.call('HKEYS', kv_key)
  local seen_deletes, had_deletes, superseded, after = {}, false, {}, 0
  local expired_before, expires_after -- when the first version was to expire, and when it is now
  for _, field in ipairs(fields) do
    if field == 'deletes' then
      had_deletes = true
      seen_deletes = parse_clock(redis.call('HGET', kv_key, field))
    else
      local author, number, expires = version_in(field)
      expired_before = earlier(expired_before, expires)
      if number <= (dependencies[author] or 0) then
        superseded[#superseded + 1] = field
      else
        after, expires_after = after + 1, earlier(expires_after, expires)
      end
    end
  end

  local before = after + #superseded
  local born
  if verb == 'put' then
    local expires = ttl and expiry_of_put(tonumber(stamp), ttl)
    born, after, expires_after = version_field(dot, expires), after + 1, earlier(expires_after, expires)
  end
  index_key(keys_key, conflicts_key, key, before, after)
  note_expiry(expiring_key, key, expired_before, expires_after)
  if verb == 'delete' and #fields > 0 then
    -- Remembered also when versions survive: they may be deleted later, and their key be born again.
    redis.call('HSET', deletes_key, actor, integer(sequence))
    deletes[actor] = sequence
  end
  if after == 0 then
    redis.call('DEL', kv_key)
    return
  end

  if #fields == 0 then
    -- The key is born after this node saw deletes that the write did not; one may be of this key.
    for author, number in pairs(deletes) do
      seen_deletes[author] = number
    end
  end
  for author, number in pairs(seen_deletes) do
    if number <= (dependencies[author] or 0) then
      seen_deletes[author] = nil
    end
  end
  if born then
    redis.call('HSET', kv_key, born, stamp .. ' ' .. content_type .. '\n' .. value)
  else
    seen_deletes[actor] = sequence
  end
  if #superseded > 0 then
    redis.call('HDEL', kv_key, unpack(superseded))
  end
  if next(seen_deletes) then
    redis.call('HSET', kv_key, 'deletes', clock_text(seen_deletes))
  elseif had_deletes then
    redis.call('HDEL', kv_key, 'deletes')
  end
end

-- How many operations it had. `number` is its sequence as text.
local function apply(actor, sequence, number, stamp, dependencies_text, dependencies, list, packed)
  local dot = actor .. ':' .. number
  redis.call('XADD', log_stem .. actor, number .. '-0',
    'timestamp', stamp, 'dependencies', dependencies_text, 'operations', packed)
  for _, verb, key, content_type, value, ttl in each(list) do
    apply_operation(dot, actor, sequence, stamp, dependencies, verb, key, content_type, value, ttl)
    if is_system(key) then
      redis.call('SADD', system_key, key)
      publish(alert, key)
      local ended, after = declared_end(verb, key, value)
      if ended and clock[ended] ~= closed then
        if (clock[ended] or 0) > after then
          survivors[ended] = clock[ended]
        end
        clock[ended], advanced[ended] = closed, closed
      end
    end
  end
  latest = math.max(latest, tonumber(stamp))
  clock[actor], advanced[actor] = sequence, sequence
  return #list / 5
end

local applied, duplicate, pending, refused = 0, 0, 0, 0
-- What a write depends on that follows the one before it in the batch, if that was applied just now:
-- the clock covers it.
local past
i = first_write
while i <= #ARGV do
  local actor, number, stamp, dependencies_text = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local covered = ARGV[i + 4] == '1' and past
  local sequence, applied_here = tonumber(number), clock[actor] or 0
  local list, packed
  list, packed, i = handed_over(i + 5)
  past = nil
  if sequence <= applied_here then
    duplicate = duplicate + 1
  else
    local dependencies = covered or parse_clock(dependencies_text)
    if sequence == applied_here + 1 and (covered or not lacks(dependencies)) then
      apply(actor, sequence, number, stamp, dependencies_text, dependencies, list, packed)
      past = dependencies
      past[actor] = sequence
      if received[actor] and redis.call('HDEL', pending_stem .. actor, number) == 1 then
        waiting = waiting - 1 -- it had waited for a dependency, and came again with it
      end
      applied = applied + 1
    elseif received[actor] and redis.call('HEXISTS', pending_stem .. actor, number) == 1 then
      duplicate = duplicate + 1
    elseif waiting >= pending_max then
      refused = refused + 1
    else
      redis.call('HSET', pending_stem .. actor, number,
        now .. ' ' .. stamp .. ' ' .. dependencies_text .. '\n' .. packed)
      received[actor] = received[actor] or applied_here
      waiting, pending = waiting + 1, pending + 1
    end
  end
end

-- Drain. `heads` holds what was read of each queue's head, so that a head is read once a call.
local drained, operated, more, heads = 0, 0, 0, {}

local function head_of(actor)
  local sequence = (clock[actor] or 0) + 1
  local head = heads[actor]
  if not head or head.sequence ~= sequence then
    head = { sequence = sequence, number = integer(sequence) }
    local entry = redis.call('HGET', pending_stem .. actor, head.number)
    if entry then
      local _, finish, stamp, dependencies_text = string.find(entry, '^%d+ (%d+) ([^\n]*)\n')
      head.stamp, head.dependencies_text = stamp, dependencies_text
      head.dependencies = parse_clock(dependencies_text)
      head.packed = string.sub(entry, finish + 1)
    end
    heads[actor] = head
  end
  return head
end

local progress = next(received) ~= nil
while progress do
  progress = false
  for actor in pairs(received) do
    local head = head_of(actor)
    while head.packed and not lacks(head.dependencies) do
      if operated >= drain_max then
        more = 1
        break
      end
      operated = operated
        + apply(actor, head.sequence, head.number, head.stamp, head.dependencies_text,
          head.dependencies, stored(head.packed), head.packed)
      redis.call('HDEL', pending_stem .. actor, head.number)
      drained, progress = drained + 1, true
      head = head_of(actor)
    end
  end
  progress = progress and more == 0
end

-- Say what has been received without a gap, and what the heads still lack.
local missing = {}
local function miss(actor, sequence)
  missing[actor] = math.max(missing[actor] or 0, sequence)
end
for actor, before in pairs(received) do
  local queue = pending_stem .. actor
  if clock[actor] == closed then
    redis.call('DEL', queue)
  end
  if redis.call('EXISTS', queue) == 0 then
    received[actor] = nil
    redis.call('HDEL', received_key, actor)
  else
    -- Steps are bounded like the drain: what a later call finds is only sent once more till then.
    local contiguous, steps = math.max(before, clock[actor] or 0), 0
    while steps < drain_max + writes
      and redis.call('HEXISTS', queue, integer(contiguous + 1)) == 1 do
      contiguous, steps = contiguous + 1, steps + 1
    end
    received[actor] = contiguous
    redis.call('HSET', received_key, actor, integer(contiguous))
    local head = head_of(actor)
    if not head.packed then
      miss(actor, head.sequence)
    else
      local author, number = lacks(head.dependencies)
      if author then
        miss(author, number)
      end
    end
  end
end

if next(advanced) then
  local flat = {}
  for actor, sequence in pairs(advanced) do
    flat[#flat + 1] = actor
    flat[#flat + 1] = integer(sequence)
  end
  redis.call('HSET', clock_key, unpack(flat))
  redis.call('HSET', meta_key, 'timestamp', integer(latest))
  tell_workers(channel, clock_text(advanced))
end
return { applied, duplicate, pending, refused, drained, more,
  clock_text(clock), clock_text(received), clock_text(missing), clock_text(survivors) }
