#!lua
-- Give up on an alert that nobody listened to for its whole time to live; it stays in the history, marked.
-- KEYS: lease, outbox, undelivered, floor
-- ARGV: lease_value, group, entry_id
-- returns: 1 if given up, 0 if it was no longer pending, -2 when the lease is not ours
-- cost: O(1)
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return -2
end
if #redis.call('XPENDING', KEYS[2], ARGV[2], ARGV[3], ARGV[3], 1) == 0 then
  return 0
end
redis.call('SADD', KEYS[3], ARGV[3])
redis.call('SET', KEYS[4], ARGV[3])
return redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
