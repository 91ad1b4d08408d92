#!lua
-- May the language model be called now? If so the call is counted, before it is made.
--
-- Every replica asks here, so that the budget and the circuit breaker are one for all of them. The minute slides: the
-- call that was admitted `per_minute` calls ago must be a minute old. The day is that of UTC. While the circuit is
-- open nobody calls; after that one call at a time tries whether the service is back, until one has succeeded.
-- KEYS: llm, llm_calls
-- ARGV: per_minute, per_day, trial_ms
-- returns: what stands in the way ('', 'minute', 'day' or 'open') and the ms until it no longer does (0 for '')
-- cost: O(1); O(N) to shorten the list to N calls a minute, when the setting was lowered
local per_minute, per_day, trial_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local MINUTE_MS, DAY_MS, KEPT_SECONDS = 60000, 86400000, 172800
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local day = math.floor(now / DAY_MS)
local kept = redis.call('HMGET', KEYS[1], 'day', 'calls', 'opened', 'open_until', 'trial_until')
redis.call('LLEN', KEYS[2]) -- a list of the wrong type must fail before anything is written

local function ahead(at, most)
  -- How far ahead a moment is; a moment further ahead than it can be was written before the clock was set back.
  local left = (tonumber(at) or 0) - now
  return left > 0 and left <= most and left or 0
end

local open = ahead(kept[4], DAY_MS)
if open > 0 then
  return { 'open', open }
end
local on_trial = (tonumber(kept[3]) or 0) > 0
if on_trial then
  local left = ahead(kept[5], trial_ms)
  if left > 0 then
    return { 'open', left }
  end
end

local calls = tonumber(kept[1]) == day and tonumber(kept[2]) or 0
if calls >= per_day then
  return { 'day', (day + 1) * DAY_MS - now }
end
if per_minute < 1 then
  return { 'minute', MINUTE_MS }
end
local left = ahead((tonumber(redis.call('LINDEX', KEYS[2], -per_minute)) or -MINUTE_MS) + MINUTE_MS, MINUTE_MS)
if left > 0 then
  return { 'minute', left }
end

redis.call('RPUSH', KEYS[2], now)
redis.call('LTRIM', KEYS[2], -per_minute, -1)
redis.call('EXPIRE', KEYS[2], KEPT_SECONDS)
if calls == 0 then
  redis.call('HDEL', KEYS[1], 'tokens_in', 'tokens_out')
end
redis.call('HSET', KEYS[1], 'day', day, 'calls', calls + 1)
if on_trial then
  redis.call('HSET', KEYS[1], 'trial_until', now + trial_ms)
end
redis.call('EXPIRE', KEYS[1], KEPT_SECONDS)
return { '', 0 }
