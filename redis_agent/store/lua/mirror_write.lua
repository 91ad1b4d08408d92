#!lua
-- Write a batch of published events to the stream: as the lease's holder only, and each position once.
-- A batch sent again after a lost reply is recognised by its position and written no second time.
-- KEYS: lease, stream, bridge
-- ARGV: lease_value, first_position, now_ms, (received_ms, event)...
-- returns: {'written', position} with the position reached; {'fenced', position} when the lease is not ours;
--          {'hole', position} when first_position is beyond the next one (the server lost its state)
-- cost: O(N) for N events
local written = tonumber(redis.call('HGET', KEYS[3], 'written') or '0')
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {'fenced', written}
end
local first = tonumber(ARGV[2])
if first < 1 or first > written + 1 then
  return {'hole', written}
end
local last = first + (#ARGV - 3) / 2 - 1
for position = math.max(written + 1, first), last do
  local arg = 4 + 2 * (position - first)
  redis.call('XADD', KEYS[2], '*', 'data', ARGV[arg + 1], 'at', ARGV[arg])
end
local reached = math.max(written, last)
redis.call('HSET', KEYS[3], 'written', string.format('%.0f', reached), 'at', ARGV[3])
return {'written', reached}
