#!lua
-- Put a dead letter of another partition, where it does not belong, through this one's front door, once: who asks again
-- while that is remembered is told the same entry, so that a crash before the letter is deleted there does not double it.
-- KEYS: adopted, stream, account
-- ARGV: data, now_ms, ttl_ms
-- returns: the id of the new stream entry
-- cost: O(1)
local known = redis.call('GET', KEYS[1])
if known then
  return known
end
-- include go_on
go_on(KEYS[2], KEYS[3])
local entry = redis.call('XADD', KEYS[2], '*', 'data', ARGV[1], 'at', ARGV[2])
redis.pcall('HSET', KEYS[3], 'last_id', entry)
redis.pcall('HINCRBY', KEYS[3], 'owed', 1)
redis.call('SET', KEYS[1], entry, 'PX', ARGV[3])
return entry
