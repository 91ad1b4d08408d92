#!lua
-- What was found in the windows of some experiments: their series as they are known by now, and what is told of it.
--
-- The lease fences a leader that was stopped, and whoever was quicker is seen by how far an experiment is examined: of two
-- that examine the same window one is heard, so that an anomaly is told once, and never without its state.
-- KEYS: lease, outbox, account, scheduler, then for each experiment: series, cooldown, silence, silence_of_type
-- ARGV: value, ttl_seconds, mark ('' keeps the one there is), then for each experiment: expected, upto (seconds; expected is
--       '' for none), alert_id ('' tells nothing), cooldown_seconds, data, told (the field `told` when the alert is raised),
--       n, (field, value) * n, m, field * m (to be removed)
-- returns: {'fenced'}, and nothing was changed; or for each experiment 0 if its alert was raised, the ms that a running
--          cooldown still lasts (at least 1), -1 if there was nothing to tell, -2 if it was examined by somebody else (nothing
--          was changed), -5 if it is muted, -6 if its key has another type
-- cost: O(N) for N fields
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {'fenced'}
end
redis.call('XLEN', KEYS[2]) -- an outbox of the wrong type must fail before a cooldown is set
-- include go_on
-- include is_muted
-- include enter_outbox

local function told(key, alert_id, seconds, data)
  if alert_id == '' then
    return -1
  elseif is_muted(KEYS[key + 2], KEYS[key + 3]) then
    return -5
  elseif not redis.call('SET', KEYS[key + 1], alert_id, 'NX', 'EX', seconds) then
    return math.max(1, redis.call('PTTL', KEYS[key + 1]))
  end
  enter_outbox(KEYS[2], KEYS[3], data, 0, '')
  return 0
end

if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[4], 'anomalies', ARGV[3])
end
local outcomes, at, key = {}, 4, 5
while KEYS[key] do
  local expected, upto, alert_id, seconds, data, when_told = unpack(ARGV, at, at + 5)
  local sets = tonumber(ARGV[at + 6])
  local first_set = at + 7
  local first_gone = first_set + 2 * sets + 1
  local gone = tonumber(ARGV[first_gone - 1])
  local known = redis.pcall('HGET', KEYS[key], 'upto')
  local outcome
  if type(known) == 'table' then
    outcome = -6
  elseif (known or '') ~= expected then
    outcome = -2
  else
    outcome = told(key, alert_id, seconds, data)
    for n = first_set, first_set + 2 * sets - 1, 1000 do
      redis.call('HSET', KEYS[key], unpack(ARGV, n, math.min(n + 999, first_set + 2 * sets - 1)))
    end
    for n = first_gone, first_gone + gone - 1 do
      redis.call('HDEL', KEYS[key], ARGV[n])
    end
    redis.call('HSET', KEYS[key], 'upto', upto)
    if outcome == 0 then
      redis.call('HSET', KEYS[key], 'told', when_told)
    end
    redis.call('EXPIRE', KEYS[key], ARGV[2])
  end
  outcomes[#outcomes + 1] = outcome
  at, key = first_gone + gone, key + 4
end
return outcomes
