#!lua
-- Raise alerts: each starts its cooldown and enters the outbox together, or does neither.
-- KEYS: outbox, newest_summary, account, then for each alert: cooldown, alert_state
-- ARGV: for each alert: alert_id, cooldown_seconds, data, at_ms, state_field, state, replaces
--       (an empty state_field keeps no state; replaces is '1' for a summary: older ones need no delivery any more)
-- returns: for each alert 0 if raised, else the ms that the running cooldown still lasts (at least 1)
-- cost: O(N) for N alerts
redis.call('XLEN', KEYS[1]) -- an outbox of the wrong type must fail before a cooldown is set
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
local outcomes = {}
for n = 1, #ARGV / 7 do
  local cooldown, state_key = KEYS[2 + 2 * n], KEYS[3 + 2 * n]
  local arg = 7 * (n - 1)
  if redis.call('SET', cooldown, ARGV[arg + 1], 'NX', 'EX', ARGV[arg + 2]) then
    go_on(KEYS[1], KEYS[3])
    local id = redis.call('XADD', KEYS[1], '*', 'data', ARGV[arg + 3], 'at', ARGV[arg + 4])
    redis.pcall('HSET', KEYS[3], 'last_id', id)
    redis.pcall('HINCRBY', KEYS[3], 'owed', 1)
    if ARGV[arg + 5] ~= '' then
      redis.pcall('HSET', state_key, ARGV[arg + 5], ARGV[arg + 6])
    end
    if ARGV[arg + 7] == '1' then
      redis.call('SET', KEYS[2], id)
    end
    outcomes[n] = 0
  else
    outcomes[n] = math.max(1, redis.call('PTTL', cooldown))
  end
end
return outcomes
