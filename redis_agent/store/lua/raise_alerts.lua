#!lua
-- Raise alerts: each starts its cooldown and enters the outbox together, or does neither.
-- KEYS: outbox, newest_summary, then for each alert: cooldown, alert_state
-- ARGV: for each alert: alert_id, cooldown_seconds, data, at_ms, state_field, state, replaces
--       (an empty state_field keeps no state; replaces is '1' for a summary: older ones need no delivery any more)
-- returns: for each alert 0 if raised, else the ms that the running cooldown still lasts (at least 1)
-- cost: O(N) for N alerts
redis.call('XLEN', KEYS[1]) -- an outbox of the wrong type must fail before a cooldown is set
local outcomes = {}
for n = 1, #ARGV / 7 do
  local cooldown, state_key = KEYS[1 + 2 * n], KEYS[2 + 2 * n]
  local arg = 7 * (n - 1)
  if redis.call('SET', cooldown, ARGV[arg + 1], 'NX', 'EX', ARGV[arg + 2]) then
    local id = redis.call('XADD', KEYS[1], '*', 'data', ARGV[arg + 3], 'at', ARGV[arg + 4])
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
