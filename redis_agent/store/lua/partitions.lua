#!lua
-- Record how many partitions there are, or find out what was recorded. State without a record is of one partition:
-- there was nothing to record then.
-- KEYS: record, state... (keys that stand where one partition without a namespace has state)
-- ARGV: partitions
-- returns: the record, as text
-- cost: O(1)
local recorded = redis.call('GET', KEYS[1])
if recorded then
  return recorded
end
if #KEYS > 1 and redis.call('EXISTS', unpack(KEYS, 2)) > 0 then
  return '1'
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
