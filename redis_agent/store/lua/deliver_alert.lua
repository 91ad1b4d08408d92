#!lua
-- Publish one alert of the outbox and ack it when somebody received it. Sent again after a lost reply,
-- it finds the entry acked and publishes nothing.
-- KEYS: lease, outbox, floor (a lost group is recreated there; alerts leave in order, so all before is done)
-- ARGV: lease_value, group, entry_id, channel, payload
-- returns: receivers (> 0: delivered and acked; 0: nobody listened, nothing changed),
--          -1 when the entry is no longer pending, -2 when the lease is not ours
-- cost: O(S) for S subscribers
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return -2
end
if #redis.call('XPENDING', KEYS[2], ARGV[2], ARGV[3], ARGV[3], 1) == 0 then
  return -1
end
local receivers = redis.call('PUBLISH', ARGV[4], ARGV[5])
if receivers > 0 then
  redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
  redis.call('SET', KEYS[3], ARGV[3])
end
return receivers
