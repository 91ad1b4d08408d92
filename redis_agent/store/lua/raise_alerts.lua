#!lua
-- Raise alerts: each starts its cooldown, changes its criterion's state and enters the outbox, all or nothing.
--
-- A state is decided on by whoever has read it. When it is another by now, somebody else was quicker: nothing is done,
-- and the caller reads and decides again. Two that race tell a crossing once.
-- KEYS: outbox, newest_summary, account, then for each alert: cooldown, states, silence, silence_of_type
-- ARGV: for each alert: alert_id, cooldown_seconds, data, at_ms, state_field, expected, told, held, replaces, trace
--       (an empty state_field has no state; expected is the state that was decided on, told is the one to keep when the
--       alert is raised, held when it is not, and empty is none; empty data only changes the state to held; replaces is
--       '1' for a summary: older ones need no delivery any more; trace is '' for none)
-- returns: for each alert 0 if raised, the ms that a running cooldown still lasts (at least 1), -1 if there was nothing
--          to raise, -2 if the state was not the expected one, -5 if it is muted (held is kept)
-- cost: O(N) for N alerts
redis.call('XLEN', KEYS[1]) -- an outbox of the wrong type must fail before a cooldown is set
-- include go_on
-- include is_muted
-- include enter_outbox

-- A state key of the wrong type costs the state, not the alert.
local function expects(key, field, expected)
  local kept = redis.pcall('HGET', key, field)
  return type(kept) == 'table' or (kept or '') == expected
end

local function keep(key, field, state)
  if field == '' then
    return
  elseif state == '' then
    redis.pcall('HDEL', key, field)
  else
    redis.pcall('HSET', key, field, state)
  end
end

local function raise(cooldown, state_key, muted, alert_id, seconds, data, at_ms, field, expected, told, held, replaces,
  trace)
  if field ~= '' and not expects(state_key, field, expected) then
    return -2
  elseif data == '' then
    keep(state_key, field, held)
    return -1
  elseif muted then
    keep(state_key, field, held)
    return -5
  elseif not redis.call('SET', cooldown, alert_id, 'NX', 'EX', seconds) then
    keep(state_key, field, held)
    return math.max(1, redis.call('PTTL', cooldown))
  end
  local id = enter_outbox(KEYS[1], KEYS[3], data, at_ms, trace)
  keep(state_key, field, told)
  if replaces == '1' then
    redis.call('SET', KEYS[2], id)
  end
  return 0
end

local outcomes = {}
for n = 1, #ARGV / 10 do
  local key = 4 * n
  local muted = is_muted(KEYS[key + 2], KEYS[key + 3])
  outcomes[n] = raise(KEYS[key], KEYS[key + 1], muted, unpack(ARGV, 10 * n - 9, 10 * n))
end
return outcomes
