#!lua flags=allow-oom
-- Change what is recorded of the number of partitions, unless somebody else has changed it meanwhile. Sent again after a
-- lost reply it does nothing more.
-- KEYS: record
-- ARGV: expected, new (either is '' for no record)
-- returns: 1 if it is recorded, 0 if something else than expected is
-- cost: O(1)
local recorded = redis.call('GET', KEYS[1]) or ''
if recorded ~= ARGV[1] and recorded ~= ARGV[2] then
  return 0
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
return 1
