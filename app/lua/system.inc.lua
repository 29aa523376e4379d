--[[
  Keys that begin with a NUL are the system's own (app/write.py): no client writes them, and they are
  in no index.
]]
local function is_system(key)
  return string.byte(key) == 0
end
