#!lua
-- Remove a consumer that holds nothing and has not been seen for a while. XGROUP DELCONSUMER throws
-- pending entries away, so the check and the removal are one step.
-- KEYS: stream
-- ARGV: group, consumer, expiry_ms
-- returns: 1 if removed, else 0
-- cost: O(C) for C consumers of the group
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local name, pending, idle
  for n = 1, #info, 2 do
    if info[n] == 'name' then
      name = info[n + 1]
    elseif info[n] == 'pending' then
      pending = info[n + 1]
    elseif info[n] == 'idle' then
      idle = info[n + 1]
    end
  end
  if name == ARGV[2] then
    if pending > 0 or idle < tonumber(ARGV[3]) then
      return 0
    end
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
    return 1
  end
end
return 0
