#!lua
-- A call of the language model has ended: count its tokens, and open or close the circuit.
--
-- It opens after so many failures in a row of all replicas, or at once when the service says that it is too much. Each
-- time in a row that it opens it stays open twice as long as before, up to a bound; a success closes it.
-- KEYS: llm
-- ARGV: outcome, tokens_in, tokens_out, threshold, open_ms, most_ms, asked_ms
--       (outcome is 'ok', 'failed' or 'limited'; asked_ms is how long the service asked us to wait, which then counts
--       instead of open_ms; 0 if it did not say)
-- returns: the ms that the circuit is open from now on, 0 if this did not open it
-- cost: O(1)
local outcome, threshold = ARGV[1], tonumber(ARGV[4])
local open_ms, most_ms, asked_ms = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local KEPT_SECONDS = 172800
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HINCRBY', KEYS[1], 'tokens_in', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'tokens_out', ARGV[3])
redis.call('EXPIRE', KEYS[1], KEPT_SECONDS)
if outcome == 'ok' then
  redis.call('HDEL', KEYS[1], 'failures', 'opened', 'open_until', 'trial_until')
  return 0
end
local failures = redis.call('HINCRBY', KEYS[1], 'failures', 1)
local kept = redis.call('HMGET', KEYS[1], 'opened', 'open_until')
local opened = tonumber(kept[1]) or 0
-- Calls that were under way when it opened do not lengthen it; what the service itself asks for does.
local is_open = (tonumber(kept[2]) or 0) > now
if outcome == 'failed' and (is_open or (opened == 0 and failures < threshold)) then
  return 0
end
local wait = math.min(most_ms, open_ms * 2 ^ math.min(opened, 30))
if asked_ms > 0 then
  wait = math.min(most_ms, asked_ms)
end
wait = math.floor(wait)
local open_until = math.max(now + wait, is_open and tonumber(kept[2]) or 0)
redis.call('HSET', KEYS[1], 'opened', is_open and opened or opened + 1, 'open_until', open_until)
redis.call('HDEL', KEYS[1], 'trial_until')
return wait
