#!lua flags=allow-oom
-- The leader's sign of life: prolong the lease, and say on the control channel how far the stream is written.
-- The mark is '' when the leader is not in step: then what is published may pass unseen, and a gap counts
-- from before. The confirmed position is '' for all that is written.
-- The alive_prefix is '' in a cluster, where subscriptions are on another node: then the leader's counts as standing.
-- KEYS: lease, bridge, ready
-- ARGV: value, ttl_ms, owner, channel, epoch, mark, confirmed, alive_prefix,
--       publish (PUBLISH or SPUBLISH)
-- returns: {the position that the stream has reached, whether the leader's subscription is on this server: 1 or 0};
--          {-1, 0} if the lease is somebody else's or nobody's
-- cost: O(log N) for N bridges
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {-1, 0}
end
local stands = 1
if ARGV[8] ~= '' then
  local subscribed = redis.pcall('PUBSUB', 'NUMSUB', ARGV[8] .. ARGV[3])
  -- One that we may not ask about counts as standing.
  stands = (subscribed.err or subscribed[2] > 0) and 1 or 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local written = redis.call('HGET', KEYS[2], 'written') or '0'
if ARGV[6] == '' or redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[5] then
  redis.call('ZREM', KEYS[3], ARGV[3])
  return {tonumber(written), stands}
end
redis.call('HSET', KEYS[2], 'at', now)
if stands == 1 then
  redis.call('ZADD', KEYS[3], now, ARGV[3])
else
  redis.call('ZREM', KEYS[3], ARGV[3])
end
local position = ARGV[7]
if position == '' then
  position = written
end
redis.call(ARGV[9], ARGV[4], 'written ' .. ARGV[5] .. ' ' .. position .. ' ' .. ARGV[6])
return {tonumber(written), stands}
