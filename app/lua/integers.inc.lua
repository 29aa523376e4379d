--[[
  Integers as text. Lua's numbers are doubles, and its tostring writes large ones as 1e+15.

  integer(number) -> text, exact up to 2^53. `%d` takes half the time of `%.0f`, and is only as wide
  as a C long of the machine that Redis runs on.
]]
local integer_form = string.format('%d', 2 ^ 53 - 1) == '9007199254740991' and '%d' or '%.0f'
local function integer(number)
  return string.format(integer_form, number)
end
