--[[
  How large a part of a snapshot is, which has a limit.

  part_bytes(name, state) -> how many bytes a key of this name takes in a part that holds this, as
  HGETALL gives it: at most so many, for a part says numbers in fewer bytes than their digits, and
  of what is around names and values no more than is added here (app/part_forms.py).
]]
local function part_bytes(name, state)
  local size = 16 + #name
  for i = 1, #state do
    size = size + 8 + #state[i]
  end
  return size
end
