#!lua flags=allow-oom
-- A process has lived through an entry that it tried alone: if it is pending still, under this consumer, that is not its
-- fault, and it counts as handed out once.
-- KEYS: stream
-- ARGV: group, consumer, id
-- returns: 1 if it is pending, else 0
-- cost: O(log M) for M pending entries
local STREAM, group, consumer, id = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if not redis.call('XPENDING', STREAM, group, id, id, 1, consumer)[1] then
  return 0
end
return #redis.call('XCLAIM', STREAM, group, consumer, 0, id, 'RETRYCOUNT', 1, 'JUSTID')
