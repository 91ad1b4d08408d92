#!lua
-- An entry is about to be tried alone: set how often it counts as handed out, and hand its data out.
-- KEYS: stream
-- ARGV: group, consumer, id, deliveries
-- returns: the entry as XRANGE has it, or nothing if it is not pending under this consumer, or gone from the stream
-- cost: O(log M) for M entries
local STREAM, group, consumer, id = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if not redis.call('XPENDING', STREAM, group, id, id, 1, consumer)[1] then
  return {}
end
redis.call('XCLAIM', STREAM, group, consumer, 0, id, 'RETRYCOUNT', ARGV[4], 'JUSTID')
return redis.call('XRANGE', STREAM, id, id)
