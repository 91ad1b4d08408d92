-- A stream that was deleted goes on after the last id that was given out, so that no id is given out twice and none
-- falls below the floor; what was owed of it is lost (group_ensure.lua says so).
local function go_on(stream, account)
  local known = redis.pcall('EXISTS', stream) == 0 and redis.pcall('HMGET', account, 'last_id', 'owed') or {}
  if known[1] and known[1]:match('^%d+%-%d+$') then
    redis.call('XADD', stream, 'MAXLEN', 0, known[1], 'gone', '')
    redis.pcall('HINCRBY', account, 'unsaid', math.max(0, tonumber(known[2]) or 0))
    redis.pcall('HSET', account, 'owed', 0)
  end
end
