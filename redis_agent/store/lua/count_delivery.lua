#!lua flags=allow-oom
-- Set how often an entry counts as handed out, if it is still pending under this consumer.
-- KEYS: stream
-- ARGV: group, consumer, id, deliveries
-- returns: 1 if set, else 0
-- cost: O(log M) for M pending entries
if not redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])[1] then
  return 0
end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', ARGV[4], 'JUSTID')
return 1
