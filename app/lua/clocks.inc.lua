--[[
  Vector clocks in Lua: tables from actor to sequence, where an absent actor means 0. It needs
  `integers`.
]]
-- What HGETALL gave of a clock.
local function clock_of(flat)
  local clock = {}
  for i = 1, #flat, 2 do
    clock[flat[i]] = tonumber(flat[i + 1])
  end
  return clock
end

local function load_clock(key)
  return clock_of(redis.call('HGETALL', key))
end

-- 'A:7 B:3' -> { A = 7, B = 3 }
local function parse_clock(text)
  local clock = {}
  for actor, sequence in string.gmatch(text, '(%S+):(%d+)') do
    clock[actor] = tonumber(sequence)
  end
  return clock
end

-- Whether a clock covers another, which is a text.
local function covers(clock, text)
  for actor, sequence in string.gmatch(text, '(%S+):(%d+)') do
    if (clock[actor] or 0) < tonumber(sequence) then
      return false
    end
  end
  return true
end

-- Joins a clock with a dot, as text.
local function note_dot(clock, dot)
  local actor, sequence = string.match(dot, '^(.+):(%d+)$')
  clock[actor] = math.max(clock[actor] or 0, tonumber(sequence))
end

-- A clock as text.
local function clock_text(clock)
  local parts = {}
  for actor, sequence in pairs(clock) do
    if sequence > 0 then
      parts[#parts + 1] = actor
    end
  end
  table.sort(parts) -- by actor, as everywhere: `A` comes before `A+`, and `A+:1` before `A:1`
  for i, actor in ipairs(parts) do
    parts[i] = actor .. ':' .. integer(clock[actor])
  end
  return table.concat(parts, ' ')
end

-- The texts of the entries of a clock that stand before an actor's own, and after it.
local function texts_around(clock, actor)
  local before, after = {}, {}
  for other, sequence in pairs(clock) do
    if other < actor then
      before[other] = sequence
    elseif other ~= actor then
      after[other] = sequence
    end
  end
  return clock_text(before), clock_text(after)
end
