-- Without the right to ask nothing is muted here.
local function is_muted(silence, silence_of_type)
  local muted = redis.pcall('EXISTS', silence, silence_of_type)
  return type(muted) == 'number' and muted > 0
end
